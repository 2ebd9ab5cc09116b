"""
Every table and plot of the README: all trainings, their evaluations, results.md, levels.svg and sizes.svg.

    python ablations/blotching/measure.py [--workers=2] [--device=cuda] [--max_minutes=...]

Each worker trains one run with one thread. Runs go to out/blotching/NAME-SEED, below the current folder; what is
finished there is not run again, so this can be stopped at any time and goes on when started anew. Other settings are
handed to every run, but for those in which the runs differ.
"""
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
from configurator import load_settings
from runtime.files import InputError, atomic_open, main_guard
from runtime.intervals import student
from runtime.pictures import pyplot_without_screen
from runtime.runs import read_log

OUT = Path("out/blotching")
SEEDS = 1, 2, 3
# Three numbers, mostly with a product: few enough problems that whole solutions are learned in minutes, and five steps
PROBLEMS = "--max_num=14 --max_ents=3 --p_ent=1 --p_mult=0.9 --max_mult_num=9 --p_paren=0"
# CPU time on a CPU, in minutes; the learning rate ends with it
FIRST = f"{PROBLEMS} --max_steps=1000000 --max_minutes=20 --init_samples=100000 --val_mod=1"
MORE = (f"{PROBLEMS} --max_steps=1000000 --max_minutes=2.5 --learning_rate=1e-3 --pre_epochs=0 --aug_mod=1 "
        "--max_samples=20000 --init_checkpt=out/blotching/blotch-{seed}/last.pt")
RUNS = {  # name: (settings, seeds, what it is); in the order in which they run
    "blotch": (FIRST, SEEDS, "blotching"),
    "more": (MORE, SEEDS, "blotching, then more of it"),
    "star": (f"{MORE} --star_loops=8", SEEDS, "blotching, then STaR"),
    "aug": (f"{MORE} --aug_loops=8", SEEDS, "blotching, then augmentation in place"),
    "axe": (f"{MORE} --axe_loops=4", SEEDS, "blotching, then axing"),
    "plain": (f"{FIRST} --n_btokens=0", SEEDS, "no blotching"),
    "lstm": (f"{FIRST} --max_minutes=4 --model_type=lstm --d_model=128 --n_layers=2", SEEDS[:1], "blotching, LSTM"),
}
OWN = {"seed", "out_dir", "run_id", "init_checkpt", "n_btokens", "star_loops", "aug_loops", "axe_loops", "model_type",
       "problem", "level"}  # what makes a run what it is, and what ends without a report
COMPARED = {"star": "more", "aug": "more", "axe": "more", "plain": "blotch"}  # runs of equal time


def main():
    if {"--help", "-h"} & set(sys.argv):
        return print(__doc__.strip())
    words = [word for word in sys.argv[1:] if word.startswith("--") and "=" in word]
    given = dict(word.removeprefix("--").split("=", 1) for word in words)
    if len(words) < len(sys.argv) - 1:
        raise InputError("python ablations/blotching/measure.py [--workers=2] [--key=value ...]: expected only these")
    workers = given.pop("workers", "2")
    if not workers.isdecimal() or not int(workers):
        raise InputError(f"workers: got {workers}, wanted a whole number, at least 1")
    if wrong := sorted(OWN & given.keys()):
        raise InputError(f"{wrong[0]}: each run has its own here; ablations/blotching/train.py takes it")
    flags = [f"--{name}={value}" for name, value in given.items()]
    load_settings("", [], flags, ROOT / "ablations/blotching/config.py")  # a wrong one is said before anything runs
    jobs = [(name, seed) for name, (_, seeds, _) in RUNS.items() for seed in seeds]
    with ThreadPoolExecutor(int(workers)) as pool:
        for part in jobs[:len(SEEDS)], jobs[len(SEEDS):]:  # others go on from the first ones
            codes = list(pool.map(lambda job: run(*job, flags), part))
            if any(codes):
                raise InputError(f"{sum(map(bool, codes))} of {len(codes)} runs failed, see their lines above; "
                                 "start this again to go on")
    reports = {name: [read_run(name, seed) for seed in seeds] for name, (_, seeds, _) in RUNS.items()}
    with atomic_open(HERE / "results.md") as file:
        file.write(results(reports))
    plot_levels(reports)
    plot_sizes(reports["blotch"])
    print(HERE / "results.md")
    return 0


def run(name, seed, flags):
    """Train and evaluate one run, unless that is done; returns the exit code."""
    folder = OUT / f"{name}-{seed}"
    if (folder / "report.json").exists():
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    settings = [*RUNS[name][0].format(seed=seed).split(), f"--seed={seed}", f"--out_dir={folder}", *flags]
    # what train.py says last counts: it resumes where it was stopped, and does nothing where it is complete
    print(f"{folder}: begins or goes on, its messages are in {folder}/messages.txt", flush=True)
    with open(folder / "messages.txt", "a") as messages:
        for command in (["train.py", *settings, "--resume"], ["evaluate.py", f"--ckpt={folder}/last.pt", *flags]):
            code = subprocess.run([sys.executable, HERE / command[0], *command[1:]], stdout=messages, stderr=messages,
                                  env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode
            if code:
                print(f"{folder}: {command[0]} ended with exit code {code}", flush=True)
                return code
    return 0


def read_run(name, seed):
    """The report of a run, with the lines of its log as `log`."""
    folder = OUT / f"{name}-{seed}"
    report = json.loads((folder / "report.json").read_text())
    return report | {"log": read_log(folder)}


# ---------------------------------------------------------------------------------------------------------------------
# results.md

def mean(values, form=".3f"):
    """Mean and range of the seeds, as text."""
    text = format(statistics.fmean(values), form)
    return text if len(values) == 1 else f"{text} ({min(values):{form}} to {max(values):{form}})"


def figures(reports, level, key):
    """One figure of each seed at a level; a run without levels has only one."""
    return [report["by_level"][min(level, len(report["by_level"]) - 1)][key] for report in reports]


def difference(reports, others, level, key):
    """Mean of the differences between two kinds of runs, seed by seed, and its 95% interval, as text."""
    pairs = [a - b for a, b in zip(figures(reports, level, key), figures(others, level, key))]
    low, high = student(pairs)
    middle, half = (low + high) / 2, (high - low) / 2
    verdict = "more" if middle > half else "less" if middle < -half else "no difference seen"
    return f"{middle:+.3f} ± {half:.3f}, {verdict}"


def results(reports):
    """The text of results.md."""
    blotch = reports["blotch"]
    last = len(blotch[0]["by_level"]) - 1
    middle = last // 2
    minutes = statistics.fmean(report["log"][-1]["seconds"] for report in blotch) / 60
    lines = [
        "# Results of ablations/blotching", "",
        f"Made by `python ablations/blotching/measure.py`. {blotch[0]['device']}, {minutes:.1f} minutes of "
        f"training for the runs of the first three tables, {blotch[0]['by_level'][0]['problems']} test problems, "
        f"sampling temperature {blotch[0]['temperature']}. Mean of the seeds and their range.", "",
        "## Goals", "", "| goal | measured | reached |", "| --- | --- | --- |"]
    accuracy = [statistics.fmean(figures(blotch, level, "accuracy")) for level in range(last + 1)]
    steps = [statistics.fmean(figures(blotch, level, "steps")) for level in range(last + 1)]
    for goal, measured, reached in (
            ("accuracy at level 0 >= 0.9", accuracy[0], accuracy[0] >= 0.9),
            (f"steps at level {middle} <= 0.6 of level 0", steps[middle] / steps[0], steps[middle] <= 0.6 * steps[0]),
            (f"loss of accuracy at level {middle} <= 0.03", accuracy[0] - accuracy[middle],
             accuracy[0] - accuracy[middle] <= 0.03),
            (f"steps at level {last} <= 1.2", steps[last], steps[last] <= 1.2)):
        lines.append(f"| {goal} | {measured:.3f} | {'yes' if reached else 'no'} |")
    lines += ["", "## Levels of blotching", "", "![accuracy and steps against the level](levels.svg)", "",
              "| level | p | accuracy | all steps right | steps | characters |",
              "| --- | --- | --- | --- | --- | --- |"]
    for level in range(last + 1):
        cells = [mean(figures(blotch, level, key), form) for key, form in
                 (("accuracy", ".3f"), ("all_steps_right", ".3f"), ("steps", ".2f"), ("tokens", ".1f"))]
        lines.append(f"| {level} | {blotch[0]['by_level'][level]['blotch_p']:.1f} | {' | '.join(cells)} |")
    lines += ["", "## Size of the problem", "", "![accuracy and steps against the size](sizes.svg)", "",
              f"Entities of the problem; training has at most {blotch[0]['max_ents']}. Only problems whose whole "
              "solution fits into seq_len tokens.", "",
              "| size | level | accuracy | steps | steps of the solution |", "| --- | --- | --- | --- | --- |"]
    for place, line in enumerate(blotch[0]["by_size"]):
        cells = [mean([report["by_size"][place][key] for report in blotch], form) for key, form in
                 (("accuracy", ".3f"), ("steps", ".2f"), ("steps_of_solution", ".2f"))]
        lines.append(f"| {line['size']} | {line['level']} | {' | '.join(cells)} |")
    lines += ["", "## All runs", "",
              f"| run | seeds | accuracy, level 0 | steps | accuracy, level {middle} | steps | accuracy, level {last} "
              "| steps | training steps | minutes |",
              "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, (_, seeds, what) in RUNS.items():
        cells = []
        for level in (0, middle, last):
            has_level = level < len(reports[name][0]["by_level"])
            cells += [mean(figures(reports[name], level, key), form) if has_level else "-"
                      for key, form in (("accuracy", ".3f"), ("steps", ".2f"))]
        taken = mean([report["log"][-1]["step"] for report in reports[name]], ",.0f")
        time = statistics.fmean(report["log"][-1]["seconds"] for report in reports[name]) / 60
        lines.append(f"| {what} | {len(seeds)} | {' | '.join(cells)} | {taken} | {time:.1f} |")
    lines += ["", "## At equal time", "",
              "Mean difference, seed by seed, and its 95% interval (Student's t). Runs with \"then\" begin with "
              "the weights of the blotching run of their seed.", "",
              f"| run | compared with | accuracy, level 0 | steps, level 0 | accuracy, level {middle} "
              f"| steps, level {middle} | chains kept of tried |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, other in COMPARED.items():
        cells = []
        for level in (0, middle):
            has_level = level < len(reports[name][0]["by_level"])
            cells += [difference(reports[name], reports[other], level, key) if has_level else "-"
                      for key in ("accuracy", "steps")]
        counts = [line[name] for report in reports[name] for line in report["log"] if name in line]
        kept = "-"
        if counts:
            kept = f"{sum(c['kept'] for c in counts):,} of {sum(c['tried'] for c in counts):,}"
        lines.append(f"| {RUNS[name][2]} | {RUNS[other][2]} | {' | '.join(cells)} | {kept} |")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------------------
# Plots

def draw(path, xlabel, curves):
    """Two panels, accuracy and steps. curves: [(label, x, {"accuracy": (seeds, points), "steps": ...})]"""
    pyplot = pyplot_without_screen("svg", "blotching")
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axis, key, ylabel in zip(axes, ("accuracy", "steps"), ("share of right answers", "steps of the answer")):
        for label, x, values in curves:
            table = np.array(values[key])  # (seeds, points)
            axis.plot(x, table.mean(0), marker="o", markersize=3, label=label)
            axis.fill_between(x, table.min(0), table.max(0), alpha=0.2)
        axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(0, 1.02)
    axes[1].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def plot_levels(reports):
    curves = []
    for name, (_, _, what) in RUNS.items():
        levels = [line["level"] for line in reports[name][0]["by_level"]]
        if len(levels) > 1:
            values = {key: [[line[key] for line in report["by_level"]] for report in reports[name]]
                      for key in ("accuracy", "steps")}
            curves.append((what, levels, values))
    draw(HERE / "levels.svg", "level of blotching", curves)


def plot_sizes(reports):
    curves = []
    for level in sorted({line["level"] for line in reports[0]["by_size"]}):
        here = [[line for line in report["by_size"] if line["level"] == level] for report in reports]
        values = {key: [[line[key] for line in lines] for lines in here] for key in ("accuracy", "steps")}
        curves.append((f"level {level}", [line["size"] for line in here[0]], values))
    draw(HERE / "sizes.svg", f"entities of the problem (training: at most {reports[0]['max_ents']})", curves)


if __name__ == "__main__":
    main_guard(main)
