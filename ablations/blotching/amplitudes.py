r"""
Blotching on the project's own task: amplitudes to squares with intermediate lines, of which some are deleted.

    python ablations/blotching/amplitudes.py make data/marty_qed_marks data/chains 4     a data set of chains
    python train.py config/quickstart.py --data_dir=data/chains --out_dir=out/chains     trained as any other
    python ablations/blotching/amplitudes.py score out/chains/best.pt data/marty_qed_marks/test.csv

`make` writes, for each row, its chain: the trace of each fermion line, where there are two or more; the product of the
traces, contracted and multiplied out; the square. FORM computes the first two. Of a training row so many copies are
made (here 4); each has a level of blotching of its own, 0 to 2, and each middle line is deleted with probability
level / 2. Validation rows have level 0, the test split is not copied.

A chain is one formula, so that the project's tokenizer and training read it as it is: `equals` and the level are
symbols in it. The amplitude ends with the factor `blotch_1`; the answer is
(4*p_1_m1*p_2_n1 + ..)*(..)*equals*(32*s_13^2 + ..)*equals*2*e^4*(..), where p_1_m1 is the component m1 of p_1.
"""
import itertools
import random
import re
import statistics
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from dataset.reader import read_rows
from decode import decode, load
from physics import square
from physics.expression import expand, parse
from physics.particles import Facts
from physics.polynomial import content
from physics.square import Row
from physics.structure import structure, without_metrics
from physics.verdict import doubt_of
from runtime.files import InputError, main_guard, write_rows
from runtime.scores import readable_tokens

LEVELS = 3  # 0 keeps all middle lines, the last one deletes all
EQUALS = "*equals*"
AT_ONCE = 200  # rows in one FORM process


def middle_lines(amps, facts):
    """The middle lines of each amplitude, a list of texts; of one that FORM cannot square []."""
    found, parts, owners = [[] for _ in amps], [], []
    for k, (amp, known) in enumerate(zip(amps, facts)):
        try:
            row = Row(amp, "all", known)
        except InputError:
            continue
        traces = traces_of(amp, row)
        parts += [*traces, row]
        owners += [(k, row.symbols)] * (len(traces) + 1)
    for (k, symbols), terms in zip(owners, square.traces(parts, timeout=60) if parts else []):
        found[k].append(f"({sum_of(terms, list(symbols))})")  # `traces` adds symbols to a row
    return [join_traces(lines) for lines in found]


def join_traces(lines):
    """[trace, trace, product] -> [trace*trace, product]; shorter lists as they are."""
    return ["*".join(lines[:-1]), lines[-1]] if len(lines) > 2 else lines


def traces_of(amp, row):
    """
    The traces of an amplitude of one term and several fermion lines, without colour and gamma_5, as `square.traces`
    reads them; else [].

    The trace of a line holds the sums over the polarisations of the legs on it. The indices of the propagators between
    the lines stay open: m of the amplitude, n of its conjugate.
    """
    terms = expand(parse(amp))
    _, tensors = without_metrics(terms[0].tensors)
    lines, *_ = structure(tensors, len(row.legs))
    matrices = {name for _, _, line in lines for name, _, _ in line}
    if len(terms) > 1 or len(lines) < 2 or matrices != {"gamma"} or row.colours != [((), ())]:
        return []
    found = []
    for start, end, line in sorted(lines):
        used = {index for _, index, _ in line}
        vectors = [row.vector_sum(leg) for leg in row.legs.values() if not leg.kind and f"m{leg.number}" in used]
        text = "*".join([square.gammas(line, 1, False), row.spin_sum(end, 1), square.gammas(line, 1, True),
                         row.spin_sum(start, 1), *vectors])
        found.append(SimpleNamespace(legs=row.legs, lines=1, colours=[], known_products=row.known_products,
                                      expression=lambda colours, text=text: text))
    return found


FACTOR = re.compile(r"""s(?P<i>\d)x(?P<j>\d) | x(?P<symbol>\d+) | (?P<imaginary>i_) | y(?P<epsilon>[\dx]+)
    | p(?P<leg>\d)\((?P<at>[mn]\d+)\) | d_\((?P<metric>[mn,\d]+)\)""", re.VERBOSE)


def sum_of(terms, symbols):
    """
    FORM's terms as a sum in the project's grammar, without the factors that all terms share.

    symbols: the names of x0, x1, ... p2(m1003) becomes p_2_m1 and d_(m1003,n1003) g_m1_n1, the indices numbered in the
    order in which they come.
    """
    numbers = {}

    def index(name):
        return f"{name[0]}{numbers.setdefault(name[1:], len(numbers) + 1)}"

    def name_of(factor):
        match = FACTOR.fullmatch(factor)
        if match["imaginary"]:
            return "i"
        if match["epsilon"]:
            return f"eps({','.join(f'p_{leg}' for leg in match['epsilon'].split('x'))})"
        if match["i"]:
            return f"s_{match['i']}{match['j']}"
        if match["symbol"]:
            return symbols[int(match["symbol"])]
        if match["leg"]:
            return f"p_{match['leg']}_{index(match['at'])}"
        return "_".join(["g", *map(index, match["metric"].split(","))])

    products = []  # (number, {factor: power})
    for term in terms:
        number, powers = Fraction(-1 if term[0] == "-" else 1), Counter()
        for factor in term.lstrip("+-").split("*"):
            base, _, power = factor.partition("^")
            if base[0].isdigit():
                number *= Fraction(base)
            else:
                powers[name_of(base)] += int(power.strip("()") or 1)
        products.append((number, powers))
    names = sorted({name for _, powers in products for name in powers})
    shared = {name: min(powers[name] for _, powers in products) for name in names}
    scale = content(number for number, _ in products)
    texts = []
    for number, powers in products:
        number /= scale
        factors = [f"{name}^{powers[name] - least}".removesuffix("^1")
                   for name, least in shared.items() if powers[name] > least]
        texts.append("*".join([str(number)] * (abs(number) != 1 or not factors) + factors))
        if number == -1 and factors:
            texts[-1] = "-" + texts[-1]
    return " + ".join(texts)


# ---------------------------------------------------------------------------------------------------------------------
# Data sets of chains, and scores of their models

def chains(rows):
    """(row, its chain as a list of lines, of which the last is the square) of rows, in their order."""
    while some := list(itertools.islice(rows, AT_ONCE)):
        facts = [Facts(row.get("process", "")) for row in some]
        for row, lines in zip(some, middle_lines([row["amp"] for row in some], facts)):
            yield row, [*lines, row["sqamp"]]


def blotched(row, lines, level, rng):
    """A row of a data set: the amplitude with the level, and the lines that are left as one formula."""
    left = [line for line in lines[:-1] if rng.random() >= level / (LEVELS - 1)]
    return row | {"amp": asked(row["amp"], level), "sqamp": EQUALS.join([*left, lines[-1]])}


def asked(amp, level):
    """The amplitude with a factor at its end that says the level, which is all that it says."""
    return f"{amp}*blotch_{level}"


def make(source, folder, copies):
    rng = random.Random(0)
    for name, count in (("train", int(copies)), ("valid", 1)):
        pairs = list(chains(row for _, row in read_rows(Path(source) / f"{name}.csv")))
        made = [blotched(row, lines, rng.randrange(LEVELS) if name == "train" else 0, rng)
                for _ in range(count) for row, lines in pairs]
        output = Path(folder) / f"{name}.csv"
        output.parent.mkdir(parents=True, exist_ok=True)
        write_rows(output, list(made[0]), made)
        middle = statistics.fmean(len(lines) - 1 for _, lines in pairs)
        print(f"{output}: {count} x {len(pairs)} rows, {middle:.2f} middle lines a row")


def score(ckpt, path, most=0, beam=1):
    """
    Exact match, right physics, lines and tokens of the answers at each level, printed as a table; of a beam, those of
    its first candidate, and the share of rows of which any candidate is right. A model that was trained without levels
    is asked once.
    """
    loaded = load(ckpt)
    rows = [row for _, row in itertools.islice(read_rows(path), int(most) or None)]
    print(f"{len(rows)} rows of {path}\n\n| level | exact | right physics | one of {beam} right | middle lines "
          "| tokens a row | CPU ms a row |\n| --- | --- | --- | --- | --- | --- | --- |")
    plain = f"blotch_{LEVELS - 1}" not in loaded.tokenizer.vocabulary["src"]  # a model of squares without lines
    for level in [0] if plain else range(LEVELS):
        begun = time.process_time()
        answers = list(decode(loaded, [row["amp"] if plain else asked(row["amp"], level) for row in rows],
                              beam_size=int(beam)))
        seconds = time.process_time() - begun
        exact = right = found = 0
        for row, answer in zip(rows, answers):
            squares = [text.split(EQUALS)[-1] for text, *_ in answer.candidates] or [""]
            truths = (text == row["sqamp"] or not doubt_of(row["amp"], text, Facts(row.get("process", "")))
                      for text in dict.fromkeys(squares))
            first = next(truths)
            exact += squares[0] == row["sqamp"]
            right += first
            found += first or any(truths)
        lines = statistics.fmean(answer.prediction.count(EQUALS) for answer in answers)
        tokens = statistics.fmean(len(readable_tokens(answer.prediction)) for answer in answers)
        shares = " | ".join(f"{count / len(rows):.1%}" for count in (exact, right, found))
        print(f"| {level} | {shares} | {lines:.2f} | {tokens:.1f} | "
              f"{1000 * seconds / len(rows):.1f} |")


def main():
    words = sys.argv[1:]
    command = {"make": make, "score": score}.get(words[0] if words else "")
    if not command or len(words) not in (3, 4, 5) or command is make and len(words) != 4 or not all(
            word.isdecimal() and int(word) for word in words[3:]):
        raise InputError("expected: make DATA_DIR FOLDER COPIES, or: score CHECKPOINT FILE [ROWS [BEAM]]")
    command(*words[1:])


if __name__ == "__main__":
    main_guard(main)
