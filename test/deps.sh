#!/usr/bin/env bash
# Installs the Debian packages that the tests use as peers: initiators, a reference
# target, other implementations of TLS, patch, and a C compiler for the race detector.
exec "$(dirname "$0")/install.sh" libiscsi-bin qemu-utils qemu-block-extra tgt openssl gnutls-bin nvme-cli patch \
  gcc libc6-dev
