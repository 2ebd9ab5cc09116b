"""
The folder of a run: locked by one process, with the settings and a log of JSON lines; the log at Weights & Biases; the
list of all runs and plots of their curves.
"""
import contextlib
import fcntl
import json
import math
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from configurator import read_config, settings_text
from runtime.files import InputError, atomic_open, check_output
from runtime.pictures import pyplot_without_screen

ORDERS = ("newest", "exact", "loss", "step", "name")  # of the list of runs
PATIENCE = 60  # seconds to wait for the process that holds the run: a preempted one may still write its checkpoint


@contextlib.contextmanager
def held(out_dir, setting="out_dir", what="trains"):
    """
    Lock the folder of a run, so that no second process writes there. The lock ends with the process, even by kill -9.

    Makes missing folders, and removes those that are still empty at the end. InputError if another process holds it;
    setting: the one that names the folder. what: the holder does there.
    """
    out_dir = Path(out_dir)
    missing = [path for path in (out_dir, *out_dir.parents) if not path.exists()]
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        folder = os.open(out_dir, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{out_dir}: no run can be written there ({error.strerror})") from None
    try:
        for second in range(PATIENCE + 1):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if second == 0:
                    print(f"{out_dir}: another process {what} there; waiting up to {PATIENCE} s for its end",
                          file=sys.stderr)
                if second == PATIENCE:
                    raise InputError(f"{out_dir}: another process {what} there; stop it, "
                                     f"or name another folder by --{setting}=") from None
                time.sleep(1)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(folder)
        for path in missing:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()


def start_wandb(settings, wandb_id):
    """
    The run at Weights & Biases, None where it is disabled. wandb_id: that of the run to continue, "" for a new one.
    """
    if settings.wandb_mode == "disabled":
        return None
    try:
        import wandb
    except ImportError:
        raise InputError("wandb_mode: Weights & Biases is not installed; pip install wandb, "
                         "or --wandb_mode=disabled") from None
    out_dir = Path(settings.out_dir)
    try:
        run = wandb.init(project=settings.wandb_project, name=out_dir.name, id=wandb_id or None, resume="allow",
                         mode=settings.wandb_mode, dir=str(out_dir), config=vars(settings),
                         settings=wandb.Settings(silent=True))
    except wandb.Error as error:
        raise InputError(f"wandb_mode: {str(error).splitlines()[0]}; --wandb_mode=offline needs no network") from None
    run.define_metric("*", step_metric="step")  # a resumed run may log steps that the killed one has logged already
    return run


def open_log(settings, step, wandb_run=None):
    """
    Write config.py and open log.jsonl in out_dir; returns record(step, seconds, figures), which writes one line.

    step: that of the checkpoint to resume from. Later lines are removed, as the resumed run writes them again. Lines of
    steps that the run has since returned from stay. Numbers that are not finite become null, as JSON has no NaN.
    figures["samples"], if present, is a list of dictionaries, one for each row.
    """
    out_dir = Path(settings.out_dir)
    path = out_dir / "log.jsonl"
    try:
        for name in "*.pt", "log.jsonl", "config.py":
            for leftover in out_dir.glob(f".{name}.*"):  # of a process that was killed while it wrote
                leftover.unlink()
        lines = read_log(out_dir) if step else []
        end = max((number for number, line in enumerate(lines, 1) if (line.get("back_to") or line["step"]) <= step),
                  default=0)
        kept = [json.dumps(line) + "\n" for line in lines[:end]]
        with atomic_open(path) as file:
            file.writelines(kept)
        lasting = vars(settings) | {"resume": False, "resume_best": False}  # these are of one start of the run
        with atomic_open(out_dir / "config.py") as file:
            file.write(settings_text(SimpleNamespace(**lasting)))
        log = open(path, "a", buffering=1)
    except OSError as error:
        raise InputError(f"{out_dir}: no run can be written there ({error.strerror})") from None

    def record(step, seconds, figures):
        finite = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                  for name, value in figures.items()}
        try:
            log.write(json.dumps({"step": step, "seconds": round(seconds, 3)} | finite) + "\n")
        except OSError as error:
            with contextlib.suppress(OSError):  # close() tries again to write the line
                log.close()
            raise InputError(f"{path}: not written ({error.strerror}); make room, "
                             "then --resume goes on from the last checkpoint") from None
        if wandb_run:
            samples = finite.pop("samples", None)
            if samples:
                import wandb
                table = wandb.Table(columns=list(samples[0]), data=[list(sample.values()) for sample in samples])
                finite["samples"] = table
            wandb_run.log({"step": step} | finite)
    return record


def read_log(run_dir):
    """The lines of a run's log, as dictionaries, without a line that a crash cut off. [] where there is no log."""
    lines = []
    try:
        text = (Path(run_dir) / "log.jsonl").read_text(errors="replace")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            figures = json.loads(line)
            if figures["step"] >= 0:
                lines.append(figures)
        except (ValueError, KeyError, TypeError):
            pass
    return lines


def list_runs(root, order="newest"):
    """
    Print a line for each run below `root`: step, best validation, age. order: "newest" first, most "exact" first,
    lowest "loss", latest "step", "name".
    """
    if order not in ORDERS:
        raise InputError(f"sort: got {order!r}, wanted {', '.join(ORDERS)}")
    logs = sorted(Path(root).rglob("log.jsonl"), key=lambda path: -path.stat().st_mtime)
    if not logs:
        raise InputError(f"{root}: no runs there; train.py makes them, "
                         "--out_dir=FOLDER lists those below another folder")
    width = max(len(str(path.parent)) for path in logs)
    print(f"{'run':{width}} {'step':>8} {'of':>8} {'exact':>7} {'loss':>8} {'at step':>8}   last written")
    table = []
    for path in logs:
        lines = read_log(path.parent)
        step = max((line["step"] for line in lines), default=0)
        validations = [line for line in lines if line.get("valid_loss") is not None]
        best = max(validations, key=lambda line: (line["valid_exact"], -line["valid_loss"]), default=None)
        table.append((path, step, best))
    nothing = {"valid_exact": -1, "valid_loss": math.inf}
    keys = {"name": lambda run: run[0], "step": lambda run: -run[1],
            "exact": lambda run: -(run[2] or nothing)["valid_exact"],
            "loss": lambda run: (run[2] or nothing)["valid_loss"]}
    if order in keys:
        table.sort(key=keys[order])
    for path, step, best in table:
        figures = f"{'-':>7} {'-':>8} {'-':>8}"
        if best:
            figures = f"{best['valid_exact']:7.2%} {best['valid_loss']:8.4f} {best['step']:8}"
        written = age(time.time() - path.stat().st_mtime)
        print(f"{str(path.parent):{width}} {step:8} {max_steps(path.parent):>8} {figures}   {written} ago")


def max_steps(run_dir):
    """The setting max_steps of a run as text; "-" where its config.py cannot be read."""
    try:
        return str(read_config(run_dir / "config.py").get("max_steps", "-"))
    except InputError:
        return "-"


def age(seconds):
    """A time span in words, such as "3 min"."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


PANELS = (  # key in log.jsonl, title, logarithmic?
    ("loss", "training loss per target token (line), validation (dots)", True),
    ("valid_exact", "validation rows exactly right", False),
    ("learning_rate", "learning rate", False),
    ("tokens_per_second", "tokens per second", False),
)


def columns(lines, key):
    """Steps and values of the lines that have the key, two lists of equal length."""
    having = [line for line in lines if line.get(key) is not None]
    return [line["step"] for line in having], [line[key] for line in having]


def plot(run_dirs, output):
    """Plot the logs of these run folders, one colour each, into a PNG file. InputError for a folder without a log."""
    check_output(output, b"\x89PNG")
    pyplot = pyplot_without_screen("agg")
    figure, axes = pyplot.subplots(2, 2, figsize=(12, 8), layout="constrained")
    for number, run_dir in enumerate(run_dirs):
        lines = read_log(run_dir)
        if not lines:
            raise InputError(f"{run_dir}: no log.jsonl of a run there")
        # later runs get thinner lines, so that equal curves are both seen
        style = {"color": f"C{number % 10}", "linewidth": max(1, 4 - 1.5 * number), "label": str(run_dir)}
        for axis, (key, title, logarithmic) in zip(axes.flat, PANELS):
            axis.plot(*columns(lines, key), **style, marker="o" if key == "valid_exact" else None)
            axis.set(title=title, xlabel="step", yscale="log" if logarithmic else "linear")
        axes[0, 0].plot(*columns(lines, "valid_loss"), "o", color=style["color"], markersize=8 - 2 * min(number, 2))
    axes[0, 0].legend()
    with atomic_open(output, "wb") as file:
        figure.savefig(file, dpi=110, format="png")
    pyplot.close(figure)
