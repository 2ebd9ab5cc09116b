"""Curves of training runs as a PNG picture: what `python train.py --plot=out/RUN` draws."""
from pathlib import Path

from files import InputError
from runs import read_log

PANELS = (  # key in log.jsonl, title, logarithmic?
    ("loss", "training loss per target token (line), validation (dots)", True),
    ("valid_exact", "validation rows exactly right", False),
    ("learning_rate", "learning rate", False),
    ("tokens_per_second", "tokens per second", False),
)


def plot(run_dirs, output):
    """Draw the logs of these run folders, one colour each, into the PNG file `output`. InputError for a folder without a log."""
    try:
        import matplotlib
    except ImportError:
        raise InputError("plot: matplotlib is not installed; pip install matplotlib") from None
    matplotlib.use("Agg")  # no screen
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(12, 8), layout="constrained")
    for number, run_dir in enumerate(run_dirs):
        lines = read_log(run_dir)
        if not lines:
            raise InputError(f"{run_dir}: no log.jsonl of a run there")
        # each later run is thinner, so that curves that are the same show as one line with a core
        style = {"color": f"C{number % 10}", "linewidth": max(1, 4 - 1.5 * number), "label": str(run_dir)}
        for axis, (key, title, logarithmic) in zip(axes.flat, PANELS):
            points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
            axis.plot(*zip(*points) if points else ((), ()), **style | {"marker": "o" * (key == "valid_exact")})
            axis.set(title=title, xlabel="step", yscale="log" if logarithmic else "linear")
        points = [(line["step"], line["valid_loss"]) for line in lines if line.get("valid_loss") is not None]
        axes[0, 0].plot(*zip(*points) if points else ((), ()), "o", color=style["color"], markersize=8 - 2 * min(number, 2))
    axes[0, 0].legend()
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110, format="png")
    pyplot.close(figure)
