#!/bin/sh
# Start-up of a guest, run as its process 1 from the shared folder. The kernel's
# arguments say what it is: lab.name=NAME, lab.net=DEVICE=NETWORK=IPV4=IPV6,...
# and lab.disks=DEVICE:NAME,...
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C TERM=linux
# Where the array of a head is, for its command line.
export LINTEL_DATA_DIR=/data/array
mount -t sysfs sys /sys
grep -q ' /dev devtmpfs' /proc/mounts || mount -t devtmpfs dev /dev
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
mkdir -p /dev/pts /dev/shm /dev/lab
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /run/lock /run/lvm /run/mdadm /run/sanlock
mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null
mount -t configfs none /sys/kernel/config 2>/dev/null

for word in $(cat /proc/cmdline); do
  case $word in
  lab.name=*) name=${word#*=} ;;
  lab.net=*) nets=${word#*=} ;;
  lab.disks=*) disks=${word#*=} ;;
  lab.agent=*) agent=${word#*=} ;;
  lab.keeper=*) keeper=${word#*=} ;;
  esac
done
echo "$name" >/proc/sys/kernel/hostname
echo "$name" >/etc/hostname
cp /lab/hosts /etc/hosts
# Machine ids must differ between guests and stay over a reboot.
[ -s /etc/machine-id ] && [ "$(cat /etc/lab-name 2>/dev/null)" = "$name" ] ||
  { tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id; echo "$name" >/etc/lab-name; }
[ -d /etc/iscsi ] && [ ! -s /etc/iscsi/lab ] && { echo "InitiatorName=iqn.2026-11.io.lintel.lab:$name" >/etc/iscsi/initiatorname.iscsi; echo set >/etc/iscsi/lab; }

# Addresses are usable at once: nobody else can have them.
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
# Two links with different networks: answer only for what a link has.
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce
ip link set lo up
for net in $(echo "$nets" | tr , ' '); do
  dev=${net%%=*}; rest=${net#*=}
  link=${rest%%=*}; rest=${rest#*=}
  ip link set "$dev" name "$link"
  ip addr add "${rest%%=*}" dev "$link"
  ip link set "$link" up
  ip addr add "${rest#*=}" dev "$link" nodad
done

# Only Debian's packaged kernel has modules.
[ -d /lab/modules ] && [ ! -e /lib/modules ] && ln -s /lab/modules /lib/modules
[ -d /lab/modules ] && modprobe -a configfs dm-mod dm-multipath dm-service-time sd_mod sg iscsi_tcp sch_netem
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add -s block -s net -s misc -s scsi
udevadm settle -t 60
for disk in $(echo "$disks" | tr , ' '); do
  ln -sf "../${disk%%:*}" "/dev/lab/${disk#*:}"
done
ln -sf /lab/lintel /usr/local/bin/lintel
echo "lab: $name starts its agent after $(cut -d' ' -f1 /proc/uptime) s"
# The shell reaps what loses its parent while it waits for the agent.
while :; do
  /lab/lintel lab agent --listen "$agent" --keeper "$keeper" --name "$name" </dev/null
  echo "lab: the agent ended with $?"
  sleep 1
done
