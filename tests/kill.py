"""
The kill test: a small run under torchrun, killed and terminated at random moments, must end bit for bit as the run
that was not.

    python tests/kill.py [--kills=30] [--terms=10] [--ranks=2] [--steps=1500] [--seed=N]

kill -9 hits everything (as a machine that fails), torchrun alone, or one rank; SIGTERM torchrun (as a preempted job)
or one rank. Prints a line per interruption; exit code 1 with the first difference if the runs differ.
"""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny import SMALL, assert_same_run, make_data

from runtime import checkpoint

LONGEST = 120  # seconds that one start may take


def torchrun(ranks, *arguments):
    """Start torchrun; returns the process and a list that collects its lines while it runs."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
               *map(str, arguments)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, errors="replace",
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    lines = []
    thread = threading.Thread(target=lines.extend, args=[process.stdout], daemon=True)
    thread.start()
    return process, lines


def exit_code(process, seconds):
    """Of a process that has so long to end; one that does not is killed, and its ranks end with it."""
    try:
        return process.wait(seconds)
    finally:
        process.kill()


def children(pid):
    """Process ids of the ranks that a torchrun has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def interrupt(process, number, draw):
    """Send the signal to some of the processes; returns which."""
    ranks = children(process.pid)
    whom = draw.choice(["all", "torchrun", *(f"rank {rank}" for rank in range(len(ranks)))][number == signal.SIGTERM:])
    pids = {"all": [process.pid, *ranks], "torchrun": [process.pid]}.get(whom) or [ranks[int(whom.split()[1])]]
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    return whom


def kill_test(folder, kills, terms, ranks, steps, seed):
    """Raises AssertionError where the disturbed run is not the straight one."""
    draw = random.Random(seed)
    data = make_data(folder)
    arguments = [ROOT / "train.py", f"--data_dir={data}", *SMALL, "--eval_every=100", "--save_every=20",
                 "--log_every=7", f"--max_steps={steps}", "--resume"]
    process, lines = torchrun(ranks, *arguments, f"--out_dir={folder}/straight")
    assert exit_code(process, 10 * LONGEST) == 0, "".join(lines)

    numbers = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    draw.shuffle(numbers)
    turn = 0
    while turn < len(numbers):
        process, lines = torchrun(ranks, *arguments, f"--out_dir={folder}/killed")
        started = time.monotonic()
        if draw.random() < 0.8:  # else while it starts
            while (process.poll() is None and not any("from step" in line for line in lines)
                   and time.monotonic() < started + LONGEST):
                time.sleep(0.02)
        time.sleep(draw.uniform(0, 1))
        number = numbers[turn]
        whom = interrupt(process, number, draw)
        exit_code(process, LONGEST)
        text = "".join(lines)
        if "best on the validation split" in text:  # too late, it does not count: once more from the beginning
            assert_same_run(folder / "straight", folder / "killed")
            shutil.rmtree(folder / "killed")
            continue
        turn += 1
        start = re.search(r"from step (\d+)", text)
        print(f"{turn:3} {signal.Signals(number).name:7} to {whom:8} after {time.monotonic() - started:4.1f} s, "
              + (f"begun at step {start[1]}" if start else "still starting"), flush=True)
    process, lines = torchrun(ranks, *arguments, f"--out_dir={folder}/killed")
    assert exit_code(process, 10 * LONGEST) == 0, "".join(lines)
    assert_same_run(folder / "straight", folder / "killed")
    assert checkpoint.load(folder / "killed" / "last.pt")["step"] == steps


def main():
    given = dict(word.removeprefix("--").split("=") for word in sys.argv[1:])
    options = {"kills": 30, "terms": 10, "ranks": 2, "steps": 1500, "seed": random.randrange(10**6)}
    options |= {name: int(value) for name, value in given.items()}
    print(" ".join(f"--{name}={value}" for name, value in options.items()))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kill_test(Path(folder), **options)
    print(f"{options['kills']} kill -9 and {options['terms']} SIGTERM under torchrun with {options['ranks']} ranks: "
          "weights, moments, random states and log are bit for bit those of the undisturbed run of "
          f"{options['steps']} steps ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"DIFFERENT: {error or 'see assert_same_run'}")
