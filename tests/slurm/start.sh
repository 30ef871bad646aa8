#!/usr/bin/env bash
# Starts a SLURM of one node on this machine, as root: Debian's slurmctld, slurmd, slurm-client and
# munge must be installed. `stop` ends it. All its files, its configuration and its key are in
# /tmp/ganinv-slurm: a SLURM that this machine may belong to is left alone. To talk to it:
#   export SLURM_CONF=/tmp/ganinv-slurm/slurm.conf
set -euo pipefail
export PATH=$PATH:/usr/sbin
home=/tmp/ganinv-slurm
export SLURM_CONF=$home/slurm.conf

stop() {
    for name in slurmd slurmctld munged; do
        if [[ -f $home/$name.pid ]]; then
            kill -9 "$(cat "$home/$name.pid")" 2>/dev/null || true # in order it would take long
            rm -f "$home/$name.pid"
        fi
    done
}

stop
[[ ${1:-start} == stop ]] && exit
rm -rf "$home"
mkdir -p "$home"/{ctld,d}
chmod 755 "$home"
cat >"$SLURM_CONF" <<CONF
ClusterName=ganinv
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$home/munge.socket
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
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=60
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000
PartitionName=debug Nodes=localhost Default=YES MaxTime=INFINITE OverSubscribe=FORCE:4 State=UP
CONF

head -c 1024 /dev/urandom >"$home/munge.key"
chmod 400 "$home/munge.key"
munged --force --key-file="$home/munge.key" --socket="$home/munge.socket" \
    --pid-file="$home/munged.pid" --log-file="$home/munged.log" --seed-file="$home/munged.seed"
slurmctld -c
slurmd -c -N localhost
for _ in $(seq 40); do
    [[ $(sinfo -h -o %T 2>/dev/null) == idle ]] && exit
    sleep 0.5
done
echo "SLURM did not come up; see $home/*.log" >&2
exit 1
