r"""The judge in floating point: is `sqamp` the square of `amp`?

Each row's amplitude is evaluated with explicit matrices (matrices.py) at random momenta, masses and couplings, squared,
and compared with the value of the text of `sqamp`: right means equal to a relative 1e-9. A row that would be wrong by
rounding alone is left to the exact proof (exact.py).
A verdict rests on what stands in the row, in the table of the particles, or in `facts`. Where something is missing the
row is unreadable.
"""

import functools
import itertools
import operator
import zlib
from typing import NamedTuple

import numpy as np

from physics import exact
from physics.expression import (
    UNCOMPUTABLE,
    Power,
    Product,
    Sum,
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
    evaluate_node,
    names_beside,
    read_amplitude,
    read_roles,
    square_at,
)
from physics.matrices import evaluate as evaluate_in
from physics.particles import NO_FACTS, cannot_decay, unexplained
from runtime.files import InputError

POINTS = 2  # random points a row; the values of a wrong row differ at every one of them
TOLERANCE = 1e-9  # relative; rounding of right rows stays below 1e-11
ROUNDING = 1e-26  # of |sum of the terms' sizes|^2: what is left of an amplitude that vanishes
EPSILON = np.finfo(float).eps
NEAR = 1e-3  # a square that is wrong by less, relatively, is left to the exact proof
SMALLEST = 1e-100  # such a size, or one above its inverse, is no amplitude but an attempt to over- or underflow
KEPT = 4096  # amplitudes whose values are kept, some 5 kB each: candidates of one are looked at again and again
AT_REST = (1.0, 0.0, 0.0, 0.0)  # gauge vectors n, see matrices.leg_matrix
BOOSTED = (1.0, 0.18, 0.24, 0.4)


class Verdict(NamedTuple):
    status: str  # 'right', 'wrong' or 'unreadable'
    reason: str  # '' when right
    crossed: bool = False  # no real momenta allow the process: judged at its continuation, see random_point

    def __bool__(self):
        return self.status == "right"


class NoMomenta(InputError):
    """No real momenta allow a decay on the mass shells."""


# ---------------------------------------------------------------------------------------------------------------------
# Complex numbers


def _power(node, base, exponent):
    if np.any(np.abs(exponent) > 1000):
        raise InputError("an exponent above 1000")
    return float(base) ** exponent if type(base) is int and type(exponent) is int else base**exponent


COMPLEX = Numbers(
    reduce=lambda x: x,
    divide=operator.truediv,
    number=int,
    power=_power,
    function=lambda node, argument, values: getattr(np, node.name)(argument),
    conjugate=np.conj,
    inner=lambda left, right: left @ right.swapaxes(1, 2),
    size=lambda array: np.abs(array).reshape(len(array), -1).max(axis=1),
    axes=(),
    metric=METRIC,
    gamma_up=GAMMA_UP,
    gamma_down=GAMMA_DOWN,
    dirac=CHIRAL | {"gamma_5": GAMMA_5, "unit": np.eye(4)},
    colour={"T": COLOUR, "f": STRUCTURE},
)


def evaluate(tree, values):
    """Value of a scalar expression in floating point. values: {name: number or (P,) array}"""
    return evaluate_in(tree, values, COMPLEX)


# ---------------------------------------------------------------------------------------------------------------------
# Random points: masses, couplings, momenta


def random_point(fields, roles, names, rng, points, continued=False):
    """Values of all symbols and physical momenta, as ({name: (P,) array}, (legs, P, 4) array).

    A leg k is off its mass shell where it is marked `_off` or the symbol s_kk occurs. Phase space is not sampled
    uniformly. Every open region is reached, which is all that a polynomial identity needs. Where no real decay is
    possible, as in e -> e mu mu~, one of its products comes in with reversed momentum, of negative energy. With three
    legs that does not help (NoMomenta): `continued` then takes the lone leg off its mass shell.
    """
    numbers = [field.leg for field in fields]
    masses = set(roles.masses) | {name for name in names if name.startswith("m_")}
    values = {name: rng.uniform(0.5, 2, points) for name in sorted(masses - {None})}
    values[None] = np.zeros(points)
    symbols = [f"s_{k}{k}" if field.mark == "off" or f"s_{k}{k}" in names else mass
               for k, field, mass in zip(numbers, fields, roles.masses)]
    shell = [values[symbol] if symbol in values else rng.uniform(0.5, 2, points) for symbol in symbols]
    sides = ([k for k, comes_in in enumerate(roles.incoming) if comes_in],
             [k for k, comes_in in enumerate(roles.incoming) if not comes_in])
    if not all(sides):
        raise InputError("all legs come in or all go out; at least one of each is expected")
    crossed = []
    for one, many in (sides, sides[::-1]):
        if len(one) == 1 and cannot_decay(symbols[one[0]], [symbols[k] for k in many]):
            if len(many) < 3:
                if not continued:
                    raise NoMomenta("on their mass shells a massless particle cannot decay, nor one into itself")
                shell[one[0]] = sum(shell[k] for k in many) + rng.uniform(0.5, 2, points)
                continue
            crossed = [many[-1]]  # the same polynomial identity holds with this leg on the other side
            one.append(many.pop())
    energy = np.maximum(*(sum(shell[k] for k in side) for side in sides)) + rng.uniform(0.5, 3, points)
    for one, many in (sides, sides[::-1]):
        if len(one) == 1:  # a decay: the lone leg's mass is the energy of all the others
            energy, least = shell[one[0]], sum(shell[k] for k in many)
            if np.any(energy <= least):
                energy[:] = least * rng.uniform(1.2, 2, points)  # in place: changes the mass itself
    momenta = np.empty((len(fields), points, 4))
    for side in sides:
        momenta[side] = _phase_space(energy, [shell[k] for k in side], rng)
    momenta[crossed] *= -1
    for i, j in itertools.combinations_with_replacement(range(len(fields)), 2):
        product = np.einsum("pm,m,pm->p", momenta[i], METRIC.diagonal(), momenta[j])
        values[f"s_{i + 1}{j + 1}"] = product
    values["i"] = 1j
    for name in sorted(names - values.keys()):  # couplings, angles, reg_prop
        if name.startswith("eps("):
            values[name] = np.linalg.det(momenta[[leg - 1 for leg in epsilon_legs(name)]].swapaxes(0, 1))
        elif name not in values:
            values[name] = rng.uniform(0.5, 1.5, points)
            if is_complex(name):
                values[name] = values[name] + 1j * rng.uniform(0.5, 1.5, points)
                values[conjugate(name)] = values[name].conj()
    return values, momenta


def _phase_space(energy, masses, rng):
    """Momenta (n, P, 4) of n particles by a chain of two-body decays. masses: (P,) each; energy: total, at rest."""
    momenta, total = [], np.zeros((len(energy), 4))
    total[:, 0] = energy
    rest = energy  # invariant mass of what is still to be split
    for k, mass in enumerate(masses[:-1]):
        floor = sum(masses[k + 1 :])
        below = floor + (rest - mass - floor) * rng.uniform(0.2, 0.8, len(energy)) if k + 2 < len(masses) else floor
        size = np.sqrt(np.maximum((rest**2 - (mass + below) ** 2) * (rest**2 - (mass - below) ** 2), 0)) / (2 * rest)
        direction = rng.normal(size=(len(energy), 3))
        space = size[:, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)
        at_rest = np.concatenate([np.sqrt(mass**2 + size**2)[:, None], space], axis=1)
        momenta.append(_boost(at_rest, total, rest))
        total, rest = total - momenta[-1], below
    return np.stack(momenta + [total])


def _boost(momentum, frame, mass):
    """Momentum (P, 4) from the rest frame of `frame` (P, 4), whose invariant mass is `mass` (P,)."""
    along = np.sum(momentum[:, 1:] * frame[:, 1:], axis=1)
    energy = (momentum[:, 0] * frame[:, 0] + along) / mass
    scale = (momentum[:, 0] + energy) / (frame[:, 0] + mass)
    return np.concatenate([energy[:, None], momentum[:, 1:] + scale[:, None] * frame[:, 1:]], axis=1)


def averaged_square(terms, fields, roles, values, momenta):
    """(|amplitude|^2, scale), (P,) each: summed over final and averaged over initial states.

    The scale is the square of the sum of the terms' sizes: rounding errors are small beside it.
    """
    by_colour, scale = amplitude_at(terms, fields, values, momenta, COMPLEX)

    def in_gauge(n):
        return square_at(by_colour, fields, roles, values, momenta, np.broadcast_to(n, momenta.shape[1:]), COMPLEX)

    result = in_gauge(AT_REST)
    if any(field.mark == "T" for field in fields):
        difference = np.abs(in_gauge(BOOSTED) - result)
        if np.any(difference > TOLERANCE * (np.abs(result) + scale**2)):
            raise InputError("the amplitude is not gauge invariant, so its square with transverse polarisations (_T) "
                             "depends on their choice; expected the sum of all diagrams of a process, without reg_prop")
    return result, scale**2


# ---------------------------------------------------------------------------------------------------------------------
# Verdicts


def verify(amp, sqamp, seed=0, facts=NO_FACTS):
    """Verdict on one row of text. Deterministic for a seed. facts: see particles.Facts.

    A wrong sqamp is a rational function that differs from the right one; at a random real point the two agree with
    probability zero, and to a relative 1e-9 by accident about once in 1e8 tries a point.
    """
    try:
        with np.errstate(all="ignore"):
            tree = parse(sqamp)
            names = names_beside(amp, tree)
            try:
                values, crossed, expected, scale = _amplitude_at(amp, names, seed, facts)
            except NoMomenta as error:
                return _verify_continued(amp, tree, names, seed, facts, error)
            found = evaluate(tree, values) * np.ones(POINTS, complex)
            vanishes = np.all(np.abs(expected) <= ROUNDING * scale)
            if not vanishes and not np.all((scale > SMALLEST) & (scale < 1 / SMALLEST)):
                raise InputError("the amplitude is too large or too small for floating-point numbers")
            agreed = agree(found, expected, scale)
            if agreed.all() and not vanishes:
                return Verdict("right", "", crossed)
            k = int(np.argmin(agreed))
            if vanishes or _rounding_may_decide(tree, values, found, expected):
                if exact.prove(amp, sqamp, seed, facts):
                    return Verdict("right", "", crossed)
    except UNCOMPUTABLE as error:
        return Verdict("unreadable", str(error))
    if hint := _other_reading(amp, sqamp, names, seed, facts):
        return Verdict("unreadable", hint, crossed)
    value = found[k] if abs(found[k].imag) > TOLERANCE * abs(found[k]) else found[k].real
    reason = f"the amplitude gives {expected[k].real:.12g}, sqamp gives {value:.12g}"
    return Verdict("wrong", reason, crossed)


def agree(found, expected, scale):
    """Whether two values are the same but for rounding, (P,). scale: of the numbers that they were computed from."""
    difference = np.abs(found - expected)
    most = TOLERANCE * np.maximum(np.abs(expected), np.abs(found)) + ROUNDING * scale
    return np.isfinite(difference) & (difference <= most)


def _rounding_may_decide(tree, values, found, expected):
    """Whether a wrong value may be due to rounding: at some point it is nearly right, or its error may be so large."""
    difference = np.abs(found - expected)
    _, _, error = fold(tree, lambda node, arguments: _with_error(node, arguments, values))
    return not np.all((difference > NEAR * np.abs(expected)) & (error <= NEAR * difference))  # False for nan and inf


def _with_error(node, arguments, values):
    """(value, its absolute value, bound of its rounding error) of a node, from those of its children."""
    kind = type(node)
    value = evaluate_node(node, [value for value, _, _ in arguments], values, COMPLEX)
    size = abs(value)
    error = EPSILON * size
    if kind is Sum:
        for _, part, uncertain in arguments:
            error = error + EPSILON * part + uncertain
    elif kind is Product:
        most = 1.0
        for (_, part, uncertain), inverse in zip(arguments, node.inverse):
            most = most / np.maximum(part - uncertain, 0) if inverse else most * (part + uncertain)
        error = len(arguments) * error + most - size
    elif kind is Power:
        (_, part, uncertain), exponent = arguments[0], np.real(arguments[1][0])
        error = 2 * error + np.where(exponent < 0, np.maximum(part - uncertain, 0), part + uncertain) ** exponent - size
    elif arguments:  # a sign or a function; the slope of a tangent is 1 + its square
        error = error + (1 + size**2) * arguments[0][2]
    return value, size, error


def _verify_continued(amp, tree, names, seed, facts, error):
    """Verdict where no real momenta exist.

    An identity that holds with the lone leg off its mass shell holds on it too. Of anything else nothing is known.
    """
    values, _, expected, scale = _amplitude_at(amp, names, seed, facts, continued=True)
    found = evaluate(tree, values) * np.ones(POINTS, complex)
    if agree(found, expected, scale).all():
        return Verdict("right", "", True)
    return Verdict("unreadable", str(error))


def _other_reading(amp, sqamp, names, seed, facts):
    """Why a row that is not right may not be wrong, '' if it is wrong.

    Either a symbol of the square has no meaning, or the row is right if particles whose masses do not occur in it are
    massless, as at high energy.
    """
    _, fields, amp_names = read_amplitude(amp)
    masses = read_roles(amp, names, facts).masses
    if reason := unexplained(fields, masses, amp_names, names):
        return reason
    absent = {field.name for field, mass in zip(fields, masses) if mass and mass not in amp_names | names}
    absent = sorted(absent - dict(facts.masses).keys())
    massless = facts._replace(masses=(*facts.masses, *((name, None) for name in absent)))
    if absent and verify(amp, sqamp, seed, massless):
        who = f"{absent[0]} is" if len(absent) == 1 else f"{' and '.join(absent)} are"
        said = " ".join(f"{name}=0" for name in absent)
        return f'right if {who} massless: --masses="{said}" says so'
    return ""


def same(amp, sqamp, other, facts=NO_FACTS):
    """Whether two squares agree at the random points of an amplitude. Raises what cannot be read or computed."""
    trees = parse(sqamp), parse(other)
    names = names_beside(amp, *trees)
    with np.errstate(all="ignore"):
        try:
            values, _, _, scale = _amplitude_at(amp, names, 0, facts)
        except NoMomenta:
            values, _, _, scale = _amplitude_at(amp, names, 0, facts, continued=True)
        return bool(np.all(agree(*(evaluate(tree, values) for tree in trees), scale)))


@functools.lru_cache(maxsize=KEPT)
def _amplitude_at(amp, square_names, seed, facts, continued=False):
    """(values of all symbols, whether a leg is crossed, averaged |amp|^2, its scale) at random points."""
    roles = read_roles(amp, square_names, facts)
    terms, fields, names = read_amplitude(amp)
    rng = np.random.default_rng((seed, zlib.crc32(amp.encode())))
    values, momenta = random_point(fields, roles, names | square_names, rng, POINTS, continued)
    return values, bool((momenta[:, :, 0] < 0).any()), *averaged_square(terms, fields, roles, values, momenta)
