#!/usr/bin/env bash
# Installs the Debian packages that the lab needs on the machine that runs it: what
# builds the guests' kernel and root file system, and the tools for networks.
exec "$(dirname "$0")/install.sh" mmdebstrap e2fsprogs iproute2 util-linux xz-utils \
  linux-source-6.1 make gcc patch libc6-dev flex bison bc libelf-dev
