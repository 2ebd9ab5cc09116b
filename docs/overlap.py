"""
How many amplitudes of some files stand in a training file, as they are spelled and in normal form?

    python docs/overlap.py data/symba/train.csv qed-2to2.csv.gz qcd-2to2.csv.gz

Index names do not count. The normal form is that of physics/normal_form.py.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.baseline import canonical_key
from dataset.reader import read_rows
from physics.normal_form import normal
from runtime.files import InputError, main_guard


def keys_of(path):
    """(key as spelled, key in normal form) of each amplitude of a file."""
    keys = []
    for line, row in read_rows(path, ("amp",)):
        try:
            keys.append((canonical_key(row["amp"]), canonical_key(normal(row["amp"]))))
        except InputError as error:
            raise InputError(f"{path}:{line}: {error}") from None
    if not keys:
        raise InputError(f"{path}: no rows")
    return keys


def main():
    if len(sys.argv) < 3:
        raise InputError("expected a training file and other files: python docs/overlap.py data/symba/train.csv FILE")
    spelled, in_normal_form = map(set, zip(*keys_of(sys.argv[1])))
    for path in sys.argv[2:]:
        keys = keys_of(path)
        print(f"{path}: {len(keys)} rows, {sum(key in spelled for key, _ in keys)} of them in {sys.argv[1]} as they "
              f"are spelled, {sum(key in in_normal_form for _, key in keys)} in normal form")


if __name__ == "__main__":
    main_guard(main)
