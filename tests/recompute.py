"""Was anything marked `verified` wrongly? Each candidate of predictions of QED 2->2 is compared with FORM's square of
its amplitude by exact rational arithmetic. Neither is used where answers are verified.

    python decode.py --beam --beam_size=10 --verify --n_best --input=ROWS.csv --output=predictions.csv
    PYTHONPATH=. python tests/recompute.py predictions.csv
"""

import collections
import json
import sys

from exact import equal

from dataset.reader import read_rows
from physics.expression import parse
from physics.matrices import read_amplitude
from physics.particles import Facts, roles_of
from physics.square import square_many
from runtime.files import InputError, main_guard


def main():
    rows = [row for path in sys.argv[1:] for _, row in read_rows(path, ("amp", "candidates"))]
    counts = collections.Counter()
    facts = [Facts(row.get("process", "")) for row in rows]
    for row, known, square in zip(rows, facts, square_many([row["amp"] for row in rows], facts=facts)):
        if isinstance(square, InputError):
            counts["unreadable"] += 1
            continue
        _, fields, names = read_amplitude(row["amp"])
        masses = roles_of(fields, names, known).masses
        for text, _, status in json.loads(row["candidates"]):
            if status in ("verified", "unverified"):
                try:
                    right = equal(parse(text), parse(square), masses)
                except (InputError, ArithmeticError, KeyError):  # no formula of these momenta
                    right = False
                counts[status, right] += 1
                if right != (status == "verified"):
                    print(f"{status}, but {'right' if right else 'wrong'}: {text}\n  {row['amp']}")
    print(
        f"{len(rows)} rows, {counts['unreadable']} unreadable; "
        f"verified: {counts['verified', True]} right, {counts['verified', False]} wrong; "
        f"unverified: {counts['unverified', False]} wrong, {counts['unverified', True]} right"
    )
    return counts["verified", False] + counts["unverified", True] > 0


if __name__ == "__main__":
    main_guard(main)
