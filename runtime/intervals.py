"""Error bars: intervals of shares and means, and whether two models that answer the same rows differ."""
import math
import statistics

import numpy as np

Z = 1.959964  # standard normal quantile of a 95% interval
DRAWS = 10_000  # bootstrap samples
AT_ONCE = 10_000_000  # numbers drawn together


def wilson(count, total):
    """95% interval of a share count / total, after Wilson, J. Am. Stat. Assoc. 22 (1927) 209. (0, 1) for total = 0."""
    if total == 0:
        return [0.0, 1.0]
    share, z = count / total, Z * Z / total
    middle = (share + z / 2) / (1 + z)
    half = Z * math.sqrt(share * (1 - share) / total + z / (4 * total)) / (1 + z)
    return [max(0.0, middle - half), min(1.0, middle + half)]


def bootstrap(values, seed):
    """95% interval of the mean of some numbers: percentiles of the means of samples drawn with replacement."""
    values, rng = np.asarray(values, float), np.random.default_rng(seed)
    means, size = [], max(1, AT_ONCE // len(values))
    for first in range(0, DRAWS, size):
        drawn = rng.integers(len(values), size=(min(size, DRAWS - first), len(values)))
        means.append(values[drawn].mean(axis=1))
    return np.percentile(np.concatenate(means), [2.5, 97.5]).tolist()


def student(values):
    """95% interval of the mean of some draws, such as the scores of seeds, by Student's t. None for a single one."""
    if len(values) < 2:
        return None
    half = quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return [statistics.fmean(values) - half, statistics.fmean(values) + half]


def welch(first, second):
    """
    95% interval of the difference of two means, second minus first, whose draws have spreads of their own. None if
    one of them has a single draw. Welch, Biometrika 34 (1947) 28.
    """
    if min(len(first), len(second)) < 2:
        return None
    a, b = (statistics.variance(values) / len(values) for values in (first, second))
    difference = statistics.fmean(second) - statistics.fmean(first)
    if a + b == 0:
        return [difference, difference]
    freedom = (a + b)**2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    half = quantile(freedom) * math.sqrt(a + b)
    return [difference - half, difference + half]


def quantile(freedom):
    """
    The t that is exceeded with probability 2.5% at so many degrees of freedom, not necessarily a whole number.

    With t = sqrt(freedom) tan(x) the density of t is that of cos(x)^(freedom - 1) in x, from -pi/2 to pi/2.
    """
    x = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(x)**(freedom - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(0.95, area / area[-1], x))


def mcnemar(first, second):
    """
    p-value of McNemar's exact test that two models are right equally often.

    first, second: rows that only the one, and only the other, has right. If the models are equally good, `first` is
    the number of heads of first + second tosses; both tails count.
    """
    tosses, least = first + second, min(first, second)
    tail = ways = 1  # of no head; ways: of k heads
    for k in range(least):
        ways = ways * (tosses - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**tosses) if tosses else 1.0
