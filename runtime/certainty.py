"""Can a model's certainty be believed? Right physics against each figure of certainty, over judged rows."""
import math
import statistics

import numpy as np

from runtime.intervals import wilson
from runtime.scores import is_right

CERTAINTY = ["logprob", "token_mean", "token_min", "margin", "agreement"]  # of an answer, see decode.py
SHARES = (0.5, 0.8, 0.9, 0.95)  # of the rows
BINS = 10  # dots of a reliability diagram
POINTS = 100  # of a curve of accuracy against coverage
DRAWS = 2_000  # bootstrap samples
AT_ONCE = 5_000_000  # numbers drawn together


def certainty(rows):
    """
    {figure: {share: right physics of the most certain share of the rows}} of judged rows. The figure that orders them
    best comes first.
    """
    table = {}
    for figure, order in orders(rows).items():
        right = [is_right(rows[k]) for k in order]
        counts = {f"{share:.0%}": math.ceil(share * len(rows)) for share in SHARES}
        table[figure] = {share: statistics.fmean(right[:count]) for share, count in counts.items()}
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))


def certainty_intervals(rows, seed):
    """
    {figure: {share: 95% interval}} of the figures of `certainty`: percentiles over samples of the rows drawn with
    replacement. Each sample has its own most certain rows.
    """
    ordered, rng, count = orders(rows), np.random.default_rng(seed), len(rows)
    right = {figure: np.array([is_right(rows[k]) for k in order]) for figure, order in ordered.items()}
    most = {f"{share:.0%}": math.ceil(share * count) for share in SHARES}
    means, size = {figure: {share: [] for share in most} for figure in right}, max(1, AT_ONCE // count)
    for first in range(0, DRAWS, size):
        # places in the order of certainty, the most certain first: the same draw serves every figure
        places = np.sort(rng.integers(count, size=(min(size, DRAWS - first), count)), axis=1)  # (draws, rows)
        for figure, found in right.items():
            sums = found[places].cumsum(axis=1)
            for share, chosen in most.items():
                means[figure][share].append(sums[:, chosen - 1] / chosen)
    return {figure: {share: np.percentile(np.concatenate(found), [2.5, 97.5]).tolist()
                     for share, found in by_share.items()} for figure, by_share in means.items()}


def orders(rows):
    """
    {figure of certainty that some row has: numbers of the rows, the most certain first}. Rows of one value stand in a
    random order, always the same: files are sorted, by process for example.
    """
    found, lots = {}, np.random.default_rng(0).permutation(len(rows))
    for figure in CERTAINTY:
        values = [row.get(figure, math.nan) for row in rows]
        if not all(map(math.isnan, values)):
            found[figure] = sorted(range(len(rows)), key=lambda k: (math.isnan(values[k]), -values[k], lots[k]))
    return found


def accuracy_at_coverage(rows):
    """{figure: [(share of the rows, right physics of so many that are most certain), ...]}, at most POINTS of them."""
    curves = {}
    for figure, order in orders(rows).items():
        right = np.cumsum([is_right(rows[k]) for k in order])
        counts = np.unique(np.linspace(1, len(rows), min(POINTS, len(rows))).round().astype(int))
        curves[figure] = [(int(count) / len(rows), int(right[count - 1]) / int(count)) for count in counts]
    return curves


def reliability(rows):
    """
    {figure that is a probability: {"error": expected calibration error, "bins": [...]}}. A bin has as many rows as any
    other: their number, the mean of what the model says, the share that is right and its interval.
    """
    found = {}
    for figure, order in orders(rows).items():
        known = [rows[k] for k in order if not math.isnan(rows[k][figure])]
        if figure == "margin":
            continue
        bins = []
        for group in np.array_split(np.arange(len(known)), min(BINS, len(known))):
            values = [known[k][figure] for k in group]
            predicted = statistics.fmean(map(math.exp, values) if figure == "logprob" else values)
            right = sum(is_right(known[k]) for k in group)
            bins.append({"rows": len(group), "predicted": predicted, "right": right / len(group),
                         "interval": wilson(right, len(group))})
        error = sum(group["rows"] * abs(group["predicted"] - group["right"]) for group in bins) / len(known)
        found[figure] = {"error": error, "bins": bins}
    return found
