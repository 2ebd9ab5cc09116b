"""
Products of whole numbers as rows of tokens: "12*34" in, "408" out, digit by digit.

    python ablations/latent/data.py [--max_digits=3 ...]        counts of the split and examples

The unit of the split is a pair of factors {a, b}: the rows a*b and b*a are on the same side, so that no held-out row is
a training row read backwards. The pairs, sorted by product, make 10 buckets of equal size. Of each bucket a tenth is
for validation and a tenth for the test, so that small and large products are on all sides in the same shares.
"""
import sys
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import torch

from batches import pad
from configurator import check_least, load_settings
from runtime.files import InputError, main_guard
from tokenizer import BOS, EOS, SPECIALS

KEYS = ["min_digits", "max_digits", "min_factor", "max_factor", "max_pairs", "units_first", "zero_padded", "seed"]
TOKENS = [*SPECIALS, *"0123456789*"]
ZERO, TIMES = TOKENS.index("0"), TOKENS.index("*")
VOCABULARY = {"src": TOKENS, "tgt": TOKENS}
BUCKETS = 10
SPLITS = ("train", "valid", "test")
UNITS_FIRST = ("none", "product", "all")
MOST_PAIRS = 5_000_000  # in memory at once


class Rows(NamedTuple):
    """Rows of one split, padded with PAD."""
    factors: torch.Tensor  # (N, 2) int64
    src: torch.Tensor  # (N, S) int64: the digits of a, *, the digits of b, EOS
    tgt: torch.Tensor  # (N, T + 1) int64: BOS, the digits of a*b, EOS

    def to(self, device):
        return Rows(*(x.to(device) for x in self))


def factor_range(settings):
    """Smallest and largest factor of the settings. InputError where there is none between them."""
    check_least(settings, {"min_digits": 1, "max_digits": 1, "min_factor": 0, "max_factor": 0, "max_pairs": 0})
    low = settings.min_factor or 10 ** (settings.min_digits - 1)
    high = settings.max_factor or 10**settings.max_digits - 1
    if low > high:
        raise InputError(f"the smallest factor is {low}, the largest {high}; wanted at least one number between them "
                         "(min_digits, max_digits, min_factor, max_factor)")
    if settings.units_first not in UNITS_FIRST:
        raise InputError(f"units_first: got {settings.units_first!r}, wanted {', '.join(UNITS_FIRST)}")
    return low, high


def make_pairs(low, high, most, seed):
    """
    Unordered pairs of factors from low to high, (P, 2) int64, a <= b, sorted by product, then by a. most: a random
    sample of so many; 0: all pairs.
    """
    count = high - low + 1
    if count * (count + 1) // 2 > MOST_PAIRS:
        raise InputError(f"{count:,} factors make {count * (count + 1) // 2:,} pairs, at most {MOST_PAIRS:,} fit; "
                         "wanted fewer factors")
    a, b = np.triu_indices(count)
    pairs = np.stack([a, b], axis=1) + low
    if 0 < most < len(pairs):
        pairs = pairs[np.random.default_rng([seed, 1]).choice(len(pairs), most, replace=False)]
    return pairs[np.lexsort((pairs[:, 0], pairs.prod(1)))]


def split_pairs(pairs, seed):
    """
    {split: its pairs}. pairs: (P, 2), sorted by product. Of n pairs of a bucket n // 10 are in valid, n // 10 in test.
    """
    rng, parts = np.random.default_rng([seed, 2]), {split: [] for split in SPLITS}
    for bucket in np.array_split(pairs, BUCKETS):
        mixed, tenth = rng.permutation(bucket), len(bucket) // 10
        for split, part in zip(SPLITS, np.split(mixed, [len(bucket) - 2 * tenth, len(bucket) - tenth])):
            parts[split].append(part)
    return {split: np.concatenate(part) for split, part in parts.items()}


def both_orders(pairs):
    """Rows of these pairs: a*b and b*a, a*a once."""
    return np.concatenate([pairs, pairs[pairs[:, 0] != pairs[:, 1]][:, ::-1]])


def digits_of(number, reverse, width=0):
    text = str(number).rjust(width, "0")
    return [ZERO + int(digit) for digit in (reversed(text) if reverse else text)]


def encode(factors, units_first, width=0):
    """
    Rows of these factors (N, 2). units_first: which numbers are written units first, "none", "product" or "all".
    width: factors are filled up with zeros to so many digits, products to twice as many; 0: no zeros in front.
    """
    src, tgt = [], []
    for a, b in np.asarray(factors).tolist():
        left, right = (digits_of(x, units_first == "all", width) for x in (a, b))
        src.append([*left, TIMES, *right, EOS])
        tgt.append([BOS, *digits_of(a * b, units_first != "none", 2 * width), EOS])
    return Rows(torch.from_numpy(np.array(factors)), pad(src), pad(tgt))


def text_of(ids):
    """Tokens as text, without the special ones."""
    return "".join(TOKENS[id] for id in ids if id > EOS)


def load_splits(settings):
    """{split: Rows} of the settings, the same ones for the same seed."""
    low, high = factor_range(settings)
    pairs = make_pairs(low, high, settings.max_pairs, settings.seed)
    if len(pairs) < 10 * BUCKETS:
        raise InputError(f"{len(pairs)} pairs of factors; wanted at least {10 * BUCKETS}, so that each bucket has a "
                         "validation pair and a test pair")
    width = len(str(high)) if settings.zero_padded else 0
    return {split: encode(both_orders(part), settings.units_first, width)
            for split, part in split_pairs(pairs, settings.seed).items()}


def main(argv=None):
    settings = load_settings(__doc__, KEYS, argv, base=Path(__file__).with_name("config.py"))
    for split, rows in load_splits(settings).items():
        products = rows.factors.prod(1)
        source, target = text_of(rows.src[0].tolist()), text_of(rows.tgt[0].tolist())
        span = f"products {products.min()} to {products.max()}"
        print(f"{split:5}  {len(products):7,} rows, {span}; {source} -> {target}")
    return 0


if __name__ == "__main__":
    main_guard(main)
