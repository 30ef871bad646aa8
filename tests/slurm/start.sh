#!/usr/bin/env bash
# Starts a SLURM of one node on this machine, as root, by hand: Debian's slurmctld, slurmd,
# slurm-client and munge must be installed. `stop` ends it. Its files are in /tmp/ganinv-slurm.
set -euo pipefail
home=/tmp/ganinv-slurm

stop() {
    for name in slurmd slurmctld munged; do
        if [[ -f $home/$name.pid ]]; then
            kill -9 "$(cat "$home/$name.pid")" 2>/dev/null || true # in order it would take long
            rm -f "$home/$name.pid"
        fi
    done
}

if [[ ${1:-start} == stop ]]; then
    stop
    exit
fi

stop
rm -rf "$home"
mkdir -p "$home"/{ctld,d} /run/munge
chown munge: /run/munge
chmod 755 /run/munge
host=$(hostname -s)
grep -qw "$host" /etc/hosts || echo "127.0.0.1 $host" >>/etc/hosts
[[ -s /etc/munge/munge.key ]] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none; }
chown munge: /etc/munge/munge.key
chmod 400 /etc/munge/munge.key

mkdir -p /etc/slurm
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=ganinv
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$home/ctld
SlurmdSpoolDir=$home/d
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
SlurmdParameters=config_overrides
KillWait=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE OverSubscribe=FORCE:4 State=UP
CONF

runuser -u munge -- munged --force --pid-file "$home/munged.pid" 2>/dev/null ||
    runuser -u munge -- munged --force
pgrep -n munged >"$home/munged.pid"
slurmctld -c
slurmd -c
for _ in $(seq 40); do
    if [[ $(sinfo -h -o %T 2>/dev/null) == idle ]]; then
        exit
    fi
    sleep 0.5
done
echo "SLURM did not come up; see $home/*.log" >&2
exit 1
