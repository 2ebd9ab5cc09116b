"""The square of an amplitude by explicit matrices, over any field of numbers.

An amplitude is evaluated at points: each term becomes a product of Dirac matrices, momenta and colour matrices with one
open axis for each leg. The square is summed over the spins, polarisations and colours of all legs and averaged over
those of the incoming ones. The numbers are complex ones in floating point (numeric.py), or integers modulo a prime
(exact.py); a Numbers object holds what differs. Nothing of the code that generates or squares amplitudes is used, only
the reader of the grammar and the table of the particles.
"""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from physics.expression import (
    GENERATOR,
    Field,
    Function,
    Negative,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    check_indices,
    check_momenta,
    expand,
    fields_of,
    fold,
    legs_of,
    names_in,
    parse,
)
from physics.particles import NO_FACTS, roles_of
from runtime.files import InputError

# ---------------------------------------------------------------------------------------------------------------------
# Dirac matrices (Dirac representation), metric (+,-,-,-), Gell-Mann matrices

_PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
METRIC = np.diag([1.0, -1.0, -1.0, -1.0])
GAMMA_UP = np.zeros((4, 4, 4), complex)  # (mu, a, b), index mu up
GAMMA_UP[0] = np.diag([1, 1, -1, -1])
GAMMA_UP[1:, :2, 2:], GAMMA_UP[1:, 2:, :2] = _PAULI, -_PAULI
GAMMA_DOWN = np.einsum("mn,nab->mab", METRIC, GAMMA_UP)
GAMMA_5 = 1j * GAMMA_UP[0] @ GAMMA_UP[1] @ GAMMA_UP[2] @ GAMMA_UP[3]
CHIRAL = {"P_L": (np.eye(4) - GAMMA_5) / 2, "P_R": (np.eye(4) + GAMMA_5) / 2}
COLOUR = np.zeros((8, 3, 3), complex)  # T^a = lambda^a / 2: (a, i, j)
for _a, _pair in zip((0, 3, 5), ((0, 1), (0, 2), (1, 2))):
    COLOUR[_a][np.ix_(_pair, _pair)] = _PAULI[0] / 2
    COLOUR[_a + 1][np.ix_(_pair, _pair)] = _PAULI[1] / 2
COLOUR[2] = np.diag([1, -1, 0]) / 2
COLOUR[7] = np.diag([1, 1, -2]) / math.sqrt(12)
STRUCTURE = np.einsum("aij,bjk,cki->abc", COLOUR, COLOUR, COLOUR)  # f^abc = -2i tr([Ta, Tb] Tc)
STRUCTURE = -2j * (STRUCTURE - STRUCTURE.swapaxes(0, 1))


MOST_SPINS = 10  # legs with spin: an amplitude has 4^10 components at each point
MOST_COLOURS = 2**20
MOST_NUMBERS = 2**26  # of a product of tensors


@dataclasses.dataclass(frozen=True, eq=False)  # eq=False: compared and hashed as the object that it is
class Numbers:
    """A field of numbers: the operations and constant arrays in which the complex numbers and a prime field differ."""

    reduce: Callable  # after every product and sum: the representative of a residue class
    divide: Callable  # (x, y), elementwise; ZeroDivisionError where y is zero and the field is exact
    number: Callable  # of a Python integer
    power: Callable  # (node, base, exponent): value of a Power node
    function: Callable  # (node, argument, values): value of a Function node
    conjugate: Callable  # complex conjugate of an array (P, ...) of values at the points
    inner: Callable  # (P, C, X), (P, D, X) -> (P, C, D): sums over the last axis
    size: Callable  # (P, ...) -> (P,): the largest absolute value at each point, 0 where numbers have no size
    axes: tuple  # leading axes of the matrices below: ("point",) where they depend on the point, else ()
    metric: np.ndarray  # (4, 4), always without these
    gamma_up: np.ndarray  # (..., mu, a, b)
    gamma_down: np.ndarray
    dirac: dict  # name -> (..., a, b): P_L, P_R, gamma_5, unit
    colour: dict  # T -> (..., a, i, j) and f -> (..., a, b, c)


class Amplitude(NamedTuple):
    terms: list  # of expression.Term
    fields: tuple  # the legs' Fields in the order of their momenta
    names: frozenset  # of all symbols


@functools.lru_cache(maxsize=1)  # a tree may be large, and is wanted for a moment only
def read_amplitude(amp):
    """The Amplitude of a text. Raises InputError."""
    tree = parse(amp)
    terms = expand(tree)
    legs_of(terms)  # every term has each leg exactly once
    for term in terms:
        check_indices(term.tensors)
    return Amplitude(terms, tuple(fields_of(terms)), frozenset(names_in(tree)))


def read_roles(amp, square_names, facts=NO_FACTS):
    """Roles of the legs of a text, see particles.py. square_names: the other symbols of its row. Raises InputError."""
    amplitude = read_amplitude(amp)
    roles = roles_of(amplitude.fields, amplitude.names | square_names, facts)
    check_momenta(amplitude.names | square_names, len(amplitude.fields))
    return roles


@functools.lru_cache(maxsize=4096)
def _names_at_points(amp):
    """Symbols that have a value at every random point of an amplitude, whatever is compared with it."""
    _, fields, names = read_amplitude(amp)
    return names.union(f"s_{a}{b}" for a, b in itertools.combinations(range(1, len(fields) + 1), 2))


def names_beside(amp, *square_trees):
    """The symbols of squares that have no value yet. Random points depend on them alone, so that most candidates of an
    amplitude are judged at the same points."""
    return frozenset().union(*map(names_in, square_trees)) - _names_at_points(amp)


# ---------------------------------------------------------------------------------------------------------------------
# Scalars


def evaluate(tree, values, numbers):
    """Value of a scalar expression at all points. values: {name: (P,) array}"""
    return fold(tree, lambda node, arguments: evaluate_node(node, arguments, values, numbers))


def evaluate_node(node, arguments, values, numbers):
    """Value of a node of a scalar expression, from those of its children."""
    kind = type(node)
    if kind is Number:
        return numbers.number(node.value)
    if kind is Symbol:
        return values[node.name]
    if kind is Product:
        result = arguments[0]
        for factor, inverse in zip(arguments[1:], node.inverse[1:]):
            result = numbers.divide(result, factor) if inverse else numbers.reduce(result * factor)
        return result
    if kind is Sum:
        result = arguments[0]
        for term, minus in zip(arguments[1:], node.minus[1:]):
            result = result - term if minus else result + term
        return numbers.reduce(result)
    if kind is Negative:
        return numbers.reduce(-arguments[0])
    if kind is Power:
        return numbers.power(node, *arguments)
    if kind is Function:
        return numbers.function(node, arguments[0], values)
    raise InputError("an index or a field stands where a number is expected")


# ---------------------------------------------------------------------------------------------------------------------
# Tensors: each term of the amplitude becomes an array with one open axis a leg


def contract(operands, order, reduce=None):
    """Sum over repeated labels, two operands at a time.

    operands: (array, tuple of labels); order: labels of the result.
    reduce: of numbers modulo a prime, after each sum.
    """
    array, labels = operands[0]
    rest = list(operands[1:])
    while rest:
        # a connected one, so that results stay small
        k = next((k for k, (_, other) in enumerate(rest) if set(other) & set(labels)), 0)
        other, other_labels = rest.pop(k)
        wanted = set(order).union(*(more for _, more in rest))
        keep = tuple(dict.fromkeys(label for label in labels + other_labels if label in wanted))
        sizes = dict(zip((*labels, *other_labels), (*array.shape, *other.shape)))
        if math.prod(sizes[label] for label in keep) > MOST_NUMBERS:
            raise InputError("too many indices are open at once between the tensors of a term")
        array, labels = einsum(array, labels, other, other_labels, keep), keep
        array = array if reduce is None else reduce(array)
    return array if labels == tuple(order) else einsum(array, labels, np.ones((), array.dtype), (), tuple(order))


def einsum(a, a_labels, b, b_labels, out):
    letter = {label: k for k, label in enumerate(dict.fromkeys(a_labels + b_labels))}
    return np.einsum(a, [letter[x] for x in a_labels], b, [letter[x] for x in b_labels], [letter[x] for x in out])


def split_term(term, momenta, numbers):
    """One term's operands: (spin operands, colour operands as hashable (name, labels) pairs).

    An open axis is labelled by its leg: ('spin', n) or ('colour', n); the leading axis of momenta is labelled 'point'.
    Lorentz axes of legs have their index up; of the two ends of a summed Lorentz index the second is lowered.
    """
    spin, colour, lorentz, ends = [], [], set(), {}
    number, tensors = _without_deltas(term.tensors)
    if number != 1:
        spin.append((np.full((), number, numbers.metric.dtype), ()))
    for tensor, indices in tensors:  # where each index name occurs
        for position, index in enumerate(indices):
            ends.setdefault(index, []).append((tensor, position))
    names = {}  # index name -> label of its axis
    for index, where in ends.items():
        fields = [_open_axis(tensor, position) for tensor, position in where if type(tensor) is Field]
        names[index] = fields[0] if fields else index
        if len(fields) == 2:  # two legs joined directly: metric, spinor or colour delta
            if fields[0][0] == "colour":
                colour.append(("delta", tuple(fields)))
            elif where[0][0].kind:
                spin.append((numbers.dirac["unit"], numbers.axes + tuple(fields)))
            else:
                spin.append((numbers.metric, tuple(fields)))
    for tensor, indices in tensors:
        if type(tensor) is Field:
            continue
        labels = tuple(names[index] for index in indices)
        if tensor.name == "gamma":
            array = numbers.gamma_down if labels[0] in lorentz else numbers.gamma_up
            lorentz.add(labels[0])
            spin.append((array, numbers.axes + labels))
        elif tensor.name in numbers.dirac:
            spin.append((numbers.dirac[tensor.name], numbers.axes + labels))
        elif tensor.name.startswith("p_"):
            number = int(tensor.name[2:])
            if not 1 <= number <= len(momenta):
                raise InputError(f"{tensor.name} is the momentum of no leg")
            array = momenta[number - 1] * numbers.metric.diagonal() if labels[0] in lorentz else momenta[number - 1]
            lorentz.add(labels[0])
            spin.append((array, ("point",) + labels))
        elif GENERATOR.fullmatch(tensor.name):
            colour.append(("T", labels))
        else:
            colour.append(("f", labels))
    return spin, colour


def _without_deltas(tensors):
    """(number, [(tensor, names of its summed indices)]): a term's tensors, metrics and deltas carried out by renaming.

    The first index of a field only labels its polarisation; a `+` marks an index's position and is no part of its name.
    The number is 4 for each metric traced with itself.
    """
    number = 1
    named = [(tensor, [index.lstrip("+") for index in tensor.indices[1 if type(tensor) is Field else 0:]])
             for tensor in tensors]
    for index, times in collections.Counter(index for _, indices in named for index in indices).items():
        if times != 2:
            raise InputError(f"index {index} occurs {times} times in a term, expected 2")
    for tensor, indices in named:
        if type(tensor) is Field or tensor.name not in ("g", "delta"):
            continue
        old, new = indices
        if old == new and tensor.name == "delta":
            raise InputError(f"delta_{{{','.join(tensor.indices)}}} is summed over its own index")
        if old == new:
            number *= 4
        for other, names in named:
            if other is not tensor:
                names[:] = [new if name == old else name for name in names]
    return number, [(tensor, indices) for tensor, indices in named
                    if type(tensor) is Field or tensor.name not in ("g", "delta")]


def _open_axis(field, position):
    return ("spin" if position == len(field.indices) - 2 else "colour", field.leg)


def colour_axes(fields):
    return tuple((("colour", field.leg), 3 if field.kind else 8) for field in fields if len(field.indices) > 2)


@functools.lru_cache(maxsize=4096)
def colour_sum(left, right, axes, numbers):
    """Sum over all colours of left * conj(right), (P,), or (1,) where the matrices do not depend on the point.

    left, right: tuples of (name, labels); axes: ((label, dimension), ...) of the legs' colours.
    """
    conjugate = numbers.conjugate(_colour_array(right, axes, numbers))
    return numbers.reduce(numbers.reduce(_colour_array(left, axes, numbers) * conjugate).sum(axis=1))


@functools.lru_cache(maxsize=64)
def _colour_array(structure, axes, numbers):
    """Values of a structure for all colours of the legs, (P or 1, number of colours)."""
    labels = tuple(label for label, _ in axes)
    operands = [(np.eye(dict(axes)[ends[0]], dtype=numbers.metric.dtype), ends) if name == "delta" else
                (numbers.colour[name], numbers.axes + ends) for name, ends in structure]
    ones = np.ones(len(numbers.gamma_up) if numbers.axes else 1, numbers.gamma_up.dtype)
    return contract([(ones, ("point",)), *operands], ("point",) + labels, numbers.reduce).reshape(len(ones), -1)


def rename_dummies(structure):
    """Colour structure with its summed labels numbered by first appearance, so that equal structures compare equal."""
    known = {}
    return tuple(
        (name, tuple(label if type(label) is tuple else known.setdefault(label, len(known)) for label in labels))
        for name, labels in structure
    )


def amplitude_at(terms, fields, values, momenta, numbers):
    """({colour structure: (P, 4, 4, ...) array with one axis a leg with spin}, (P,) sum of the terms' sizes)."""
    spin_axes = [("spin", field.leg) for field in fields if len(field.indices) > 1]
    if len(spin_axes) > MOST_SPINS or math.prod(dimension for _, dimension in colour_axes(fields)) > MOST_COLOURS:
        raise InputError(f"more than {MOST_SPINS} legs with spin, or more than {MOST_COLOURS:,} colours of all legs")
    points = momenta.shape[1]
    by_colour, scale = collections.defaultdict(int), 0
    for term in terms:
        factor = np.ones(points, numbers.gamma_up.dtype)
        for node, inverse in term.scalars:
            value = evaluate(node, values, numbers)
            factor = numbers.divide(factor, value) if inverse else numbers.reduce(factor * value)
        spin, colour = split_term(term, momenta, numbers)
        array = contract([(factor, ("point",))] + spin, ["point"] + spin_axes, numbers.reduce)
        key = rename_dummies(colour)
        by_colour[key] = numbers.reduce(by_colour[key] + array)
        scale = scale + numbers.size(array)
    return by_colour, scale


# ---------------------------------------------------------------------------------------------------------------------
# The square


def leg_matrix(field, mass, momentum, values, gauge, numbers):
    """Sum over a leg's states of (state) (state)^dagger, (P, 4, 4), the amplitude's axis first; None for a scalar.

    Fermions: sum u ubar = pslash + m, sum v vbar = pslash - m (Peskin & Schroeder (3.66), (3.67)), off the shell too.
    Vectors: -g, or -g + p p / m^2 for massive ones; for those marked `_T` the axial gauge of any vector n,
    -g + (p n + n p) / p.n - n^2 p p / (p.n)^2, which is the sum over transverse polarisations for n = (1, 0, 0, 0).
    mass: symbol or None; gauge: n, (P, 4).
    """
    reduce, divide, metric = numbers.reduce, numbers.divide, numbers.metric
    if field.kind:
        gamma = numbers.gamma_down, numbers.axes + ("mu", "a", "b")
        slash = contract([(momentum, ("point", "mu")), gamma], ("point", "a", "b"), reduce)
        gamma_0 = numbers.gamma_up[..., 0, :, :]
        m = values[mass][:, None, None] * numbers.dirac["unit"]
        outer = reduce(reduce(slash + m if field.kind == "u" else slash - m) @ gamma_0)
        return reduce(gamma_0 @ reduce(numbers.conjugate(outer) @ gamma_0)) if field.starred else outer
    if len(field.indices) < 2:
        return None
    lower = reduce(momentum * metric.diagonal())  # (P, 4), index down
    pp = reduce(lower[:, :, None] * lower[:, None, :])
    if field.mark == "T":
        if mass:
            raise InputError(f"{field.name}(p_{field.leg}): only photons and gluons are marked _T")
        n = gauge * metric.diagonal()
        inverse = divide(1, reduce((momentum * n).sum(1)))[:, None, None]
        square = reduce(reduce((gauge * n).sum(1))[:, None, None] * reduce(inverse * inverse))
        pn = reduce(lower[:, :, None] * n[:, None, :])
        return reduce(-metric + reduce((pn + pn.swapaxes(1, 2)) * inverse) - reduce(pp * square))
    if mass:
        return reduce(-metric + divide(pp, reduce(values[mass] * values[mass])[:, None, None]))
    return reduce(-metric + 0 * pp)


def states(field, mass):
    """Number of states of an incoming leg: spin or polarisation, times colour."""
    spin = 1 if len(field.indices) < 2 else 3 if not field.kind and mass else 2
    return spin * math.prod(dimension for _, dimension in colour_axes([field]))


def square_at(by_colour, fields, roles, values, momenta, gauge, numbers):
    """Averaged |amplitude|^2 at each point, (P,), from what amplitude_at returns. gauge: see leg_matrix."""
    points = momenta.shape[1]
    plain = np.stack(list(by_colour.values()), axis=1)  # (P, C, 4, 4, ...)
    plain = summed = plain.reshape(points, len(by_colour), -1)
    width = plain.shape[-1]
    for field, mass, momentum in zip(fields, roles.masses, momenta):
        matrix = leg_matrix(field, mass, momentum, values, gauge, numbers)
        if matrix is not None:  # multiply the first axis, then make it the last: a full turn in the end
            axes = summed.reshape(points, len(by_colour), 4, width // 4).swapaxes(2, 3)
            summed = numbers.reduce(axes @ matrix[:, None]).reshape(plain.shape)
    axes = colour_axes(fields)
    colours = np.array([[colour_sum(left, right, axes, numbers) for right in by_colour] for left in by_colour])
    colours = np.moveaxis(colours, 2, 0)  # (P or 1, C, C)
    pairs = numbers.reduce(numbers.inner(summed, numbers.conjugate(plain)) * colours)  # (P, C, C)
    incoming = [leg for leg, comes_in in zip(zip(fields, roles.masses), roles.incoming) if comes_in]
    average = roles.identical * math.prod(states(field, mass) for field, mass in incoming)
    return numbers.divide(numbers.reduce(pairs.sum(axis=(1, 2))), average)
