#!/usr/bin/env bash
# Measures the statement coverage of the data plane's packages, each by its own
# tests and those of the rooms beside it, and fails below the floor.
set -euo pipefail
cd "$(dirname "$0")/.."
floor=85
bad=0
# "tests|packages counted": a package and its subpackages count as one room.
for room in block unit scsi iscsi nvme nvmetcp transport tlspsk; do
  profile=$(mktemp)
  pkgs=$(go list "./internal/$room/..." | grep -vE '/(blocktest|scsitest|nvmetest)$' | paste -sd,)
  go test -count=1 -short -coverpkg="$pkgs" -coverprofile="$profile" "./internal/$room/..." >/dev/null
  pct=$(go tool cover -func="$profile" | awk '/^total:/ {sub("%","",$3); print $3}')
  rm -f "$profile"
  printf '%-16s %s%%\n' "internal/$room" "$pct"
  awk -v p="$pct" -v f="$floor" 'BEGIN { exit !(p < f) }' && bad=1
done
if [ "$bad" -ne 0 ]; then echo "coverage is below $floor%" >&2; exit 1; fi
