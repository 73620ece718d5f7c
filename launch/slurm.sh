#!/usr/bin/env bash
# One process per GPU on several nodes:  sbatch --nodes=2 launch/slurm.sh configs/cifar10.py:resnet110 runs/resnet110
#
# Run it in the checkout, after `make install`. The run's folder must be on storage that all nodes see. Further
# arguments go to `train`. Two minutes before the time limit SLURM sends SIGTERM: all processes stop after the
# same step, save, and exit with 75; the job puts itself back into the queue and goes on from there. The same
# happens before a preemption if the cluster gives a grace time (GraceTime of the partition, or
# PreemptParameters=send_user_signal).
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

# JAX finds the processes and the coordinator from srun's variables, and gives each process the GPU of its local
# rank. If one dies, the others end within --heartbeat_timeout; srun must not kill them before that.
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  .venv/bin/python -m resnet_jax train --config="$config" --workdir="$workdir" "$@"
status=$?

# srun's status is the highest of its tasks. 75: stopped and saved, or another task died. Above 128: killed, or ended by
# JAX's runtime because another task died. 253: out of memory. A mistake (2) or a bug (1) would only happen again.
case $status in
  75) again=1 ;;
  134 | 137 | 139 | 143 | 253) again=$(( ${SLURM_RESTART_COUNT:-0} < 20 )) ;;
  *) again=0 ;;
esac
if (( again )); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
