"""
Right physics on orbits that training never had, against the number of orbits that it had: a table and a figure.

    python docs/emergence.py out/variety docs/emergence.svg

Reads the reports out/variety/N-SEED/NAME.json of evaluate.py, N the number of training orbits, and prints the table.
Every row of these reports is of another orbit, so the intervals are over orbits. For N = 1000, seed 1 (docs/variety.py
makes the data):

    m="config/quickstart.py --data_dir=data/variety/1000 --out_dir=out/variety/1000-1 --seed=1"
    python train.py $m --src_max_len=512 --tgt_max_len=512 --closed_vocabulary --draw_indices --batch_tokens=4096 \\
        --dtype=bf16 --max_minutes=40 --max_steps=1000000
    e="python evaluate.py $m --max_rows=300 --train_rows=0 --output=out/variety/1000-1"
    $e/greedy.json; $e/beam5.json --beam --verify; $e/beam20.json --beam --beam_size=20 --verify
    $e/samples64.json --samples=64 --verify
"""
import json
import re
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime.files import InputError, atomic_open, main_guard
from runtime.intervals import wilson
from runtime.pictures import pyplot_without_screen

SEARCHES = {"greedy": "greedy", "beam5": "beam 5, verified", "beam20": "beam 20, verified",
            "samples64": "64 samples, verified"}  # NAME of the report: what it is


def main():
    if len(sys.argv) != 3:
        raise InputError("expected the folder of the runs and the figure to write: "
                         "python docs/emergence.py out/variety docs/emergence.svg")
    runs = {}  # {training orbits: {NAME: reports of all seeds}}
    for path in sorted(Path(sys.argv[1]).glob("*/*.json")):
        match = re.fullmatch(r"(\d+)-(\d+)", path.parent.name)
        if match and path.stem in SEARCHES:
            report = json.loads(path.read_text(encoding="utf-8"))
            runs.setdefault(int(match[1]), {}).setdefault(path.stem, []).append(report)
    if not runs:
        raise InputError(f"{sys.argv[1]}: no report N-SEED/NAME.json there, NAME {', '.join(SEARCHES)}")
    print(f"| training orbits | decoding | orbits asked | exact | right physics | each seed |\n{'| --- ' * 6}|")
    for number, searches in sorted(runs.items()):
        for name in filter(searches.get, SEARCHES):
            mean, low, high, seeds = right_physics(searches[name])
            exact = statistics.fmean(report["sequence_accuracy"] for report in searches[name])
            print(f"| {number:,} | {SEARCHES[name]} | {searches[name][0]['rows']:,} | {exact:.1%} "
                  f"| {mean:.1%} ({low:.1%} to {high:.1%}) | {' / '.join(f'{100 * seed:.1f}' for seed in seeds)} |")
    draw(runs, sys.argv[2])
    print(sys.argv[2])


def right_physics(reports):
    """Mean share of right answers, its 95% interval over the orbits (Wilson), and the share of each seed."""
    seeds = [report["right_physics"] for report in reports]
    mean, rows = statistics.fmean(seeds), reports[0]["rows"]  # the same orbits for each seed
    return mean, *wilson(round(mean * rows), rows), seeds


def draw(runs, path):
    pyplot = pyplot_without_screen("svg", "emergence")
    figure, axis = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for name, what in SEARCHES.items():
        known = [(number, *right_physics(searches[name])) for number, searches in sorted(runs.items())
                 if name in searches]
        if known:
            numbers, means, lows, highs, _ = zip(*known)
            errors = [[max(0, mean - low) for mean, low in zip(means, lows)],
                      [max(0, high - mean) for mean, high in zip(means, highs)]]  # 1 - 1e-16 is below 1
            axis.errorbar(numbers, means, errors, marker="o", capsize=3, label=what)
    axis.set(xscale="log", xlabel="orbits in training", ylabel="right physics, orbits never seen", ylim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8)
    with atomic_open(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main_guard(main)
