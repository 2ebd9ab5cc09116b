"""
What is a lever worth? Right physics of runs that differ in one thing, and how much more that is than without it.

    python docs/levers.py out/levers base

Reads the reports out/levers/NAME-SEED/greedy.json and beam20.json of evaluate.py. Each run is compared with the run
`base` of the same seed, row by row; the interval of the mean difference is over rows.
"""
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime.compare import read_report
from runtime.files import InputError, main_guard
from runtime.intervals import bootstrap
from runtime.scores import EQUAL, EXACT

SEARCHES = {"greedy": "greedy", "beam20": "beam 20, verified"}


def main():
    if len(sys.argv) != 3:
        raise InputError("expected the folder of the runs and the name of those to compare with: "
                         "python docs/levers.py out/levers base")
    folder, base = Path(sys.argv[1]), sys.argv[2]
    runs = {}  # {NAME: {SEED: {SEARCH: report}}}
    for path in sorted(folder.glob("*-*/*.json")):
        name, _, seed = path.parent.name.rpartition("-")
        if path.stem in SEARCHES:
            runs.setdefault(name, {}).setdefault(seed, {})[path.stem] = read_report(path)
    if base not in runs:
        raise InputError(f"{folder}: no report {base}-SEED/SEARCH.json there, SEARCH {', '.join(SEARCHES)}")
    print("| run | steps |", " | ".join(f"{what} | points more" for what in SEARCHES.values()), "|")
    print("| --- " * (2 + 2 * len(SEARCHES)) + "|")
    for name, seeds in sorted(runs.items(), key=lambda item: item[0] != base):
        steps = [next(iter(reports.values())).get("training", {}).get("steps", 0) for reports in seeds.values()]
        cells = [name, " / ".join(f"{number:,}" for number in steps)]
        for search in SEARCHES:
            reports = {seed: reports[search] for seed, reports in seeds.items() if search in reports}
            cells += [shares(reports), gain(reports, {seed: reports[search] for seed, reports in runs[base].items()
                                                      if search in reports}) if name != base else ""]
        print("|", " | ".join(cells), "|")


def right(report):
    """Which rows are right, a boolean array."""
    return np.isin(list(report["outcomes"]), [EXACT, EQUAL])


def shares(reports):
    """Mean over the seeds, and each seed."""
    values = [100 * right(report).mean() for report in reports.values()]
    return f"{statistics.fmean(values):.1f}% ({' / '.join(f'{value:.1f}' for value in values)})" if values else "-"


def gain(reports, others):
    """Points more than the other runs of the same seeds, and its 95% interval over rows."""
    both = reports.keys() & others.keys()
    for seed in both:
        if reports[seed]["rows_sha256"] != others[seed]["rows_sha256"]:
            raise InputError(f"runs of seed {seed} answered other rows; evaluate them on the same file")
    if not both:
        return "-"
    points = 100 * np.mean([right(reports[seed]) * 1.0 - right(others[seed]) for seed in both], axis=0)
    low, high = bootstrap(points, seed=0)
    return f"{points.mean():+.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main_guard(main)
