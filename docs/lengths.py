"""
Lengths of the rows of data sets in tokens: docs/lengths.svg from their CSV files.

    pip install matplotlib
    python docs/lengths.py data/qed data/qcd data/ew
"""
import sys
from pathlib import Path

import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dataset.reader import read_rows
from runtime.files import InputError, main_guard
from tokenizer import amp_tokens, sqamp_tokens

SPLITS = ("train", "valid", "test")
BINS = np.geomspace(8, 2000, 49)
TICKS = [10, 30, 100, 300, 1000]


def main():
    folders = [Path(name) for name in sys.argv[1:]]
    if not folders:
        raise InputError("python docs/lengths.py data/qed data/qcd data/ew: expected folders with data sets")
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "lengths", "font.size": 9})
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
    for folder in folders:
        lengths = np.array([
            (len(amp_tokens(row["amp"])[0]), len(sqamp_tokens(row["sqamp"])))
            for split in SPLITS for _, row in read_rows(folder / f"{split}.csv")
        ])  # (rows, 2)
        for axis, tokens, title in zip(axes, lengths.T, ("amplitude (source)", "squared amplitude (target)")):
            share = np.histogram(tokens, BINS)[0] / len(tokens)
            label = f"{folder.name}: {len(tokens):,} rows, mean {tokens.mean():.0f}, max {tokens.max()}"
            axis.stairs(100 * share, BINS, label=label, fill=True, alpha=0.35)
            axis.set(xscale="log", xlabel=f"tokens of the {title}", xticks=TICKS, xticklabels=TICKS)
    for axis in axes:
        axis.legend(fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="% of the rows", ylim=(0, 80))
    path = Path(__file__).with_name("lengths.svg")
    figure.savefig(path, metadata={"Date": None})
    print(path)


if __name__ == "__main__":
    main_guard(main)
