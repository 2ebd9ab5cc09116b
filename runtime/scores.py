"""
Figures of judged rows: shares that are right, by kind of process, length and diagram, and what they can be at best.

A row is a dictionary with amp, sqamp, prediction, status, figures of certainty, and a verdict that is named below.
"""
import collections
import re
import statistics

from dataset.baseline import canonical_key
from physics.diagrams import diagram_type
from physics.expression import Negative, Product, Sum, parse
from physics.mistakes import mistake
from physics.processes import process_kind
from runtime.files import InputError
from runtime.intervals import bootstrap, wilson
from runtime.report import power_of_two_bin
from tokenizer import sqamp_tokens

RIGHT, OTHERWISE, WRONG = "right", "right but spelled otherwise", "wrong"
UNFINISHED, UNREADABLE = "unfinished", "unreadable"
PROVEN = ("verified", "computed")
EXACT, EQUAL, NONE = "r", "o", "-"  # in a report's `outcomes`: the exact text, equal as physics, no row that counts
LETTERS = {RIGHT: EXACT, OTHERWISE: EQUAL, WRONG: "w", UNFINISHED: "f", UNREADABLE: "x"}


def accuracies(rows):
    right, otherwise = (sum(row["verdict"] == verdict for row in rows) for verdict in (RIGHT, OTHERWISE))
    count = len(rows)
    return {"rows": count, "sequence_accuracy": right / count, "right_physics": (right + otherwise) / count}


def accuracies_by(group_of, rows):
    """{group: accuracies}, in natural order: 8-15 before 16-31."""
    groups = collections.defaultdict(list)
    for row in rows:
        groups[group_of(row)].append(row)
    order = sorted(groups, key=lambda name: [part.zfill(9) for part in re.split(r"(\d+)", name)])
    return {name: accuracies(groups[name]) for name in order}


def by_process_and_length(rows):
    return {"by_length": accuracies_by(length_of, rows), "by_process": accuracies_by(kind_of, rows)}


def kind_of(row):
    return process_kind(row["amp"])


def length_of(row):
    """Bin of the truth's length in tokens: "32-63"."""
    return power_of_two_bin(len(sqamp_tokens(row["sqamp"])))


def diagram_of(row):
    try:
        return diagram_type(row["amp"])
    except InputError:
        return "unknown"


def terms_of(row):
    """Bin of the number of terms of the truth's polynomial: of its longest factor that is a sum."""
    tree = parse(row["sqamp"])
    while type(tree) is Negative:
        tree = tree.operand
    factors = zip(tree.factors, tree.inverse) if type(tree) is Product else [(tree, False)]
    sums = [len(factor.terms) for factor, divides in factors if type(factor) is Sum and not divides]
    return power_of_two_bin(max(sums, default=1))


def token_accuracy(row):
    answer, truth = readable_tokens(row["prediction"]), sqamp_tokens(row["sqamp"])
    return sum(a == b for a, b in zip(answer, truth)) / max(len(answer), len(truth))


def readable_tokens(text):
    """Tokens of a square; of a text that is none, the tokens of its longest beginning that is one up to parentheses."""
    ends = [len(text)] + [match.start() for match in re.finditer(r"[*/)]| \+ ", text)][::-1]
    for end in ends:
        try:
            return sqamp_tokens(text[:end])
        except InputError:
            pass
    return []


def ceiling(rows, known):
    """(mean share of the most frequent text of a row's amplitude, number of rows whose amplitude has several texts).

    known: the rows of all splits; one that comes twice, index names and all, counts once. The rows may be some of them
    under other index names: of a text that stands in both, the greater number counts.
    """
    known, own = texts_by_amplitude(known), texts_by_amplitude(rows)
    counts = [known[key] | own[key] for key in (canonical_key(row["amp"]) for row in rows)]
    highest = statistics.fmean(max(count.values()) / count.total() for count in counts)
    return highest, sum(len(count) > 1 for count in counts)


def texts_by_amplitude(rows):
    """{amplitude up to index names: {sqamp: number of different amp that stand with it}}"""
    texts = collections.defaultdict(collections.Counter)
    for amp, sqamp in {(row["amp"], row["sqamp"]) for row in rows}:
        texts[canonical_key(amp)][sqamp] += 1
    return texts


def mistakes(rows):
    """{kind of mistake: number of wrong answers}: see physics/mistakes.py; "no terms": it cannot be multiplied out."""
    counts = collections.Counter()
    for row in rows:
        if row["verdict"] == WRONG:
            try:
                counts[mistake(row["prediction"], row["sqamp"]) or "no terms"] += 1
            except InputError:
                counts["no terms"] += 1
    return dict(counts.most_common())


def is_right(row):
    return row["verdict"] in (RIGHT, OTHERWISE)


def unproven(row):
    """Whether the answer is equal to the square in floating point, but exact arithmetic has no proof."""
    return row["verdict"] == WRONG and row.get("reason", "").startswith("no proof")


def intervals(rows, seed):
    """95% intervals of the first figures of a report, over judged rows."""
    count = len(rows)
    return {
        "sequence_accuracy": wilson(sum(row["verdict"] == RIGHT for row in rows), count),
        "right_physics": wilson(sum(map(is_right, rows)), count),
        "token_accuracy": bootstrap(list(map(token_accuracy, rows)), seed),
        "coverage": wilson(sum(row["status"] in PROVEN for row in rows), count),
    }
