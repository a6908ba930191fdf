#!/usr/bin/env bash
# Installs the Debian packages that the lab needs on the machine that runs it: what
# builds the guests' kernel and root file system, and the tools for networks.
set -euo pipefail
want=(mmdebstrap e2fsprogs iproute2 util-linux xz-utils
  linux-source-6.1 make gcc patch libc6-dev flex bison bc libelf-dev)
missing=()
for p in "${want[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "missing packages: ${missing[*]}; install them as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
