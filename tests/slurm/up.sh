#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Starts a SLURM whose nodes are processes of this machine.
#
#     tests/slurm/up.sh <folder> [<nodes>]
#     export SLURM_CONF=<folder>/slurm.conf  # For sinfo, sbatch, launch.slurm, …
#     tests/slurm/down.sh <folder>
#
# It is the system's SLURM with a configuration, a munge and ports of its own:
# all that it writes is in the folder, and no root is needed. A node's name is
# one of this machine's addresses, as tasks must reach each other by it. Exits
# with 69 where something is not installed.
set -euo pipefail
folder=$(realpath --canonicalize-missing "$1")
nodes=${2:-3}
PATH=$PATH:/usr/sbin:/sbin

missing=()
for program in munged slurmctld slurmd sbatch srun squeue python3; do
  command -v "$program" > /dev/null || missing+=("$program")
done
if [ ${#missing[@]} != 0 ]; then
  echo "up.sh: not installed: ${missing[*]}. On Debian and Ubuntu they come" \
    "with: apt-get install --no-install-recommends slurm-wlm" >&2
  exit 69
fi

# All that is started knows of it, which down.sh looks for.
export SLURM_CONF=$folder/slurm.conf
mkdir -p "$folder/state" "$folder/spool"
(umask 077; head -c 128 /dev/urandom > "$folder/munge.key")
# That others may write to /tmp, say, is no concern of a test.
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
  --seed-file="$folder/munge.seed" --num-threads=2

read -r -a ports < <(python3 -c '
import socket, sys
held = [socket.create_server(("", 0)) for _ in range(int(sys.argv[1]))]
print(*(server.getsockname()[1] for server in held))' "$((nodes + 1))")

cat > "$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort=${ports[0]}
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
# A requeued job waits for as long as a credential is good for.
AuthInfo=socket=$folder/munge.socket,cred_expire=20
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MessageTimeout=60
SchedulerParameters=batch_sched_delay=0,sched_interval=2
PartitionName=all Nodes=ALL Default=YES State=UP
END
for ((node = 1; node <= nodes; node++)); do
  echo "NodeName=127.0.0.$node NodeHostname=localhost Port=${ports[node]} CPUs=1"
done >> "$SLURM_CONF"

slurmctld -i 2> "$folder/errors"
for ((node = 1; node <= nodes; node++)); do
  slurmd -N "127.0.0.$node" 2>> "$folder/errors"
done
for ((second = 0; second < 60; second++)); do
  idle=$(sinfo --noheader --states=idle --format=%D 2>> "$folder/errors" || true)
  if [ "${idle// /}" = "$nodes" ]; then
    exit 0
  fi
  sleep 1
done
cat "$folder/errors" >&2
tail -n 20 "$folder"/*.log >&2
"$(dirname "$0")/down.sh" "$folder"
exit 1
