#!/bin/busybox sh
# First process of the machine in which the peers that need kprobes are measured: runs the bench, says what came of it, and powers off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp
# What the packages have keeps its name.
/bin/busybox --install -s /bin 2>/dev/null
# Scripts of bpftrace begin with it.
[ -e /usr/bin/env ] || ln -s /bin/busybox /usr/bin/env
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory +pids >/sys/fs/cgroup/cgroup.subtree_control
# As in the other machines: what a process has not touched for a second would else be unreadable to BPF.
[ ! -e /proc/sys/kernel/numa_balancing ] || echo 0 >/proc/sys/kernel/numa_balancing
ip link set lo up
hostname killwatch-vm
export KILLWATCH_VM=1 KILLWATCH_BIN=/killwatch/killwatch KILLWATCH_VICTIM=/killwatch/victim KILLWATCH_BPF_OBJECT=/killwatch/object
echo "killwatch-vm: Linux $(uname -r)"
# Names of peers have spaces: one argument a line.
set --
while read -r argument; do
    set -- "$@" "$argument"
done </killwatch/arguments
/killwatch/xtask bench --json "$@" >/tmp/report 2>/tmp/said
status=$?
cat /tmp/said
echo "killwatch-vm: the report begins"
cat /tmp/report
echo "killwatch-vm: the report ends, status $status"
sync
poweroff -f
