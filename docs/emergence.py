"""
Right physics on orbits that training never had, against the number of orbits that it had: a table and a figure.

    python docs/emergence.py out/variety docs/emergence.svg

Reads the reports out/variety/NAME-SEED/SEARCH.json of evaluate.py. NAME is a number of training orbits, "1000", or with
the number of forms in which each training row stands there, "1000x8". Every row that is asked about is of another
orbit, so the intervals are over orbits. docs/results.md, "What is learned", has all commands.
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
            "samples64": "64 samples, verified"}  # name of the report: what it is


def main():
    if len(sys.argv) != 3:
        raise InputError("expected the folder of the runs and the figure to write: "
                         "python docs/emergence.py out/variety docs/emergence.svg")
    runs = {}  # {(training orbits, forms of a row): {SEARCH: reports of all seeds}}
    for path in sorted(Path(sys.argv[1]).glob("*/*.json")):
        match = re.fullmatch(r"(\d+)(?:x(\d+))?-\d+", path.parent.name)
        if match and path.stem in SEARCHES:
            report = json.loads(path.read_text(encoding="utf-8"))
            name = int(match[1]), int(match[2] or 1)
            runs.setdefault(name, {}).setdefault(path.stem, []).append(report)
    if not runs:
        raise InputError(f"{sys.argv[1]}: no report NAME-SEED/SEARCH.json there, SEARCH {', '.join(SEARCHES)}")
    print("| training orbits | forms of a row | training rows, greedy", *SEARCHES.values(), sep=" | ", end=" |\n")
    print("| --- " * (3 + len(SEARCHES)) + "|")
    for (orbits, forms), searches in sorted(runs.items()):
        train = [report["train"] for report in searches.get("greedy", []) if "train" in report]
        cells = [f"{orbits:,}", forms, shown(train), *(shown(searches.get(name, [])) for name in SEARCHES)]
        print("|", " | ".join(map(str, cells)), "|")
    draw(runs, sys.argv[2])
    print(sys.argv[2])


def right_physics(reports):
    """Mean share of right answers over the seeds, and its 95% interval over the orbits (Wilson)."""
    mean, rows = statistics.fmean(report["right_physics"] for report in reports), reports[0]["rows"]
    return mean, *wilson(round(mean * rows), rows)  # the same orbits for each seed


def shown(reports):
    """Cell of the table: mean, its interval over orbits, and each seed where there are several; "-" for no report."""
    if not reports:
        return "-"
    mean, low, high = right_physics(reports)
    seeds = " / ".join(f"{100 * report['right_physics']:.1f}" for report in reports) if len(reports) > 1 else ""
    return f"{mean:.1%} ({100 * low:.1f} to {100 * high:.1f}{'; ' if seeds else ''}{seeds})"


def draw(runs, path):
    pyplot = pyplot_without_screen("svg", "emergence")
    figure, axis = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
    for forms in sorted({forms for _, forms in runs}):
        for number, (name, what) in enumerate(SEARCHES.items()):
            known = [(orbits, *right_physics(searches[name])) for (orbits, of), searches in sorted(runs.items())
                     if of == forms and name in searches]
            if known:
                numbers, means, lows, highs = zip(*known)
                errors = [[max(0, mean - low) for mean, low in zip(means, lows)],
                          [max(0, high - mean) for mean, high in zip(means, highs)]]  # 1 - 1e-16 is below 1
                axis.errorbar(numbers, means, errors, capsize=3, color=f"C{number}",
                              fmt="o-" if forms == 1 else "D:", markerfacecolor=None if forms == 1 else "white",
                              label=what if forms == 1 else f"{what}, {forms} forms of a row")
    axis.set(xscale="log", xlabel="orbits in training", ylabel="right physics, orbits never seen", ylim=(0, None))
    ticks = sorted({orbits for orbits, _ in runs})
    axis.set_xticks(ticks, [f"{orbits:,}" for orbits in ticks])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=7, loc="outside right upper")
    with atomic_open(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main_guard(main)
