"""
Where do wrong squares go wrong? The first token of each that is not the truth's, by what should have stood there.

    python docs/first_wrong.py out/variety/4628-1/predictions.csv

Reads the predictions of decode.py on rows with a true square. An answer that is right but spelled otherwise counts as
wrong here: for data of prepare.py these are rare, as a square has one text there.
"""
import collections
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.reader import read_rows
from runtime.files import InputError, main_guard
from tokenizer import sqamp_tokens

END = "the end"
CLASSES = {  # first fitting pattern: what the token is; each may have a sign and a power
    END: "the end of the square",
    r"-?s_\d\d.*": "a product of two momenta",
    r"-?m_\w+.*": "a mass",
    r"-?\w*reg_prop": "the width of a propagator",
    r"-?[A-Za-z].*": "a coupling",
    r"\(?-?\d.*": "a number",
    r".*": "an operator or a bracket",
}


def main():
    if len(sys.argv) != 2:
        raise InputError("expected the predictions of decode.py or evaluate.py: "
                         "python docs/first_wrong.py out/variety/4628-1/predictions.csv")
    rows = [row for _, row in read_rows(sys.argv[1], ["sqamp", "prediction"])]
    found, at_once = collections.Counter(), 0
    for row in rows:
        truth, answer = (tokens_of(row[name]) for name in ("sqamp", "prediction"))
        if answer != truth:
            place = next(k for k, (a, b) in enumerate(zip(truth, answer)) if a != b)
            found[next(what for pattern, what in CLASSES.items() if re.fullmatch(pattern, truth[place]))] += 1
            at_once += place == 0
    print(f"{found.total()} of {len(rows)} answers differ from the truth")
    print("| first wrong token should be | answers |\n| --- | --- |")
    for what, count in found.most_common():
        print(f"| {what} | {count} |")
    print(f"{at_once} answers are wrong from the first token on")


def tokens_of(text):
    try:
        return sqamp_tokens(text) + [END]
    except InputError:  # no answer at all
        return [END]


if __name__ == "__main__":
    main_guard(main)
