"""
Does a model learn from its own answers, if only the proven ones are kept? Expert iteration without labels.

    python docs/own_answers.py data/variety/1000 data/variety/4628 data/own
    python decode.py --ckpt=out/variety/1000-1/best.pt --input=data/own/amplitudes.csv --beam --beam_size=20 --verify \\
        --output=data/own/answers.csv
    python docs/own_answers.py data/variety/1000 data/own

The first command writes data/own/amplitudes.csv: one row of each orbit that the second data set trains on and the first
does not, without its square. The last one writes data/own/train.csv: the training rows of the first data set, and the
rows whose answer decode.py has verified, with that answer as the square. valid.csv and test.csv are the first's.
"""
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.reader import read_rows
from docs.variety import one_of_each_orbit
from physics.expression import parse
from physics.polynomial import factored_text
from physics.rational import rational
from runtime.files import InputError, main_guard, write_rows

COLUMNS = ["process", "orbit", "amp", "sqamp"]


def main():
    if len(sys.argv) == 4:
        write_amplitudes(*map(Path, sys.argv[1:]))
    elif len(sys.argv) == 3:
        write_training_rows(*map(Path, sys.argv[1:]))
    else:
        raise InputError("expected two data sets and the folder to write into, or one data set and the folder with "
                         "amplitudes.csv and answers.csv: python docs/own_answers.py data/variety/1000 data/own")


def write_amplitudes(labelled, larger, folder):
    known = {row["orbit"] for _, row in read_rows(labelled / "train.csv", COLUMNS)}
    rows = [row for row in one_of_each_orbit(larger / "train.csv") if row["orbit"] not in known]
    count = write_rows(folder / "amplitudes.csv", COLUMNS[:3], rows)
    print(f"{folder / 'amplitudes.csv'}: {count} amplitudes")


def write_training_rows(labelled, folder):
    rows = [row for _, row in read_rows(labelled / "train.csv", COLUMNS)]
    asked = {row["amp"]: row for _, row in read_rows(folder / "amplitudes.csv", COLUMNS[:3])}
    answers = [answer for _, answer in read_rows(folder / "answers.csv", ["amp", "prediction", "status"])
               if answer["status"] == "verified"]
    for answer in answers:
        if answer["amp"] not in asked:
            raise InputError(f"{folder / 'answers.csv'}: answers other amplitudes than those of amplitudes.csv; "
                             "let decode.py answer these")
        rows.append(asked[answer["amp"]] | {"sqamp": factored_text(rational(parse(answer["prediction"])))})
    count = write_rows(folder / "train.csv", COLUMNS, rows)
    for name in ("valid.csv", "test.csv", "manifest.json"):
        shutil.copyfile(labelled / name, folder / name)
    print(f"{folder / 'train.csv'}: {count} rows, {len(answers)} of them the model's own answers to {len(asked)} "
          "amplitudes")


if __name__ == "__main__":
    main_guard(main)
