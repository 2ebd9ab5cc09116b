# All job scripts of this folder but prepare.sbatch source this file. It starts a script on the nodes of a job, and requeues the
# job when it is preempted, or, with --signal=B:USR1@120, before its time limit. Adapt the lines marked SITE.
cd "${SLURM_SUBMIT_DIR:?submit with sbatch from the root of the repository}" || exit 2
. .venv/bin/activate || exit 2                          # SITE: the environment with torch (module load ...)
# export NCCL_SOCKET_IFNAME=ib0                         # SITE: the network between the nodes, if nccl chooses a slow one
cpus=${SLURM_CPUS_PER_TASK:-1}                          # per node; srun does not inherit this number from sbatch
export OMP_NUM_THREADS="$cpus"

# on_all_ranks train.py config/qed.py --resume: start one process per GPU on every node of the job
on_all_ranks() {
    local head ranks=${RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    export OMP_NUM_THREADS=$((cpus > ranks ? cpus / ranks : 1))
    until_done srun --cpus-per-task="$cpus" --kill-on-bad-exit=1 torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="${RANKS_PER_NODE:-gpu}" \
        --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint="$head:$((20000 + SLURM_JOB_ID % 20000))" \
        --signals-to-handle=SIGUSR1,SIGTERM,SIGINT,SIGHUP,SIGQUIT --shutdown-timeout=100 "$@"
}

# until_done COMMAND: run the command; requeue the job if a signal stops it.
# SLURM signals this shell with USR1 120 s before the time limit (--signal=B:USR1@120), and with TERM at a preemption. The shell
# sends USR1 to the command in both cases, since srun answers TERM with kill -9. train.py then writes a checkpoint after its
# current step and exits. Later signals are ignored: a second one would hit torchrun while it shuts down.
until_done() {
    local step code stopped=
    trap 'trap "" USR1 TERM; stopped=yes; kill -USR1 "$step"' USR1 TERM
    "$@" & step=$!
    while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done    # a signal interrupts `wait`, not the step
    if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then
        echo "stopped; queued again"
        exec scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}
