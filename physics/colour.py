"""Sums over the colours of all legs, exactly: products of SU(3) generators, structure constants and deltas.

A structure is a tuple of factors ("t", a, i, j), ("f", a, b, c) or ("d", x, y) of one term of an amplitude. Its
labels are texts: a3 is the colour of gluon leg 3, c1 that of quark leg 1; A0, A1, ... and C0, C1, ... are summed.
"""
import itertools

from physics import form

DECLARATIONS = """AutoDeclare Indices c=3,d=3,e=3;
AutoDeclare Indices a=8,b=8;
CFunction t;
"""
# Fierz identity, the completeness of the generators with tr(TaTb) = 1/2 and the unit matrix
FIERZ = """repeat id t(a1?,c1?,c2?)*t(a1?,c3?,c4?) = 1/2*d_(c1,c4)*d_(c2,c3)-1/6*d_(c1,c2)*d_(c3,c4);
id t(a1?,c1?,c1?) = 0;
"""
CHUNK = 100                  # pairs of structures in one FORM program: five gluons have a thousand, at some 40 ms each
_known = {}  # (structure, structure) -> number as text; the same few dozen recur in all rows of a data set


def structure(factors):
    """The factors with their summed labels renamed by first appearance, so that equal structures compare equal."""
    numbers, renamed = {}, []
    for name, *labels in factors:
        for position, label in enumerate(labels):
            if label[0] == "%":
                kind = "A" if name == "f" or name == "t" and position == 0 else "C"
                fresh = f"{kind}{sum(known[0] == kind for known in numbers.values())}"
                labels[position] = numbers.setdefault(label, fresh)
        renamed.append((name, *labels))
    return tuple(renamed)


def sums(pairs, timeout=60):
    """{(left, right): sum over all colours of left * conj(right)} for pairs of structures, as FORM's text: `6*i_`."""
    missing = iter(sorted({min(pair, pair[::-1]) for pair in pairs if pair not in _known}))
    for chunk in iter(lambda: list(itertools.islice(missing, CHUNK)), []):
        products = [f"{_text(left, False)}*{_text(right, True)}" for left, right in chunk]
        answers = form.run(DECLARATIONS, products, FIERZ, timeout)
        for (left, right), terms in zip(chunk, answers):
            _known[left, right] = "".join(terms) or "0"
            _known[right, left] = "".join(_conjugated(term) for term in terms) or "0"
    return {pair: _known[pair] for pair in pairs}


def _conjugated(term):
    """The complex conjugate of one term of a number: `-2/3`, `6*i_`."""
    if "i_" not in term:
        return term
    return "+" + term[1:] if term[0] == "-" else "-" + term.removeprefix("+")


def _text(factors, conjugate):
    """FORM text of a structure or of its complex conjugate, which has summed labels of its own.

    f^abc = -2i tr([Ta, Tb] Tc) is real.
    """
    summed = {"A": "b1" if conjugate else "a1", "C": "d1" if conjugate else "c1"}
    pieces = ["1"]
    for k, (name, *labels) in enumerate(factors):
        labels = [summed[label[0]] + label[1:].zfill(4) if label[0] in summed else label for label in labels]
        if name == "t":
            a, i, j = labels
            pieces.append(f"t({a},{j},{i})" if conjugate else f"t({a},{i},{j})")            # T^a is hermitian
        elif name == "f":
            a, b, c = labels
            x, y, z = (f"e{k}{letter}{int(conjugate)}" for letter in "xyz")
            pieces.append(f"(-2*i_)*(t({a},{x},{y})*t({b},{y},{z})-t({b},{x},{y})*t({a},{y},{z}))*t({c},{z},{x})")
        else:
            pieces.append(f"d_({labels[0]},{labels[1]})")
    return "*".join(pieces)
