#!/usr/bin/env bash
# The job that slurm_train.sh --requeue submits: a command, as many times as the job has tasks.
# Afterwards the job is queued again, to continue,
#   - if the command saved its state after a signal (status 75), any number of times;
#   - if a process was killed (a status above 128), up to MAX_FAILURES [3] times.
# Any other error ends it. (When Slurm itself takes the nodes away or loses one, it queues the job
# again without asking this script.)
set -u
# What was not for the processes of the training is not for this script either.
trap '' USR1
restarts=${SLURM_RESTART_COUNT:-0}
# srun ends all processes when the first one has ended, and then gives the status of those that it
# ended. So the tools write theirs down (mmrsfm/engine/command_line.py).
export MMRSFM_STATUS_FILE="$PWD/.slurm-$SLURM_JOB_ID-$restarts.status"
status=0
srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  "$@" || status=$?
if [ "$status" != 0 ] && [ -s "$MMRSFM_STATUS_FILE" ]; then read -r status <"$MMRSFM_STATUS_FILE"; fi
rm -f "$MMRSFM_STATUS_FILE"

# A job that was cancelled, or is on its way back already, has another state.
state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2>/dev/null || true)
again=no
if [ "$state" = RUNNING ] && [ "$status" = 75 ]; then
  again=yes
elif [ "$state" = RUNNING ] && [ "$status" -gt 128 ]; then
  # The job keeps the number of its failures in its comment, through restarts.
  failures=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%k 2>/dev/null |
    sed -n 's/^failures: \([0-9][0-9]*\)$/\1/p')
  # Where comments cannot be written every restart counts.
  if [ "${failures:-0}" -lt "${MAX_FAILURES:-3}" ] &&
    { scontrol update jobid="$SLURM_JOB_ID" comment="failures: $((${failures:-0} + 1))" ||
      [ "$restarts" -lt "${MAX_FAILURES:-3}" ]; }; then
    again=yes
  fi
fi
if [ "$again" = yes ]; then
  echo "slurm_job.sh: status $status, restart $((restarts + 1)): the job is queued again."
  scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
echo "slurm_job.sh: status $status after $restarts restarts; the job ends (state: ${state:-none})."
exit "$status"
