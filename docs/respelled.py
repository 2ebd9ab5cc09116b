"""
Does it matter to a model how a square is written? The same rows with their squares in another style.

    python docs/respelled.py data/variety/1000 data/variety/1000-inside inside

Writes the data set with each square in a style of prepare.py: "factored", "inside", "marty".
"""
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.reader import read_rows
from physics.expression import parse
from physics.rational import rational
from physics.square import STYLES
from runtime.files import InputError, main_guard, write_rows

COLUMNS = ["process", "orbit", "amp", "sqamp"]


def main():
    if len(sys.argv) != 4 or sys.argv[3] not in STYLES:
        raise InputError("expected the data set's folder, the one to write into, and a style of "
                         f"{', '.join(map(repr, STYLES))}: "
                         'python docs/respelled.py data/variety/1000 data/variety/1000-inside inside')
    source, folder, style = Path(sys.argv[1]), Path(sys.argv[2]), STYLES[sys.argv[3]]
    if folder.resolve() == source.resolve():
        raise InputError(f"{folder}: is the data set itself; name another folder to write into")
    for name in ("train.csv", "valid.csv", "test.csv"):
        rows = (row | {"sqamp": style(rational(parse(row["sqamp"])))} for _, row in read_rows(source / name, COLUMNS))
        print(f"{folder / name}: {write_rows(folder / name, COLUMNS, rows)} rows")
    if (source / "manifest.json").exists():  # a closed vocabulary needs it
        shutil.copyfile(source / "manifest.json", folder / "manifest.json")


if __name__ == "__main__":
    main_guard(main)
