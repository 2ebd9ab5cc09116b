"""
How near to training are the orbits that a model squares, and those that it does not?

    python docs/distances.py data/variety/1000 out/variety/1000-1/beam20.json

Of the rows that a report of evaluate.py asked about, one line for each distance to the nearest training row:
- "same legs": some training row has legs of the same spins, colours and masses (which vanish, which are equal), so its
  orbit differs in vertices or propagators alone;
- "other masses": some has legs of the same spins and colours, none with the same masses;
- "new legs": no training row has legs of these spins and colours.
Rows of 2->2 and 2->3 never count as near to each other.
"""
import collections
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.reader import read_rows
from physics.matrices import read_amplitude, read_roles
from physics.particles import identity
from runtime.compare import read_report, rows_digest
from runtime.files import InputError, main_guard
from runtime.intervals import wilson
from runtime.scores import EQUAL, EXACT, NONE


def main():
    if len(sys.argv) != 3:
        raise InputError("expected the data set's folder and a report on its test rows: "
                         "python docs/distances.py data/variety/1000 out/variety/1000-1/beam20.json")
    folder, report = Path(sys.argv[1]), read_report(sys.argv[2])
    asked = [(row, outcome) for (_, row), outcome in zip(read_rows(folder / "test.csv"), report["outcomes"])]
    answered = [row | {"number": number} for number, (row, outcome) in enumerate(asked) if outcome != NONE]
    if rows_digest(answered) != report["rows_sha256"]:
        raise InputError(f"{sys.argv[2]}: is no report on the rows of {folder}/test.csv")
    train = [legs_of(row) for _, row in read_rows(folder / "train.csv")]
    near, known = set(train), {spins for spins, _ in train}
    right = collections.defaultdict(list)
    for row, outcome in asked:
        if outcome != NONE:
            legs = legs_of(row)
            distance = "same legs" if legs in near else "other masses" if legs[0] in known else "new legs"
            right[distance].append(outcome in (EXACT, EQUAL))
    print("| nearest training row | rows | right |\n| --- | --- | --- |")
    for distance in "same legs", "other masses", "new legs":
        if rows := right[distance]:
            low, high = wilson(sum(rows), len(rows))
            print(f"| {distance} | {len(rows)} | {sum(rows) / len(rows):.1%} ({100 * low:.1f} to {100 * high:.1f}) |")


def legs_of(row):
    """(spins and colours of a row's legs, the same by masses: of each massive particle its legs, last the massless)."""
    fields = read_amplitude(row["amp"]).fields
    masses = read_roles(row["amp"], frozenset()).masses
    by_mass = collections.defaultdict(list)
    for field, mass in zip(fields, masses):
        by_mass[mass].append(identity(field)[1:])
    massless = sorted(by_mass.pop(None, []))
    return (tuple(sorted(identity(field)[1:] for field in fields)),
            (*sorted(map(tuple, map(sorted, by_mass.values()))), tuple(massless)))


if __name__ == "__main__":
    main_guard(main)
