"""
The files of the experiment without labels (docs/results.md): the quickstart set without two incoming antifermions.

    python prepare.py config/quickstart.py && python docs/crossing.py data/quickstart data/crossing

The processes with two incoming antifermions are held out, in two halves. Writes four files into the second folder:
    base.csv      all other rows, to train on
    adapt.csv     the amplitudes of one half, without squares
    adapted.csv   the same rows with their squares, to evaluate with
    unseen.csv    the rows of the other half
"""
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.reader import read_rows
from physics.processes import process_kind
from runtime.files import InputError, main_guard, write_rows

COLUMNS = ["process", "diagram", "amp", "sqamp"]
HELD_OUT = "f~ f~ -> f~ f~"


def main():
    if len(sys.argv) != 3:
        raise InputError("expected the data set's folder and the one to write into: "
                         "python docs/crossing.py data/quickstart data/crossing")
    source, folder = map(Path, sys.argv[1:])
    rows = [row for split in ("train", "valid", "test") for _, row in read_rows(source / f"{split}.csv")]
    base = [row for row in rows if process_kind(row["amp"]) != HELD_OUT]
    held_out = [row for row in rows if process_kind(row["amp"]) == HELD_OUT]
    processes = sorted({row["process"] for row in held_out})
    random.Random(0).shuffle(processes)
    first_half = set(processes[:len(processes) // 2])
    adapted = [row for row in held_out if row["process"] in first_half]
    unseen = [row for row in held_out if row["process"] not in first_half]
    for name, columns, part in (("base", COLUMNS, base), ("adapt", ["amp"], adapted),
                                ("adapted", COLUMNS, adapted), ("unseen", COLUMNS, unseen)):
        print(f"{folder}/{name}.csv: {write_rows(folder / f'{name}.csv', columns, part)} rows")


if __name__ == "__main__":
    main_guard(main)
