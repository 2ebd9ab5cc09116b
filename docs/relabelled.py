r"""
Does a model square unseen orbits better if it sees each training row under other names? More rows of the same orbits.

    python docs/relabelled.py data/variety/1000 data/variety/1000x12 12
    python docs/relabelled.py data/variety/1000 data/variety/1000x12-orders 12 orders

Writes a data set whose train.csv has each training row 12 times: once as it is, and 11 times with incoming legs
exchanged, outgoing legs exchanged, and the names of masses and particles of the random theories (docs/my_theory.md)
exchanged, at random, in amplitude and square alike. All stay in the row's orbit. With `orders` the factors and terms of
the 11 amplitudes stand in a random order too. valid.csv and test.csv are copied.
`python verify.py data/variety/1000x12/train.csv` proves that the new squares are right.
"""
import random
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.reader import read_rows
from physics.expression import TOKEN, Function, Negative, Number, Product, Sum, fold, parse, to_text
from physics.polynomial import factored_text
from physics.rational import rational
from runtime.files import InputError, main_guard, write_rows

COLUMNS = ["process", "orbit", "amp", "sqamp"]
PARTICLE = re.compile(r"(?<!\w)([FQSCVX])([abco])([12])")  # kind, mass, number
BOSON = r"[A-Z]\w*_?(?:\{[^{}]*\})?\(p_(\d)\)(?:\^\(\*\))?(?![\w^])"  # a field without spin
BOSONS = re.compile(rf"{BOSON}(?:\*{BOSON})+")


def main():
    if len(sys.argv) not in (4, 5) or not sys.argv[3].isdecimal() or int(sys.argv[3]) < 1 or \
            sys.argv[4:] not in ([], ["orders"]):
        raise InputError("expected the data set's folder, the one to write into, how often each row shall stand "
                         "there, and perhaps `orders`: python docs/relabelled.py data/variety/1000 "
                         "data/variety/1000x12 12")
    source, folder, times, rng = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), random.Random(0)
    if folder.resolve() == source.resolve():
        raise InputError(f"{folder}: is the data set itself; name another folder to write into")

    def rows():
        for _, row in read_rows(source / "train.csv", COLUMNS):
            yield row
            for _ in range(times - 1):
                copy = relabelled(row, rng)
                yield copy if not sys.argv[4:] else copy | {"amp": to_text(in_random_order(parse(copy["amp"]), rng))}
    count = write_rows(folder / "train.csv", COLUMNS, ({name: row[name] for name in COLUMNS} for row in rows()))
    for name in ("valid.csv", "test.csv", "manifest.json"):
        shutil.copyfile(source / name, folder / name)
    print(f"{folder / 'train.csv'}: {count} rows")


def relabelled(row, rng):
    """The row with its legs permuted, incoming and outgoing ones apart, and its particles and masses renamed."""
    incoming, outgoing = (side.split() for side in row["process"].split(" -> "))
    count = len(incoming)
    order = rng.sample(range(count), count) + rng.sample(range(count, count + len(outgoing)), len(outgoing))
    legs = {old + 1: new + 1 for new, old in enumerate(order)}
    masses = "ab" if re.search(r"(?<!\w)Q[abco][12]", row["process"]) else "abc"  # there is no quark of mass m_c
    mass = dict(zip(masses, rng.sample(masses, len(masses)))) | {"o": "o"}
    mass.setdefault("c", "c")
    swapped = {kind + letter: rng.random() < 0.5 for kind in "FQSCVX" for letter in "abco"}

    def particle(match):
        kind, letter, number = match.groups()
        return f"{kind}{mass[letter]}{3 - int(number) if swapped[kind + letter] else number}"

    def rename(match):
        text = match[0]
        if match.lastgroup == "symbol":
            if invariant := re.fullmatch(r"s_(\d)(\d)", text):
                return "s_" + "".join(sorted(str(legs[int(leg)]) for leg in invariant.groups()))
            return re.sub(r"^m_([abc])$", lambda found: f"m_{mass[found[1]]}", text)
        if match.lastgroup == "field":
            text = PARTICLE.sub(particle, text)
        return re.sub(r"(?<!\w)p_(\d)", lambda found: f"p_{legs[int(found[1])]}", text)

    def by_leg(match):
        fields = re.split(r"\*(?=[A-Z])", match[0])
        return "*".join(sorted(fields, key=lambda field: int(re.search(r"\(p_(\d)\)", field)[1])))

    names = [PARTICLE.sub(particle, name) for name in incoming + outgoing]
    names = [names[old] for old in order]
    return {"process": f"{' '.join(names[:count])} -> {' '.join(names[count:])}", "orbit": row["orbit"],
            "amp": BOSONS.sub(by_leg, TOKEN.sub(rename, row["amp"])),
            "sqamp": factored_text(rational(parse(TOKEN.sub(rename, row["sqamp"]))))}


def in_random_order(tree, rng):
    """
    The tree with the terms of its sums and the factors of its products shuffled; numbers stay in front, and divisors as
    they are.
    """
    def visit(node, values):
        kind = type(node)
        if kind is Sum:
            order = rng.sample(range(len(values)), len(values))
            return Sum(tuple(values[k] for k in order), tuple(node.minus[k] for k in order))
        if kind is Product:
            numbers = [pair for pair in zip(node.factors, node.inverse) if is_number(pair[0])]
            others = [(value, False) for value, inverse in zip(values, node.inverse)
                      if not inverse and not is_number(value)]
            divisors = [pair for pair in zip(node.factors, node.inverse) if pair[1] and not is_number(pair[0])]
            return Product(*map(tuple, zip(*numbers, *rng.sample(others, len(others)), *divisors)))
        if kind is Function:
            return Function(node.name, *values)
        return kind(*values) if values else node
    return fold(tree, visit)


def is_number(node):
    return type(node) is Number or type(node) is Negative and type(node.operand) is Number


if __name__ == "__main__":
    main_guard(main)
