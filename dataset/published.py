r"""
The published split of MARTY's public QED 2->2 rows: 12,441 to train, 1,556 to validate and 1,555 to test.

    python -m dataset.published ROWS.csv.gz SPLIT.csv      makes published.txt; SPLIT.csv: row (from 0), split

published.txt has a line for each row up to index names: a digest of its amplitude and square, and the splits of the
rows that it stands for, 0 train, 1 valid, 2 test. Legs off their mass shells cannot be seen in these amplitudes, so
that up to six rows of different legs are equal. Their splits come in the order of these legs, where the columns of the
file name them; without columns equal rows cannot be told apart, and any order gives the same rows.
"""
import collections
import csv
import hashlib
import re
import sys
from pathlib import Path

import numpy as np

from dataset.reader import read_rows
from runtime.files import InputError, atomic_open, main_guard

LIST = Path(__file__).with_suffix(".txt")
SPLITS = ("train", "valid", "test")
DIGITS = 10  # hexadecimal, of a digest
LEGS = 16  # bits of a key that tell legs off their mass shells
INDEX = re.compile(r"%\\?\w+|(?<=\{)\w+(?=[,}])")  # or a field's label
OFF_SHELL = re.compile(r"OffShell\s+(?:AntiPart\s+)?\w+\(X_(\d+)\)")


def off_shell_legs(row):
    """
    Numbers, from 1, of the legs that the column `diagram` of MARTY's rows says are off their mass shells:
    `AntiPart OffShell e(X_4)`. A virtual particle, `OffShell A(V_0)`, is no leg.
    """
    return {int(leg) for leg in OFF_SHELL.findall(row.get("diagram", ""))}


def row_key(amp, sqamp, legs):
    """A whole number for a row: digest of amplitude, up to index names, and square; then its legs off mass shell."""
    names = collections.defaultdict(lambda: f"%{len(names)}")
    amp = INDEX.sub(lambda match: names[match[0]] if match[0][0] == "%" else "", amp)
    digest = hashlib.sha256(f"{amp} {sqamp}".encode()).hexdigest()[:DIGITS]
    return int(digest, 16) << LEGS | sum(1 << leg for leg in legs if leg < LEGS)


def read_list():
    """{digest: splits, such as "002"} of the published rows."""
    lines = LIST.read_text(encoding="ascii").splitlines()
    return {int(digest, 16): splits for digest, splits in map(str.split, lines)}


def published_split(keys):
    """
    {"train": row numbers, "valid": ..., "test": ...} of rows with these keys, and how many published rows are missing.

    keys: uint64 (rows,), from `row_key`. Rows that are not published, or stand more often, come into no split.
    """
    left = {digest: list(splits) for digest, splits in read_list().items()}
    chosen = {name: [] for name in SPLITS}
    for row in np.argsort(keys, kind="stable").tolist():
        splits = left.get(int(keys[row]) >> LEGS)
        if splits:
            chosen[SPLITS[int(splits.pop(0))]].append(row)
    return {name: np.array(sorted(rows), np.int64) for name, rows in chosen.items()}, sum(map(len, left.values()))


def make_list(rows_path, split_path):
    """Write published.txt."""
    with open(split_path, encoding="utf-8", newline="") as file:
        split_of = {int(row["row"]): row["split"] for row in csv.DictReader(file)}
    found = collections.defaultdict(list)
    for number, (_, row) in enumerate(read_rows(rows_path)):
        key = row_key(row["amp"], row["sqamp"], off_shell_legs(row))
        found[key >> LEGS].append((key, SPLITS.index(split_of.get(number, "train"))))
    with atomic_open(LIST) as file:
        for digest, rows in sorted(found.items()):
            file.write(f"{digest:0{DIGITS}x} {''.join(str(split) for _, split in sorted(rows))}\n")


def main():
    if len(sys.argv) != 3:
        raise InputError("usage: python -m dataset.published ROWS.csv.gz SPLIT.csv")
    make_list(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main_guard(main)
