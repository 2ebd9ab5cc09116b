"""
Time to physics: seconds of training until every validation row is answered with the right square.

    python bench/speedrun.py [--seeds="1 2 3"] [config/file.py] [--key=value ...]      config/marty_qed.py unless named

Trains with each seed, keeps a checkpoint of every eval_every steps, then decodes the validation split with them, the
first ones first, greedily, and checks every answer against its amplitude, as decode.py --verify does. The time to
target is that of the first checkpoint with all rows right. It counts the run from the start of its loop: compiling,
warm-up and the validations are in it. The start-up, from the start of the process to the loop, and the warm-up stand
beside it. Decoding afterwards costs the run nothing. The rate decays to 0 at max_minutes or max_steps: the time to
target depends on them, so that a record is a config.

Runs go to OUT_DIR/speedrun/SEED and are trained anew.
"""
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

# Run as a script: import from the repository, not from this folder, which has a train.py of its own
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from configurator import load_settings
from dataset.reader import read_rows
from decode import decode, facts_of, load
from physics.particles import parse_masses
from runtime.files import InputError, main_guard
from runtime.hardware import device_name, find_device

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ["data_dir", "out_dir", "device", "max_steps", "max_minutes", "eval_every", "masses"]


def train_once(arguments, folder, seed, eval_every):
    """Train into `folder`; returns seconds from the start of the process to the loop, and of the first step."""
    shutil.rmtree(folder, ignore_errors=True)
    started = time.time()
    command = [sys.executable, str(ROOT / "train.py"), *arguments, f"--seed={seed}", f"--out_dir={folder}",
               "--run_id=", f"--save_every={eval_every}", "--save_limit=0", "--log_every=1", "--eval_train_rows=0"]
    if subprocess.run(command).returncode:
        raise InputError(f"train.py failed, its message is above: {' '.join(command)}")
    first = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    written = (folder / "config.py").stat().st_mtime  # just before the loop
    return written - started, first["seconds"]


def right_rows(path, rows, settings):
    """How many of the rows the model of this checkpoint answers with the right square, greedily."""
    loaded = load(str(path), settings.device)
    masses = parse_masses(settings.masses)
    answers = decode(loaded, [row["amp"] for row in rows], batch_rows=512, check=True,
                     facts=[facts_of(row, masses) for row in rows])
    return sum(answer.status == "verified" for answer in answers)


def main():
    seeds, arguments = ["1"], []
    for word in sys.argv[1:]:
        if word.startswith("--seeds="):
            seeds = word.removeprefix("--seeds=").split()
        else:
            arguments.append(word)
    if not any(not word.startswith("-") for word in arguments):
        arguments.insert(0, "config/marty_qed.py")
    settings = load_settings(__doc__, SETTINGS, arguments)
    if wrong := [seed for seed in seeds if not seed.isdecimal()] + [w for w in arguments if w.startswith("--seed=")]:
        raise InputError(f'{wrong[0]}: wanted numbers in --seeds="1 2 3", each the seed of a run')
    rows = [row for _, row in read_rows(Path(settings.data_dir) / "valid.csv")]
    print(f"{len(rows)} validation rows of {settings.data_dir}")
    print(f"{'seed':>6} {'start-up s':>10} {'first step s':>12} {'to target s':>11} {'at step':>8}   rows right then")
    for seed in seeds:
        folder = Path(settings.out_dir).resolve() / "speedrun" / seed
        start_up, first_step = train_once(arguments, folder, seed, settings.eval_every)
        seconds = {line["step"]: line["seconds"] for line in map(json.loads, (folder / "log.jsonl").open())
                   if "valid_loss" in line}
        steps = sorted(int(path.stem.removeprefix("ckpt_")) for path in folder.glob("ckpt_*.pt"))
        reached, right = None, 0
        for step in steps:
            right = right_rows(folder / f"ckpt_{step}.pt", rows, settings)
            if right == len(rows):
                reached = step
                break
        when = f"{seconds.get(reached, float('nan')):11.1f} {reached:8}" if reached else f"{'not reached':>11} {'':8}"
        print(f"{seed:>6} {start_up:10.1f} {first_step:12.1f} {when}   {right} of {len(rows)}", flush=True)
    print(device_name(find_device(settings.device)))  # last: it sets up the device, while a run should have it alone


if __name__ == "__main__":
    main_guard(main)
