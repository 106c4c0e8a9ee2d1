"""A file for SLURM's sbatch: a Ray cluster over the nodes of a job, and one command on it."""

import shlex
from collections.abc import Sequence

from genedml.errors import GeneDMLError
from genedml_cli.machine.ray_executor import STORE_BYTES

SPREAD = ("predict", "train", "compare", "ablate")
"""Commands that take ``--on ray``."""
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=genedml
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={cpus}
{gpu_line}set -euo pipefail
# Those of sbatch's own options, if given.
nodes=${{SLURM_JOB_NUM_NODES:-{nodes}}} cpus=${{SLURM_CPUS_PER_TASK:-{cpus}}} gpus=${{SLURM_GPUS_ON_NODE:-{gpus}}}
export SRUN_CPUS_PER_TASK=$cpus RAY_USAGE_STATS_ENABLED=0
export GRPC_ENABLE_FORK_SUPPORT=0  # with it, Ray's server for ray:// dies as it begins

# Whoever has not this job's token is kept out of its cluster; ports are this job's own.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')
head=${{SLURMD_NODENAME:-$(hostname -s)}} address=$(hostname -I | cut -d' ' -f1)
port=$((20000 + SLURM_JOB_ID % 10000))
client=$(python -c 'import grpc' 2> /dev/null && echo "--ray-client-server-port=$((port + 10000))" || true)
export RAY_ADDRESS=$address:$port
node=(ray start --block --disable-usage-stats --num-cpus="$cpus" --num-gpus="$gpus" --object-store-memory={store})
trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "/tmp/ray-$SLURM_JOB_ID"' EXIT

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" "${{node[@]}}" --head \\
    --node-ip-address="$address" --port="$port" $client --include-dashboard=false --temp-dir="/tmp/ray-$SLURM_JOB_ID" &
for _ in $(seq 60); do ray status > /dev/null 2>&1 && break || sleep 2; done
if [ "$nodes" -gt 1 ]; then
    srun --overlap --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$head" \\
        "${{node[@]}}" --address="$RAY_ADDRESS" &
fi
for _ in $(seq 60); do [ "$(ray status 2> /dev/null | grep -c ' node_')" -ge "$nodes" ] && break || sleep 2; done

{command}
"""


def sbatch_file(words: Sequence[str], nodes: int, gpus: int, cpus: int) -> str:
    """The text of the file.

    Args:
        words: of the command, after ``genedml``.
        nodes: of the job.
        gpus: of each node.
        cpus: of each node, for all its workers.

    Raises:
        GeneDMLError: the command cannot be spread, or says itself where it is to run.
    """
    if not words or words[0] not in SPREAD:
        raise GeneDMLError(f"Give a command that can be spread after --: {', '.join(SPREAD)}.")
    if any(word == "--on" or word.startswith("--on=") for word in words):
        raise GeneDMLError("Leave out --on: the file says --on ray.")
    return SCRIPT.format(
        nodes=nodes,
        cpus=cpus,
        gpus=gpus,
        store=STORE_BYTES,
        gpu_line=f"#SBATCH --gpus-per-node={gpus}\n" if gpus else "",
        command=shlex.join(["genedml", *words, "--on", "ray"]),
    )
