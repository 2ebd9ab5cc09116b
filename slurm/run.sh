# Sourced by the job scripts of this folder: starts a script on the nodes of a job, and puts the job back into the queue when it
# is preempted or out of time. Lines marked SITE are the ones to adapt.
cd "${SLURM_SUBMIT_DIR:?submit with sbatch from the root of the repository}" || exit 2
. .venv/bin/activate || exit 2                          # SITE: the environment with torch (module load ...)
# export NCCL_SOCKET_IFNAME=ib0                         # SITE: the network between the nodes, if nccl picks a slow one
cpus=${SLURM_CPUS_PER_TASK:-1}                          # of a node; srun does not take the number over from sbatch
export OMP_NUM_THREADS="$cpus"

# on_all_ranks train.py config/qed.py --resume: a process a GPU on every node of the job
on_all_ranks() {
    local head ranks=${RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    export OMP_NUM_THREADS=$((cpus > ranks ? cpus / ranks : 1))
    until_done srun --cpus-per-task="$cpus" --kill-on-bad-exit=1 torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="${RANKS_PER_NODE:-gpu}" \
        --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint="$head:$((20000 + SLURM_JOB_ID % 20000))" \
        --signals-to-handle=SIGUSR1,SIGTERM,SIGINT,SIGHUP,SIGQUIT --shutdown-timeout=100 "$@"
}

# until_done COMMAND: run it; --signal=B:USR1@120 tells this shell 120 s before the end of the time limit, preemption sends TERM. Either
# is passed on as USR1 (for TERM srun would kill -9): train.py writes a checkpoint after its current step and ends, and the job is
# queued again to go on from there. One signal is enough: a second would hit torchrun while it ends.
until_done() {
    local step code stopped=
    trap 'trap "" USR1 TERM; stopped=yes; kill -USR1 "$step"' USR1 TERM
    "$@" & step=$!
    while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done    # a signal ends `wait`, not the step
    if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then
        echo "stopped; queued again"
        exec scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}
