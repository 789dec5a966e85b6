#!/usr/bin/busybox sh
# The first process of a guest. It mounts what a host has mounted, runs the
# tests on the second serial line, and turns the machine off. `cgroups`, `only`
# and `limit` are from the kernel's command line.
export PATH=/usr/sbin:/usr/bin HOME=/root
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mkdir -p /dev/pts /dev/shm
busybox mount -t devpts devpts /dev/pts
busybox mount -t tmpfs shm /dev/shm
busybox mount -t tmpfs tmp /tmp
busybox mount -t tmpfs run /run
busybox mount -t securityfs securityfs /sys/kernel/security
busybox mount -t bpf bpf /sys/fs/bpf
busybox mount -t tracefs tracefs /sys/kernel/tracing
if [ "$cgroups" = hybrid ]; then
  busybox mount -t tmpfs cgroups /sys/fs/cgroup
  busybox mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/net_cls /sys/fs/cgroup/systemd
  busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
  busybox mount -t cgroup -o net_cls,net_prio cgroup /sys/fs/cgroup/net_cls
  busybox mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
else
  busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
busybox ip link set lo up

exec >/dev/ttyS1 2>&1
echo "guest up $(busybox uname -r)"
cd /tmp
# There is no compiler, and a processor that is emulated is slow.
export LOCKGATE_COMPILED=/compiled LOCKGATE_STORM_PROCESSES=300 LOCKGATE_SLOWNESS=6
busybox timeout -k 5 "$limit" /tests $only
echo "guest exit $?"
busybox poweroff -f
