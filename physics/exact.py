r"""Proof that `sqamp` is the square of `amp`: both sides in exact arithmetic, at random points of prime fields.

numeric.py compares floating-point numbers, so a candidate may differ from the square by something small: a term like
`+ e^900`, or the tenth digit of a coefficient. Here momenta, masses and couplings are integers modulo a prime p, where
nothing is small. The primes are 1 modulo 24, so that -1, 2 and 3 have square roots modulo p: these give i, sqrt(2) and
the Gell-Mann matrices. Where the row has roots of other primes, only those p are drawn that have them too; the root of
a composite number is the product of those of its prime factors. Momenta are put on their mass shells by square roots of
their own. Each of the POINTS points has a prime of its own, and stands twice in every array, with i and with -i for the
imaginary unit: complex conjugation swaps the two.

How sure is a proof? The primes are drawn by the seed from the N = 123,271 primes between 2^24 and 2^25 that are 1
modulo 24, in SETS sets. An amplitude's checksum chooses its set and draws its points. Let the difference of the two
sides be a fraction, not zero, whose numerator has the degree d and integers of b bits.
 - The numerator is zero modulo p for its coefficients alone, as 2^25 - 295 is for one prime, for at most b/24 primes.
 - Else it is zero at one random point with probability d/p at most (Schwartz 1980, Zippel 1979).
So a wrong square is proven with probability (b/24N + d/2^24)^POINTS at most: 3e-18 for d = b = 100, 3e-14 for 1,000,
and 1e-21 or 1e-17 where the coefficients have no such prime factors. Each root of another prime halves N. `size` bounds
d and b of a candidate's text, and refuses more than LARGEST.
"""

import functools
import itertools
import math
import zlib
from fractions import Fraction

import numpy as np

from physics.expression import (
    Function,
    Negative,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    conjugate,
    epsilon_legs,
    fold,
    is_complex,
    parse,
)
from physics.matrices import (
    CHIRAL,
    COLOUR,
    GAMMA_5,
    GAMMA_DOWN,
    GAMMA_UP,
    METRIC,
    STRUCTURE,
    Numbers,
    amplitude_at,
    evaluate,
    names_beside,
    read_amplitude,
    read_roles,
    square_at,
)
from physics.particles import NO_FACTS
from runtime.files import InputError

# between which primes are drawn: products of two numbers fit into int64, with room for sums of 4,096 of them
LOW, HIGH = 2**24, 2**25
POINTS = 4  # of a proof, each modulo a prime of its own
LARGEST = 2**16  # degree and bits of a candidate
SETS = 16  # of primes for each seed, so that what is computed of them is kept
USUAL_ROOTS = frozenset({2, 3})  # square roots of these exist modulo every prime that is drawn
MOST_ROOTS = 4  # of other primes in a row
KEPT = 4096  # amplitudes whose values are kept


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic modulo a prime


def is_prime(n):
    """Miller (1976) and Rabin (1980); with these four bases exact below 3.2e9 (Pomerance, Selfridge, Wagstaff 1980)."""
    if n < 11 or any(n % small == 0 for small in (2, 3, 5, 7)):
        return n in (2, 3, 5, 7)
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(pow(base, odd, n) == 1 or any(pow(base, odd << k, n) == n - 1 for k in range(twos))
               for base in (2, 3, 5, 7))


def draw_prime(rng, roots=()):
    """A prime between LOW and HIGH that is 1 modulo 24, and modulo which these numbers have square roots."""
    while True:
        p = 24 * int(rng.integers(LOW // 24 + 1, HIGH // 24)) + 1
        if is_prime(p) and all(pow(number, (p - 1) // 2, p) == 1 for number in roots):
            return p


def root(x, p):
    """A square root of the integer x modulo p, None where there is none (Tonelli 1891, Shanks 1973)."""
    x %= p
    if x == 0 or pow(x, (p - 1) // 2, p) != 1:
        return 0 if x == 0 else None
    odd, twos = p - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    nonresidue = next(z for z in range(2, p) if pow(z, (p - 1) // 2, p) != 1)
    c, t, r = pow(nonresidue, odd, p), pow(x, odd, p), pow(x, (odd + 1) // 2, p)
    while t != 1:
        order, square = 0, t
        while square != 1:
            square, order = square * square % p, order + 1
        b = pow(c, 1 << (twos - order - 1), p)
        twos, c = order, b * b % p
        t, r = t * c % p, r * b % p
    return r


def _doubled(array):
    """Twice the real and imaginary parts of an array whose entries are integers and halves, as integers."""
    twice = np.rint(2 * np.asarray(array, complex))
    return twice.real.astype(np.int64), twice.imag.astype(np.int64)


GAMMAS = {"up": _doubled(GAMMA_UP), "down": _doubled(GAMMA_DOWN)}
DIRAC = {name: _doubled(matrix) for name, matrix in (CHIRAL | {"gamma_5": GAMMA_5, "unit": np.eye(4)}).items()}
# T^8 = diag(1, 1, -2) sqrt(3) / 6, and f^abc is 1, 1/2 or sqrt(3) / 2: the rational entries, and the factors of
# sqrt(3) / 6 in T and of sqrt(3) in f
_rooted = np.abs(np.abs(STRUCTURE) - 3**0.5 / 2) < 0.1
RATIONAL = {"T": _doubled(np.where(np.arange(8) < 7, COLOUR.T, 0).T), "f": _doubled(np.where(_rooted, 0, STRUCTURE))}
ROOTED = {
    "T": _doubled(np.where(np.arange(8) == 7, COLOUR.T, 0).T * 6 / 3**0.5),
    "f": _doubled(np.where(_rooted, STRUCTURE, 0) / 3**0.5),
}


def prime_fields(primes, roots=USUAL_ROOTS):
    """Integers modulo a prime for each point, as Numbers. Arrays are (2 POINTS, ...): all with i, then with -i.

    roots: prime numbers with square roots modulo all of `primes`.
    """
    i, roots = np.array([root(-1, p) for p in primes]), {n: np.array([root(n, p) for p in primes] * 2) for n in roots}
    i, primes = np.concatenate([i, primes - i]), np.array([*primes] * 2)

    def along(vector, array):  # (2 POINTS,) -> (2 POINTS, 1, ..., 1), with as many axes as the array
        return vector.reshape(-1, *[1] * (np.ndim(array) - 1))

    def reduce(x):
        return x % (primes if np.ndim(x) < 2 else along(primes, x))

    def inverse(x):
        flat = np.broadcast_to(x, np.shape(x) or primes.shape)
        inverses = [pow(int(value), -1, int(p)) for value, p in zip(flat.ravel(), primes, strict=True)]
        return np.array(inverses).reshape(flat.shape)

    def power(x, n):
        result, x = along(primes, x) ** 0, inverse(x) if n < 0 else x
        n = abs(n)
        while n:
            if n & 1:
                result = reduce(result * x)
            x, n = reduce(x * x), n >> 1
        return result

    def value_of_power(node, base, _):
        exponent = exponent_of(node)
        if exponent.denominator == 1:
            return power(base, exponent.numerator)
        value, factors = root_of(node)
        for prime in factors:
            value = reduce(value * roots[prime])
        return power(value, exponent.numerator)

    def inner(left, right):
        return np.stack([reduce(left * right[:, d, None]).sum(axis=2) for d in range(right.shape[1])], axis=2)

    def lift(twice):  # a matrix, given as real and imaginary part of its double
        real, imaginary = twice
        return reduce((real + imaginary * along(i, real[None])) * along((primes + 1) // 2, real[None]))

    sixth = inverse(np.int64(6))
    colour = {
        name: reduce(lift(rational) + reduce(lift(rooted) * along(roots[3] * scale % primes, rational[0][None])))
        for (name, rational), rooted, scale in zip(RATIONAL.items(), ROOTED.values(), (sixth, 1))
    }
    return Numbers(
        reduce,
        divide=lambda x, y: reduce(x * inverse(y)),
        number=_small,
        power=value_of_power,
        function=_angle,
        conjugate=lambda array: np.roll(array, POINTS, axis=0),
        inner=inner,
        size=lambda array: 0,
        axes=("point",),
        metric=METRIC.astype(np.int64),
        gamma_up=lift(GAMMAS["up"]),
        gamma_down=lift(GAMMAS["down"]),
        dirac={name: lift(DIRAC[name]) for name in DIRAC},
        colour=colour,
    )


def _small(value):
    """A number as it is modulo every prime."""
    if value >= LOW:
        raise InputError(f"no proof: a number of {len(str(value))} digits")
    return np.int64(value)


def _angle(node, _, values):
    if type(node.argument) is Symbol and node.argument.name == "theta_W":
        return values[node.name]
    raise InputError("no proof: an index, a field or an angle stands where a number is expected")


def exponent_of(power):
    """The exponent of a Power node, an integer or a Fraction. Raises InputError."""
    tree = power.exponent
    exponent = tree.value if type(tree) is Number else fold(tree, _rational_node)
    if abs(exponent) > LARGEST:
        raise InputError("no proof: a huge exponent")
    return exponent


def root_of(power):
    """(integer n, primes p, q, ...) with n sqrt(p) sqrt(q) ... = the square root of a Power node's base, an integer."""
    if type(power.base) is not Number or not 0 < power.base.value < LOW or exponent_of(power).denominator != 2:
        raise InputError("no proof: a root of something else than an integer")
    rest, outside, factors, divisor = power.base.value, 1, [], 2
    while rest > 1:
        if divisor * divisor > rest:
            divisor = rest
        while rest % divisor**2 == 0:
            rest, outside = rest // divisor**2, outside * divisor
        if rest % divisor == 0:
            rest //= divisor
            factors.append(divisor)
        divisor += 1
    return outside, factors


def roots_in(trees):
    """The primes whose square roots stand in expressions, 2 and 3 always. Raises InputError."""
    roots = set(USUAL_ROOTS)

    def visit(node, _):
        if type(node) is Power and type(node.exponent) is not Number and exponent_of(node).denominator != 1:
            roots.update(root_of(node)[1])

    for tree in trees:
        fold(tree, visit)
    return frozenset(roots)


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


def size(tree):
    """Upper bounds of degree + bits of the numerator and the denominator of an expression. InputError above LARGEST."""
    return fold(tree, _size_node)


def _size_node(node, arguments):
    kind = type(node)
    if kind is Number:
        above, below = node.value.bit_length(), 0
    elif kind is Symbol:
        above, below = (2 if node.name.startswith("s_") else 4 if node.name.startswith("eps(") else 1), 0
    elif kind is Function:
        above, below = 2, 2  # rational functions of tan(theta_W / 2)
    elif kind is Negative:
        above, below = arguments[0]
    elif kind is Product:
        turned = [pair[::-1] if inverse else pair for pair, inverse in zip(arguments, node.inverse)]
        above, below = (sum(side) for side in zip(*turned))
    elif kind is Sum:  # over the product of all denominators
        below = sum(pair[1] for pair in arguments)
        above = max(top + below - bottom for top, bottom in arguments) + len(arguments).bit_length()
    elif kind is Power:
        exponent = exponent_of(node)
        above, below = (math.ceil(abs(exponent) * part) for part in arguments[0][:: 1 if exponent >= 0 else -1])
    else:
        raise InputError("no proof: an index or a field stands where a number is expected")
    if max(above, below) > LARGEST:
        raise InputError(f"no proof: numbers and powers of more than {LARGEST:,} bits and degrees")
    return above, below


# ---------------------------------------------------------------------------------------------------------------------
# A random point


def random_point(fields, roles, names, rng, p):
    """({name: (value with i, value with -i)}, momenta (legs, 4)) with p_k^2 = m_k^2 and momentum conservation."""

    def draw():
        return int(rng.integers(1, p))

    values = {name: draw() for name in sorted((set(roles.masses) - {None}) | names) if name[:4] != "eps("} | {None: 0}
    shell = [draw() if field.mark == "off" or f"s_{field.leg}{field.leg}" in names else values[mass] ** 2
             for field, mass in zip(fields, roles.masses)]
    signs = [1 if comes_in else -1 for comes_in in roles.incoming]
    momenta = [light_cone(draw(), draw(), draw(), square, p) for square in shell[:-2]]
    rest = -np.array(signs[:-2]) @ np.array(momenta)  # what the last two legs' signed momenta add up to
    last = split(rest, shell[-2], shell[-1], draw, p)
    momenta = np.array([*momenta, signs[-2] * last, signs[-1] * (rest - last)]) % p
    for (a, left), (b, right) in itertools.combinations_with_replacement(enumerate(momenta, 1), 2):
        values[f"s_{a}{b}"] = dot(left, right, p)
    for name in names:
        if name.startswith("eps("):
            values[name] = determinant([[int(x) for x in momenta[leg - 1]] for leg in epsilon_legs(name)]) % p
    tangent = draw()  # of half the angle
    scale = pow(1 + tangent * tangent, -1, p)
    sine, cosine = 2 * tangent * scale % p, (1 - tangent * tangent) * scale % p
    values |= {"sin": sine, "cos": cosine, "tan": sine * pow(cosine, -1, p) % p}
    pairs = {name: (value, value) for name, value in values.items()}
    for name in sorted(names):
        if is_complex(name):
            pairs[name] = values[name], draw()  # x + i y and x - i y are any two numbers
            pairs[conjugate(name)] = pairs[name][::-1]
    i = root(-1, p)
    return pairs | {"i": (i, p - i)}, momenta


def dot(left, right, p):
    return int((left[0] * right[0] - left[1:] @ right[1:]) % p)


def determinant(rows):
    """Determinant of a square matrix of integers, by expansion along the first row."""
    if len(rows) == 1:
        return rows[0][0]
    return sum((-1) ** k * entry * determinant([row[:k] + row[k + 1:] for row in rows[1:]])
               for k, entry in enumerate(rows[0]))


def light_cone(plus, x, y, square, p):
    """The momentum with E + z = plus and the given square."""
    minus = (square + x * x + y * y) * pow(plus, -1, p)
    half = (p + 1) // 2
    return np.array([(plus + minus) * half % p, x, y, (plus - minus) * half % p])


def split(total, first, second, draw, p):
    """A momentum a with a^2 = first and (total - a)^2 = second, all modulo p."""
    energy, tx, ty, z = (int(x) for x in total)
    plus, minus = energy + z, energy - z
    while True:
        x, y = draw(), draw()
        # a^+ minus + a^- plus = d from the second condition, a^+ a^- = f from the first
        d = energy * energy - tx * tx - ty * ty - z * z + first - second + 2 * (x * tx + y * ty)
        f = first + x * x + y * y
        discriminant = root(d * d - 4 * f * plus * minus, p)
        if discriminant is not None:
            solution = (d + discriminant) * pow(2 * minus, -1, p) % p
            if solution:
                return light_cone(solution, x, y, first, p)


# ---------------------------------------------------------------------------------------------------------------------
# Proofs


@functools.lru_cache(maxsize=4 * SETS)
def _primes_of_set(seed, number, roots):
    """POINTS primes, and their Numbers. roots: see prime_fields."""
    rng = np.random.default_rng((seed, number))
    primes = [draw_prime(rng, roots - USUAL_ROOTS) for _ in range(POINTS)]
    return primes, prime_fields(primes, roots)


@functools.lru_cache(maxsize=KEPT)
def _roots_of(amp):
    """roots_in of the scalars of an amplitude."""
    return roots_in(node for term in read_amplitude(amp).terms for node, _ in term.scalars)


@functools.lru_cache(maxsize=KEPT)
def _points_at(amp, square_names, roots, seed, facts):
    """Numbers, Roles, and at random points {name: (2 POINTS,)}, momenta (legs, 2 POINTS, 4), gauge (2 POINTS, 4)."""
    roles = read_roles(amp, square_names, facts)
    _, fields, names = read_amplitude(amp)
    checksum = zlib.crc32(amp.encode())
    primes, numbers = _primes_of_set(seed, checksum % SETS, roots)
    rng = np.random.default_rng((seed, checksum))
    points = [random_point(fields, roles, (names | square_names) - {"i"}, rng, p) for p in primes]
    values = {name: np.array([values[name][k] for k in (0, 1) for values, _ in points]) for name in points[0][0]}
    momenta = np.stack([momenta for _ in (0, 1) for _, momenta in points], axis=1)
    gauge = np.tile(rng.integers(1, LOW, (POINTS, 4)), (2, 1))
    return numbers, roles, values, momenta, gauge


@functools.lru_cache(maxsize=KEPT)
def _square_at(amp, square_names, roots, seed, facts):
    """The averaged |amp|^2 at these points, (2 POINTS,)."""
    terms, fields, _ = read_amplitude(amp)
    numbers, roles, values, momenta, gauge = _points_at(amp, square_names, roots, seed, facts)
    by_colour, _ = amplitude_at(terms, fields, values, momenta, numbers)
    return square_at(by_colour, fields, roles, values, momenta, gauge, numbers)


def _value_at(tree, *point):
    """The value of a tree at these points, (2 POINTS,)."""
    numbers, _, values, _, _ = _points_at(*point)
    return numbers.reduce(evaluate(tree, values, numbers))


def prove(amp, sqamp, seed=0, facts=NO_FACTS):
    """Whether sqamp is the square of amp. InputError where there is no proof, as for roots of other than integers."""
    tree = parse(sqamp)
    row = _row(amp, tree)
    return _agree(seed, lambda seed: (_value_at(tree, *row, seed, facts), _square_at(*row, seed, facts)))


def equal(amp, sqamp, other, facts=NO_FACTS):
    """Whether two texts are the same function of what belongs to the legs of amp. InputError as above."""
    trees = parse(sqamp), parse(other)
    row = _row(amp, *trees)
    return _agree(0, lambda seed: [_value_at(tree, *row, seed, facts) for tree in trees])


def _row(amp, *trees):
    """(amp, the other symbols of squares, all roots): what the points depend on. InputError where there is no proof."""
    for tree in trees:
        size(tree)
    roots = _roots_of(amp) | roots_in(trees)
    if len(roots) > len(USUAL_ROOTS) + MOST_ROOTS:
        raise InputError(f"no proof: roots of more than {MOST_ROOTS} primes beside 2 and 3")
    return amp, names_beside(amp, *trees), roots


def _agree(seed, sides):
    for attempt in range(5):  # a denominator is zero at a random point about once in 1e7
        try:
            left, right = sides(seed + attempt)
            return bool(np.all(left == right))
        except (ZeroDivisionError, ValueError):  # ValueError: pow() of no invertible number
            pass
    raise InputError("no proof: division by zero")
