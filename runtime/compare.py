"""
Runs that have answered the same rows: do they differ? From the reports that evaluate.py wrote.

Two runs are compared row by row. Runs that have the same settings but for the seed are one group; the mean of a group
has an interval over seeds, which says whether another seed would have told the same.
"""
import json
import statistics
from pathlib import Path

import numpy as np

from runtime.files import InputError
from runtime.intervals import bootstrap, mcnemar, student, welch, wilson
from runtime.scores import EQUAL, EXACT, NONE

SHARES = {"sequence_accuracy": "exact", "right_physics": "physics"}
# figures of a group, and where a report has them
COSTS = [("source_tokens", "tokens_per_row", "source"), ("target_tokens", "tokens_per_row", "target"),
         ("steps", "training", "steps"), ("minutes", "training", "minutes"),
         ("tokens_per_second", "training", "tokens_per_second")]
# settings that say nothing of a trained model
OWN = {"seed", "out_dir", "run_id", "config_name", "workers", "resume", "resume_best", "new_data", "save_every",
       "save_limit", "log_every", "list", "plot", "output", "wandb_mode", "wandb_project", "scst_dir"}


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
    letters = np.array(list(zip(*(report["outcomes"] for report in reports))))  # (rows, runs)
    letters = letters[(letters != NONE).all(axis=1)]
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
    return {"rows": len(letters), "input": reports[0]["input"], "runs": runs, "differences": differences,
            "groups": groups, "group_differences": [group_difference(group, groups[0]) for group in groups[1:]]}


def difference(this, first):
    """What two models' right rows, boolean arrays, say of the difference of their accuracies."""
    only_this, only_first = int((this & ~first).sum()), int((first & ~this).sum())
    return {"difference": float(this.mean() - first.mean()),
            "interval": bootstrap(this.astype(float) - first.astype(float), seed=0),
            "only_this": only_this, "only_first": only_first, "p": mcnemar(only_this, only_first)}


def groups_of(runs, reports):
    """
    Of the runs with the same settings but for those in OWN: what their settings are where groups differ, the seeds, and
    the mean over seeds of all figures. [] if no two runs are of one group, or a report has no settings.
    """
    if not all(report.get("settings") for report in reports):
        return []
    every = [{key: value for key, value in report["settings"].items() if key not in OWN} for report in reports]
    keys = dict.fromkeys(key for settings in every for key in settings)
    keys = [key for key in keys if any(settings.get(key) != every[0].get(key) for settings in every)]
    members = {}
    for k, settings in enumerate(every):
        members.setdefault(tuple(str(settings.get(key)) for key in keys), []).append(k)
    if len(members) == len(runs):
        return []
    groups = []
    for chosen in members.values():
        settings = {key: every[chosen[0]].get(key) for key in keys}
        groups.append({
            "name": " ".join(f"{key}={value}" for key, value in settings.items()) or "the same settings",
            "settings": settings,
            "runs": [runs[k]["run"] for k in chosen],
            "seeds": [reports[k]["settings"].get("seed") for k in chosen],
            **{key: over_seeds([runs[k][key]["share"] for k in chosen]) for key in SHARES},
            **{key: mean_of([reports[k].get(part, {}).get(name) for k in chosen]) for key, part, name in COSTS},
            "certainty": mean_certainty([reports[k]["certainty"] for k in chosen if "certainty" in reports[k]]),
        })
    return groups


def over_seeds(values):
    """Mean of the shares of some seeds, its interval, each of them."""
    interval = student(values)
    if interval:
        interval = [max(0.0, interval[0]), min(1.0, interval[1])]
    return {"mean": statistics.fmean(values), "interval": interval, "each": values}


def mean_of(values):
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def mean_certainty(tables):
    """{figure: {share: over_seeds}} of the tables of certainty of some reports; of figures that all of them have."""
    figures = [figure for figure in tables[0] if all(figure in table for table in tables)] if tables else []
    return {figure: {share: over_seeds([table[figure][share] for table in tables]) for share in tables[0][figure]}
            for figure in figures}


def group_difference(this, first):
    """How much more the seeds of one group have right than those of the first, with Welch's interval."""
    return {"name": this["name"]} | {
        key: {"difference": this[key]["mean"] - first[key]["mean"],
              "interval": welch(first[key]["each"], this[key]["each"])} for key in SHARES}


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
        for key in SHARES:
            low, high = run[key]["interval"]
            line += f"  {run[key]['share']:8.2%}  {f'{low:.2%} to {high:.2%}':>16}"
        lines.append(line)
    for key, title in SHARES.items():
        lines += ["", f"{title}: points more than {comparison['runs'][0]['run']}, 95% interval (bootstrap), rows that "
                      "only this run and only that one has right, p (McNemar)"]
        for pair in comparison["differences"]:
            found = pair[key]
            low, high = (100 * end for end in found["interval"])
            interval = f"{low:+.2f} to {high:+.2f}"
            lines.append(f"{pair['run']:{width}}  {100 * found['difference']:+8.2f}  {interval:>16}  "
                         f"{found['only_this']:6} {found['only_first']:6}  {found['p']:.3g}")
    return "\n".join(lines + group_lines(comparison))


def group_lines(comparison):
    """Means over seeds, their differences and the table of certainty, as lines of text; [] without groups."""
    groups = comparison["groups"]
    if not groups:
        return []
    width = max(len(group["name"]) for group in groups)
    lines = ["", f"{'means over seeds':{width}}"]
    for key, title in SHARES.items():
        lines.append(f"{title}: mean, 95% interval over seeds (Student's t), each seed")
        for group in groups:
            found = group[key]
            interval, each = interval_text(found["interval"]), " ".join(f"{share:.2%}" for share in found["each"])
            lines.append(f"{group['name']:{width}}  {found['mean']:8.2%}  {interval:>18}  {each}")
        for pair in comparison["group_differences"]:
            found = pair[key]
            interval = "one seed"
            if found["interval"]:
                interval = "{:+.2f} to {:+.2f}".format(*(100 * end for end in found["interval"]))
            lines.append(f"{pair['name']:{width}}  {100 * found['difference']:+8.2f}  {interval:>18}  points more than "
                         f"{groups[0]['name']} (Welch)")
    for group in groups:
        if not group["certainty"]:
            continue
        shares = next(iter(group["certainty"].values()))
        lines += ["", f"right physics of the most certain, {group['name']}, mean of {len(group['seeds'])}:"]
        lines.append(" " * 12 + "".join(f"{share:>25}" for share in shares))
        for figure, found in group["certainty"].items():
            cells = (f"{value['mean']:.1%} ({interval_text(value['interval'], 1)})" for value in found.values())
            lines.append(f"{figure:12}" + "".join(f"{cell:>25}" for cell in cells))
    return lines


def interval_text(interval, digits=2):
    return " to ".join(f"{end:.{digits}%}" for end in interval) if interval else "one seed"
