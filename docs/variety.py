"""
Does a model that has seen more orbits square others better? Data sets with fewer orbits to train on, all else equal.

    python prepare.py config/random.py --split=orbit && python docs/variety.py data/random data/variety 100 1000

Writes a data set for each number N into data/variety/N: train.csv has the rows of N orbits of the training rows, drawn
at random, the smaller sets within the larger ones. valid.csv and test.csv have one row of each of their orbits in
data/random, in a random order: the first 300 rows are a fair sample of the orbits, and an interval over rows is one
over orbits.
"""
import random
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.reader import read_rows
from runtime.files import InputError, main_guard, write_rows

COLUMNS = ["orbit", "amp", "sqamp"]  # prepare.py writes them


def main():
    if len(sys.argv) < 4 or not all(word.isdecimal() for word in sys.argv[3:]):
        raise InputError("expected the data set's folder, the one to write into, and numbers of orbits: "
                         "python docs/variety.py data/random data/variety 100 1000")
    source, folder, numbers = Path(sys.argv[1]), Path(sys.argv[2]), [int(word) for word in sys.argv[3:]]
    rows = [row for _, row in read_rows(source / "train.csv", COLUMNS)]
    orbits = sorted({row["orbit"] for row in rows})
    random.Random(0).shuffle(orbits)
    for number in numbers:
        if not 0 < number <= len(orbits):
            raise InputError(f"{number} orbits: {source / 'train.csv'} has {len(orbits)}")
        chosen = set(orbits[:number])
        train = folder / str(number) / "train.csv"
        count = write_rows(train, list(rows[0]), [row for row in rows if row["orbit"] in chosen])
        for name in ("valid.csv", "test.csv"):
            write_rows(train.parent / name, list(rows[0]), one_of_each_orbit(source / name))
        if (source / "manifest.json").exists():  # a closed vocabulary needs it
            shutil.copyfile(source / "manifest.json", train.parent / "manifest.json")
        print(f"{train}: {count} rows of {number} orbits")


def one_of_each_orbit(path):
    """One row of each orbit of a file, drawn at random, in a random order; the same ones every time."""
    rows = [row for _, row in read_rows(path, COLUMNS)]
    random.Random(0).shuffle(rows)
    return list({row["orbit"]: row for row in rows}.values())


if __name__ == "__main__":
    main_guard(main)
