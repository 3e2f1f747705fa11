#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kills all that up.sh and its jobs have started, whatever state it is in.
#
#     tests/slurm/down.sh <folder>
set -u
conf=$(realpath --canonicalize-missing "$1")/slurm.conf

# Its daemons and jobs, and not whoever else was told of the folder.
ours() {
  local process
  for process in /proc/[0-9]*; do
    if grep -qzxF "SLURM_CONF=$conf" "$process/environ" &&
      { grep -qE '^(munged|slurm)' "$process/comm" ||
        grep -qz '^SLURM_JOB_ID=' "$process/environ"; }; then
      echo "${process#/proc/}"
    fi
  done 2> /dev/null
}

# A daemon may start a job's process while the others are killed.
while processes=$(ours) && [ -n "$processes" ]; do
  kill -KILL $processes 2> /dev/null
  sleep 0.1
done
