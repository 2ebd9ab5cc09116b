"""Exact values of squares at random rational points of 2->2: a judge that shares no arithmetic with verify.py."""

import random
from fractions import Fraction

from physics.expression import Negative, Number, Power, Product, Sum, Symbol, fold, names_in


class Gaussian:
    """Exact a + b i."""

    def __init__(self, re, im=0):
        self.re, self.im = Fraction(re), Fraction(im)

    def __add__(self, other):
        return Gaussian(self.re + other.re, self.im + other.im)

    def __neg__(self):
        return Gaussian(-self.re, -self.im)

    def __mul__(self, other):
        return Gaussian(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def inverse(self):
        size = self.re**2 + self.im**2
        return Gaussian(self.re / size, -self.im / size)

    def __eq__(self, other):
        return self.re == other.re and self.im == other.im


def kinematics(masses, names, seed):
    """Values of all symbols for p_1 + p_2 = p_3 + p_4 and p_k^2 = masses[k]^2, random where s_kk is among the names."""
    rng = random.Random(seed)

    def draw():
        return Fraction(rng.randint(1, 10**6), rng.randint(1, 10**6))

    values = {name: draw() for name in sorted(names)}
    for mass in masses:
        if mass:
            values.setdefault(mass, draw())
    square = [
        values.setdefault(f"s_{k}{k}", values[mass] ** 2 if mass else Fraction(0)) for k, mass in enumerate(masses, 1)
    ]
    s_12, s_13 = draw(), draw()
    s_14 = square[0] + s_12 - s_13  # p_1 . (p_1 + p_2) = p_1 . (p_3 + p_4), and so on
    s_34 = (square[0] + square[1] + 2 * s_12 - square[2] - square[3]) / 2
    s_23 = square[2] + s_34 - s_13
    s_24 = square[1] + s_12 - s_23
    values |= dict(s_12=s_12, s_13=s_13, s_14=s_14, s_23=s_23, s_24=s_24, s_34=s_34)
    return {name: Gaussian(value) for name, value in values.items()} | {"i": Gaussian(0, 1)}


def value(tree, values):
    def visit(node, arguments):
        kind = type(node)
        if kind is Number:
            return Gaussian(node.value)
        if kind is Symbol:
            return values[node.name]
        if kind is Negative:
            return -arguments[0]
        if kind is Sum:
            total = arguments[0]
            for term, minus in zip(arguments[1:], node.minus[1:]):
                total = total + (-term if minus else term)
            return total
        if kind is Product:
            product = arguments[0]
            for factor, inverse in zip(arguments[1:], node.inverse[1:]):
                product = product * (factor.inverse() if inverse else factor)
            return product
        assert kind is Power and arguments[1].re.denominator == 1 and not arguments[1].im
        result, n = Gaussian(1), int(arguments[1].re)
        for _ in range(abs(n)):
            result = result * arguments[0]
        return result if n >= 0 else result.inverse()

    return fold(tree, visit)


def equal(left, right, masses, seed=0):
    """Whether two trees are the same function on the mass shell, at a random rational point (wrong once in 1e5)."""
    values = kinematics(masses, names_in(left) | names_in(right), seed)
    return value(left, values) == value(right, values)
