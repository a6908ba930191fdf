#!/usr/bin/env bash
# Runs every fuzz target of the module for the given number of inputs, such as 8000x, or
# time, such as 1m.
set -euo pipefail
each=${1:-8000x}
cd "$(dirname "$0")/.."
count=0
log=$(mktemp)
while IFS=: read -r file line; do
  name=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/' <<<"$line")
  dir=./$(dirname "$file")
  echo "fuzz $dir $name $each"
  go test "$dir" -run '^$' -fuzz "^${name}\$" -fuzztime "$each" -fuzzminimizetime 5x >"$log" 2>&1 || { cat "$log"; rm -f "$log"; exit 1; }
  count=$((count + 1))
done < <(git ls-files '*_test.go' | xargs grep -HE '^func Fuzz' | sort)
rm -f "$log"
[ "$count" -gt 0 ] || { echo "no fuzz target found" >&2; exit 1; }
echo "$count fuzz targets held"
