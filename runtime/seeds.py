"""
Runs that have the same settings but for the seed are one group: means of their figures with intervals over seeds.

Such an interval says whether another seed would have told the same. One run cannot say that, however many rows it has.
"""
import re
import statistics

from runtime.intervals import student, welch

ACCURACIES = {"sequence_accuracy": "exact", "right_physics": "physics"}
# figures of a group, and where a report has them
COSTS = [("source_tokens", "tokens_per_row", "source"), ("target_tokens", "tokens_per_row", "target"),
         ("steps", "training", "steps"), ("minutes", "training", "minutes"),
         ("tokens_per_second", "training", "tokens_per_second")]
# settings that say nothing of a model and its answers
OWN = {"seed", "out_dir", "run_id", "config_name", "workers", "device", "resume", "resume_best", "new_data",
       "save_every", "save_limit", "log_every", "list", "plot", "output", "wandb_mode", "wandb_project", "scst_dir",
       "batch_rows"}
FILES = "ckpt", "init_from", "input", "indices"  # paths: "out/run-1/best.pt" of seed 1 is "out/run-SEED/best.pt"


def groups_of(runs, reports):
    """
    Of the runs with the same settings and search but for OWN: what their settings are where groups differ, the seeds,
    and the mean over seeds of all figures. [] if a report has no settings, if no two runs are of one group, or if two
    of a group have one seed, as answers of one model have.

    runs: with the shares of `compare`, reports: what evaluate.py has written of each.
    """
    if not all(report.get("settings") for report in reports):
        return []
    every = [report["settings"] | report.get("search", {}) for report in reports]
    seeds = [report["settings"].get("seed") for report in reports]
    own_files = [key for key in FILES if len({settings.get(key) for settings in every}) > 1]
    every = [{key: without_seed(value, seed) if key in own_files else value
              for key, value in settings.items() if key not in OWN} for settings, seed in zip(every, seeds)]
    keys = dict.fromkeys(key for settings in every for key in settings)
    keys = [key for key in keys if any(settings.get(key) != every[0].get(key) for settings in every)]
    members = {}
    for k, settings in enumerate(every):
        members.setdefault(tuple(str(settings.get(key)) for key in keys), []).append(k)
    if len(members) == len(runs) or any(len({seeds[k] for k in chosen}) < len(chosen) for chosen in members.values()):
        return []
    groups = []
    for chosen in members.values():
        settings = {key: every[chosen[0]].get(key) for key in keys}
        coverage = [reports[k].get("coverage") for k in chosen]
        groups.append({
            "name": " ".join(f"{key}={value}" for key, value in settings.items()) or "the same settings",
            "settings": settings,
            "runs": [runs[k]["run"] for k in chosen],
            "seeds": [seeds[k] for k in chosen],
            **{key: over_seeds([runs[k][key]["share"] for k in chosen]) for key in ACCURACIES},
            "coverage": over_seeds(coverage) if None not in coverage else None,
            **{key: mean_of([reports[k].get(part, {}).get(name) for k in chosen]) for key, part, name in COSTS},
            "certainty": mean_certainty([reports[k]["certainty"] for k in chosen if "certainty" in reports[k]]),
        })
    return groups


def without_seed(path, seed):
    """The path with SEED in place of the seed's number, so that runs from checkpoints of their own are one group."""
    return re.sub(rf"(?<!\d){seed}(?!\d)", "SEED", path)


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
              "interval": welch(first[key]["each"], this[key]["each"])} for key in ACCURACIES}


def group_lines(comparison):
    """Means over seeds, their differences and the table of certainty, as lines of text; [] without groups."""
    groups = comparison["groups"]
    if not groups:
        return []
    width = max(len(group["name"]) for group in groups)
    lines = ["", f"{'means over seeds':{width}}"]
    for key, title in ACCURACIES.items():
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
        if group["coverage"] and group["coverage"]["mean"]:
            found = group["coverage"]
            lines.append(f"verification: {found['mean']:.1%} ({interval_text(found['interval'], 1)}) of the rows have "
                         "an answer that is proven right")
    return lines


def interval_text(interval, digits=2):
    return " to ".join(f"{end:.{digits}%}" for end in interval) if interval else "one seed"
