"""Sparse polynomials with exact rational coefficients and their one canonical text.

A polynomial is {monomial: Fraction}, a monomial a tuple of (symbol, power) sorted by `rank`. A propagator's denominator
is a symbol too: its name is its own canonical text in parentheses, its power negative.
"""
import functools
import math
from fractions import Fraction

from physics.expression import INVARIANT
from runtime.files import InputError

LARGEST = 100_000            # terms of a product, far above what an amplitude needs


@functools.lru_cache(maxsize=2**14)
def rank(symbol):
    """Sort key of symbols: couplings and roots, masses, epsilon tensors and s_ij, reg_prop, denominators.

    Within each group the order is alphabetical.
    """
    if symbol.startswith("("):
        return 4, symbol
    if symbol == "reg_prop":
        return 3, symbol
    if symbol.startswith("eps(") or INVARIANT.fullmatch(symbol):
        return 2, symbol
    return (1, symbol) if symbol.startswith("m_") else (0, symbol)


def monomial(powers):
    """Sorted tuple from a {symbol: power} dictionary, zero powers left out."""
    return tuple(sorted(((symbol, power) for symbol, power in powers.items() if power), key=lambda item: rank(item[0])))


def order(term):
    """Sort key of monomials: by their highest symbol first, lower powers before higher ones."""
    return [(rank(symbol), power) for symbol, power in reversed(term)]


def multiply(left, right):
    if len(left) * len(right) > LARGEST:
        raise InputError(f"a product of sums with more than {LARGEST} terms")
    product = {}
    for a, x in left.items():
        for b, y in right.items():
            powers = dict(a)
            for symbol, power in b:
                powers[symbol] = powers.get(symbol, 0) + power
            key = monomial(powers)
            product[key] = product.get(key, 0) + x * y
    return {key: value for key, value in product.items() if value}


def add(left, right, sign=1):
    total = dict(left)
    for key, value in right.items():
        total[key] = total.get(key, 0) + sign * value
    return {key: value for key, value in total.items() if value}


def divided(polynomial, divisor):
    """polynomial / divisor, None if that is no polynomial (powers may be negative).

    Long division in a symbol whose highest power is a term of the divisor by itself, as s_12 is in q^2 - m^2.
    """
    leading = next(term for term in sorted(divisor, key=order, reverse=True) if len(term) == 1 and
                   all(dict(other).get(term[0][0], 0) < term[0][1] for other in divisor if other != term))
    (symbol, degree), = leading
    lowest = min((dict(term).get(symbol, 0) for term in polynomial), default=0)
    rest, quotient = dict(polynomial), {}
    while rest:
        highest = max(dict(term).get(symbol, 0) for term in rest)
        if highest < lowest + degree:
            return None
        step = {monomial({**dict(term), symbol: highest - degree}): value / divisor[leading]
                for term, value in rest.items() if dict(term).get(symbol, 0) == highest}
        quotient = add(quotient, step)
        rest = add(rest, multiply(step, divisor), -1)
    return quotient


# ---------------------------------------------------------------------------------------------------------------------
# Text

def factor_text(symbol, power):
    if power == 1:
        return symbol
    return f"{symbol}^{power}" if power > 0 else f"{symbol}^({power})"


def scaled(coefficient, factors):
    """A term's text as MARTY spells it: `s_12`, `-s_12`, `2*s_12`, `(-2)*s_12`, `-1/2*s_12`; factors are texts."""
    if not factors:
        return str(coefficient)
    text = "*".join(factors)
    if coefficient == 1:
        return text
    if coefficient == -1:
        return "-" + text
    if coefficient.denominator == 1 and coefficient < 0:
        return f"({coefficient})*{text}"
    return f"{coefficient}*{text}"


def sum_text(polynomial):
    """The polynomial's terms in their fixed order, joined by ` + `; '0' if there is none."""
    terms = sorted(polynomial, key=order)
    return " + ".join(scaled(polynomial[term], [factor_text(*factor) for factor in term]) for term in terms) or "0"


def denominator_text(polynomial):
    """(leading coefficient, text of polynomial / leading coefficient): one text for all multiples of a denominator."""
    lead = polynomial[min(polynomial, key=order)]
    return lead, sum_text({term: value / lead for term, value in polynomial.items()})


def content(values):
    """The largest positive Fraction of which all these are whole multiples."""
    values = list(values)
    return Fraction(math.gcd(*(value.numerator for value in values)),
                    math.lcm(*(value.denominator for value in values)))


def common_powers(terms):
    """{symbol: its least power} over terms {symbol: power}, of all symbols that one of them has."""
    symbols = dict.fromkeys(symbol for term in terms for symbol in term)
    return {symbol: min(term.get(symbol, 0) for term in terms) for symbol in symbols}


def factored_text(polynomial, number_in_front=True):
    """Canonical text of a polynomial over propagators: for each set of denominators, in a fixed order,

        prefactor * (sum of monomials with coprime integer coefficients, the first one positive) * denominators

    so that one rational function, given by its terms over the same denominators, has one text. '0' if nothing is left.
    Without number_in_front the number of the prefactor is multiplied into a sum of several monomials.
    """
    by_denominators = {}
    for term, value in polynomial.items():
        below = tuple(factor for factor in term if factor[0].startswith("("))
        by_denominators.setdefault(below, {})[term[:len(term) - len(below)]] = value
    pieces = []
    for below, terms in sorted(by_denominators.items()):
        powers = [dict(term) for term in terms]
        common = {symbol: power for symbol, power in common_powers(powers).items() if power}
        inside = {
            monomial({symbol: power.get(symbol, 0) - common.get(symbol, 0) for symbol in {**power, **common}}): value
            for power, value in zip(powers, terms.values())
        }
        number = content(inside.values())
        if inside[min(inside, key=order)] < 0:
            number = -number
        if len(inside) > 1 and not number_in_front:
            number = Fraction(1)
        factors = [factor_text(*factor) for factor in monomial(common)]
        if len(inside) > 1:
            factors.append(f"({sum_text({term: value / number for term, value in inside.items()})})")
        factors += [factor_text(*factor) for factor in below]
        pieces.append(scaled(number, factors))
    return " + ".join(pieces) or "0"
