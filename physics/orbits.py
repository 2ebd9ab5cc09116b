r"""
Orbits: the amplitudes that differ only in the names of legs, particles and constants.

Two amplitudes are in one orbit if one is the other up to
- a permutation of the legs; a leg that changes sides has its momentum flow the other way (crossing);
- the names of particles, masses and couplings. Spin, colour and mark of a leg stay, a massless leg stays massless, and
  legs of equal mass keep equal masses;
- charge conjugation of a fermion line, which turns u into v, and of all colours;
- a reflection of space, which exchanges P_L and P_R;
- a number and powers of masses and couplings in front.
The squares of two such amplitudes are mapped onto each other by the same permutation, names and factor: see `relabel`.

How an amplitude is keyed: the tree of its propagators, read from their denominators, gives the legs an order up to the
tree's symmetries. In every such order the amplitude is evaluated at points that depend on the order alone: random
momenta, polarisations, spinors, colours, masses and couplings, integers modulo a prime. The values up to a factor are
the orbit. It does not matter how an amplitude is spelled, whether its Dirac equation was used or who wrote it. Two
amplitudes of different orbits have the same key with a probability of about 1e-14.
"""
import functools
import hashlib
import itertools
import math
import re
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from physics.exact import determinant, light_cone, prime_fields, root, split
from physics.expression import GENERATOR, INVARIANT, TOKEN, Field, conjugate, epsilon_legs, parse
from physics.matrices import MOST_NUMBERS, einsum, read_amplitude, read_roles, states
from physics.particles import NO_FACTS, identity
from physics.polynomial import common_powers, content, factor_text, monomial, multiply, scaled
from physics.rational import ROOT, rational, reciprocal, reduced
from physics.structure import without_metrics
from runtime.files import InputError

PRIME = 33554137             # below 2^25, as physics/exact.py has them: -1, 2 and 3 have square roots modulo it
POINTS = 4
LARGEST = 256                # numerator and denominator of the ratio of two amplitudes that have no number in common
MOST_ORDERS = 5040           # of the legs, that the tree of propagators leaves open
MOST_VALUES = 2**23          # of terms at points
MOST_CONSTANTS = 24          # that differ in their powers between the terms of an amplitude
PAIR = re.compile(r"s_(\d)(\d)(?!\d)")

_field = prime_fields([PRIME])
METRIC = np.array([1, -1, -1, -1])
MATRICES = {"gamma": _field.gamma_up[0], "gamma_down": _field.gamma_down[0], "f_SU3": _field.colour["f"][0],
            "T": _field.colour["T"][0], **{name: matrix[0] for name, matrix in _field.dirac.items()}}
MATRICES |= {"T conjugate": -MATRICES["T"].swapaxes(1, 2) % PRIME, "-gamma_5": -MATRICES["gamma_5"] % PRIME}
GAMMA = MATRICES["gamma"]
CONJUGATION = GAMMA[2] @ GAMMA[0] % PRIME                    # C (gamma^mu)^T = -gamma^mu C
I = root(-1, PRIME)


class Orbit(NamedTuple):
    """The orbit of an amplitude, and what maps it onto the others of the orbit."""
    key: str                    # 12 hexadecimal digits, equal for amplitudes of one orbit
    order: tuple                # leg numbers from 1 in the orbit's order
    incoming: tuple             # of each leg in that order whether it comes in
    constants: tuple            # names of the legs' masses and of the other constants, in the orbit's order
    number: Fraction            # the amplitude is number * value * powers of constants * what the orbit has in common
    value: int                  # modulo PRIME
    powers: tuple               # of (constant, power)
    weight: Fraction            # of its square: 1 / (states that are averaged over * n! of identical legs), - for odd v
    reflected: bool             # whether space is reflected


def orbit_of(amp, facts=NO_FACTS, square_names=frozenset()):
    """
    The Orbit of an amplitude's text. Raises InputError.

    facts: see particles.Facts; square_names: symbols of the square, where the amplitude has not all the masses.
    """
    terms, fields, _ = read_amplitude(amp)
    roles = read_roles(amp, square_names, facts)
    scalars = _scalars_of(terms)
    number, powers = _common_factor(scalars)
    shape = tuple((*identity(field)[1:], field.mark) for field in fields)
    masses = tuple(roles.masses.index(mass) if mass else -1 for mass in roles.masses)
    diagrams = frozenset(_propagators(term, len(fields)) for polynomial in scalars for term in polynomial)
    orders = _orders(shape, masses, diagrams)
    if len(terms) * len(orders) * POINTS > MOST_VALUES:
        raise InputError(f"no orbit: {len(terms)} terms at {len(orders)} orders of the legs")
    points = _points(fields, roles, orders, shape, masses)
    found = []
    for images in _images(terms, scalars):
        tensors = _tensor_values(terms, points, dict(images))
        reflected = ("P_L", "P_R") in images
        found += [(*values, reflected) for values in
                  _values(scalars, tensors, number, powers, points, orders, roles.masses, reflected)]
    values, order, constants, value, reflected = min(found)
    kinds = [shape[leg] for leg in order]
    return Orbit(
        hashlib.sha256(repr((kinds, values)).encode()).hexdigest()[:12],
        tuple(leg + 1 for leg in order), tuple(roles.incoming[leg] for leg in order), constants, number, value, powers,
        _weight(fields, roles), reflected)


def _images(terms, scalars):
    """What matrices become, ((name, name of the image), ...), in each image of the amplitude that is in its orbit."""
    names = {tensor.name for term in terms for tensor in term.tensors if type(tensor) is not Field}
    chiral = not names.isdisjoint(["P_L", "P_R", "gamma_5"])
    chiral = chiral or any(epsilon_legs(symbol) for polynomial in scalars for term in polynomial for symbol, _ in term)
    colours = [()] + [(("T", "T conjugate"),)] * any(map(GENERATOR.fullmatch, names))
    reflections = [()] + [(("P_L", "P_R"), ("P_R", "P_L"), ("gamma_5", "-gamma_5"))] * chiral
    return [(*colour, *reflection) for colour in colours for reflection in reflections]


def _weight(fields, roles):
    """What the sum over the legs' states is multiplied by: sum v vbar = -(m - pslash) has the sign of crossing."""
    incoming = [leg for leg, comes_in in zip(zip(fields, roles.masses), roles.incoming) if comes_in]
    average = roles.identical * math.prod(states(field, mass) for field, mass in incoming)
    return Fraction((-1) ** sum(field.kind == "v" for field in fields), average)


# ---------------------------------------------------------------------------------------------------------------------
# Scalars of the terms

def _scalars_of(terms):
    """Of each term the product of its scalars as a polynomial {monomial: Fraction}."""
    known = {(): {(): Fraction(1)}}                          # products of first factors, which most terms share
    polynomials = []
    for term in terms:
        names = tuple(map(id, term.scalars))
        start = next(k for k in range(len(names), -1, -1) if names[:k] in known)
        for k, (node, divides) in enumerate(term.scalars[start:], start):
            value = rational(node)
            known[names[:k + 1]] = multiply(known[names[:k]], reciprocal(value) if divides else value)
        polynomials.append(reduced(known[names]))
    return polynomials


def _is_constant(symbol):
    """Whether a symbol is the same at all momenta, and no propagator."""
    return not (symbol.startswith("(") or symbol == "reg_prop" or INVARIANT.fullmatch(symbol) or epsilon_legs(symbol))


def _common_factor(scalars):
    """(number, ((constant, power), ...)) that all terms have in common."""
    monomials = [dict(term) for polynomial in scalars for term in polynomial]
    coefficients = [value for polynomial in scalars for value in polynomial.values()]
    if not monomials:
        return Fraction(1), ()
    powers = {symbol: power for symbol, power in common_powers(monomials).items() if _is_constant(symbol)}
    return content(coefficients), monomial(powers)


def _without(term, powers):
    """A monomial divided by a power product."""
    left = dict(term)
    for symbol, power in powers:
        left[symbol] = left.get(symbol, 0) - power
    return monomial(left)


@functools.lru_cache(maxsize=2**14)
def _propagators(term, count):
    """The propagators of a term as sets of legs from 0: those on the side of each that leg 0 is not on."""
    legs = frozenset(range(count))
    sides = []
    for symbol, _ in term:
        if symbol.startswith("("):
            side = frozenset(int(leg) - 1 for pair in PAIR.findall(symbol) for leg in pair)
            if side:
                sides.append(legs - side if 0 in side else side)
    return frozenset(sides)


# ---------------------------------------------------------------------------------------------------------------------
# Orders of the legs

@functools.lru_cache(maxsize=2**16)
def _orders(shape, masses, diagrams):
    """
    Orders of the legs that depend on their numbers in no way: all that a search tree of individualised and refined
    colours leaves (McKay 1981). A leg's colour says its kind, and the colours on both sides of the propagators.
    """
    count = len(shape)
    everyone = frozenset(range(count))

    def refined(colours):
        while True:
            signatures = []
            for leg in range(count):
                mates = sorted(colours[other] for other in everyone if masses[other] == masses[leg] != -1)
                around = sorted(sorted(tuple(sorted(tuple(sorted(colours[k] for k in part)) for part in sides))
                                       + ((tuple(sorted(colours[k] for k in sides[leg in sides[1]])),))
                                       for sides in ((everyone - side, side) for side in diagram))
                                for diagram in diagrams)
                signatures.append((colours[leg], mates, around))
            ranks = {repr(signature): None for signature in sorted(signatures)}
            ranks = {signature: rank for rank, signature in enumerate(ranks)}
            refined_colours = [ranks[repr(signature)] for signature in signatures]
            if len(set(refined_colours)) == len(set(colours)):
                return refined_colours
            colours = refined_colours

    def search(colours):
        colours = refined(colours)
        cells = {}
        for leg, colour in enumerate(colours):
            cells.setdefault(colour, []).append(leg)
        cell = next((cells[colour] for colour in sorted(cells) if len(cells[colour]) > 1), None)
        if cell is None:
            yield tuple(sorted(everyone, key=colours.__getitem__))
            return
        for leg in cell:
            yield from search([2 * colour + (k != leg) for k, colour in enumerate(colours)])

    kinds = sorted(set(zip(shape, (mass < 0 for mass in masses))))
    start = [kinds.index((kind, mass < 0)) for kind, mass in zip(shape, masses)]
    orders = tuple(itertools.islice(search(start), MOST_ORDERS + 1))
    if len(orders) > MOST_ORDERS:
        raise InputError(f"no orbit: more than {MOST_ORDERS} orders of the legs look alike")
    return orders


# ---------------------------------------------------------------------------------------------------------------------
# Points: what the legs and the constants are in each order

class Points(NamedTuple):
    momenta: np.ndarray         # (legs, N, 4), physical: of an outgoing leg minus the momentum that it brings in
    vector: dict                # leg's number -> its polarisation vector, (N, 4)
    spinor: dict                # its spinor, (N, 4)
    colour: dict                # its colour, (N, 3) or (N, 8)
    values: dict                # symbol -> (N,): s_ij and masses of the legs


@functools.lru_cache(maxsize=2**16)
def _draw(*what):
    """A number between 1 and PRIME - 1 for each name, the same on every machine."""
    return 1 + int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:8]) % (PRIME - 1)


@functools.lru_cache(maxsize=2**12)
def _states(kinds, masses):
    """
    (momenta that flow in (legs, POINTS, 4), polarisation vectors or spinors (legs, POINTS, 4), colours
    (legs, POINTS, 8)) of legs in an orbit's order.

    masses: of each leg the place of the first one with the same mass, -1 where it vanishes. A spinor is that of a
    starred leg, (m - pslash)^T times anything; a polarisation vector is orthogonal to the momentum of a massive leg and
    of one with transverse polarisations only.
    """
    momenta, spins = np.zeros((2, len(kinds), POINTS, 4), np.int64)
    for point in range(POINTS):
        fresh = itertools.count()

        def draw():
            return _draw("momentum", point, next(fresh))

        values = [_draw("mass", mass, point) if mass >= 0 else 0 for mass in masses]
        shell = [_draw("off", k, point) if mark == "off" else value**2 for k, ((*_, mark), value)
                 in enumerate(zip(kinds, values))]
        chosen = [light_cone(draw(), draw(), draw(), square, PRIME) for square in shell[:-2]]
        rest = -np.sum(chosen, axis=0) % PRIME
        last = split(rest, shell[-2], shell[-1], draw, PRIME)
        momenta[:, point] = np.array([*chosen, last, rest - last]) % PRIME
        for leg, (spin, _, mark) in enumerate(kinds):
            p, anything = momenta[leg, point], np.array([_draw("spin", leg, point, k) for k in range(4)])
            if spin == "spinor":
                slash = np.einsum("m,mab->ab", p * METRIC, GAMMA) % PRIME
                spins[leg, point] = (anything * values[leg] - anything @ slash) % PRIME
            elif spin == "vector" and mark != "off" and (masses[leg] >= 0 or mark == "T"):
                along = p if masses[leg] >= 0 else np.array([_draw("gauge", leg, point, k) for k in range(4)])
                scale = int(anything * METRIC @ p % PRIME) * pow(int(along * METRIC @ p % PRIME), -1, PRIME) % PRIME
                spins[leg, point] = (anything - scale * along) % PRIME
            else:
                spins[leg, point] = anything
    colours = np.array([[[_draw("colour", leg, point, k) for k in range(8)] for point in range(POINTS)]
                        for leg in range(len(kinds))])
    return momenta, spins, colours


def _points(fields, roles, orders, shape, masses):
    """The Points of all orders one after the other: N = orders * POINTS."""
    momenta, spins, colours = [], [], []
    values = {mass: [] for mass in roles.masses if mass}
    for order in orders:
        place = {leg: k for k, leg in enumerate(order)}
        first = {}
        pattern = tuple(first.setdefault(masses[leg], k) if masses[leg] >= 0 else -1 for k, leg in enumerate(order))
        of_order = _states(tuple(shape[leg] for leg in order), pattern)
        back = [place[leg] for leg in range(len(order))]
        for found, array in zip((momenta, spins, colours), of_order):
            found.append(array[back])
        for leg, mass in enumerate(roles.masses):
            if mass and masses[leg] == leg:
                values[mass] += [_draw("mass", pattern[place[leg]], point) for point in range(POINTS)]
    momenta, spins, colours = (np.concatenate(arrays, axis=1) for arrays in (momenta, spins, colours))
    momenta = momenta * np.array([1 if comes_in else -1 for comes_in in roles.incoming])[:, None, None] % PRIME
    values = {name: np.array(numbers) for name, numbers in values.items()}
    products = np.einsum("iNm,m,jNm->ijN", momenta, METRIC, momenta) % PRIME
    for i, j in itertools.combinations_with_replacement(range(len(fields)), 2):
        values[f"s_{i + 1}{j + 1}"] = products[i, j]
    vectors, spinors, colour = {}, {}, {}
    for field, spin, charges in zip(fields, spins, colours):
        if field.kind:
            # ubar M u = +-(u^c)bar C M^T C^-1 (ubar^c): a plain spinor is C times what a starred one would be
            spinors[field.leg] = spin if field.starred else spin @ CONJUGATION.T % PRIME
        vectors[field.leg] = spin
        colour[field.leg] = charges[:, :3] if field.kind else charges
    return Points(momenta, vectors, spinors, colour, values)


def _value_of(symbol, points):
    """Values of a symbol that is no constant to be renamed, (N,)."""
    if symbol not in points.values:
        points.values[symbol] = _compute(symbol, points)
    return points.values[symbol]


def _compute(symbol, points):
    size = points.momenta.shape[1]
    if symbol.startswith("("):                               # a propagator's denominator
        return _polynomial_value(rational(parse(symbol)), lambda name: _value_of(name, points))
    if symbol == "i":
        return np.full(size, I)
    if match := ROOT.fullmatch(symbol):
        if root(int(match[1]), PRIME) is None:
            raise InputError(f"no orbit: the root of {match[1]}")
        return np.full(size, root(int(match[1]), PRIME))
    if legs := epsilon_legs(symbol):
        rows = points.momenta[[leg - 1 for leg in legs]].swapaxes(0, 1).tolist()
        return np.array([determinant(row) % PRIME for row in rows])
    if symbol.endswith("(theta_W)"):
        tangents = [_draw("tan(theta_W / 2)", point) for point in range(POINTS)]
        below = [pow(1 + t * t, -1, PRIME) for t in tangents]
        sines = [2 * t * b % PRIME for t, b in zip(tangents, below)]
        cosines = [(1 - t * t) * b % PRIME for t, b in zip(tangents, below)]
        table = {"sin": sines, "cos": cosines, "tan": [s * pow(c, -1, PRIME) for s, c in zip(sines, cosines)]}
        return np.array(table[symbol[:3]] * (size // POINTS)) % PRIME
    return np.array([_draw(symbol, point) for point in range(POINTS)] * (size // POINTS))


def _power(base, exponent):
    if exponent < 0:
        try:
            base = np.array([pow(int(x), -1, PRIME) for x in base.ravel()]).reshape(base.shape)
        except ValueError:
            raise InputError("no orbit: a propagator on its mass shell") from None
    result = base
    for _ in range(abs(exponent) - 1):
        result = result * base % PRIME
    return result


def _polynomial_value(polynomial, value_of):
    """Value (N,) of a polynomial. value_of: function of a symbol."""
    total = 0
    for term, coefficient in polynomial.items():
        total = (total + _residue(coefficient) * _monomial_value(term, value_of)) % PRIME
    return total


def _monomial_value(term, value_of):
    product = 1
    for symbol, power in term:
        product = product * _power(value_of(symbol), power) % PRIME
    return product


def _residue(number):
    return number.numerator * pow(number.denominator, -1, PRIME) % PRIME


# ---------------------------------------------------------------------------------------------------------------------
# Tensors of the terms, contracted with the spinors, polarisation vectors and colours of the legs

def _tensor_values(terms, points, images):
    """Values of the terms without their scalars, (terms, N). images: {name of a matrix: what stands for it}."""
    known, size = {}, points.momenta.shape[1]
    values = np.ones((len(terms), size), np.int64)
    for term, value in zip(terms, values):
        number, groups = _groups(term.tensors, images)
        value[:] = number
        pieces = [_product(tuple(group), points, known) for group in groups]
        array, labels = pieces[0]
        for other, other_labels in pieces[1:]:
            array, labels = _einsum(array, labels, other, other_labels)
        value[:] = value * array % PRIME
    return values


def _groups(tensors, images):
    """
    (number, groups of operands) whose product is that of the tensors with the legs' states: a group for each fermion
    line, one for all colours, one for each product of two vectors.

    An operand is (name, labels): a name in MATRICES, or (kind, leg) with the kind "p", "vector", "spinor" or "colour",
    after "up" for the first of two vectors.
    """
    number, tensors = without_metrics(tensors)
    ends, rows = {}, {}                                      # Lorentz index -> vectors on it; Dirac index -> operand
    lines, colours, lowered = [], [], set()
    for tensor in tensors:
        indices = tuple(index.lstrip("+") for index in tensor.indices)
        if type(tensor) is Field:
            if len(indices) > 2:
                colours.append((("colour", tensor.leg), indices[1:2]))
            if tensor.kind and tensor.starred:
                lines.append((("spinor", tensor.leg), indices[-1:]))
            elif tensor.kind:
                rows[indices[-1]] = ("spinor", tensor.leg), indices[-1:]
            elif len(indices) > 1:
                ends.setdefault(indices[-1], []).append((("vector", tensor.leg), indices[-1:]))
        elif tensor.name.startswith("p_"):
            ends.setdefault(indices[0], []).append((("p", int(tensor.name[2:])), indices))
        elif tensor.name == "gamma":
            rows[indices[1]] = "gamma", indices
        elif tensor.name in ("gamma_5", "P_L", "P_R"):
            rows[indices[0]] = images.get(tensor.name, tensor.name), indices
        elif tensor.name == "f_SU3":
            colours.append(("f_SU3", indices))
        else:
            colours.append((images.get("T", "T"), indices))
    groups = []
    for start in lines:
        group, index = [start], start[1][0]
        while operand := rows.pop(index, None):
            name, indices = operand
            if name == "gamma" and indices[0] in ends:
                group += [operand, *ends.pop(indices[0])]
            elif name == "gamma" and indices[0] in lowered:
                group.append(("gamma_down", indices))
            else:
                group.append(operand)
                lowered.update(indices[:1] if name == "gamma" else ())
            index = indices[-1]
        groups.append(group)
    if rows:
        raise InputError("the Dirac indices do not join all matrices and spinors into lines from a starred to a plain "
                         "spinor")
    groups += [[(("up", *name), labels), *second] for (name, labels), *second in ends.values()]
    if colours:                                              # tensors first, each followed by the legs on it
        matrices = [operand for operand in colours if type(operand[0]) is str]
        legs = [operand for operand in colours if type(operand[0]) is not str]
        group = []
        for operand in matrices:
            group += [operand, *(leg for leg in legs if leg[1][0] in operand[1])]
        groups.append(group + [leg for leg in legs if leg not in group])
    return number, groups or [[("one", ())]]


def _product(group, points, known):
    """(array (N, ...), labels of its other axes) of a group of operands, of which `known` has those of beginnings."""
    if group not in known:
        array, labels = _operand(*group[-1], points)
        if len(group) > 1:
            array, labels = _einsum(*_product(group[:-1], points, known), array, labels)
        known[group] = array, labels
    return known[group]


def _operand(name, labels, points):
    if name == "one":
        return np.ones(points.momenta.shape[1], np.int64), ("point",)
    if type(name) is str:
        return MATRICES[name], labels
    *up, kind, leg = name
    if kind == "p" and not 1 <= leg <= len(points.momenta):
        raise InputError(f"p_{leg} is the momentum of no leg")
    array = points.momenta[leg - 1] if kind == "p" else getattr(points, kind)[leg]
    if kind in ("p", "vector") and not up:                   # gamma matrices have their index up
        array = array * METRIC
    return array, ("point", *labels)


def _einsum(a, a_labels, b, b_labels):
    """The product of two arrays, summed over the labels that both have, except `point`."""
    both = {label for label in a_labels if label in b_labels and label != "point"}
    out = [label for label in dict.fromkeys((*a_labels, *b_labels)) if label not in both]
    sizes = dict(zip((*a_labels, *b_labels), (*a.shape, *b.shape)))
    if math.prod(sizes[label] for label in out) > MOST_NUMBERS:
        raise InputError("too many indices are open at once between the tensors of a term")
    return einsum(a, a_labels, b, b_labels, out) % PRIME, tuple(out)


# ---------------------------------------------------------------------------------------------------------------------
# Values of the amplitude

def _values(scalars, tensors, number, powers, points, orders, masses, reflected):
    """[(values over the first one, order, constants in their order, the first value)], one for each order of the legs.

    Constants other than the legs' masses get their values one after the other: first the one that changes the values to
    the smallest ones.
    """
    terms = [(_without(term, powers), value / number, tensor) for polynomial, tensor in zip(scalars, tensors)
             for term, value in polynomial.items()]
    free = {name for term, *_ in terms for symbol, _ in term for name in _constants_in(symbol)} - set(masses)
    if len(free) > MOST_CONSTANTS:
        raise InputError(f"no orbit: more than {MOST_CONSTANTS} constants that the terms do not have in common")
    count, fixed, sums = len(orders), {}, {}                 # sums: {powers of free constants: their factor (N,)}
    for term, value, tensor in terms:
        varied = tuple(factor for factor in term if not free.isdisjoint(_constants_in(factor[0])))
        rest = tuple(factor for factor in term if factor not in varied)
        if rest not in fixed:
            fixed[rest] = _monomial_value(rest, lambda symbol: _value_of(symbol, points))
        sign = (-1) ** sum(power for symbol, power in term if epsilon_legs(symbol)) if reflected else 1
        sums[varied] = (sums.get(varied, 0) + _residue(sign * value) * fixed[rest] % PRIME * tensor) % PRIME
    free = sorted(free)

    def values_at(constants):
        """Values of the amplitude (orders, POINTS). constants: {name: (orders, POINTS)}."""
        known = {name: array.reshape(-1) for name, array in constants.items()}

        def value_of(symbol):
            if symbol not in known:
                varies = symbol.startswith("(") and not known.keys().isdisjoint(_constants_in(symbol))
                known[symbol] = (_polynomial_value(rational(parse(symbol)), value_of) if varies
                                 else _value_of(symbol, points))
            return known[symbol]

        values = (_monomial_value(varied, value_of) * array % PRIME for varied, array in sums.items())
        return (sum(values, np.zeros(count * POINTS, np.int64)) % PRIME).reshape(count, POINTS)

    def drawn(*what):
        return np.array([_draw(*what, point) for point in range(POINTS)])

    known = [[] for _ in orders]                             # of each order of the legs: constants that have values
    now = {name: np.tile(drawn("constant"), (count, 1)) for name in free}
    for place in range(len(free)):
        tried = []                                           # each constant gets the next value where it has none yet
        for name in free:
            changed = now | {name: np.tile(drawn("constant", place), (count, 1))}
            tried.append(values_at(changed))
        for k in range(count):
            best = min((name for name in free if name not in known[k]),
                       key=lambda name: _over_first(tried[free.index(name)][k]))
            known[k].append(best)
            now[best][k] = drawn("constant", place)
    final = values_at(now)
    found = []
    for k, order in enumerate(orders):
        of_legs = tuple(dict.fromkeys(masses[leg] for leg in order if masses[leg]))
        over, first = _over_first(final[k])
        found.append((over, order, (*of_legs, *known[k]), first))
    return found


def _over_first(values):
    """(values divided by the first one that is not zero, that one)."""
    first = next((int(value) for value in values if value), 1)
    inverse = pow(first, -1, PRIME)
    return tuple(int(value) * inverse % PRIME for value in values), first


@functools.lru_cache(maxsize=2**14)
def _constants_in(symbol):
    """Names of the constants in a symbol: itself, or those in a propagator's denominator; no angles and no roots."""
    if symbol.startswith("("):
        inner = {name for term in rational(parse(symbol)) for name, _ in term}
        return frozenset(filter(_is_constant, inner)) - {"i"}
    if not _is_constant(symbol) or symbol == "i" or ROOT.fullmatch(symbol) or symbol.endswith("(theta_W)"):
        return frozenset()
    return frozenset({symbol})


# ---------------------------------------------------------------------------------------------------------------------
# From one row of an orbit to another

def relabel(sqamp, source, target):
    """
    The square of one amplitude of an orbit, from the square of another: its legs permuted, its constants renamed.

    source: Orbit of the amplitude that sqamp is the square of; target: of the amplitude whose square is wanted. Nothing
    is known about that square. Raises InputError.
    """
    if source.key != target.key:
        raise InputError(f"orbit {source.key} is not orbit {target.key}")
    legs = {leg: (other, 1 if comes_in == other_comes_in else -1) for leg, other, comes_in, other_comes_in
            in zip(source.order, target.order, source.incoming, target.incoming)}
    names = dict(zip(source.constants, target.constants))
    below, number = _squared(source.powers, names)
    above, other_number = _squared(target.powers)
    number = other_number / number * (target.number / source.number) ** 2 * target.weight / source.weight
    number *= _squared_ratio(target.value * pow(source.value, -1, PRIME) % PRIME)
    for name, _ in source.powers:                            # what stands in front alone is taken off
        for symbol in (name, conjugate(name)) if name != "i" else ():
            names.setdefault(symbol, "1")
    names |= {conjugate(name): conjugate(other) for name, other in names.items() if conjugate(name) not in names}

    def rename(match):
        if match.lastgroup not in ("symbol", "epsilon"):
            return match[0]
        if pair := PAIR.fullmatch(match[0]):
            (i, sign), (j, other_sign) = sorted(legs[int(leg)] for leg in pair.groups())
            return f"s_{i}{j}" if sign == other_sign else f"(-s_{i}{j})"
        if numbers := epsilon_legs(match[0]):
            mapped, signs = zip(*(legs[leg] for leg in numbers))
            swaps = sum(a > b for a, b in itertools.combinations(mapped, 2))
            odd = swaps + signs.count(-1) + (source.reflected != target.reflected)
            minus = "-" if odd % 2 else ""
            return f"({minus}eps({','.join(f'p_{leg}' for leg in sorted(mapped))}))"
        return names.get(match[0], match[0])

    factors = {name: above.get(name, 0) - below.get(name, 0) for name in {**above, **below}}
    front = [factor_text(name, power) for name, power in factors.items() if power]
    return scaled(number, [*front, f"({TOKEN.sub(rename, sqamp)})"])


def _squared(powers, names=None):
    """({symbol: power}, number): |product of powers of constants|^2, with `names` renamed and without all others."""
    squared, number = {}, Fraction(1)
    for name, power in powers:
        if match := ROOT.fullmatch(name):
            number *= Fraction(match[1]) ** power
        elif name.endswith(")") and not name.endswith("^(*)"):
            squared[name] = 2 * power                        # of an angle
        elif name != "i" and (names is None or name in names):
            renamed = names[name] if names else name
            for symbol in (renamed, conjugate(renamed)):
                squared[symbol] = squared.get(symbol, 0) + power
    return squared, number


def _squared_ratio(residue):
    """|ratio|^2 of two amplitudes from their ratio modulo PRIME, which is a small fraction or i times one."""
    found = filter(None, (_fraction(residue), _fraction(residue * pow(I, -1, PRIME) % PRIME)))
    ratio = min(found, key=lambda ratio: abs(ratio.numerator) + ratio.denominator, default=None)
    if ratio is None:
        raise InputError("no small number is the ratio of the two amplitudes")
    return ratio**2


def _fraction(residue):
    """The fraction with numerator and denominator up to LARGEST that is a residue modulo PRIME (Wang 1981), or None."""
    above, below, rest, other = residue, 1, PRIME, 0
    while above > LARGEST:
        above, below, rest, other = rest % above, other - rest // above * below, above, below
    return Fraction(above, below) if 0 < abs(below) <= LARGEST else None
