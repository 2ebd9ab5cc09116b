"""Scalar expressions with every product as one fraction, from which they are written in the notations of other tools.

It is a tree of Fraction, Symbol, Sum (nothing is subtracted), Ratio, Power (no negative exponents) and Function.
Numbers are added up and multiplied out, every product is one fraction; the order of terms and factors stays. No
function here recurses.
"""
from fractions import Fraction
from typing import NamedTuple

from physics.expression import Function, Negative, Number, Power, Product, Sum, Symbol, fold
from runtime.files import InputError

LARGEST_BITS = 100_000       # of the numbers in a power of numbers, some 30,000 digits


class Ratio(NamedTuple):
    coefficient: Fraction       # not zero
    above: tuple                # factors, none of them a Fraction or a Ratio
    below: tuple                # factors of the denominator, likewise


def as_fraction(tree):
    """The expression with every product as one fraction. InputError for a tensor, a field, or a division by zero."""
    try:
        return fold(tree, _fraction_node)
    except ZeroDivisionError:
        raise InputError("division by zero") from None


def _fraction_node(node, values):
    kind = type(node)
    if kind is Number:
        return Fraction(node.value)
    if kind is Symbol:
        return node
    if kind is Negative:
        return product([(Fraction(-1), False), (values[0], False)])
    if kind is Sum:
        terms = []
        for value, minus in zip(values, node.minus):
            value = product([(Fraction(-1), False), (value, False)]) if minus else value
            terms += value.terms if type(value) is Sum else (value,)
        if all(type(term) is Fraction for term in terms):
            return sum(terms)
        return Sum(tuple(terms), (False,) * len(terms))
    if kind is Product:
        return product(zip(values, node.inverse))
    if kind is Function:
        return Function(node.name, values[0])
    if kind is Power:
        return power(*values)
    raise InputError("an amplitude, with its tensors and fields, can be written as text and LaTeX only")


def product(factors):
    """The product of (factor, whether it divides) as one Ratio, or simpler if it is a number or a single factor."""
    coefficient, above, below = Fraction(1), [], []
    for factor, divides in factors:
        if type(factor) is not Ratio:
            factor = Ratio(factor, (), ()) if type(factor) is Fraction else Ratio(Fraction(1), (factor,), ())
        coefficient = coefficient / factor.coefficient if divides else coefficient * factor.coefficient
        above += factor.below if divides else factor.above
        below += factor.above if divides else factor.below
    if not coefficient or not above and not below:
        return coefficient
    if coefficient == 1 and len(above) == 1 and not below:
        return above[0]
    return Ratio(coefficient, tuple(above), tuple(below))


def power(base, exponent):
    if type(exponent) is not Fraction:
        return Power(base, exponent)
    if abs(exponent) > 1000:
        raise InputError("an exponent above 1000")
    if type(base) is Fraction and exponent.denominator == 1:
        if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) > LARGEST_BITS:
            raise InputError("a power of numbers with more than 30,000 digits")
        return base ** int(exponent)
    if exponent < 0:
        return product([(power(base, -exponent), True)])
    if exponent == 0:
        return Fraction(1)
    return base if exponent == 1 else Power(base, exponent)


def signed(node):
    """("-" or "", the node without that sign)."""
    if type(node) is Fraction and node < 0 or type(node) is Ratio and node.coefficient < 0:
        return "-", product([(Fraction(-1), False), (node, False)])
    return "", node


def write(tree, layout):
    """Text of a tree. layout(node) is a list of texts and nodes, in reading order, which are written in its place."""
    pieces, todo = [], [tree]
    while todo:
        node = todo.pop()
        if type(node) is str:
            pieces.append(node)
        else:
            todo.extend(reversed(layout(node)))
    return "".join(pieces)


def sum_layout(terms, brackets):
    pieces = []
    for k, term in enumerate(terms):
        sign, term = signed(term)
        pieces += [f" {sign or '+'} " if k else sign, *bracketed(term, brackets)]
    return pieces


def bracketed(node, brackets):
    """A factor, or what stands behind a sign: a sum is put in brackets."""
    return [brackets[0], node, brackets[1]] if type(node) is Sum else [node]


def joined(pieces, separator):
    """[[a, b], [c]] -> [a, b, separator, c]."""
    return [piece for k, group in enumerate(pieces) for piece in ([separator] if k else []) + group]
