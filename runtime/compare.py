"""
Runs that have answered the same rows: do they differ? From the reports that evaluate.py wrote.

Two runs are compared row by row; runs that differ in nothing but their seed also as a group, see runtime/seeds.py.
"""
import hashlib
import json
from pathlib import Path

import numpy as np

from dataset.baseline import canonical_key
from runtime.files import InputError
from runtime.intervals import bootstrap, mcnemar, wilson
from runtime.scores import EQUAL, EXACT, NONE
from runtime.seeds import ACCURACIES, group_difference, group_lines, groups_of


def compare(names):
    """
    Runs against the first of them, on the rows that all have answered: the content of compare.json.

    names: run folders, or reports. InputError unless they are reports of the same rows.
    """
    if len(names) < 2:
        raise InputError(f"compare: got {' '.join(names)}, wanted two runs or more, separated by spaces")
    reports = [read_report(name) for name in names]
    for name, report in zip(names, reports):
        if report["rows_sha256"] != reports[0]["rows_sha256"]:
            raise InputError(f"compare: {name} has answered rows of {report['input']}, {names[0]} other rows, of "
                             f"{reports[0]['input']}; wanted the same rows")
    if len({len(report["outcomes"]) for report in reports}) > 1:
        raise InputError("compare: the reports tell of different numbers of rows; evaluate again")
    letters = np.array(list(zip(*(report["outcomes"] for report in reports))))  # (rows, runs)
    letters = letters[(letters != NONE).all(axis=1)]
    if not len(letters):
        raise InputError("compare: no row that all runs have answered")
    right = {"sequence_accuracy": letters == EXACT,
             "right_physics": np.isin(letters, [EXACT, EQUAL])}
    runs, differences = [], []
    for k, name in enumerate(names):
        runs.append({"run": name} | {key: {"share": float(found[:, k].mean()),
                                           "interval": wilson(int(found[:, k].sum()), len(found))}
                                     for key, found in right.items()})
    for k, name in enumerate(names[1:], 1):
        differences.append({"run": name} | {key: difference(found[:, k], found[:, 0]) for key, found in right.items()})
    groups = groups_of(runs, reports)
    return {"compared": list(names), "rows": len(letters), "input": reports[0]["input"], "runs": runs,
            "differences": differences, "groups": groups,
            "group_differences": [group_difference(group, groups[0]) for group in groups[1:]]}


def difference(this, first):
    """What two models' right rows, boolean arrays, say of the difference of their accuracies."""
    only_this, only_first = int((this & ~first).sum()), int((first & ~this).sum())
    return {"difference": float(this.mean() - first.mean()),
            "interval": bootstrap(this.astype(float) - first.astype(float), seed=0),
            "only_this": only_this, "only_first": only_first, "p": mcnemar(only_this, only_first)}


def rows_digest(rows):
    """What tells whether two reports are of the same rows: SHA-256 of their numbers, amplitudes and squares."""
    known = [[row["number"], canonical_key(row["amp"]), row["sqamp"]] for row in rows]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def read_report(name):
    path = Path(name) / "report.json" if Path(name).is_dir() else Path(name)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        missing = {"input", "rows_sha256", "outcomes"} - report.keys()
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror}); python evaluate.py writes it") from None
    except (ValueError, AttributeError):
        raise InputError(f"{path}: no report of evaluate.py") from None
    if missing:
        raise InputError(f"{path}: has no {' and no '.join(sorted(missing))}; evaluate again")
    return report


def comparison_table(comparison):
    width = max(len(run["run"]) for run in comparison["runs"])
    lines = [f"{comparison['rows']} rows of {comparison['input']}",
             f"{'run':{width}}  {'exact':>8}  {'95% interval':>16}  {'physics':>8}  {'95% interval':>16}"]
    for run in comparison["runs"]:
        line = f"{run['run']:{width}}"
        for key in ACCURACIES:
            low, high = run[key]["interval"]
            line += f"  {run[key]['share']:8.2%}  {f'{low:.2%} to {high:.2%}':>16}"
        lines.append(line)
    for key, title in ACCURACIES.items():
        lines += ["", f"{title}: points more than {comparison['runs'][0]['run']}, 95% interval (bootstrap), rows that "
                      "only this run and only that one has right, p (McNemar)"]
        for pair in comparison["differences"]:
            found = pair[key]
            low, high = (100 * end for end in found["interval"])
            interval = f"{low:+.2f} to {high:+.2f}"
            lines.append(f"{pair['run']:{width}}  {100 * found['difference']:+8.2f}  {interval:>16}  "
                         f"{found['only_this']:6} {found['only_first']:6}  {found['p']:.3g}")
    return "\n".join(lines + group_lines(comparison))
