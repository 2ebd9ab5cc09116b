"""Lengths of the rows of data sets in tokens, in each notation: a table and a figure, for `evaluate.py --notations`."""
import itertools
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset.reader import read_rows
from notation import ORDERS, Notation, write
from runtime.files import InputError, atomic_open
from runtime.pictures import pyplot_without_screen
from tokenizer import amp_tokens, sqamp_tokens

NOTATIONS = [Notation(order, short) for short, order in itertools.product((False, True), ORDERS)]
SIDES = {"amp": "amplitude (source)", "sqamp": "squared amplitude (target)"}
SPLITS = "train", "valid", "test"


def files_of(path):
    """The CSV files of a data set: the splits that a folder has, or the file itself. InputError if there is none."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    files = [path / f"{split}.csv" for split in SPLITS if (path / f"{split}.csv").exists()]
    if not files:
        raise InputError(f"{path}: no train.csv, valid.csv or test.csv in this folder")
    return files


def measure(path, max_rows=0):
    """
    {(side, notation): (lengths in tokens without the end token, int array over the rows, number of different tokens)}
    of a data set; max_rows: only its first rows, 0: all. Rows that cannot be read are InputErrors as FILE:LINE.
    """
    lengths = {key: [] for key in itertools.product(SIDES, NOTATIONS)}
    known = {key: set() for key in lengths}
    rows = ((file, *numbered) for file in files_of(path) for numbered in read_rows(file))
    rows = itertools.islice(rows, max_rows or None)
    for file, line, row in tqdm(rows, unit=" rows", desc=f"reading {path}", disable=None, leave=False):
        try:
            infix = {"amp": amp_tokens(row["amp"])[0], "sqamp": sqamp_tokens(row["sqamp"])}
            written = {(side, notation): write(infix[side], notation) for side, notation in lengths}
        except InputError as error:
            raise InputError(f"{file}:{line}: {error}") from None
        for key, tokens in written.items():
            lengths[key].append(len(tokens))
            known[key].update(tokens)
    if not all(lengths.values()):
        raise InputError(f"{path}: no rows")
    return {key: (np.array(lengths[key]), len(known[key])) for key in lengths}


def title(path):
    return Path(path).name.split(".")[0]


def name_of(notation):
    return f"{notation.order}, masses shortened" if notation.shorten_masses else notation.order


def table(measured):
    """Markdown table of {data set: answer of measure}."""
    lines = ["| data set, rows | side | notation | mean | 95% | maximum | vocabulary |", "| --- |" + " --- |" * 6]
    for path, figures in measured.items():
        for (side, notation), (lengths, vocabulary) in figures.items():
            cells = (f"{title(path)}, {len(lengths):,}", side, name_of(notation), f"{lengths.mean():.1f}",
                     f"{np.quantile(lengths, 0.95):.0f}", f"{lengths.max():,}", f"{vocabulary:,}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(measured, output):
    """Histograms as SVG: a row of panels for each data set, a column for each side, the notations over one another."""
    pyplot = pyplot_without_screen("svg", "lengths")
    figure, axes = pyplot.subplots(len(measured), 2, figsize=(9, 2.6 * len(measured)), squeeze=False,
                                   layout="constrained")
    for panels, (path, figures) in zip(axes, measured.items()):
        for axis, side in zip(panels, SIDES):
            every = [figures[side, notation][0] for notation in NOTATIONS]
            shortest, longest = np.min(every), np.max(every)
            bins, highest = np.geomspace(shortest, longest + 1, 48), 0
            for notation, lengths in zip(NOTATIONS, every):
                share = 100 * np.histogram(lengths, bins)[0] / len(lengths)
                highest = max(highest, share.max())
                colour = f"C{ORDERS.index(notation.order)}"
                axis.stairs(share, bins, label=f"{name_of(notation)}: mean {lengths.mean():.0f}", color=colour,
                            fill=not notation.shorten_masses, alpha=1.0 if notation.shorten_masses else 0.3)
            ticks = [tick for tick in (1, 3, 10, 20, 50, 100, 200, 500, 1000, 2000) if shortest <= tick <= longest]
            axis.set(xscale="log", xlabel=f"tokens of the {SIDES[side]}", ylim=(0, 1.7 * highest))
            axis.set_xticks(ticks, ticks)
            axis.minorticks_off()
            axis.legend(fontsize=7, ncols=2, loc="upper center")  # in the free part of the panel
            axis.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel(f"{title(path)}\n% of the rows")
    with atomic_open(output, "w") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)
