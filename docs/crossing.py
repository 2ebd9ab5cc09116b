"""
The files of README's experiment without labels: QED 2->2 with two incoming antifermions is taken out of the quickstart set.

    python prepare.py config/quickstart.py && python docs/crossing.py data/quickstart data/crossing

Writes into the second folder base.csv (all other rows, to train on), adapt.csv (amplitudes of half the antifermion processes, without
squares), adapted.csv (the same rows with their squares, to evaluate with) and unseen.csv (the other half of these processes).
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
        raise InputError("python docs/crossing.py data/quickstart data/crossing: expected the folder of the data set and the one to write into")
    source, folder = map(Path, sys.argv[1:])
    rows = [row for split in ("train", "valid", "test") for _, row in read_rows(source / f"{split}.csv")]
    held_out = [row for row in rows if process_kind(row["amp"]) == HELD_OUT]
    processes = sorted({row["process"] for row in held_out})
    random.Random(0).shuffle(processes)
    half = set(processes[:len(processes) // 2])
    adapted = [row for row in held_out if row["process"] in half]
    for name, columns, part in (("base", COLUMNS, [row for row in rows if process_kind(row["amp"]) != HELD_OUT]), ("adapt", ["amp"], adapted),
                                ("adapted", COLUMNS, adapted), ("unseen", COLUMNS, [row for row in held_out if row["process"] not in half])):
        print(f"{folder}/{name}.csv: {write_rows(folder / f'{name}.csv', columns, part)} rows")


if __name__ == "__main__":
    main_guard(main)
