#!/bin/sh
# A job that knows why it died. Run: sh job.sh JOB_ID COMMAND…
#
# `killwatch tag` says over the daemon's socket which job it is on, and becomes the command: so the tag is the command's. When that is killed, curl
# asks what happened.
set -u
socket=${KILLWATCH_API_SOCKET:-/run/killwatch/killwatch.sock}
job=$1
shift

killwatch tag --api.socket "$socket" "job_id=$job" -- "$@" &
pid=$!
# Field 22 of /proc/PID/stat, behind the name, which may hold anything: when it was started. With it the pid names this process and no later one.
start=$(sed 's/.*) //' "/proc/$pid/stat" | cut -d ' ' -f 20)
wait "$pid"
status=$?

if [ "$status" -gt 128 ]; then
    echo "job $job ended with $status; killwatch says:"
    curl --silent --show-error --max-time 5 --unix-socket "$socket" \
        "http://killwatch/v1/deaths?pid=$pid&start=$start&wait=2s"
    echo
fi
exit "$status"
