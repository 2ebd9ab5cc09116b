r"""Proof that `sqamp` is the square of `amp`: both sides in exact arithmetic, at random points of a prime field.

verify.py compares floating-point numbers, so a candidate may differ from the square by something small: a term like `+ e^900`, or
the tenth digit of a coefficient. Here momenta, masses and couplings are integers modulo the prime P, where nothing is small. In that field -1, 2 and 3
have square roots, which gives i, the Gell-Mann matrices and sqrt(2); momenta are put on their mass shells by square roots of their
own; complex conjugation is to compute once more with -i. Two different rational functions of degree d agree at a random point with probability of
about d / P (Schwartz 1980, Zippel 1979), at all POINTS points with its power: 1e-22 for the degree 100, 1e-18 for 1,000. What is zero modulo P for
its coefficients alone is not seen: numbers from P on, and such exponents, are refused; sums and products that amount to them, such as 2^25 - 295 or
(x^8)^4194267, only floating-point numbers turn away, which is why nobody takes this proof without verify.py's.
"""
import functools
import re
import zlib
from collections import defaultdict
from fractions import Fraction

import numpy as np

from physics.expression import Field, Function, Negative, Number, Power, Product, Sum, Symbol, fold, parse
from physics.numeric import (
    COLOUR,
    COMPLEX,
    KEPT,
    Tables,
    average_of,
    colour_axes,
    contract,
    mass_of,
    names_beside,
    read_amplitude,
    rename_dummies,
    split_term,
)
from runtime.files import InputError

P = 33554137                                                 # the largest prime below 2**25 that is 1 modulo 24
POINTS = 4


# ---------------------------------------------------------------------------------------------------------------------
# The field. Its elements are integers 0 <= x < P; products of two fit into int64 with room for sums of 4,096 of them

def power(x, n):
    """x**n, elementwise; n an integer, negative for the inverse. ZeroDivisionError where x is zero and n negative."""
    x = np.asarray(x)
    if n < 0:
        if not np.all(x):
            raise ZeroDivisionError
        n = n % (P - 1)                                      # Fermat: x**(P - 1) = 1
    result = np.ones_like(x)
    while n:
        if n & 1:
            result = result * x % P
        x, n = x * x % P, n >> 1
    return result


def root(x):
    """A square root of the integer x, None where there is none (Tonelli 1891, Shanks 1973)."""
    x %= P
    if x == 0 or pow(x, (P - 1) // 2, P) != 1:
        return 0 if x == 0 else None
    odd, twos = P - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    nonresidue = next(z for z in range(2, P) if pow(z, (P - 1) // 2, P) != 1)
    c, t, r = pow(nonresidue, odd, P), pow(x, odd, P), pow(x, (odd + 1) // 2, P)
    while t != 1:
        order, square = 0, t
        while square != 1:
            square, order = square * square % P, order + 1
        b = pow(c, 1 << (twos - order - 1), P)
        twos, c = order, b * b % P
        t, r = t * c % P, r * b % P
    return r


I = root(-1)


def lift(array, i=I):
    """A complex array whose entries are integers or halves -> the same in the field."""
    doubled = np.rint(2 * np.asarray(array, complex))
    return (doubled.real.astype(np.int64) + doubled.imag.astype(np.int64) * i) * pow(2, -1, P) % P


def tables(i):
    return Tables(COMPLEX.metric.astype(np.int64), lift(COMPLEX.unit), lift(COMPLEX.gamma_up, i), lift(COMPLEX.gamma_down, i),
                  {name: lift(array, i) for name, array in COMPLEX.projectors.items()})


def colour_tables(i):
    generators = lift(COLOUR * (np.arange(8) < 7)[:, None, None], i)
    generators[7] = np.diag([1, 1, -2]) * pow(2 * root(3), -1, P) % P         # T^8 = diag(1, 1, -2) / sqrt(12)
    trace = np.einsum("abik,cki->abc", np.einsum("aij,bjk->abik", generators, generators) % P, generators) % P
    return {"T": generators, "f": (trace - trace.swapaxes(0, 1)) * (-2 * i) % P}


TABLES = {i: tables(i) for i in (I, P - I)}
COLOURS = {i: colour_tables(i) for i in (I, P - I)}


# ---------------------------------------------------------------------------------------------------------------------
# A random point

def random_point(legs, names, rng):
    """{name: integer} of all symbols, and the momenta (legs, 4): p_k^2 = m_k^2, incoming momenta equal to outgoing ones."""
    def draw():
        return int(rng.integers(1, P))

    values = {name: draw() for name in sorted(({mass_of(leg.name) for leg in legs} - {None}) | names)}
    values |= {"i": I, None: 0}
    shell = [draw() if leg.mark == "off" or f"s_{leg.number}{leg.number}" in names else values[mass_of(leg.name)] ** 2 for leg in legs]
    signs = [1 if leg.incoming else -1 for leg in legs]
    momenta = [light_cone(draw(), draw(), draw(), square) for square in shell[:-2]]
    rest = -np.array(signs[:-2]) @ np.array(momenta)         # what the last two legs' signed momenta add up to
    last = split(rest, shell[-2], shell[-1], draw)
    momenta = np.array([*momenta, signs[-2] * last, signs[-1] * (rest - last)]) % P
    for a, p in enumerate(momenta, 1):
        for b, q in enumerate(momenta, 1):
            values[f"s_{a}{b}"] = dot(p, q)
    for name in names:
        if re.fullmatch(r"s_\d+", name) and not (len(name) == 4 and max(int(name[2]), int(name[3])) <= len(legs)):
            raise InputError(f"{name} names a momentum that no leg carries")
    tangent = draw()                                         # of half the angle
    scale = pow(1 + tangent * tangent, -1, P)
    sine, cosine = 2 * tangent * scale % P, (1 - tangent * tangent) * scale % P
    values |= {"sin": sine, "cos": cosine, "tan": sine * pow(cosine, -1, P) % P}
    return values, momenta


def dot(p, q):
    return int((p[0] * q[0] - p[1:] @ q[1:]) % P)


def light_cone(plus, x, y, square):
    """The momentum with E + z = plus and the given square."""
    minus = (square + x * x + y * y) * pow(plus, -1, P)
    half = pow(2, -1, P)
    return np.array([(plus + minus) * half % P, x, y, (plus - minus) * half % P])


def split(total, first, second, draw):
    """A momentum a with a^2 = first and (total - a)^2 = second, all modulo P."""
    energy, tx, ty, z = (int(x) for x in total)
    plus, minus = energy + z, energy - z
    while True:
        x, y = draw(), draw()
        # a^+ minus + a^- plus = d from the second condition, a^+ a^- = f from the first
        d = energy * energy - tx * tx - ty * ty - z * z + first - second + 2 * (x * tx + y * ty)
        f = first + x * x + y * y
        discriminant = root(d * d - 4 * f * plus * minus)
        if discriminant is not None:
            solution = (d + discriminant) * pow(2 * minus, -1, P) % P
            if solution:
                return light_cone(solution, x, y, first)


def evaluate(tree, values):
    """Value of a scalar expression at all points. values: {name: (POINTS,)}"""
    return fold(tree, lambda node, arguments: _evaluate_node(node, arguments, values))


def _evaluate_node(node, arguments, values):
    kind = type(node)
    if kind is Number:
        if node.value >= P:
            raise InputError(f"no proof: a number of {len(str(node.value))} digits")
        return np.int64(node.value)
    if kind is Symbol:
        return values[node.name]
    if kind is Negative:
        return -arguments[0] % P
    if kind is Sum:
        return sum(-term if minus else term for term, minus in zip(arguments, node.minus)) % P
    if kind is Product:
        result = 1
        for factor, inverse in zip(arguments, node.inverse):
            result = result * (power(factor, -1) if inverse else factor) % P
        return result
    if kind is Power:
        exponent = fold(node.exponent, _rational_node)
        if abs(exponent) >= P - 1:                           # x**(P - 1) = 1
            raise InputError("no proof: a huge exponent")
        if exponent.denominator == 1:
            return power(arguments[0], exponent.numerator)
        if node.base not in (Number(2), Number(3)) or exponent.denominator != 2:
            raise InputError("no proof: a root of something else than 2 or 3")
        return power(np.int64(root(node.base.value)), exponent.numerator)
    if kind is Function and type(node.argument) is Symbol and node.argument.name == "theta_W":
        return values[node.name]
    raise InputError("no proof: an index, a field or an angle stands where a number is expected")


def _rational_node(node, arguments):
    kind = type(node)
    if kind is Number:
        return Fraction(node.value)
    if kind is Negative:
        return -arguments[0]
    if kind is Sum:
        return sum(-term if minus else term for term, minus in zip(arguments, node.minus))
    if kind is Product:
        result = Fraction(1)
        for factor, inverse in zip(arguments, node.inverse):
            result = result / factor if inverse else result * factor
        return result
    raise InputError("no proof: an exponent that is no number")


# ---------------------------------------------------------------------------------------------------------------------
# The square of the amplitude

def leg_matrix(leg, field, momentum, values, i, gauge):
    """As verify.leg_matrix. momentum, gauge: (POINTS, 4)."""
    mass = values[mass_of(leg.name)][:, None, None]
    metric, lower = TABLES[I].metric, momentum * TABLES[I].metric.diagonal() % P
    if leg.kind:
        i = P - i if leg.starred else i
        slash = np.einsum("pm,mab->pab", momentum, TABLES[i].gamma_down)
        gamma_0 = TABLES[i].gamma_up[0]
        outer = (slash + (mass if leg.kind == "u" else -mass) * TABLES[i].unit) % P @ gamma_0 % P
        return gamma_0 @ (outer @ gamma_0 % P) % P if leg.starred else outer
    if len(field.indices) < 2:
        return None
    pp = lower[:, :, None] * lower[:, None, :] % P
    if leg.mark == "T":                                      # -g + (p n + n p) / p.n - n^2 p p / (p.n)^2 for any n: an axial gauge
        n = gauge * metric.diagonal() % P
        inverse = power((momentum * n).sum(1) % P, -1)
        pn = lower[:, :, None] * n[:, None, :] % P
        second = (gauge * n).sum(1) % P * (inverse * inverse % P) % P
        return (-metric + (pn + pn.swapaxes(1, 2)) * inverse[:, None, None] - pp * second[:, None, None]) % P
    return (-metric + (pp * power(mass, -2) if mass_of(leg.name) else 0 * pp)) % P


def colour_sum(left, right, axes):
    """As verify.colour_sum."""
    labels = tuple(label for label, _ in axes)

    def array(structure, i):
        operands = [(COLOURS[i][name] if name != "delta" else np.eye(dict(axes)[ends[0]], dtype=np.int64), ends) for name, ends in structure]
        return contract(operands, labels, P) if operands else np.ones((), np.int64)

    return int((array(left, I) * array(right, P - I) % P).sum() % P)


@functools.lru_cache(maxsize=KEPT)
def _points_at(amp, square_names, seed):
    """Random points: ({name: (POINTS,)}, momenta (legs, POINTS, 4), gauge (POINTS, 4))."""
    _, legs, names = read_amplitude(amp)
    rng = np.random.default_rng((seed, zlib.crc32(amp.encode())))
    points = [random_point(legs, (names | square_names) - {"i"}, rng) for _ in range(POINTS)]
    values = {name: np.array([values[name] for values, _ in points]) for name in points[0][0]}
    return values, np.stack([momenta for _, momenta in points], axis=1), rng.integers(1, P, (POINTS, 4))


@functools.lru_cache(maxsize=KEPT)
def _square_at(amp, square_names, seed):
    """The averaged |amp|^2 at these points, (POINTS,)."""
    terms, legs, _ = read_amplitude(amp)
    values, momenta, gauge = _points_at(amp, square_names, seed)
    fields = sorted((t for t in terms[0].tensors if type(t) is Field), key=lambda field: field.leg)
    spin_axes = [("spin", field.leg) for field in fields if len(field.indices) > 1]
    by_colour = {I: defaultdict(int), P - I: defaultdict(int)}                # the amplitude and its conjugate
    for i, arrays in by_colour.items():
        at = values | {"i": np.full(POINTS, i)}
        for term in terms:
            factor = np.ones(POINTS, np.int64)
            for node, inverse in term.scalars:
                factor = factor * power(evaluate(node, at), -1 if inverse else 1) % P
            spin, colour = split_term(term, momenta, TABLES[i])
            array = contract([(factor, ("point",))] + spin, ["point"] + spin_axes, P)
            key = rename_dummies(colour)
            arrays[key] = (arrays[key] + array) % P
    summed, plain = (np.stack(list(arrays.values()), axis=1).reshape(POINTS, len(arrays), -1) for arrays in by_colour.values())
    shape = summed.shape
    for leg, field, momentum in zip(legs, fields, momenta):
        matrix = leg_matrix(leg, field, momentum, values, I, gauge)
        if matrix is not None:
            summed = (summed.reshape(*shape[:2], 4, shape[2] // 4).swapaxes(2, 3) @ matrix[:, None] % P).reshape(shape)
    total = np.zeros(POINTS, np.int64)
    for c, left in enumerate(by_colour[I]):
        for d, right in enumerate(by_colour[I]):
            total += (summed[:, c] * plain[:, d] % P).sum(1) % P * colour_sum(left, right, colour_axes(fields)) % P
    return total % P * pow(average_of(legs, fields), -1, P) % P


def prove(amp, sqamp, seed=0):
    """Whether sqamp is the square of amp. InputError where there is no proof, such as for other roots than those of 2 and 3."""
    tree = parse(sqamp)
    names = names_beside(amp, tree)
    return _agree(seed, lambda seed: (evaluate(tree, _points_at(amp, names, seed)[0]), _square_at(amp, names, seed)))


def equal(amp, sqamp, other, seed=0):
    """Whether two texts are the same function of what belongs to the legs of amp. InputError as above."""
    trees = parse(sqamp), parse(other)
    names = frozenset().union(*(names_beside(amp, tree) for tree in trees))
    return _agree(seed, lambda seed: [evaluate(tree, _points_at(amp, names, seed)[0]) for tree in trees])


def _agree(seed, sides):
    for attempt in range(5):                                 # a denominator is zero at a random point about once in 1e7
        try:
            left, right = sides(seed + attempt)
            return bool(np.all(left == right))
        except (ZeroDivisionError, ValueError):              # ValueError: pow() of no invertible number
            pass
    raise InputError("no proof: division by zero")
