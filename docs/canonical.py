"""
The rows of a data set with squares in one spelling: that of physics/square.py instead of the file's own.

    python prepare.py config/marty_qed.py --off_shell_marks --data_dir=data/marty_qed_marks
    python docs/canonical.py data/marty_qed_marks data/marty_qed_canonical

Each square is computed from the amplitude by FORM and proven to be its square; a row where it is not, or
where it cannot be computed, is an error.
"""
import itertools
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.reader import read_rows
from physics.particles import Facts
from physics.square import square_many
from physics.verdict import doubt_of
from runtime.files import InputError, main_guard, write_rows

AT_ONCE = 200  # rows in one FORM process


def main():
    if len(sys.argv) != 3:
        raise InputError("expected the data set's folder and the one to write into: "
                         "python docs/canonical.py data/marty_qed_marks data/marty_qed_canonical")
    source, folder = map(Path, sys.argv[1:])
    if folder.resolve() == source.resolve():
        raise InputError(f"{folder}: is the data set itself; name another folder to write into")
    for name in ("train", "valid", "test"):
        path, made = source / f"{name}.csv", []
        rows = read_rows(path)
        while some := list(itertools.islice(rows, AT_ONCE)):
            facts = [Facts(row.get("process", "")) for _, row in some]
            squares = square_many([row["amp"] for _, row in some], facts=facts)
            for (line, row), square, known in zip(some, squares, facts):
                if isinstance(square, InputError):
                    raise InputError(f"{path}:{line}: {square}")
                if doubt := doubt_of(row["amp"], square, known):
                    raise InputError(f"{path}:{line}: {doubt}")
                made.append(row | {"sqamp": square})
        if not made:
            raise InputError(f"{path}: no rows")
        changed = sum(row["sqamp"] != old["sqamp"] for row, (_, old) in zip(made, read_rows(path)))
        print(f"{folder / name}.csv: {write_rows(folder / f'{name}.csv', list(made[0]), made)} rows, {changed} squares "
              "spelled otherwise than before")
    if (source / "manifest.json").exists():  # a closed vocabulary needs it
        shutil.copyfile(source / "manifest.json", folder / "manifest.json")


if __name__ == "__main__":
    main_guard(main)
