#!/bin/sh
# Ends the SLURM of start.sh with all of its jobs, and removes what it wrote.
set -eu

STATE=/var/lib/histill-test-slurm
MARK="# histill: tests/cluster/start.sh"

for conf in /etc/slurm/slurm.conf /etc/slurm/gres.conf; do
    if [ -e "$conf" ] && ! grep -qF "$MARK" "$conf"; then
        echo "stop.sh: $conf is not ours; nothing is touched" >&2
        exit 1
    fi
done
if timeout 10 sinfo -h > /dev/null 2>&1; then
    squeue -h -o %A | xargs -r timeout 20 scancel || true
    sleep 2
fi
end() {  # by the pid that the daemon wrote
    [ -e "$1" ] || return 0
    pid=$(cat "$1")
    kill "$pid" 2> /dev/null || return 0
    for _ in $(seq 20); do
        kill -0 "$pid" 2> /dev/null || return 0
        sleep 0.5
    done
    kill -9 "$pid" 2> /dev/null || true
}
end "$STATE/run/slurmd.pid"
end "$STATE/run/slurmctld.pid"
if [ -e "$STATE/munged" ]; then
    end /run/munge/munged.pid
fi
rm -rf "$STATE" /etc/slurm/slurm.conf /etc/slurm/gres.conf
echo "SLURM is gone"
