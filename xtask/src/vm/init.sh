#!/bin/busybox sh
# First process of the test machine: mounts what the daemon reads, runs the scenarios as its child, powers off.
# Arguments of the scenarios are in /killwatch/arguments, one a line; /killwatch/cgroup says v1 or v2.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TMPDIR=/tmp RUST_BACKTRACE=1 RUST_LIB_BACKTRACE=0
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm

case $(cat /killwatch/cgroup) in
v2)
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    echo +memory +pids >/sys/fs/cgroup/cgroup.subtree_control
    ;;
v1)
    mount -t tmpfs cgroup /sys/fs/cgroup
    for controller in memory pids cpu; do
        mkdir "/sys/fs/cgroup/$controller" && mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
    done
    ;;
esac

ip link set lo up
hostname killwatch-vm
export KILLWATCH_VM=1 KILLWATCH_REQUIRE_E2E=1 KILLWATCH_BIN=/killwatch/killwatch KILLWATCH_VICTIM=/killwatch/victim
echo "killwatch-vm: Linux $(uname -r), cgroup $(cat /killwatch/cgroup)"

set -- --test-threads=1
while read -r argument; do
    set -- "$@" "$argument"
done </killwatch/arguments
# What boot said is of no use below.
dmesg -c >/dev/null
/killwatch/scenarios "$@"
status=$?
if [ "$status" -ne 0 ]; then
    dmesg | tail -n 100
fi
echo "killwatch-vm: scenarios ended with $status"
sync
poweroff -f
