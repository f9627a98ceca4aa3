#!/bin/sh
# A SLURM of one node on this machine, to test with: sh tests/cluster/start.sh; sh tests/cluster/stop.sh ends it.
# Needs root, and on Debian: apt-get install --no-install-recommends slurm-wlm munge
# Two partitions (cpu, gpu) of the same node; two pretended GPUs (CUDA finds none: programs compute on the CPU). What a job
# takes beyond its memory or its time ends it, as on a cluster. Does nothing where this SLURM answers already.
set -eu

STATE=/var/lib/histill-test-slurm
CONF=/etc/slurm/slurm.conf  # jobs inherit no SLURM_CONF, so it must be the default place
MARK="# histill: tests/cluster/start.sh"

fail() { echo "start.sh: $1" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "run it as root"
for program in munged slurmctld slurmd sinfo; do
    command -v "$program" > /dev/null || fail "$program is not installed (slurm-wlm, munge)"
done
if [ -e "$CONF" ] && ! grep -qF "$MARK" "$CONF"; then
    fail "$CONF is there and not ours: this machine has a SLURM of its own"
fi
if [ -e "$CONF" ] && timeout 10 sinfo -h -t idle,mix,alloc -o %n 2> /dev/null | grep -q .; then
    echo "SLURM is up"
    exit 0
fi

HOST=$(hostname -s)
CPUS=$(nproc)
MEMORY=$(awk '/^MemTotal:/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
mkdir -p "$STATE/ctld" "$STATE/d" "$STATE/run" /etc/slurm
cat > "$CONF" <<END
$MARK
ClusterName=histill-test
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/d
SlurmctldPidFile=$STATE/run/slurmctld.pid
SlurmdPidFile=$STATE/run/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# Without control groups memory is watched, not fenced: a job that has too much is killed within seconds.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=3
JobAcctGatherParams=OverMemoryKill,UsePss
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdParameters=config_overrides
# Ended jobs stay in scontrol and squeue this long.
MinJobAge=7200
KillWait=5
GresTypes=gpu
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$MEMORY Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=$HOST Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=gpu Nodes=$HOST MaxTime=1-00:00:00 State=UP
END
# Any two character devices will do.
printf '%s\nNodeName=%s Name=gpu File=/dev/zero\nNodeName=%s Name=gpu File=/dev/full\n' "$MARK" "$HOST" "$HOST" \
    > /etc/slurm/gres.conf

if ! munge -n 2> /dev/null | unmunge > /dev/null 2>&1; then
    install -d -o munge -g munge -m 755 /run/munge
    setpriv --reuid=munge --regid=munge --clear-groups munged --pid-file=/run/munge/munged.pid
    touch "$STATE/munged"  # so that stop.sh ends it too
fi
slurmctld
slurmd
for _ in $(seq 30); do
    if sinfo -h -t idle,mix,alloc -o %n 2> /dev/null | grep -q .; then
        echo "SLURM is up: $CPUS CPUs, $MEMORY MB, 2 pretended GPUs"
        exit 0
    fi
    sleep 1
done
fail "the node does not answer; see $STATE/slurmctld.log and $STATE/slurmd.log"
