r"""
The normal form of an amplitude: one text for all the spellings that authors and programs give it.

`normal` multiplies the amplitude out and writes it anew: the matrices in the order of the fermion lines, the fields in
the order of the legs, indices named by what they join, equal terms added up, terms sorted, common factors in front.
Also, where they apply, with exact algebra:

    colour         f^abc T^c = -i [T^a, T^b], T^x_ij T^x_kl = 1/2 delta_il delta_kj - 1/6 delta_ij delta_kl
                   (Peskin & Schroeder, eq. 15.44; Dixon, hep-ph/9601359, eq. 3, with Tr T^a T^b = 1/2 delta_ab)
    momenta        the last boson's, or else the last leg's, by those of the others
    Dirac equation pslash moves to the spinor of its own leg by the anticommutator, there pslash u = m u and
                   pslash v = -m v (Peskin & Schroeder, section 3.3)

These three rules are for four legs, where they make an amplitude shorter. The overall phase is left out: it does not
change the square. Where a mass or a direction is not known, the rule that needs it is left out. The text is an
amplitude of the grammar, so every judge reads it. Amplitudes of one normal form, with the same masses, have one square.
MARTY's and our texts of the QED and QCD diagrams of 2->2 have the same normal forms.
"""
import contextlib
import functools
import itertools
from fractions import Fraction

from physics.expression import Field, Tensor, check_indices, expand, legs_of, names_in, parse, to_text
from physics.particles import mass_of, roles_of
from physics.polynomial import add, common_powers, content, factor_text, monomial, multiply, rank, scaled
from physics.rational import coefficient_of, reduced
from physics.structure import without_metrics
from runtime.files import InputError

SIMPLIFIED = 4  # legs of the amplitudes to which the three rules are applied: longer ones would become longer still
MOST_TERMS = 20_000  # of an amplitude while it is rewritten

# A term is (lines, momenta, pairs, colours), a key of {term: coefficient}, all of them tuples:
#   lines     (starred leg, plain leg, matrices); a matrix is ("gamma", label) or (its name,). The label says what its
#             Lorentz index joins: ("leg", k) the polarisation of leg k, ("p", k) a momentum, ("d", n) another gamma
#   momenta   (k, label): p_k with the index of a leg's polarisation
#   pairs     ("", j, k): legs whose polarisations share an index; ("colour", j, k): legs that share a colour
#   colours   ("T", label, row, column) and ("f", a, b, c); labels as above, and ("c", k), the colour of quark k


def normal(amp):
    """The normal form of an amplitude's text. InputError for a text that is no amplitude."""
    try:
        return _normal(amp)
    except ZeroDivisionError:
        raise InputError("division by zero") from None
    except RecursionError:
        raise InputError("a scalar factor is nested too deep") from None


def _normal(amp):
    tree = parse(amp)
    terms = expand(tree)
    legs = legs_of(terms)
    fields = {tensor.leg: tensor for tensor in terms[0].tensors if type(tensor) is Field}
    names, masses = names_in(tree), {}  # masses: symbols of the fermions on their mass shells, None of massless ones
    for k, field in fields.items():
        if field.kind and field.mark != "off" and f"s_{k}{k}" not in names:
            with contextlib.suppress(InputError):
                masses[k] = mass_of(field, names)
    total = {}
    for term in terms:
        check_indices(term.tensors)
        number, tensors = without_metrics(term.tensors)
        accumulate(total, structured(tensors), multiply({(): Fraction(number)}, coefficient_of(term.scalars)))
    if len(legs) == SIMPLIFIED:
        total = rewrite(rewrite(total, commutator), exchange)
        flow = conservation(fields, names)
        if flow:
            total = rewrite(total, functools.partial(conserve, last=flow[0], flow=flow[1]))
        total = rewrite(total, functools.partial(dirac, fields=fields, masses=masses))
    return text_of({term: reduced(coefficient) for term, coefficient in total.items()}, fields)


def accumulate(total, term, coefficient):
    """Add coefficient * term to a sum {term: coefficient}."""
    term = renumbered(term)
    total[term] = add(total.get(term, {}), coefficient)


def rewrite(total, rule):
    """All terms rewritten until the rule, term -> [(coefficient, term), ...] or None, applies to none of them."""
    done, todo = {}, total
    while todo:
        again = {}
        for term, coefficient in todo.items():
            parts = rule(term)
            if parts is None:
                accumulate(done, term, coefficient)
            for factor, part in parts or ():
                accumulate(again, part, multiply(factor, coefficient))
        todo = {term: coefficient for term, coefficient in again.items() if coefficient}
        if len(done) + len(todo) > MOST_TERMS:
            raise InputError(f"a normal form of more than {MOST_TERMS:,} terms")
    return {term: coefficient for term, coefficient in done.items() if coefficient}


# ---------------------------------------------------------------------------------------------------------------------
# From tensors to terms

def structured(tensors):
    """The tensors of one term, metrics carried out, as a term. InputError for what is no amplitude."""
    places = {}  # index -> what stands there
    for number, tensor in enumerate(tensors):
        for slot, index in enumerate(tensor.indices):
            if type(tensor) is not Field or slot:
                places.setdefault(index.lstrip("+"), []).append((number, slot))
    for index, ends in places.items():
        if len(ends) != 2:
            raise InputError(f"index {index} occurs {len(ends)} times in a term, expected 2")

    def other(index, number, slot):
        """The tensor at the other end of an index, or this one if both ends are here, and the slot there."""
        index = index.lstrip("+")
        first, second = places[index]
        return second if first == (number, slot) else first

    def label(number, slot):
        """What the index at this place joins."""
        index = tensors[number].indices[slot].lstrip("+")
        there, at = other(index, number, slot)
        tensor = tensors[there]
        if type(tensor) is Field:
            is_quark_colour = tensor.kind and at < len(tensor.indices) - 1
            return ("c", tensor.leg) if is_quark_colour else ("leg", tensor.leg)
        if tensor.name.startswith("p_"):
            return ("p", int(tensor.name[2:]))
        return ("d", index)

    rows, colours, momenta, pairs = {}, [], [], set()
    starts, ends = {}, {}
    for number, tensor in enumerate(tensors):
        if type(tensor) is Field:
            if tensor.kind:
                (starts if tensor.starred else ends)[tensor.indices[-1].lstrip("+")] = tensor.leg
            for slot, index in enumerate(tensor.indices[1:], 1):
                there = tensors[other(index, number, slot)[0]]
                if type(there) is Field and not (tensor.kind and slot == len(tensor.indices) - 1):
                    is_colour = tensor.kind or slot < len(tensor.indices) - 1
                    pairs.add(("colour" if is_colour else "", *sorted((tensor.leg, there.leg))))
        elif tensor.name == "gamma":
            rows[tensor.indices[1].lstrip("+")] = ("gamma", label(number, 0)), tensor.indices[2].lstrip("+")
        elif tensor.name in ("P_L", "P_R", "gamma_5"):
            rows[tensor.indices[0].lstrip("+")] = (tensor.name,), tensor.indices[1].lstrip("+")
        elif tensor.name.startswith("p_"):
            there, _ = other(tensor.indices[0], number, 0)
            if tensors[there].name != "gamma":
                momenta.append((int(tensor.name[2:]), label(number, 0)))
        else:
            name = "f" if tensor.name == "f_SU3" else "T"
            colours.append((name, *(label(number, slot) for slot in range(len(tensor.indices)))))
    if any(name == "p" for _, (name, _) in momenta):
        raise InputError("a product of two momenta that is no s_ij")
    lines = []
    for index, start in starts.items():
        line = []
        while index in rows:
            matrix, index = rows.pop(index)
            line.append(matrix)
        if index not in ends:
            raise InputError(f"the fermion line from p_{start} does not end in a plain spinor")
        lines.append((start, ends.pop(index), tuple(line)))
    if rows or ends:
        raise InputError("the Dirac indices do not join all matrices and spinors into lines")
    return tuple(sorted(lines)), tuple(momenta), tuple(sorted(pairs)), tuple(colours)


def renumbered(term):
    """The same term with its parts sorted and its dummy indices numbered in the order in which they come."""
    lines, momenta, pairs, colours = term
    numbers = {}

    def rename(label):
        return (label[0], numbers.setdefault(label, len(numbers) + 1)) if label[0] == "d" else label

    def blind(part):
        return [("",) if label[0] == "d" else label for label in part[1:]]

    lines = tuple((start, end, tuple((name, *map(rename, labels)) for name, *labels in line))
                  for start, end, line in sorted(lines, key=lambda line: line[:2]))
    colours = sorted(colours, key=lambda part: (part[0], blind(part)))
    colours = tuple((name, *map(rename, labels)) for name, *labels in colours)
    return lines, tuple(sorted(momenta)), pairs, colours


# ---------------------------------------------------------------------------------------------------------------------
# The rules: term -> [(coefficient, term), ...], None where the rule does not apply

def commutator(term):
    """f^abc T^c = -i (T^a T^b - T^b T^a), for the first f that shares an index with a generator."""
    lines, momenta, pairs, colours = term
    for k, (name, *labels) in enumerate(colours):
        for j, other in enumerate(colours if name == "f" else ()):
            if other[0] != "T" or other[1] not in labels:
                continue
            at = labels.index(other[1])
            a, b = labels[(at + 1) % 3], labels[(at + 2) % 3]  # f is the same for a cyclic order
            rest = tuple(part for n, part in enumerate(colours) if n not in (j, k))
            between = ("d", max((n for part in colours for label, n in part[1:] if label == "d"), default=0) + 1)
            row, column = other[2:]
            return [({(("i", 1),): Fraction(sign)}, (lines, momenta, pairs, (*rest, ("T", first, row, between),
                                                                             ("T", second, between, column))))
                    for sign, first, second in ((-1, a, b), (1, b, a))]
    return None


def exchange(term):
    """T^x_ij T^x_kl = 1/2 delta_il delta_kj - 1/6 delta_ij delta_kl, for the first two that share an index."""
    lines, momenta, pairs, colours = term
    for (m, one), (n, two) in itertools.combinations(enumerate(colours), 2):
        if one[0] == two[0] == "T" and one[1] == two[1]:
            rest = tuple(part for at, part in enumerate(colours) if at not in (m, n))
            (_, _, i, j), (_, _, k, l) = one, two
            if {label for label in (i, j) if label[0] == "d"} & {k, l}:
                return None  # a closed loop of colour, which no tree has
            parts = []
            for value, deltas in ((Fraction(1, 2), ((i, l), (k, j))), (Fraction(-1, 6), ((i, j), (k, l)))):
                more, left = [], rest
                for a, b in deltas:
                    if a[0] == b[0] == "c":
                        more.append(("colour", *sorted((a[1], b[1]))))
                    else:  # the one that is no leg's is renamed to the other
                        old, new = (a, b) if a[0] == "d" else (b, a)
                        left = tuple((name, *(new if label == old else label for label in labels))
                                     for name, *labels in left)
                parts.append(({(): value}, (lines, momenta, tuple(sorted((*pairs, *more))), left)))
            return parts
    return None


def conservation(fields, names):
    """
    (k, {leg: sign}): the leg whose momentum p_k is eliminated, the last boson if any, and the sum that it is. None
    where it is not known which legs come in.
    """
    order = sorted(fields)
    try:
        incoming = dict(zip(order, roles_of([fields[k] for k in order], names).incoming))
    except InputError:
        return None
    last = max(fields, key=lambda k: (not fields[k].kind, k))
    return last, {k: Fraction(-1 if incoming[k] == incoming[last] else 1) for k in order if k != last}


def conserve(term, last, flow):
    """The momentum p_last by those of the other legs."""
    lines, momenta, pairs, colours = term
    for at, (k, label) in enumerate(momenta):
        if k == last:
            return [({(): sign}, (lines, (*momenta[:at], (other, label), *momenta[at + 1:]), pairs, colours))
                    for other, sign in flow.items()]
    for n, (start, end, line) in enumerate(lines):
        if ("gamma", ("p", last)) in line:
            at = line.index(("gamma", ("p", last)))
            return [({(): sign}, (replaced(lines, n, (*line[:at], ("gamma", ("p", other)), *line[at + 1:])), momenta,
                                  pairs, colours)) for other, sign in flow.items()]
    return None


def replaced(lines, n, line):
    return (*lines[:n], (*lines[n][:2], line), *lines[n + 1:])


def dirac(term, fields, masses):
    """One pslash a step nearer to the spinor of its leg, or carried out there. Only on lines of gammas alone."""
    lines, momenta, pairs, colours = term
    for n, (start, end, line) in enumerate(lines):
        if any(name != "gamma" for name, *_ in line):
            continue
        for at, (_, label) in enumerate(line):
            if label not in (("p", start), ("p", end)) or label[1] not in masses:
                continue
            k = label[1]
            step = -1 if k == start else 1
            if not 0 <= at + step < len(line):
                sign = Fraction(1 if fields[k].kind == "u" else -1)
                rest = (replaced(lines, n, line[:at] + line[at + 1:]), momenta, pairs, colours)
                return [({((masses[k], 1),): sign}, rest)] if masses[k] else []
            swapped = list(line)
            swapped[at], swapped[at + step] = swapped[at + step], swapped[at]
            left = tuple(matrix for m, matrix in enumerate(line) if m not in (at, at + step))
            kind, other = line[at + step][1]
            parts = [({(): Fraction(-1)}, (replaced(lines, n, tuple(swapped)), momenta, pairs, colours))]
            if kind == "leg":
                parts.append(({(): Fraction(2)}, (replaced(lines, n, left), (*momenta, (k, (kind, other))), pairs,
                                                  colours)))
            elif kind == "p":
                square = {((masses[k], 2),): Fraction(2)} if masses[k] else {}
                product = square if other == k else {((f"s_{min(k, other)}{max(k, other)}", 1),): Fraction(2)}
                parts.append((product, (replaced(lines, n, left), momenta, pairs, colours)))
            else:  # the other gamma with this index becomes pslash
                joined = tuple((*ends, tuple(("gamma", label) if matrix == ("gamma", (kind, other)) else matrix
                                             for matrix in matrices)) for *ends, matrices in replaced(lines, n, left))
                parts.append(({(): Fraction(2)}, (joined, momenta, pairs, colours)))
            return parts
    return None


# ---------------------------------------------------------------------------------------------------------------------
# From terms to text

def text_of(total, fields):
    """The text of {term: coefficient}, without the phase in front."""
    pieces = sorted((repr(term), term, powers, value) for term, coefficient in total.items()
                    for powers, value in coefficient.items())
    if not pieces:
        return "0"
    common = dict(sorted(common_powers([dict(powers) for _, _, powers, _ in pieces]).items()))
    number = content(value for *_, value in pieces)
    if pieces[0][3] < 0:
        number = -number
    texts = []
    for _, term, powers, value in pieces:
        left = monomial({symbol: dict(powers).get(symbol, 0) - common[symbol] for symbol in common})
        texts.append(scaled(value / number, [*(factor_text(*factor) for factor in left), *tensor_texts(term, fields)]))
    body = texts[0] if len(texts) == 1 else f"({' + '.join(texts)})"
    common.pop("i", None)
    below = {symbol: -power for symbol, power in common.items() if power < 0 and rank(symbol)[0] > 3}
    front = monomial({symbol: power for symbol, power in common.items() if symbol not in below})
    return scaled(abs(number), [*(factor_text(*factor) for factor in front), body]) + "".join(
        f"/{symbol}" * power for symbol, power in below.items())


def tensor_texts(term, fields):
    """Momenta, matrices along the lines, colours, fields in the order of the legs."""
    lines, momenta, pairs, colours = term
    joined = {(kind, leg): min(leg, other) for kind, *legs in pairs for leg, other in (legs, legs[::-1])}

    def lorentz(label):
        kind, n = label
        return rf"%\mu_{joined.get(('', n), n) if kind == 'leg' else n + (10 if kind == 'p' else 20)}"

    def colour(label, kind):
        """Of a quark (kind C) or a gluon (kind g)."""
        return f"%{kind}_{label[1] + 10 if label[0] == 'd' else joined.get(('colour', label[1]), label[1])}"

    slashed, spinors, matrices = [], {}, []
    names = (f"%a_{n}" for n in itertools.count(1))
    for start, end, line in lines:
        index = spinors[start] = next(names)
        for name, *labels in line:
            before, index = index, next(names)
            if labels and labels[0][0] == "p":
                slashed.append((labels[0][1], f"p_{labels[0][1]}_{lorentz(labels[0])}"))
                matrices.append(Tensor(name, (f"+{lorentz(labels[0])}", before, index)))
            elif labels:
                first = labels[0][0] == "d" and all(lorentz(labels[0]) != m.indices[0][1:] for m in matrices)
                matrices.append(Tensor(name, ("+" * first + lorentz(labels[0]), before, index)))
            else:
                matrices.append(Tensor(name, (before, index)))
        spinors[end] = index
    generators = [Tensor("T_C_10", (colour(labels[0], "g"), colour(labels[1], "C"), colour(labels[2], "C")))
                  if name == "T" else Tensor("f_SU3", tuple(colour(label, "g") for label in labels))
                  for name, *labels in colours]
    texts = [f"p_{k}_{lorentz(label)}" for k, label in momenta] + [text for _, text in sorted(slashed)]
    texts += map(to_text, matrices + generators)
    met = set()
    for k, field in sorted(fields.items()):
        indices, coloured = [f"i_{k}"], len(field.indices) > 2
        if field.kind:
            indices += [colour(("c", k), "C")] * coloured + [spinors[k]]
        elif len(field.indices) > 1:
            mu = lorentz(("leg", k))
            first = ("", k) in joined and mu not in met
            met.add(mu)
            indices += [colour(("leg", k), "g")] * coloured + ["+" * (not first) + mu]
        texts.append(to_text(field._replace(indices=tuple(indices))))
    return texts
