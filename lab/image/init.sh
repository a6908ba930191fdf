#!/bin/sh
# First process of a guest. The rest of the start-up comes with the lab, in the
# folder that the host shares, so that a change of it needs no new image.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mkdir -p /lab
mount -t hostfs none /lab
exec /bin/sh /lab/start.sh
