"""The baseline that a model has to beat: a lookup table of the training rows.

It answers an amplitude with the square of a training amplitude that is equal up to index names ("exact"), or up to index
and particle names ("renamed"; the masses in the answer are renamed back).
"""
import re

from files import InputError
from physics.expression import parse
from physics.polynomial import factored_text
from physics.square import rational
from tokenizer import canonical_key, template

KINDS = ("exact", "renamed")
_MASS = re.compile(r"(?<!\w)m_(\w+)")


def lookup_table(rows):
    """{"exact": {key: sqamp}, "renamed": {key: sqamp with masses m_P0, m_P1, ...}} of rows with `amp` and `sqamp`."""
    table = {kind: {} for kind in KINDS}
    for row in rows:
        table["exact"][canonical_key(row["amp"])] = row["sqamp"]
        key, particles = template(row["amp"])
        table["renamed"][key] = _rename_masses(row["sqamp"], {name: f"P{k}" for k, name in enumerate(particles)})
    return table


def look_up(table, amp, kind):
    """The table's answer to an amplitude, or None."""
    if kind == "exact":
        return table["exact"].get(canonical_key(amp))
    key, particles = template(amp)
    answer = table["renamed"].get(key)
    return answer and _rename_masses(answer, {f"P{k}": name for k, name in enumerate(particles)})


def lookup_scores(train, test):
    """{"exact": share, "renamed": share} of the test rows that a table of the training rows answers right.

    An answer is right if it is the row's sqamp, or the same polynomial over the same propagators spelled in another order.
    """
    table = lookup_table(train)
    right = dict.fromkeys(KINDS, 0)
    for row in test:
        for kind in KINDS:
            answer = look_up(table, row["amp"], kind)
            right[kind] += answer is not None and (answer == row["sqamp"] or _canonical(answer) == _canonical(row["sqamp"]))
    return {kind: count / max(len(test), 1) for kind, count in right.items()}


def _rename_masses(sqamp, names):
    return _MASS.sub(lambda match: f"m_{names.get(match[1], match[1])}", sqamp)


def _canonical(sqamp):
    try:
        return factored_text(rational(parse(sqamp)))
    except (InputError, ZeroDivisionError, RecursionError):
        return sqamp
