#!/bin/bash
# Runs the README's command on every node of a SLURM cluster:
#   sbatch launch/slurm.sh [flags of llama2_jax.main, such as --config.mesh.tensor=8]
# docs/launch.md says what to set, how to follow a run and how it resumes after an interruption.
#SBATCH --job-name=llama2_jax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1     # one process per node, which uses all its GPUs
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0                 # all memory of the node
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300       # seconds before the time is up: every process saves and exits with 143
#SBATCH --requeue               # SLURM restarts the job after a preemption or the loss of a node
#SBATCH --output=llama2_jax-%j.log
#SBATCH --open-mode=append
set -euo pipefail

# Paths on a file system that all nodes share; relative to the folder in which sbatch was called.
PYTHON=${PYTHON:-.venv/bin/python}
CONFIG=${CONFIG:-experiments/rlhf_v5.py:7b}
WORKDIR=${WORKDIR:-runs/rlhf_v5-7b}
MAX_RESTARTS=${MAX_RESTARTS:-3}

if [[ ${SLURM_NTASKS:?start this with sbatch} != "${SLURM_JOB_NUM_NODES:?}" ]]; then
  echo "error: $SLURM_NTASKS processes on $SLURM_JOB_NUM_NODES nodes; set --ntasks-per-node=1: one process per node" >&2
  exit 1
fi
# Under SLURM, JAX by default gives each process only the GPU with its number on the node.
if ((${SLURM_GPUS_ON_NODE:-0} > 0)); then
  JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))
  export JAX_LOCAL_DEVICE_IDS
fi

# The shell must survive a SIGTERM to the whole job. srun must not get one: it would kill its processes at once.
trap : TERM
status=0
# The processes end one after the other: none may be killed while it is saving, nor wait for one that has died.
srun --label --kill-on-bad-exit=0 --wait=120 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  "$PYTHON" -m llama2_jax.main --distributed --config="$CONFIG" --workdir="$WORKDIR" "$@" || status=$?

# 143: asked to stop, and saved. Any other status may come from a broken node, which a restart may avoid.
if ((status == 143)) || ((status != 0 && ${SLURM_RESTART_COUNT:-0} < MAX_RESTARTS)); then
  # A cancelled job no longer counts as running, and must not be requeued.
  if [[ $(squeue --noheader --job="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
    echo "exit status $status: the job goes back into the queue and resumes from its last checkpoint"
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$status"
