"""
Scalars as exact rational functions: polynomials {monomial: Fraction} over denominators (physics/polynomial.py).

A denominator that is a sum is a symbol of its own, the sum's text in parentheses. i, roots of primes and epsilon
tensors are symbols too.
"""
import functools
import math
import re
from fractions import Fraction

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
    parse,
    to_text,
)
from physics.polynomial import add, denominator_text, divided, monomial, multiply
from runtime.files import InputError

LARGEST_BITS = 100_000       # of the numbers in a power that is multiplied out, some 30,000 digits
LARGEST_POWER = 10_000       # terms of a power of a sum
LARGEST_ROOT = 10**10        # of which integers the square root is taken: their prime factors are searched for
ROOT = re.compile(r"(\d+)\^\(1/2\)")


def coefficient_of(scalars):
    """The product of scalars (node, whether it divides), as expression.Term has them, as a polynomial."""
    return functools.reduce(multiply, (reciprocal(rational(node)) if inverse else rational(node)
                                       for node, inverse in scalars), {(): Fraction(1)})


@functools.lru_cache(maxsize=65536)
def rational(tree):
    """A scalar expression as a polynomial {monomial: Fraction} (see physics/polynomial.py)."""
    return fold(tree, _rational_node)


def _rational_node(node, values):
    kind = type(node)
    if kind is Number:
        return {(): Fraction(node.value)} if node.value else {}
    if kind is Symbol:
        return {((node.name, 1),): Fraction(1)}
    if kind is Negative:
        return multiply({(): Fraction(-1)}, values[0])
    if kind is Sum:
        total = values[0]
        for value, minus in zip(values[1:], node.minus[1:]):
            total = add(total, value, -1 if minus else 1)
        return total
    if kind is Product:
        product = values[0]
        for value, inverse in zip(values[1:], node.inverse[1:]):
            product = multiply(product, reciprocal(value) if inverse else value)
        return product
    if kind is Function and type(node.argument) is Symbol:
        return {((f"{node.name}({node.argument.name})", 1),): Fraction(1)}
    if kind is Power:
        base, exponent = values
        if not set(exponent) <= {()}:
            raise InputError("an exponent that is not a number")
        exponent = exponent.get((), Fraction(0))
        if abs(exponent) > 100:
            raise InputError("an exponent above 100")
        if exponent.denominator == 2 and set(base) == {()}:
            base, exponent = square_root(base[()]), 2 * exponent
        if exponent.denominator != 1:
            raise InputError(f"{to_text(node)[:40]}: only numbers have roots here, and only square roots")
        times = abs(int(exponent))
        bits = sum(value.numerator.bit_length() + value.denominator.bit_length() for value in base.values())
        terms = math.comb(times + len(base) - 1, times) if times > 2 and base else 0
        if bits * times > LARGEST_BITS or terms > LARGEST_POWER:
            raise InputError(f"{to_text(node)[:40]}: a power too large to be multiplied out")
        base = reciprocal(base) if exponent < 0 else base
        return functools.reduce(multiply, [base] * times, {(): Fraction(1)})
    raise InputError(f"{to_text(node)[:40]}: only numbers, symbols, sin, cos and tan of an angle, "
                     "their sums, products and powers can be squared")


def square_root(number):
    """The square root of a positive Fraction: a number times roots of primes, the symbols `2^(1/2)`, `3^(1/2)`, ..."""
    rest, prime = number.numerator * number.denominator, 2
    if not 0 < rest <= LARGEST_ROOT:
        raise InputError(
            f"the square root of {number}: expected a positive number, "
            f"its numerator times its denominator at most {LARGEST_ROOT}"
        )
    outside, roots = Fraction(1, number.denominator), {}
    while rest > 1:
        prime = rest if prime * prime > rest else prime
        if rest % prime:
            prime += 1
            continue
        rest //= prime
        if roots.pop(prime, None):
            outside *= prime
        else:
            roots[prime] = 1
    return {monomial({f"{prime}^(1/2)": 1 for prime in roots}): outside}


def reduced(polynomial):
    """The polynomial with at most the first power of i and of each root in a term."""
    total = {}
    for term, value in polynomial.items():
        powers = dict(term)
        for symbol, power in term:
            number = -1 if symbol == "i" else int(root[1]) if (root := ROOT.fullmatch(symbol)) else 0
            if number:
                value, powers[symbol] = value * Fraction(number) ** (power // 2), power % 2
        key = monomial(powers)
        total[key] = total.get(key, 0) + value
    return {term: value for term, value in total.items() if value}


def reciprocal(polynomial):
    """1/polynomial; a sum becomes the symbol of a denominator."""
    if not polynomial:
        raise ZeroDivisionError
    if len(polynomial) == 1:
        (term, value), = polynomial.items()
        return {monomial({symbol: -power for symbol, power in term}): 1 / value}
    polynomial = reduced(polynomial)
    if len(polynomial) < 2:
        return reciprocal(polynomial)
    symbols = {symbol for term in polynomial for symbol, _ in term}
    if any(ROOT.fullmatch(symbol) or epsilon_legs(symbol) for symbol in symbols):
        raise InputError("a sum with a root or an epsilon tensor in a denominator")
    lead, text = denominator_text(polynomial)
    return {((f"({text})", -1),): 1 / lead}


def conjugated(polynomial):
    """The complex conjugate."""
    total = {}
    for term, value in polynomial.items():
        powers = {}
        for symbol, power in term:
            factor, symbol = _conjugated_symbol(symbol)
            if factor != 1:
                value *= Fraction(factor) ** power
            powers[symbol] = power
        total[monomial(powers)] = value
    return total


@functools.lru_cache(maxsize=2**14)
def _conjugated_symbol(symbol):
    """(factor, symbol) whose product is the complex conjugate of a symbol."""
    if symbol == "i":
        return -1, symbol
    if symbol.startswith("("):
        lead, text = denominator_text(conjugated(rational(parse(symbol))))
        return lead, f"({text})"
    return 1, conjugate(symbol)


def is_real(symbol):
    return _conjugated_symbol(symbol) == (1, symbol)


def with_real_denominators(polynomial):
    """The polynomial with conj(D)/|D|^2 for each complex 1/D, and |D|^2 a real denominator of its own."""
    total = {}
    for term, value in polynomial.items():
        powers, product = dict(term), {(): value}
        for symbol, _ in term:
            other = _conjugated_symbol(symbol)[1]
            if symbol.startswith("(") and symbol != other and symbol in powers:
                inside, conjugate_inside = rational(parse(symbol)), rational(parse(other))
                below, below_conjugate = -powers.pop(symbol), -powers.pop(other, 0)
                modulus = reciprocal(multiply(inside, conjugate_inside))
                above = [conjugate_inside] * (below - below_conjugate) + [inside] * (below_conjugate - below)
                for factor in [modulus] * max(below, below_conjugate) + above:
                    product = multiply(product, factor)
        total = add(total, multiply(product, {monomial(powers): Fraction(1)}))
    return total


def real_part(polynomial):
    """(polynomial + its conjugate) / 2 over real denominators."""
    polynomial = reduced(with_real_denominators(polynomial))
    total = add(polynomial, conjugated(polynomial))
    return {term: value / 2 for term, value in total.items()}


def substitute(polynomial, solved):
    """The polynomial, and the denominators in it, with the symbols in `solved` replaced."""
    if not solved:
        return polynomial
    result = {}
    for term, value in polynomial.items():
        product = {(): value}
        for symbol, power in term:
            if symbol.startswith("("):
                factor, power = reciprocal(substitute(rational(parse(symbol)), solved)), -power
            else:
                factor = solved.get(symbol, {((symbol, 1),): Fraction(1)})
                if power < 0:
                    factor, power = reciprocal(factor), -power
            for _ in range(power):
                product = multiply(product, factor)
        result = add(result, product)
    return result


def one_fraction(polynomial):
    """The polynomial over its common denominator, in lowest terms."""
    powers = {}
    for term in polynomial:
        for symbol, power in term:
            if symbol.startswith("("):
                powers[symbol] = max(powers.get(symbol, 0), -power)
    inside = {symbol: rational(parse(symbol)) for symbol in powers}
    total = {}
    for term, value in polynomial.items():
        below = dict(term)
        product = {tuple(factor for factor in term if factor[0] not in inside): value}
        for symbol, power in powers.items():
            for _ in range(power + below.get(symbol, 0)):
                product = multiply(product, inside[symbol])
        total = add(total, product)
    for symbol in powers:
        while powers[symbol] and (quotient := divided(total, inside[symbol])):
            total, powers[symbol] = quotient, powers[symbol] - 1
    return multiply(total, {monomial({symbol: -power for symbol, power in powers.items()}): Fraction(1)})
