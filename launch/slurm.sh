#!/usr/bin/env bash
# One process per GPU on several nodes:  sbatch --nodes=2 launch/slurm.sh configs/cifar10.py:resnet110 runs/resnet110
#
# From the checkout, after `make install`; the run's folder must lie on storage that all nodes see. Further arguments go to
# `train`. Two minutes ahead of the time limit (or of a preemption) SLURM sends SIGTERM: all processes stop after the
# same step, save, and exit with 75; the job puts itself back into the queue and goes on from there.
#SBATCH --job-name=resnet_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail

config=${1:?usage: sbatch launch/slurm.sh CONFIG WORKDIR [--config.FIELD=VALUE ...]}
workdir=${2:?usage: sbatch launch/slurm.sh CONFIG WORKDIR [--config.FIELD=VALUE ...]}
shift 2

# JAX finds processes and coordinator from srun's variables, and gives each the GPU of its local rank. A task that dies
# ends the step (--kill-on-bad-exit would race with the others' own way out, within --heartbeat_timeout).
srun --kill-on-bad-exit=0 .venv/bin/python -m resnet_jax train --config="$config" --workdir="$workdir" "$@"
status=$?

# 75: stopped and saved, or another process was lost; 134: JAX's runtime ended it because another task died.
if [[ $status == 75 || $status == 134 ]] && (( ${SLURM_RESTART_COUNT:-0} < 20 )); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
