"""
Make every table and plot of README.md: train all models, evaluate them, fill in the tables.

    python ablations/latent/measure.py [--workers=2] [--data_dir=data/offshell]

First each model is trained with several regularisations, and takes the one with the lowest validation loss. Then
come all other runs, the most important ones first. Runs that are finished are skipped, and one that was interrupted
goes on, so that this command can be killed and typed again. Each worker is a process of one thread. The tables are
filled in after each run: what is missing says "not measured yet". data_dir: a data set of amplitudes that prepare.py
made, for the table of amplitudes (README.md has the command); without it that table and its plot stay as they are.
"""
import contextlib
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[0] = str(HERE.parents[1])

import numpy as np
import torch

import train as amplitudes
from ablations.latent import train as products
from ablations.latent.data import TOKENS
from ablations.latent.evaluate import per_flop, per_parameter, score, verdicts
from batches import lengths, load_split, pad
from configurator import DEFAULT, load_settings, read_config
from generate import for_decoding, greedy
from model import ARCHITECTURE, ModelConfig, load_model
from runtime.files import InputError, atomic_open, main_guard, write_json
from runtime.hardware import device_name, training_flops
from runtime.intervals import student
from runtime.pictures import pyplot_without_screen
from runtime.runs import read_log
from runtime.workers import parallel_map

SEEDS = (1, 2, 3)
LONG, SHORT = 4000, 500  # steps of the main runs, and of the others
MINUTES = 0.8  # of the runs with equal time: CPU time on a CPU
LATENTS = (1, 2, 4, 8, 16, 32)
TRY_SEED, TRY_STEPS = 0, 1000  # of the runs that choose the regularisation: a split of their own
DIGITS3_SEEDS, DIGITS3_STEPS = (1,), 1500
AMPLITUDE_SEEDS, AMPLITUDE_STEPS, AMPLITUDE_LATENTS = (1, 2), 1000, (2, 8, 32)
SIMPLE = {"n_latent": 0, "encoder_layers": 3}  # the latent tokens have the weights of an encoder layer
LATENT = {"n_latent": 8, "encoder_layers": 2}
MODELS = {"simple": SIMPLE, "latent": LATENT}
CANDIDATES = {
    "AdamW, weight decay 0.1": {"optimizer": "adamw", "weight_decay": 0.1},
    "AdamW, weight decay 1": {"optimizer": "adamw", "weight_decay": 1.0},
    "AdamW, weight decay 1, dropout 0.1": {"optimizer": "adamw", "weight_decay": 1.0, "dropout": 0.1},
    "Muon, weight decay 1": {"optimizer": "muon", "weight_decay": 1.0},
}
GOALS = {"simple": (0.97, 0.60), "latent": (0.70, 0.35)}  # training rows, test rows
MISSING = "not measured yet"


class Run(NamedTuple):
    name: str  # of the model and its settings, the same for all seeds
    seed: int
    flags: dict  # settings
    of_amplitudes: bool = False

    @property
    def id(self):
        return f"{self.name}-seed{self.seed}"


def tries():
    """The runs that choose a regularisation for each model."""
    return [Run(f"{model}-try{number}", TRY_SEED, flags | candidate | {"max_steps": TRY_STEPS})
            for number, candidate in enumerate(CANDIDATES.values()) for model, flags in MODELS.items()]


def choose(found):
    """{model: the candidate with the lowest validation loss}, of the models whose tries are all finished."""
    chosen = {}
    for model in MODELS:
        scores = [found.get(f"{model}-try{number}") for number in range(len(CANDIDATES))]
        if all(scores):
            losses = [runs[0]["valid_loss"] for runs in scores]
            chosen[model] = list(CANDIDATES)[losses.index(min(losses))]
    return chosen


def all_runs(chosen):
    """The other runs, the most important ones first. chosen: see `choose`."""
    first = next(iter(CANDIDATES))
    models = {model: flags | CANDIDATES[chosen.get(model, first)] for model, flags in MODELS.items()}
    latent = models["latent"]
    defaults = read_config(DEFAULT) | read_config(HERE / "config.py")
    flops = {}
    for model, flags in models.items():
        sizes = {name: (defaults | flags)[name] for name in [*ARCHITECTURE, "dropout", "src_max_len", "tgt_max_len"]}
        row = np.array([6]), np.array([5])  # tokens of "12*34" and "8040", with EOS
        flops[model] = training_flops(ModelConfig(len(TOKENS), len(TOKENS), **sizes), *row)
    equal_flops = round(SHORT * flops["simple"] / flops["latent"])

    variants = [(f"{model}-long", flags | {"max_steps": LONG}) for model, flags in models.items()]
    variants += [(model, flags) for model, flags in models.items()]
    variants += [(f"latent{n}", latent | {"n_latent": n}) for n in LATENTS if n != LATENT["n_latent"]]
    variants += [("latent-flops", latent | {"max_steps": equal_flops})]
    variants += [(f"{model}-wall", flags | {"max_steps": 10**6, "max_minutes": MINUTES})
                 for model, flags in models.items()]
    variants += [(f"{model}-{order}", flags | {"units_first": order})
                 for order in ("none", "all") for model, flags in models.items()]
    variants += [(f"{model}-{positions}", flags | {"positions": positions})
                 for positions in ("learned", "sinusoidal") for model, flags in models.items()]
    listed = [Run(name, seed, {"max_steps": SHORT} | flags) for name, flags in variants for seed in SEEDS]
    listed += [Run(f"amplitude{n}", seed, LATENT | {"n_latent": n} if n else SIMPLE, True)
               for n in (0, *AMPLITUDE_LATENTS) for seed in AMPLITUDE_SEEDS]
    digits3 = {"min_digits": 3, "max_digits": 3, "max_pairs": 50000, "max_steps": DIGITS3_STEPS}
    listed += [Run(f"{model}-digits3", seed, flags | digits3)
               for model, flags in models.items() for seed in DIGITS3_SEEDS]
    return listed


def do(task):
    """Train and evaluate one run, unless it is finished. task: (run, folder of the runs, data set of amplitudes)."""
    run, out_dir, data_dir = task
    torch.set_num_threads(1)
    folder = Path(out_dir) / run.id
    if (folder / "scores.json").exists():
        return run.id
    flags = [f"--{name}={value}" for name, value in (run.flags | {"seed": run.seed}).items()]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "output.txt", "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        if run.of_amplitudes:
            code = amplitudes.main(["config/quickstart.py", f"--data_dir={data_dir}", f"--out_dir={folder}", "--resume",
                                    "--max_minutes=0", f"--max_steps={AMPLITUDE_STEPS}", "--eval_every=400", *flags])
        else:
            code = products.main([str(HERE / "config.py"), f"--out_dir={out_dir}", f"--run_id={run.id}", "--resume",
                                  *flags])
        if code:
            raise InputError(f"{run.id}: stopped; the same command goes on")
        if run.of_amplitudes:
            score_amplitudes(folder, data_dir)
        else:
            score(folder)
    return run.id


def score_amplitudes(folder, data_dir):
    """Exact match on the test split and the speed of greedy decoding; written into the folder as scores.json."""
    model, tokenizer, state = load_model(folder / "best.pt", "cpu")
    settings = state["settings"]
    packed = load_split(data_dir, "test", tokenizer, settings["src_max_len"], settings["tgt_max_len"])
    fast, longest = for_decoding(model, "fp32"), int(np.diff(packed.tgt_start).max())
    order = np.argsort(lengths(packed, np.arange(len(packed.row)))[0], kind="stable")
    right, tokens, seconds = 0, 0, 0.0
    for samples in np.array_split(order, max(1, len(order) // 64)):
        rows = packed.row[samples]
        src = pad([packed.src[packed.src_start[row]:packed.src_start[row + 1]].astype(np.int64) for row in rows])
        before = time.process_time()
        answers = greedy(fast, src, longest)
        seconds += time.process_time() - before
        truths = [packed.tgt[packed.tgt_start[sample]:packed.tgt_start[sample + 1]].tolist() for sample in samples]
        right += sum(answer.ids == truth for answer, truth in zip(answers, truths))
        tokens += sum(len(answer.ids) for answer in answers)
    write_json(folder / "scores.json", {
        "run": folder.name, "n_latent": settings["n_latent"], "step": state["step"], "seconds": state["seconds"],
        "parameters": sum(weight.numel() for weight in model.parameters()), "test_rows": len(order),
        "test_exact": right / len(order), "valid_exact": state["best"]["valid_exact"],
        "tokens_per_second": tokens / seconds, "source_tokens": float(np.diff(packed.src_start).mean())})


# ---------------------------------------------------------------------------------------------------------------------
# Tables

def mean_interval(values):
    """Mean and half the width of its 95% interval over the seeds, by Student's t; nan for fewer than three seeds."""
    interval = student(values) if len(values) > 2 else None
    return statistics.fmean(values), (interval[1] - interval[0]) / 2 if interval else math.nan


def shown(values):
    """Shares of three seeds as "61.0 ± 4.2% (60.0 / 63.0 / 60.0)", of two without ±, of one as "61.0%"."""
    mean, half = mean_interval(values)
    interval = "" if math.isnan(half) else f" ± {100 * half:.1f}"
    seeds = f" ({' / '.join(f'{100 * value:.1f}' for value in values)})" if len(values) > 1 else ""
    return f"{100 * mean:.1f}{interval}%{seeds}"


def figures_table(found, rows):
    """Markdown lines of the models in `rows`, {title: name of the runs}. found: {name: [scores of each seed]}."""
    lines = ["| model | parameters | steps | MFLOP a row | CPU s | training rows | validation | test | test loss "
             "| longer factors |", "| --- " * 10 + "|"]
    for title, name in rows.items():
        runs = found.get(name, [])
        if not runs:
            lines.append(f"| {title} | {MISSING} |" + " |" * 8)
            continue
        means = {key: statistics.fmean(run[key] for run in runs)
                 for key in ("flops_a_row", "last_seconds", "test_loss", "longer_exact", "last_step")}
        lines.append(
            f"| {title} | {runs[0]['parameters']:,} | {means['last_step']:,.0f} | {means['flops_a_row'] / 1e6:.2f} "
            f"| {means['last_seconds']:.0f} | {shown([run['train_exact'] for run in runs])} "
            f"| {shown([run['valid_exact'] for run in runs])} | {shown([run['test_exact'] for run in runs])} "
            f"| {means['test_loss']:.3f} | {means['longer_exact']:.1%} |")
    return lines


def goal_lines(found):
    lines = []
    for model, (train, test) in GOALS.items():
        runs = found.get(f"{model}-long", [])
        if runs:
            means = [statistics.fmean(run[key] for run in runs) for key in ("train_exact", "test_exact")]
            reached = "reached" if means[0] >= train and means[1] >= test else "missed"
            lines.append(f"The goal of the {model} model, {train:.0%} of the training rows and {test:.0%} of the test "
                         f"rows, is {reached} in the mean of the seeds: {means[0]:.1%} and {means[1]:.1%}.")
    return lines


def candidate_table(found):
    heads = [f"{model}, training rows | validation | its loss" for model in MODELS]
    lines = [f"| regularisation | {' | '.join(heads)} |", "| --- " * (1 + 3 * len(MODELS)) + "|"]
    chosen = choose(found)
    for number, candidate in enumerate(CANDIDATES):
        cells = []
        for model in MODELS:
            runs = found.get(f"{model}-try{number}")
            figures = [MISSING, "", ""]
            if runs:
                figures = [f"{runs[0]['train_exact']:.1%}", f"{runs[0]['valid_exact']:.1%}",
                           f"{runs[0]['valid_loss']:.3f}"]
            if chosen.get(model) == candidate:
                figures[2] = f"**{figures[2]}**"
            cells += figures
        lines.append(f"| {candidate} | {' | '.join(cells)} |")
    return lines


def comparison_table(found):
    pairs = {"parameters and steps": ("simple", "latent"), "FLOPs of training": ("simple", "latent-flops"),
             "CPU time": ("simple-wall", "latent-wall")}
    lines = ["| equal | simple, test | latent, test | latent - simple, points, 95% interval over seeds |",
             "| --- | --- | --- | --- |"]
    for what, names in pairs.items():
        simple, latent = ([run["test_exact"] for run in found.get(name, [])] for name in names)
        if not simple or len(simple) != len(latent):
            lines.append(f"| {what} | {MISSING} | | |")
            continue
        mean, half = mean_interval([b - a for a, b in zip(simple, latent)])
        lines.append(f"| {what} | {shown(simple)} | {shown(latent)} | {100 * mean:+.1f} ± {100 * half:.1f} |")
    return lines


def efficiency_lines(found):
    """The figures of evaluate.py as means over the seeds of the main runs, and its verdicts."""
    lines = ["| model | parameters | MFLOP a row | PFLOP of training | test | test per M parameters | test per PFLOP |",
             "| --- " * 7 + "|"]
    means = []
    for model in MODELS:
        runs = found.get(f"{model}-long", [])
        if not runs:
            return [MISSING]
        mean = {key: statistics.fmean(run[key] for run in runs) for key in runs[0] if key != "run"} | {"run": model}
        means.append(mean)
        lines.append(f"| {model} | {runs[0]['parameters']:,} | {mean['flops_a_row'] / 1e6:.2f} | "
                     f"{mean['flops'] / 1e15:.4f} | {shown([run['test_exact'] for run in runs])} | "
                     f"{per_parameter(mean):.2f} | {per_flop(mean):.0f} |")
    return [*lines, "", *verdicts(means)]


def amplitude_table(found):
    lines = ["| n_latent | parameters | validation | test | decoding, tokens for each second of CPU time |",
             "| --- | --- | --- | --- | --- |"]
    for n in (0, *AMPLITUDE_LATENTS):
        runs = found.get(f"amplitude{n}", [])
        if not runs:
            lines.append(f"| {n} | {MISSING} | | | |")
            continue
        name = n or f"0: {runs[0]['source_tokens']:.0f} source tokens on average"
        speed = " / ".join(f"{run['tokens_per_second']:,.0f}" for run in runs)
        lines.append(f"| {name} | {runs[0]['parameters']:,} | {shown([run['valid_exact'] for run in runs])} "
                     f"| {shown([run['test_exact'] for run in runs])} | {speed} |")
    return lines


def image(name, title):
    """Lines that show a plot, once there is one."""
    return ["", f"![{title}]({name})"] if (HERE / name).exists() else []


def all_tables(found, of_amplitudes):
    orders = {"none": "largest digit first everywhere", "product": "units first in the product (the default)",
              "all": "units first everywhere"}
    pairs = {f"{model}, {title}": model if order == "product" else f"{model}-{order}"
             for order, title in orders.items() for model in MODELS}
    positions = {f"{model}, {kind}": model if kind == "rotary" else f"{model}-{kind}"
                 for kind in ("rotary", "learned", "sinusoidal") for model in MODELS}
    sweep = {"simple": "simple"}
    for n in LATENTS:
        sweep[f"{n} latent token{'s' if n > 1 else ''}"] = "latent" if n == LATENT["n_latent"] else f"latent{n}"
    main = figures_table(found, {"simple": "simple-long", "8 latent tokens": "latent-long"})
    tables = {
        "candidates": candidate_table(found), "main": [*main, "", *goal_lines(found)],
        "latents": figures_table(found, sweep) + image("latents.svg", "exact products against the latent tokens"),
        "comparisons": comparison_table(found), "efficiency": efficiency_lines(found),
        "order": figures_table(found, pairs) + image("order.svg", "exact test products against the order of digits"),
        "positions": figures_table(found, positions) + image("positions.svg", "exact test products against positions"),
        "digits3": figures_table(found, {f"{model}, 100-999": f"{model}-digits3" for model in MODELS}),
    }
    if of_amplitudes:
        tables["amplitudes"] = amplitude_table(found) + image("amplitudes.svg",
                                                              "exact match and speed against latent tokens")
    return tables


def fill_in(path, tables):
    """Replace the lines between <!-- NAME --> and <!-- /NAME --> in a Markdown file by the table of this name."""
    text = path.read_text(encoding="utf-8")
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if begin not in text or end not in text:
            raise InputError(f"{path}: no lines {begin.strip()} and {end} to put the table between")
        before, rest = text.split(begin, 1)
        text = before + begin + "\n".join(lines).strip() + "\n" + end + rest.split(end, 1)[1]
    with atomic_open(path) as file:
        file.write(text)


# ---------------------------------------------------------------------------------------------------------------------
# Plots

def plot(found, folder, of_amplitudes):
    """
    latents.svg: exact products against n_latent. order.svg, positions.svg: against the order of the digits and the
    positions. amplitudes.svg, if of_amplitudes: exact match and decoding speed against n_latent.
    """
    plt = pyplot_without_screen("svg", "latent")

    def points(axis, xs, names, key, label, color):
        """Mean and interval over the seeds, and each seed as a small dot."""
        known = [(x, [run[key] for run in found[name]]) for x, name in zip(xs, names) if found.get(name)]
        if not known:
            return
        middles = [mean_interval(values) for _, values in known]
        halves = [0 if math.isnan(half) else half for _, half in middles]
        axis.errorbar([x for x, _ in known], [mean for mean, _ in middles], halves, marker="o", capsize=3, label=label,
                      color=color)
        for x, values in known:
            axis.plot([x] * len(values), values, ".", color=color, alpha=0.5)

    figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    names = ["latent" if n == LATENT["n_latent"] else f"latent{n}" for n in LATENTS]
    for key, color in (("train_exact", "C0"), ("test_exact", "C1")):
        rows = key.removesuffix("_exact").replace("train", "training")
        points(axis, LATENTS, names, key, f"{rows} rows", color)
        if found.get("simple"):
            axis.axhline(statistics.fmean(run[key] for run in found["simple"]), color=color, linestyle=":",
                         label=f"simple model, {rows} rows")
    axis.set(xscale="log", xlabel="latent tokens", ylabel="exact products", ylim=(0, None), xticks=LATENTS,
             xticklabels=LATENTS, title=f"1-99, {SHORT} steps; mean and 95% interval over seeds")
    axis.minorticks_off()
    axis.legend(fontsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "latents.svg", metadata={"Date": None})
    plt.close(figure)

    for name, choices in (("order", {"largest digit first": "-none", "units first in the product": "",
                                     "units first everywhere": "-all"}),
                          ("positions", {"rotary": "", "learned": "-learned", "sinusoidal": "-sinusoidal"})):
        figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
        for color, model in zip(("C0", "C1"), MODELS):
            points(axis, range(len(choices)), [f"{model}{suffix}" for suffix in choices.values()], "test_exact", model,
                   color)
        axis.set(ylabel="exact test products", xticks=range(len(choices)), xticklabels=choices,
                 title=f"1-99, {SHORT} steps; mean and 95% interval over seeds")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)

    if not of_amplitudes:
        return
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
    latents = [0, *AMPLITUDE_LATENTS]
    names, places = [f"amplitude{n}" for n in latents], range(len(latents))
    points(axes[0], places, names, "test_exact", "", "C0")
    points(axes[1], places, names, "tokens_per_second", "", "C2")
    for axis, label in zip(axes, ("test rows exactly right", "decoding, tokens/s of CPU time")):
        axis.set(xlabel="latent tokens (0: all source tokens)", ylabel=label, xticks=places, xticklabels=latents)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "amplitudes.svg", metadata={"Date": None})
    plt.close(figure)


def read_scores(out_dir, runs):
    """{name: [scores of each seed]} of those of these runs that are finished."""
    found = {}
    for run in runs:
        path = Path(out_dir) / run.id / "scores.json"
        if path.exists():
            scores = json.loads(path.read_text(encoding="utf-8"))
            last = read_log(path.parent)[-1]
            found.setdefault(run.name, []).append(scores | {"last_step": last["step"], "last_seconds": last["seconds"]})
    return found


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    settings = load_settings(__doc__, ["workers", "data_dir", "out_dir"], argv, HERE / "config.py")
    out_dir, data_dir = settings.out_dir, settings.data_dir
    of_amplitudes = any(word.startswith("--data_dir=") for word in argv)
    if not of_amplitudes:
        print("no --data_dir: the table of amplitudes stays as it is", file=sys.stderr)
    elif not (Path(data_dir) / "train.csv").exists():
        raise InputError(f"{data_dir}: no data set there; README.md says how prepare.py makes it")
    chosen = {}
    for stage in (tries, lambda: all_runs(chosen)):
        runs = [run for run in stage() if of_amplitudes or not run.of_amplitudes]
        tasks = [(run, out_dir, data_dir) for run in runs]
        for number, name in enumerate(parallel_map(do, tasks, settings.workers), 1):
            print(f"{number} of {len(runs)}: {name}", file=sys.stderr)
            found = read_scores(out_dir, tries() + all_runs(chosen))
            fill_in(HERE / "README.md", all_tables(found, of_amplitudes))
        chosen = choose(found)
    plot(found, HERE, of_amplitudes)
    fill_in(HERE / "README.md", all_tables(found, of_amplitudes))  # with the plots
    print(f"{HERE / 'README.md'}; {device_name(torch.device('cpu'))}")
    return 0


if __name__ == "__main__":
    main_guard(main)
