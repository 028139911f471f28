#!/bin/busybox sh
# Runs the scenarios and powers off. Their arguments are in /killwatch/arguments, one a line.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TMPDIR=/tmp RUST_BACKTRACE=1 RUST_LIB_BACKTRACE=0
export KILLWATCH_VM=1 KILLWATCH_REQUIRE_E2E=1 KILLWATCH_BIN=/killwatch/killwatch KILLWATCH_VICTIM=/killwatch/victim

option() {
    tr ' ' '\n' </proc/cmdline | sed -n "s/^killwatch\.$1=//p"
}

[ ! -x /killwatch/earlyoom ] || export KILLWATCH_EARLYOOM=/killwatch/earlyoom
[ "$(wc -l </proc/swaps)" -lt 2 ] || export KILLWATCH_VM_SWAP=1
case $(option guest) in
lockdown)
    mount -t securityfs securityfs /sys/kernel/security
    grep -qF '[confidentiality]' /sys/kernel/security/lockdown || { echo "killwatch-vm: this kernel is not locked down"; poweroff -f; }
    export KILLWATCH_VM_LOCKDOWN=1
    ;;
systemd) export KILLWATCH_SYSTEMD=1 KILLWATCH_OOMD_CGROUP=/sys/fs/cgroup/watched.slice ;;
esac

# For the report: what this kernel's mark says. Locked down it says nothing, and 6.12 dies of unmounting this again.
mark=unknown
if [ "$(option guest)" != lockdown ]; then
    format=/run/killwatch-tracing/events/oom/mark_victim/format
    mkdir -p /run/killwatch-tracing && mount -t tracefs tracefs /run/killwatch-tracing
    if grep -qw pid "$format"; then
        mark=pid
        ! grep -qw oom_score_adj "$format" || mark=extended
    fi
    umount /run/killwatch-tracing && rmdir /run/killwatch-tracing
fi
echo "killwatch-vm: Linux $(uname -r), cgroup $(option cgroup), guest $(option guest), mark_victim $mark, swap ${KILLWATCH_VM_SWAP:-0}"

set -- --test-threads=1 --color=never
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
