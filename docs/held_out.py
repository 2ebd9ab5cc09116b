"""
Does a model square an orbit that it has never seen? Data sets that hold out one orbit each.

    python prepare.py --theory=qed --processes="2->2; 2->3" --data_dir=data/qed23
    python docs/held_out.py data/qed23 data/held_out

Writes a data set for each orbit into data/held_out/ORBIT, the largest first: test.csv has all rows of that orbit,
train.csv and valid.csv those of the others. A number at the end makes only so many.
"""
import collections
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.reader import read_rows
from runtime.files import InputError, main_guard, write_rows


def main():
    words = sys.argv[1:]
    if len(words) not in (2, 3) or not all(word.isdecimal() for word in words[2:]):
        raise InputError("expected the data set's folder, the one to write into and perhaps how many: "
                         "python docs/held_out.py data/qed23 data/held_out 3")
    source, folder = Path(words[0]), Path(words[1])
    splits = {name: [row for _, row in read_rows(source / f"{name}.csv")] for name in ("train", "valid", "test")}
    rows = [row for split in splits.values() for row in split]
    if any("orbit" not in row for row in rows):
        raise InputError(f"{source}: no column `orbit`; prepare.py writes it")
    counts = collections.Counter(row["orbit"] for row in rows)
    for orbit, count in counts.most_common(int(words[2]) if words[2:] else None):
        made = folder / orbit
        write_rows(made / "test.csv", list(rows[0]), [row for row in rows if row["orbit"] == orbit])
        for name in ("train", "valid"):
            write_rows(made / f"{name}.csv", list(rows[0]), [row for row in splits[name] if row["orbit"] != orbit])
        if (source / "manifest.json").exists():  # a closed vocabulary asks it for the theory
            shutil.copyfile(source / "manifest.json", made / "manifest.json")
        example = next(row["process"] for row in rows if row["orbit"] == orbit)
        print(f"{made}: {count} rows held out, such as {example}")


if __name__ == "__main__":
    main_guard(main)
