"""
Make every table and plot of the experiment: train all runs that are not finished, then write results.md and the plots.

    python ablations/wave/measure.py [--workers=2] [--only=copy] [--files=PUBLIC.csv.gz]

Runs are in out/wave, `workers` at a time, one thread each. Killed, it goes on where it stopped: finished runs are
skipped, others resumed. --only=NAME makes the runs whose names begin so and prints their tables. The second table of
amplitudes needs the public files of config/marty_qed.py, in the working directory or named by --files. The table of
lengths is measured last, alone.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from ablations.wave.evaluate import BASE
from configurator import ROOT, load_settings
from runtime.files import InputError, atomic_open, main_guard
from runtime.hardware import device_name
from runtime.pictures import pyplot_without_screen
from runtime.runs import read_log

HERE = Path(__file__).resolve().parent
OUT = Path("out/wave")
SEEDS = (1, 2, 3)
ENCODERS = ("attention", "ssm", "wave")


class Run(NamedTuple):
    name: str  # of the folder, before the seed
    table: str
    config: str
    flags: tuple
    seeds: tuple = SEEDS


def runs_of(table, config, models, *flags, seeds=SEEDS):
    """A run for each model. models: {model: its own flags, which win over `flags`}"""
    prefix = table.replace(" ", "-")

    def merged(own):
        return tuple({flag.partition("=")[0]: flag for flag in (*flags, *own)}.values())

    return [Run(f"{prefix}-{model}", table, f"ablations/wave/config/{config}.py", (f"--model={model}", *merged(own)),
                seeds) for model, own in models.items()]


PLAIN = {"wave": (), "identity": (), "lstm": ("--hidden=64",), "ssm": ("--modes=24",),
         "mamba": ("--layers=2", "--width=16"), "transformer": ("--layers=2",)}
ADDING = PLAIN | {"ssm": ("--learning_rate=3e-3",), "mamba": ("--layers=2", "--width=16", "--max_steps=1000")}
SHORT = {"wave": ("--max_steps=2400",), "identity": (), "lstm": ("--hidden=64",),
         "ssm": ("--modes=48", "--max_steps=400")}
LONG = {"wave": (), "identity": (), "lstm": ()}
FROM_100 = {"wave": (), "ssm": ("--modes=16", "--slowest=100")}  # from the weights of the same seed at 100 steps
SLOW = {"mamba": ("--layers=2", "--width=16", "--max_steps=400")}  # in plain torch; one seed
RUNS = [  # the most important first
    *runs_of("copy 30", "copy", PLAIN, "--length=30"),
    *runs_of("adding 100", "adding", ADDING, "--length=100", "--hidden=64"),
    *runs_of("permuted", "digits", PLAIN | {"ssm": ()}),
    *runs_of("copy 80", "copy", SHORT, "--length=80", "--batch_rows=64", "--max_steps=800"),
    *(one._replace(name=f"{one.name}_from_100",
                   flags=(*one.flags, f"--init_from={OUT}/adding-100-{model}-{{seed}}/best.pt"))
      for model, one in zip(FROM_100, runs_of("adding 1000", "adding", FROM_100, "--length=1000", "--hidden=64",
                                              "--batch_rows=16", "--max_steps=1000", "--learning_rate=1e-3"))),
    *runs_of("adding 1000", "adding", LONG, "--length=1000", "--hidden=64", "--batch_rows=16", "--max_steps=800"),
    *runs_of("adding 1000", "adding", {"ssm": ("--modes=8", "--slowest=1000", "--learning_rate=3e-3")},
             "--length=1000", "--batch_rows=32", "--max_steps=3000", seeds=(1,)),
    *runs_of("copy 80", "copy", SLOW, "--length=80", "--batch_rows=64", seeds=(1,)),
    *runs_of("adding 1000", "adding", SLOW, "--length=1000", "--batch_rows=16", seeds=(1,)),
    *runs_of("copy 480", "copy", {"wave": ()}, "--length=480", "--hidden=512", "--batch_rows=16", "--max_steps=800",
             seeds=(1,)),
    *runs_of("digits", "digits", {"wave": (), "identity": (), "ssm": ()}, "--task=digits", seeds=(1,)),
]
AMPLITUDES = [  # equal parameters and equal time
    *(Run(f"quickstart-{encoder}", "quickstart", "config/quickstart.py",
          (f"--encoder={encoder}", "--max_minutes=2", "--max_steps=100000")) for encoder in ENCODERS),
    *(Run(f"public-{encoder}", "public", "config/marty_qed.py",
          (f"--encoder={encoder}", "--max_minutes=3", "--max_steps=100000", "--d_model=128", "--heads=4",
           "--d_ff=512")) for encoder in ENCODERS),
]
TITLES = {
    "copy 30": "Copy, pause of 30 steps", "copy 80": "Copy, pause of 80 steps", "copy 480": "Copy, pause of 480 steps",
    "adding 100": "Adding, 100 steps", "adding 1000": "Adding, 1,000 steps", "permuted": "Permuted digits",
    "digits": "Digits, pixels in order", "quickstart": "Amplitudes: the quickstart set",
    "public": "Amplitudes: the public set, published split"}


def commands_of(run, seed):
    folder = OUT / f"{run.name}-{seed}"
    flags = [flag.format(seed=seed) for flag in run.flags]
    common = [run.config, *flags, f"--seed={seed}", f"--out_dir={folder}", "--device=cpu"]
    if run.config.startswith("ablations"):
        return [["ablations/wave/train.py", *common, "--resume"]]
    data = f"--data_dir=data/{Path(run.config).stem}"
    return [["train.py", *common, data, "--resume"],
            ["evaluate.py", run.config, f"--seed={seed}", f"--out_dir={folder}", data, "--device=cpu", "--train_rows=0",
             "--batch_rows=256"]]


def execute(commands):
    """Run scripts of the repository one after the other, one thread each; the last line of what went wrong, or ""."""
    for script, *arguments in commands:
        result = subprocess.run([sys.executable, ROOT / script, *arguments], capture_output=True, text=True,
                                env=os.environ | {"OMP_NUM_THREADS": "1"})
        if result.returncode:
            return f"{script} {' '.join(arguments)}: {(result.stderr.strip().splitlines() or ['killed'])[-1]}"
    return ""


def train_all(wanted, settings):
    """Prepare the amplitudes, then train those of these runs that have no report.json yet, in order."""
    todo = [(run, seed) for run in wanted for seed in run.seeds
            if not (OUT / f"{run.name}-{seed}/report.json").exists()]
    # runs that are compared at equal time side by side, seed by seed, so that the machine's load is the same for all
    todo.sort(key=lambda task: (task[0].table, task[1]) if task[0] in AMPLITUDES else ("", 0))
    for config in dict.fromkeys(run.config for run, _ in todo if run.config.startswith("config")):
        if not Path(f"data/{Path(config).stem}/manifest.json").exists():
            files = [f"--files={settings.files}"] if settings.files and config == "config/marty_qed.py" else []
            trouble = execute([["prepare.py", config, f"--data_dir=data/{Path(config).stem}", *files]])
            if trouble:
                print(f"left out: {trouble}", file=sys.stderr)
                todo = [(run, seed) for run, seed in todo if run.config != config]

    def work(task):
        run, seed = task
        trouble = execute(commands_of(run, seed))
        print(f"{run.name}-{seed}: {trouble or 'done'}", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(settings.workers or os.cpu_count()) as pool:
        list(pool.map(work, todo))


# ---------------------------------------------------------------------------------------------------------------------
# Tables and plots

def reports_of(run, out=None):
    """[(report, folder)] of the seeds that are finished."""
    folders = [(out or OUT) / f"{run.name}-{seed}" for seed in run.seeds]
    return [(json.loads((folder / "report.json").read_text()), folder) for folder in folders
            if (folder / "report.json").exists()]


def spread(values, form):
    """Mean and each seed, such as "97.5% (96.1% / 98.2% / 98.2%)"; one value alone."""
    mean = form(statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} ({' / '.join(map(form, values))})"


def percent(share):
    return f"{100 * share:.1f}%"


def table_of(runs, out=None):
    """Lines of a table, the test figures of every model: mean over the seeds, and each seed."""
    lines = ["| model | parameters | steps | minutes | exact | mean squared error | seeds |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for run in runs:
        found = reports_of(run, out)
        reports, last = [report for report, _ in found], [read_log(folder)[-1] for _, folder in found]
        model = run.name.rsplit("-", 1)[1]
        if not reports:
            lines.append(f"| {model} | not measured yet | | | | | |")
            continue
        test = [report["test"] for report in reports]
        lines.append(f"| {model} | {reports[0]['parameters']:,} | {last[0]['step']:,} | "
                     f"{statistics.fmean(line['seconds'] for line in last) / 60:.1f} | "
                     f"{spread([figures['exact'] for figures in test], percent)} | "
                     f"{spread([figures['mse'] for figures in test], '{:.1e}'.format)} | {len(reports)} |")
    return lines


def amplitude_table(runs):
    lines = ["| encoder | parameters | steps | exact | right physics | tokens/s | GB | seeds |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for run in runs:
        found = reports_of(run)
        encoder = run.name.rsplit("-", 1)[1]
        if not found:
            lines.append(f"| {encoder} | not measured yet | | | | | | |")
            continue
        logs = [[line for line in read_log(folder) if line.get("tokens_per_second")] for _, folder in found]
        state = torch.load(found[0][1] / "best.pt", map_location="cpu", weights_only=True, mmap=True)
        parameters = sum(weight.numel() for weight in state["model"].values())
        speed = statistics.median(line["tokens_per_second"] for log in logs for line in log)
        lines.append(f"| {encoder} | {parameters:,} | {statistics.fmean(log[-1]['step'] for log in logs):,.0f} | "
                     f"{spread([report['sequence_accuracy'] for report, _ in found], percent)} | "
                     f"{spread([report['right_physics'] for report, _ in found], percent)} | {speed:,.0f} | "
                     f"{max(log[-1]['memory_gb'] for log in logs):.2f} | {len(found)} |")
    return lines


def plot_curves(path):
    """The mean squared error of the validation split against the step, a line for each seed."""
    plt = pyplot_without_screen("svg", "wave", 8)
    tables = ("copy 30", "copy 80", "adding 100", "adding 1000", "permuted")
    colours = {model: f"C{number}" for number, model in enumerate(PLAIN)}
    figure, axes = plt.subplots(1, len(tables), figsize=(13, 3), layout="constrained")
    for axis, table in zip(axes, tables):
        for run in (run for run in RUNS if run.table == table):
            model = run.name.rsplit("-", 1)[1]
            for number, (_, folder) in enumerate(reports_of(run)):
                lines = [line for line in read_log(folder) if line.get("valid_mse")]
                axis.plot([line["step"] for line in lines], [line["valid_mse"] for line in lines],
                          colours[model.partition("_")[0]], linestyle="--" if "_" in model else "-", linewidth=1,
                          label="_" if number else model)
        axis.set(title=TITLES[table], xlabel="step", yscale="log")
    axes[0].set(ylabel="mean squared error, validation")
    if axes[0].lines:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def tables_of(every):
    """Lines of the tables of these runs, each with its heading and settings."""
    lines = []
    for table, title in TITLES.items():
        if runs := [run for run in every if run.table == table]:
            lines += [f"## {title}", "", *(amplitude_table if runs[0] in AMPLITUDES else table_of)(runs), "",
                      f"Settings: {runs[0].config} with " + "; ".join(f"`{' '.join(run.flags)}`" for run in runs) + ".",
                      ""]
    return lines


def write_results(lengths):
    """results.md, curves.svg and the pictures of the hidden states, from the finished runs."""
    machine = device_name(torch.device("cpu")).rsplit(",", 1)[0]
    lines = ["# Results of the wave experiment", "",
             f"Written by `python ablations/wave/measure.py`. {machine}; each run has one thread. "
             "Test split, by the checkpoint that is best on validation; mean and each seed. exact: share of the "
             "sequences with every answer right (adding: within 0.04). Mean squared error: of the sum "
             "(adding); of the probabilities of all classes, at the ten symbols (copy).", ""]
    lines += tables_of(RUNS + AMPLITUDES)
    lines += ["## Time and memory against the length", "", "```", lengths.strip() or "not measured yet", "```", ""]
    with atomic_open(HERE / "results.md") as file:
        file.write("\n".join(lines))
    plot_curves(HERE / "curves.svg")
    for model in ("wave", "identity", "ssm"):
        picture = OUT / f"copy-30-{model}-1/wave.svg"
        if picture.exists():
            shutil.copy(picture, HERE / f"state_{model}.svg")
    print(HERE / "results.md")


def main(argv=None):
    settings = load_settings(__doc__, ["workers", "only", "files"], argv, BASE)
    wanted = [run for run in RUNS + AMPLITUDES if run.name.startswith(settings.only)]
    if not wanted:
        raise InputError(f"only: got {settings.only!r}, wanted the beginning of a name such as {RUNS[0].name}")
    OUT.mkdir(parents=True, exist_ok=True)
    train_all(wanted, settings)
    if settings.only:
        print("\n".join(tables_of(wanted)))
        return 0
    lengths = OUT / "lengths.txt"
    if not lengths.exists():
        result = subprocess.run([sys.executable, ROOT / "bench/run.py", "wave"], stdout=subprocess.PIPE, text=True,
                                env=os.environ | {"OMP_NUM_THREADS": "1"})
        if result.returncode == 0:
            with atomic_open(lengths) as file:
                file.write(result.stdout)
    write_results(lengths.read_text() if lengths.exists() else "")
    return 0


if __name__ == "__main__":
    main_guard(main)
