r"""The independent judge: is `sqamp` the square of `amp`?

    python verify.py FILE.csv[.gz] ... [--workers=2] [--seed=1337]

Each row's amplitude is evaluated with explicit Dirac and colour matrices at random momenta, masses and couplings, squared,
summed over spins, polarisations and colours, averaged over the incoming states, and compared with the value of the text
of `sqamp`. Nothing of the code that generates or squares amplitudes is used, only the reader of the grammar.
Exit code 0 if every row is right, 1 if any is wrong or unreadable.
"""
import collections
import functools
import itertools
import math
import re
import zlib
from typing import NamedTuple

import numpy as np

from physics.expression import (
    Field,
    Function,
    Negative,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    expand,
    fold,
    legs_of,
    names_in,
    parse,
)
from physics.particles import NO_FACTS
from runtime.files import InputError

POINTS = 2                   # random points a row; the values of a wrong row differ at every one of them
TOLERANCE = 1e-9             # relative; rounding of right rows stays below 1e-11
ROUNDING = 1e-26             # of |sum of the terms' sizes|^2: what is left of an amplitude that vanishes
SMALLEST = 1e-100            # such a size, or one above its inverse, is no amplitude but an attempt to over- or underflow
KEPT = 4096                  # amplitudes whose values are kept, some 5 kB each: candidates of one are looked at again and again
ANY_DIRECTION = (0.36, 0.48, 0.8)       # to which two transverse polarisations are orthogonal, the first of them


class Verdict(NamedTuple):
    status: str              # 'right', 'wrong' or 'unreadable'
    reason: str              # '' when right
    amplitude: complex       # averaged |amp|^2 at the first point that decides; where `crossed`, its continuation, of either sign
    square: complex          # value of sqamp there
    crossed: bool = False    # no real decay is possible: judged with one of its products coming in, see random_point

    def __bool__(self):
        return self.status == "right"


# ---------------------------------------------------------------------------------------------------------------------
# Dirac matrices (Dirac representation), metric (+,-,-,-), Gell-Mann matrices

_PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
METRIC = np.diag([1.0, -1.0, -1.0, -1.0])
GAMMA_UP = np.zeros((4, 4, 4), complex)                                      # (mu, a, b), index mu up
GAMMA_UP[0] = np.diag([1, 1, -1, -1])
GAMMA_UP[1:, :2, 2:], GAMMA_UP[1:, 2:, :2] = _PAULI, -_PAULI
GAMMA_DOWN = np.einsum("mn,nab->mab", METRIC, GAMMA_UP)
GAMMA_0 = GAMMA_UP[0]
GAMMA_5 = 1j * GAMMA_UP[0] @ GAMMA_UP[1] @ GAMMA_UP[2] @ GAMMA_UP[3]
CHIRAL = {"P_L": (np.eye(4) - GAMMA_5) / 2, "P_R": (np.eye(4) + GAMMA_5) / 2}
COLOUR = np.zeros((8, 3, 3), complex)                                        # T^a = lambda^a / 2: (a, i, j)
for _a, _pair in zip((0, 3, 5), ((0, 1), (0, 2), (1, 2))):
    COLOUR[_a][np.ix_(_pair, _pair)] = _PAULI[0] / 2
    COLOUR[_a + 1][np.ix_(_pair, _pair)] = _PAULI[1] / 2
COLOUR[2] = np.diag([1, -1, 0]) / 2
COLOUR[7] = np.diag([1, 1, -2]) / math.sqrt(12)
STRUCTURE = np.einsum("aij,bjk,cki->abc", COLOUR, COLOUR, COLOUR)            # f^abc = -2i tr([Ta, Tb] Tc)
STRUCTURE = -2j * (STRUCTURE - STRUCTURE.swapaxes(0, 1))


class Tables(NamedTuple):
    """The constant tensors of spin space, as numbers of one kind: complex here, of a prime field in proof.py."""
    metric: np.ndarray
    unit: np.ndarray
    gamma_up: np.ndarray     # (mu, a, b)
    gamma_down: np.ndarray
    projectors: dict         # P_L, P_R


COMPLEX = Tables(METRIC, np.eye(4), GAMMA_UP, GAMMA_DOWN, CHIRAL)


# ---------------------------------------------------------------------------------------------------------------------
# Random points: masses, couplings, momenta

def mass_of(name):
    """Symbol of a particle's mass in MARTY's files; None for massless particles."""
    return None if name in ("A", "G") or name.startswith("nu") else "m_W" if name == "Wm" else "m_" + name


def cannot_decay(mass, products):
    """Whether no real momenta let a particle decay, whatever the sizes of the masses: it is massless, or its own mass is among those
    of the products. A mass is its symbol, none (None or '') where it vanishes; that of a leg off its shell is a symbol of its own."""
    return not mass or mass in products


def random_point(legs, names, rng, points):
    """Values of all symbols and the physical momenta p_1 + .. = .. + p_n, as ({name: (P,) array}, (legs, P, 4) array).

    A leg k is off its mass shell where it is marked `_off` or the symbol s_kk occurs. Phase space is not sampled uniformly; every open region is
    reached, which is all that a polynomial identity needs. Where no real decay is possible, as in e -> e mu mu~, one of its products comes in with
    reversed momentum, of negative energy.
    """
    masses = {mass_of(leg.name) for leg in legs} | {name for name in names if name.startswith("m_")}
    values = {name: rng.uniform(0.5, 2, points) for name in sorted(masses - {None})}
    values[None] = np.zeros(points)
    symbols = [f"s_{leg.number}{leg.number}" if leg.mark == "off" or f"s_{leg.number}{leg.number}" in names else mass_of(leg.name) for leg in legs]
    shell = [values[symbol] if symbol in values else rng.uniform(0.5, 2, points) for symbol in symbols]
    sides = [k for k, leg in enumerate(legs) if leg.incoming], [k for k, leg in enumerate(legs) if not leg.incoming]
    crossed = []
    for one, many in (sides, sides[::-1]):
        if len(one) == 1 and cannot_decay(symbols[one[0]], [symbols[k] for k in many]):
            if len(many) < 3:
                raise InputError("on their mass shells a massless particle cannot decay, nor one into itself")
            crossed = [many[-1]]                             # the same polynomial identity holds with this leg on the other side
            one.append(many.pop())
    energy = np.maximum(*(sum(shell[k] for k in side) for side in sides)) + rng.uniform(0.5, 3, points)
    for one, many in (sides, sides[::-1]):
        if len(one) == 1:                                    # a decay: the lone leg's mass is the energy of all the others
            energy, least = shell[one[0]], sum(shell[k] for k in many)
            if np.any(energy <= least):
                energy[:] = least * rng.uniform(1.2, 2, points)              # in place: changes the mass itself
    momenta = np.empty((len(legs), points, 4))
    for side in sides:
        momenta[side] = _phase_space(energy, [shell[k] for k in side], rng)
    momenta[crossed] *= -1
    for i, j in itertools.combinations_with_replacement(range(len(legs)), 2):
        values[f"s_{i + 1}{j + 1}"] = np.einsum("pm,m,pm->p", momenta[i], METRIC.diagonal(), momenta[j])
    values["i"] = 1j
    for name in sorted(names - values.keys()):               # couplings, angles, reg_prop
        if re.fullmatch(r"s_\d+", name):
            raise InputError(f"{name} names a momentum that no leg carries")
        values[name] = rng.uniform(0.5, 1.5, points)
    return values, momenta


def _phase_space(energy, masses, rng):
    """Momenta (n, P, 4) of n particles with the given masses (P,) and total momentum (energy, 0, 0, 0): a chain of two-body decays."""
    momenta, total = [], np.zeros((len(energy), 4))
    total[:, 0] = energy
    rest = energy                                            # invariant mass of what is still to be split
    for k, mass in enumerate(masses[:-1]):
        floor = sum(masses[k + 1:])
        below = floor + (rest - mass - floor) * rng.uniform(0.2, 0.8, len(energy)) if k + 2 < len(masses) else floor
        size = np.sqrt(np.maximum((rest**2 - (mass + below)**2) * (rest**2 - (mass - below)**2), 0)) / (2 * rest)
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


# ---------------------------------------------------------------------------------------------------------------------
# Scalars

def evaluate(tree, values):
    """Value of a scalar expression: arithmetic over arrays of points, nothing else."""
    return fold(tree, lambda node, arguments: _evaluate_node(node, arguments, values))


def _evaluate_node(node, arguments, values):
    kind = type(node)
    if kind is Number:
        return node.value
    if kind is Symbol:
        return values[node.name]
    if kind is Product:
        result = arguments[0]
        for factor, inverse in zip(arguments[1:], node.inverse[1:]):
            result = result / factor if inverse else result * factor
        return result
    if kind is Sum:
        result = arguments[0]
        for term, minus in zip(arguments[1:], node.minus[1:]):
            result = result - term if minus else result + term
        return result
    if kind is Negative:
        return -arguments[0]
    if kind is Power:
        if np.any(np.abs(arguments[1]) > 1000):
            raise InputError("an exponent above 1000")
        if type(arguments[0]) is int and type(arguments[1]) is int:
            return float(arguments[0]) ** arguments[1]
        return arguments[0] ** arguments[1]
    if kind is Function:
        return getattr(np, node.name)(arguments[0])
    raise InputError("an index or a field stands where a number is expected")


# ---------------------------------------------------------------------------------------------------------------------
# Tensors: each term of the amplitude becomes an array with one open axis a leg

def contract(operands, order, modulus=None):
    """Sum over repeated labels, two operands at a time. operands: (array, tuple of labels); order: labels of the result.

    modulus: of integer arrays; below 2**25, so that no sum overflows.
    """
    array, labels = operands[0]
    rest = list(operands[1:])
    while rest:
        k = next((k for k, (_, other) in enumerate(rest) if set(other) & set(labels)), 0)    # a connected one: small results
        other, other_labels = rest.pop(k)
        wanted = set(order).union(*(more for _, more in rest))
        keep = tuple(dict.fromkeys(label for label in labels + other_labels if label in wanted))
        array, labels = _einsum(array, labels, other, other_labels, keep), keep
        array = array if modulus is None else array % modulus
    return array if labels == tuple(order) else _einsum(array, labels, np.ones((), array.dtype), (), tuple(order))


def _einsum(a, a_labels, b, b_labels, out):
    letter = {label: k for k, label in enumerate(dict.fromkeys(a_labels + b_labels))}
    return np.einsum(a, [letter[x] for x in a_labels], b, [letter[x] for x in b_labels], [letter[x] for x in out])


def split_term(term, momenta, tables=COMPLEX):
    """One term's operands: (spin operands, colour operands as hashable (name, labels) pairs).

    An open axis is labelled by its leg: ('spin', n) or ('colour', n); the leading axis of momenta is labelled 'point'.
    Lorentz axes of legs have their index up; of the two ends of a summed Lorentz index the second is lowered.
    """
    spin, colour, lorentz, ends = [], [], set(), {}
    for tensor in term.tensors:                              # where each index name occurs
        for position, index in enumerate(_summed_indices(tensor)):
            ends.setdefault(index, []).append((tensor, position))
    names = {}                                               # index name -> label of its axis
    for index, where in ends.items():
        if len(where) != 2:
            raise InputError(f"index {index} occurs {len(where)} times in a term, expected 2")
        fields = [_open_axis(tensor, position) for tensor, position in where if type(tensor) is Field]
        names[index] = fields[0] if fields else index
        if len(fields) == 2:                                 # two legs joined directly: metric, spinor or colour delta
            if fields[0][0] == "colour":
                colour.append(("delta", tuple(fields)))
            else:
                spin.append((tables.metric if "\\" in index else tables.unit, tuple(fields)))
    for tensor in term.tensors:
        if type(tensor) is Field:
            continue
        labels = tuple(names[index] for index in _summed_indices(tensor))
        if tensor.name == "gamma" and len(labels) == 3:
            array = tables.gamma_down if labels[0] in lorentz else tables.gamma_up
            lorentz.add(labels[0])
        elif tensor.name in tables.projectors and len(labels) == 2:
            array = tables.projectors[tensor.name]
        elif tensor.name.startswith("p_") and len(labels) == 1:
            number = int(tensor.name[2:])
            if not 1 <= number <= len(momenta):
                raise InputError(f"{tensor.name} is the momentum of no leg")
            array = momenta[number - 1] * tables.metric.diagonal() if labels[0] in lorentz else momenta[number - 1]
            lorentz.add(labels[0])
            labels = ("point",) + labels
        elif tensor.name == "T_C_10" and len(labels) == 3:
            colour.append(("T", labels))
            continue
        elif tensor.name == "f_SU3" and len(labels) == 3:
            colour.append(("f", labels))
            continue
        else:
            raise InputError(f"unknown tensor {tensor.name} with {len(labels)} indices")
        spin.append((array, labels))
    return spin, colour


def _summed_indices(tensor):
    """Index names without position marks; the first index of a field only labels its polarisation."""
    return [index.lstrip("+") for index in (tensor.indices[1:] if type(tensor) is Field else tensor.indices)]


def _open_axis(field, position):
    return ("spin" if position == len(field.indices) - 2 else "colour", field.leg)


@functools.lru_cache(maxsize=4096)
def colour_sum(left, right, axes):
    """Sum over all colours of left * conj(right); each is a tuple of (name, labels), axes are ((label, dimension), ...)."""
    labels = tuple(label for label, _ in axes)

    def array(structure):
        operands = [({"T": COLOUR, "f": STRUCTURE}[name] if name != "delta" else np.eye(dict(axes)[ends[0]]), ends) for name, ends in structure]
        return contract(operands, labels) if operands else np.ones(())

    return np.vdot(array(right), array(left))


def rename_dummies(structure):
    """Colour structure with its summed labels numbered by first appearance, so that equal structures compare equal."""
    numbers = {}
    return tuple((name, tuple(label if type(label) is tuple else numbers.setdefault(label, len(numbers)) for label in labels))
                 for name, labels in structure)


def leg_matrix(leg, field, momentum, values, gauge=0):
    """Sum over a leg's states of (state) (state)^dagger, (P, 4, 4), with the amplitude's open axis first; None for a scalar.

    Fermions: sum u ubar = pslash + m, sum v vbar = pslash - m (Peskin & Schroeder (3.66), (3.67)), also off the mass shell.
    Vectors: -g, or -g + p p / m^2 for massive ones; for those marked `_T` two vectors eps + gauge * p, eps.p = 0 and eps^0 = 0.
    """
    mass = values[mass_of(leg.name)][:, None, None]
    if leg.kind:
        slash = np.einsum("pm,mab->pab", momentum, GAMMA_DOWN)
        outer = (slash + (mass if leg.kind == "u" else -mass) * np.eye(4)) @ GAMMA_0
        return GAMMA_0 @ outer.conj() @ GAMMA_0 if leg.starred else outer
    if len(field.indices) < 2:
        return None
    lower = momentum * METRIC.diagonal()
    if leg.mark == "T":
        if mass_of(leg.name):
            raise InputError(f"{leg.name}(p_{leg.number}): only photons and gluons are marked _T")
        first = np.cross(momentum[:, 1:], ANY_DIRECTION)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second = np.cross(momentum[:, 1:], first) / momentum[:, :1]
        vectors = np.stack([np.pad(-space, ((0, 0), (1, 0))) for space in (first, second)]) + gauge * lower       # (2, P, 4), index down
        return np.einsum("spm,spn->pmn", vectors, vectors)
    return -METRIC + (lower[:, :, None] * lower[:, None, :] / mass**2 if mass_of(leg.name) else np.zeros((len(lower), 1, 1)))


def colour_axes(fields):
    return tuple((("colour", field.leg), 3 if field.kind else 8) for field in fields if len(field.indices) > 2)


def average_of(legs, fields):
    """What the sum over all states is divided by: states of the incoming legs, and n! for n identical outgoing ones."""
    average = math.prod(math.factorial(count) for count in
                        collections.Counter((leg.name, leg.kind) for leg in legs if not leg.incoming).values())
    dimensions = dict(colour_axes(fields))
    for leg, field in zip(legs, fields):
        if leg.incoming:
            states = 1 if len(field.indices) < 2 else 3 if not leg.kind and mass_of(leg.name) else 2
            average *= states * dimensions.get(("colour", leg.number), 1)
    return average


def averaged_square(terms, legs, values, momenta):
    """|amplitude|^2 at each point (P,), summed over final and averaged over initial states; and its scale, the square of the sum of the
    terms' sizes, beside which rounding errors are to be seen."""
    fields = sorted((t for t in terms[0].tensors if type(t) is Field), key=lambda field: field.leg)
    spin_axes = [("spin", field.leg) for field in fields if len(field.indices) > 1]
    dimensions = colour_axes(fields)
    points = momenta.shape[1]
    scale = np.zeros(points)
    by_colour = collections.defaultdict(int)                 # colour structure -> array (P, 4, 4, ...), one axis a leg with spin
    for term in terms:
        factor = np.ones(points, complex)
        for node, inverse in term.scalars:
            value = evaluate(node, values)
            factor = factor / value if inverse else factor * value
        spin, colour = split_term(term, momenta)
        array = contract([(factor, ("point",))] + spin, ["point"] + spin_axes)
        by_colour[rename_dummies(colour)] += array
        scale += np.abs(array).reshape(points, -1).max(axis=1)
    arrays = np.stack(list(by_colour.values()))              # (C, P, 4, 4, ...)
    plain = np.moveaxis(arrays, 1, 0).reshape(points, len(arrays), -1)
    width = plain.shape[-1]
    colours = np.array([[colour_sum(left, right, dimensions) for right in by_colour] for left in by_colour])
    average = average_of(legs, fields)

    def summed_over_states(gauge):
        summed = plain
        for leg, field, momentum in zip(legs, fields, momenta):
            matrix = leg_matrix(leg, field, momentum, values, gauge)
            if matrix is not None:                           # multiply the first axis, then make it the last: a full turn in the end
                summed = (summed.reshape(points, len(arrays), 4, width // 4).swapaxes(2, 3) @ matrix[:, None]).reshape(plain.shape)
        return np.einsum("pcd,cd->p", np.einsum("pcx,pdx->pcd", summed, plain.conj()), colours) / average

    result = summed_over_states(0)
    if any(leg.mark == "T" for leg in legs) and np.any(np.abs(summed_over_states(1) - result) > TOLERANCE * (np.abs(result) + scale**2)):
        raise InputError("the amplitude is not gauge invariant, so its square with transverse polarisations (_T) depends on their choice; "
                         "expected the sum of all diagrams of a process, without reg_prop")
    return result, scale**2


# ---------------------------------------------------------------------------------------------------------------------
# Verdicts

def verify(amp, sqamp, seed=0, points=POINTS, facts=NO_FACTS):
    """Verdict on one row of text. Deterministic for a seed.

    A wrong sqamp is a rational function that differs from the right one; at a random real point the two agree with
    probability zero, and to a relative 1e-9 by accident about once in 1e8 tries a point.
    """
    try:
        with np.errstate(all="ignore"):
            square_tree = parse(sqamp)
            values, crossed, expected, scale = _amplitude_at(amp, names_beside(amp, square_tree), seed, points)
            found = evaluate(square_tree, values) * np.ones(points, complex)
    except (InputError, ArithmeticError, ValueError, TypeError, RecursionError) as error:      # the text may come from anywhere
        return Verdict("unreadable", str(error), math.nan, math.nan)
    if not np.all((scale > SMALLEST) & (scale < 1 / SMALLEST)):
        return Verdict("unreadable", "the amplitude is too large or too small for floating-point numbers", math.nan, math.nan)
    agreed = agree(found, expected, scale)
    if agreed.all():
        return Verdict("right", "", expected[0], found[0], crossed)
    k = int(np.argmin(agreed))
    value = found[k] if abs(found[k].imag) > TOLERANCE * abs(found[k]) else found[k].real
    return Verdict("wrong", f"the amplitude gives {expected[k].real:.12g}, sqamp gives {value:.12g}", expected[k], found[k], crossed)


def agree(found, expected, scale):
    """Where two values are the same but for rounding, as a boolean array; scale: the largest number that they were computed from."""
    difference = np.abs(found - expected)
    return np.isfinite(difference) & (difference <= TOLERANCE * np.maximum(np.abs(expected), np.abs(found)) + ROUNDING * scale)


def same(amp, sqamp, other, seed=0, points=POINTS):
    """Whether two squares agree at the random points of an amplitude, whatever its own square is. Raises what cannot be read or computed."""
    trees = parse(sqamp), parse(other)
    names = frozenset().union(*(names_beside(amp, tree) for tree in trees))
    with np.errstate(all="ignore"):
        values, _, _, scale = _amplitude_at(amp, names, seed, points)
        return bool(np.all(agree(*(evaluate(tree, values) for tree in trees), scale)))


@functools.lru_cache(maxsize=KEPT)
def _amplitude_at(amp, square_names, seed, points):
    """Random points, as values of all symbols, whether a leg is crossed there, and the averaged |amp|^2 and its scale, (points,) each."""
    terms, legs, names = read_amplitude(amp)
    values, momenta = random_point(legs, names | square_names, np.random.default_rng((seed, zlib.crc32(amp.encode()))), points)
    return values, bool((momenta[:, :, 0] < 0).any()), *averaged_square(terms, legs, values, momenta)


@functools.lru_cache(maxsize=1)                              # a tree may be large, and is wanted for a moment only
def read_amplitude(amp):
    """The terms of an amplitude, its legs, and the names of its symbols."""
    tree = parse(amp)
    terms = expand(tree)
    return terms, legs_of(terms), frozenset(names_in(tree))


@functools.lru_cache(maxsize=KEPT)
def _names_at_points(amp):
    """Symbols that have a value at every random point of an amplitude, whatever is compared with it."""
    _, legs, names = read_amplitude(amp)
    return names.union(f"s_{a}{b}" for a, b in itertools.combinations(range(1, len(legs) + 1), 2))


def names_beside(amp, square_tree):
    """The other symbols of a square: what random points depend on, so that the candidates of an amplitude are mostly judged at the same."""
    return frozenset(names_in(square_tree)) - _names_at_points(amp)
