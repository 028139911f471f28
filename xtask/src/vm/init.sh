#!/bin/busybox sh
# First process of the test machine: mounts what the daemon reads, turns swap on, and hands over to run.sh, under systemd if that is
# asked for. The kernel's command line says what machine this is: killwatch.cgroup=v1|v2|hybrid, killwatch.guest=plain|lockdown|systemd.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

option() {
    tr ' ' '\n' </proc/cmdline | sed -n "s/^killwatch\.$1=//p"
}

refuse() {
    echo "killwatch-vm: $1"
    poweroff -f
}

for module in /killwatch/modules/*.ko; do
    [ ! -e "$module" ] || insmod "$module"
done
[ -e /dev/vda ] && mkswap /dev/vda >/dev/null && swapon /dev/vda

# The machine has two memory nodes. Balancing between them makes what a process has not touched for a second unreadable to BPF until it is touched again,
# its command line for one; how long a process of the tests lives depends on how busy their host is.
balancing=/proc/sys/kernel/numa_balancing
[ ! -e $balancing ] || echo 0 >$balancing

if [ "$(option guest)" = systemd ]; then
    # Nobody can leave the first file system of a machine, as a service does for a mount namespace of its own. So all goes on in a second look at it, on top.
    mkdir /machine && mount -o rbind / /machine && cd /machine && mount -o move . / || refuse "no second root"
    for systemd in /lib/systemd/systemd /usr/lib/systemd/systemd; do
        [ ! -x "$systemd" ] || exec chroot . "$systemd"
    done
    refuse "no systemd"
fi

mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm
case $(option cgroup) in
v2)
    mount -t cgroup2 cgroup2 /sys/fs/cgroup || refuse "no cgroup v2"
    echo +memory +pids >/sys/fs/cgroup/cgroup.subtree_control || refuse "no memory controller in cgroup v2"
    ;;
v1 | hybrid)
    mount -t tmpfs cgroup /sys/fs/cgroup
    for controller in memory pids cpu; do
        mkdir "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || refuse "no $controller controller in cgroup v1"
    done
    # As systemd does: before 5.11 the limit of a cgroup would else not hold for those below it.
    echo 1 >/sys/fs/cgroup/memory/memory.use_hierarchy
    [ "$(option cgroup)" = v1 ] || { mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified; } || refuse "no cgroup v2"
    ;;
esac
ip link set lo up
hostname killwatch-vm
exec /bin/busybox sh /killwatch/run.sh
