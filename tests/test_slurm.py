"""The job scripts: submitted, preempted, queued again, until the run ends. Small programs act as SLURM's commands."""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import SMALL, make_data

from runtime import checkpoint

SLURM = Path(__file__).resolve().parent.parent / "slurm"
SCRIPTS = sorted(SLURM.glob("*.sbatch"))

SRUN = """#!/bin/bash
# like srun: a process a node, USR1 goes to the task, TERM is kill -9 for it
while [[ $1 == --* ]]; do shift; done
trap 'kill -USR1 $task' USR1
trap 'kill -KILL $task' TERM
"$@" & task=$!
while wait $task; code=$?; kill -0 $task 2>/dev/null; do :; done
exit $code
"""
SCONTROL = """#!/bin/bash
case $1 in
    show) echo localhost ;;
    requeue) echo "$2" >> "$FAKE/queue" ;;
esac
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_job_script_is_bash_and_says_how_it_is_preempted(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True).stderr == b""
    text = script.read_text()
    options = re.findall(r"^#SBATCH (--[a-z-]+)", text, re.MULTILINE)
    assert {"--nodes", "--time", "--requeue"} <= set(options) and text.startswith("#!/bin/bash\n") and "# SITE" in text
    assert "--signal=B:USR1@" in text or "on_all_ranks" not in text
    assert not re.search(r"^[^#\n].*\n#SBATCH", text, re.MULTILINE)  # sbatch reads no option after the first command


def test_there_is_a_job_script_for_every_task():
    assert {"qed", "qcd", "ew", "scst", "decode"} <= {path.stem for path in SCRIPTS}
    assert subprocess.run(["bash", "-n", SLURM / "run.sh"], capture_output=True).stderr == b""


@pytest.fixture
def cluster(tmp_path):
    """A user's folder: job scripts, .venv, data, and commands srun, scontrol and torchrun on the PATH."""
    commands = tmp_path / "bin"
    commands.mkdir()
    python = f'#!/bin/bash\nexec "{sys.executable}" -m torch.distributed.run "$@"\n'
    for name, text in ("srun", SRUN), ("scontrol", SCONTROL), ("torchrun", python):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    shutil.copytree(SLURM, tmp_path / "slurm")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "qed.py").write_text("")
    (tmp_path / "data").mkdir()
    make_data(tmp_path / "data")
    (tmp_path / "train.py").write_text(
        f"import sys\nsys.path.insert(0, {str(SLURM.parent)!r})\n"
        "from runtime.files import main_guard\nfrom train import main\nmain_guard(main)\n")
    return tmp_path


def sbatch(cluster, script, *arguments, restarts=0, ranks=2, cpus=1):
    """Start a job as SLURM does: a copy of the script, in the folder that it was submitted from."""
    shutil.copy(cluster / "slurm" / script, cluster / "spooled")
    environment = os.environ | {
        "PATH": f"{cluster}/bin:{os.environ['PATH']}", "FAKE": str(cluster), "SLURM_SUBMIT_DIR": str(cluster),
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost",
        "SLURM_RESTART_COUNT": str(restarts), "RANKS_PER_NODE": str(ranks), "SLURM_CPUS_PER_TASK": str(cpus)}
    log = open(cluster / "job.log", "a")
    command = ["bash", cluster / "spooled", *arguments]
    return subprocess.Popen(command, env=environment, cwd=cluster, stdout=log, stderr=log)


def wait_for(path):
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)


def test_a_job_that_is_preempted_is_queued_again_and_goes_on_to_its_end(cluster):
    flags = [f"--data_dir={cluster}/data", *SMALL, "--max_steps=150", "--eval_every=100", "--save_every=1000"]
    job = sbatch(cluster, "qed.sbatch", *flags)
    wait_for(cluster / "out/qed/log.jsonl")
    time.sleep(0.5)
    job.send_signal(signal.SIGUSR1)  # what --signal=B:USR1@120 does
    job.wait(60)
    printed = (cluster / "job.log").read_text()
    assert "stopped by SIGUSR1 at step" in printed, printed
    assert (cluster / "queue").read_text().split() == [str(os.getpid())]
    step = checkpoint.load(cluster / "out/qed/last.pt")["step"]
    assert 0 < step < 150

    assert sbatch(cluster, "qed.sbatch", *flags, restarts=1, ranks=1).wait(60) == 0
    printed = (cluster / "job.log").read_text()
    assert f"from step {step}" in printed and "best on the validation split" in printed
    assert len((cluster / "queue").read_text().split()) == 1
    assert checkpoint.load(cluster / "out/qed/last.pt")["step"] == 150


def test_one_signal_is_passed_on_and_the_cores_are_shared_by_the_ranks(cluster):
    (cluster / "bin" / "srun").write_text("""#!/bin/bash
echo "$1, OMP_NUM_THREADS=$OMP_NUM_THREADS" > "$FAKE/started"
trap 'echo USR1 >> "$FAKE/signals"' USR1
for _ in {1..20}; do sleep 0.05; done
exit 1
""")
    job = sbatch(cluster, "qed.sbatch", ranks=3, cpus=8)
    wait_for(cluster / "started")
    for number in signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1:
        time.sleep(0.2)
        job.send_signal(number)
    job.wait(60)
    assert (cluster / "signals").read_text() == "USR1\n" and (cluster / "queue").exists()
    assert (cluster / "started").read_text() == "--cpus-per-task=8, OMP_NUM_THREADS=2\n"


def test_a_job_that_fails_is_not_queued_again(cluster):
    assert sbatch(cluster, "qed.sbatch", "--data_dir=gone", *SMALL, ranks=1).wait(60) != 0
    assert "error: gone/train.csv" in (cluster / "job.log").read_text() and not (cluster / "queue").exists()
