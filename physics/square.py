r"""Text of an amplitude -> FORM program -> canonical text of its squared, summed and averaged form.

Any amplitude of the grammar can be squared, not only our own. Its terms are grouped by how the fermion lines join
the legs. Amplitude times conjugate then closes the lines into traces, with a spin sum at each leg:

    sum u ubar = pslash + m, sum v vbar = pslash - m, photons and gluons -g, massive vectors -g + p p / m^2

(Peskin & Schroeder (3.66), (3.67), (5.75)). FORM takes the traces, contracts indices and sums colours. Prefactors,
denominators and the canonical form are exact rational arithmetic here. One FORM process squares many rows.

A square is real, so only the real part of FORM's answer is kept. What is complex in it:
- widths: a propagator 1/D with an i in D becomes conj(D)/|D|^2, where |D|^2 is multiplied out into a real polynomial;
- couplings V_..: the square has V_ub*V_ub^(*) for |V_ub|^2;
- a single epsilon tensor times i: it stays, as the symbol eps(p_1,p_2,p_3,p_4). Momentum conservation removes the
  last leg's momentum from it, so four legs have none and five legs one. Products of two are Gram determinants of the
  s_ij.
"""
import functools
import itertools
import math
import re
from fractions import Fraction

from physics import colour, form
from physics.expression import (
    Field,
    Function,
    Negative,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    check_momenta,
    conjugate,
    epsilon_legs,
    expand,
    fold,
    legs_of,
    names_in,
    parse,
    to_text,
)
from physics.particles import NO_FACTS, roles_of
from physics.polynomial import add, denominator_text, divided, factored_text, monomial, multiply, sum_text
from runtime.files import InputError

DECLARATIONS = """AutoDeclare Symbols x,s,y;
AutoDeclare Vectors p;
AutoDeclare Indices m,n;
"""
LARGEST_BITS = 100_000       # of the numbers in a power that is multiplied out, some 30,000 digits
LARGEST_POWER = 10_000       # terms of a power of a sum
LARGEST_ROOT = 10**10        # of which integers the square root is taken: their prime factors are searched for
MATRICES = {"gamma_5": "g5_({})", "P_L": "g7_({})/2", "P_R": "g6_({})/2"}
MIRRORED = {"gamma_5": "(-g5_({}))", "P_L": MATRICES["P_R"], "P_R": MATRICES["P_L"]}     # in the Dirac conjugate
# of each tensor the kinds of its indices: Lorentz, Dirac, colour of quarks, colour of gluons
INDEX_KINDS = dict(gamma="LDD", gamma_5="DD", P_L="DD", P_R="DD", f_SU3="AAA", g="LL", delta="??")
KIND_NAMES = {"L": "Lorentz", "D": "Dirac", "C": "quark colour", "A": "gluon colour"}
GENERATOR = re.compile(r"T_C_\d+")
ROOT = re.compile(r"(\d+)\^\(1/2\)")

# prefactor, polynomial and propagators; or multiplied out into a plain sum of products, as many of MARTY's own rows are
STYLES = {"factored": factored_text, "marty": sum_text}


def square(amp, basis="all", style="factored", timeout=60, facts=NO_FACTS):
    """Canonical sqamp text of one amplitude's text. Raises InputError with the reason. Arguments as for square_many."""
    result, = square_many([amp], basis, style, timeout, [facts])
    if isinstance(result, InputError):
        raise result
    return result


def square_many(amps, basis="all", style="factored", timeout=60, facts=None):
    """Canonical sqamp texts of a list of amplitudes; for a row that fails the InputError that says why.

    basis: "all" leaves the s_ij as the traces give them; "independent" eliminates by momentum conservation, so that one
    function over the same propagators has one text.
    style: a key of STYLES, how the same polynomial is written.
    timeout: seconds for one FORM process over all rows. When it fails or takes longer, the list is halved until the
        bad row is alone.
    facts: of each amplitude the Facts (physics/particles.py) that its text does not say; None: there are none.
    """
    results, rows = [None] * len(amps), []
    for k, amp in enumerate(amps):
        try:
            rows.append((k, Row(amp, basis, facts[k] if facts else NO_FACTS)))
        except ZeroDivisionError:
            results[k] = InputError("division by zero")
        except RecursionError:
            results[k] = InputError("a scalar factor is nested too deep")
        except InputError as error:
            results[k] = error
    todo = [rows] if rows else []
    while todo:
        batch = todo.pop()
        try:
            outputs = _traces([row for _, row in batch], timeout)
        except InputError as error:
            if len(batch) == 1:
                results[batch[0][0]] = error
            else:
                todo += [batch[:len(batch) // 2], batch[len(batch) // 2:]]
            continue
        for (k, row), output in zip(batch, outputs):
            try:
                results[k] = STYLES[style](row.read(output))
            except InputError as error:
                results[k] = error
            except (ValueError, IndexError):
                results[k] = InputError("FORM's answer cannot be read")
    return results


def _traces(rows, timeout):
    """FORM's terms of each row: traces of every spin line, then scalar products as symbols s1x2."""
    legs = max(len(row.legs) for row in rows)
    colours = colour.sums({pair for row in rows for pair in row.colours}, timeout)
    statements = "".join(f"trace4,{k};\n" for k in range(1, max(row.lines for row in rows) + 1)) + "contract;\n.sort\n"
    statements += _epsilons(rows, legs)
    statements += "".join(
        f"id p{i}.p{j} = s{i}x{j};\n" for i, j in itertools.combinations_with_replacement(range(1, legs + 1), 2)
    )
    expressions = [row.expression(colours) for row in rows]
    values = {}  # (product of two momenta, what it is in some rows) -> those rows
    for k, row in enumerate(rows):
        for value in row.known_products():
            values.setdefault(value, []).append(f"R{k}")
    for (product, value), names in values.items():
        statements += f"if ( expression({','.join(names)}) );\nid {product} = {value};\nendif;\n"
    # declared in the order of the legs, so that the momenta in e_(..) stand in it
    declarations = DECLARATIONS + f"Vectors {','.join(f'p{k}' for k in range(1, legs + 1))};\n"
    return form.run(declarations, expressions, statements, timeout)


def _epsilons(rows, legs):
    """Statements that turn the epsilon tensors that are left into symbols: e_(p1,p2,p3,p4) = i y1x2x3x4.

    For FORM tr(g5 a b c d) = 4 e_(a,b,c,d). With g5 = i g0 g1 g2 g3 and eps as in physics/expression.py the trace is
    4 i eps(a,b,c,d), so e_ = i eps. FORM's e_ e_ = Gram determinant agrees with eps^2 = -Gram determinant.
    Fewer than five legs have at most three independent momenta, so their epsilon tensors vanish.
    """
    few = [f"R{k}" for k, row in enumerate(rows) if len(row.legs) < 5]
    statements = f"if ( expression({','.join(few)}) );\nid e_(m1?,m2?,m3?,m4?) = 0;\nendif;\n" if few else ""
    for four in itertools.combinations(range(1, legs + 1) if legs > 4 else (), 4):
        statements += f"id e_({','.join(f'p{k}' for k in four)}) = i_*y{'x'.join(map(str, four))};\n"
    return statements


# ---------------------------------------------------------------------------------------------------------------------
# Scalars: exact rational functions, as polynomials over denominators

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


# ---------------------------------------------------------------------------------------------------------------------
# One row: its FORM expression, and its text from FORM's answer

class Row:
    """An amplitude ready for FORM: `expression` is its square as FORM's text, `read` makes the answer a polynomial."""

    def __init__(self, amp, basis, facts=NO_FACTS):
        tree = parse(amp)
        terms = expand(tree)
        legs = legs_of(terms)
        self.legs = {leg.number: leg for leg in legs}
        fields = sorted((t for t in terms[0].tensors if type(t) is Field), key=lambda field: field.leg)
        used = names_in(tree)
        check_momenta(used, len(legs))
        self.symbols = {}                                    # our symbol -> FORM's x0, x1, ... in this order
        self.lines = 0                                       # spin lines in use
        roles = roles_of(fields, used, facts)
        if len(set(roles.incoming)) < 2:
            raise InputError("all legs come in or all go out; at least one of each is expected")
        signs = [1 if incoming else -1 for incoming in roles.incoming]
        self.masses = {leg.number: mass for leg, mass in zip(legs, roles.masses)}           # symbols, None: massless
        self.on_shell = {f"s{leg.number}x{leg.number}": self.masses[leg.number] for leg in legs
                         if leg.mark != "off" and f"s_{leg.number}{leg.number}" not in used}
        self.weight = average(fields, roles)
        self.epsilons = dependent_epsilons(signs)
        self.eliminated = conservation(signs, self.on_shell) if basis == "independent" else {}
        solved = self.eliminated | self.epsilons if any(map(epsilon_legs, used)) else self.eliminated
        groups = {}  # (which leg each fermion line joins to which, colour) -> terms
        for term in terms:
            coefficient = functools.reduce(multiply, (reciprocal(rational(node)) if inverse else rational(node)
                                                      for node, inverse in term.scalars), {(): Fraction(1)})
            coefficient = substitute(coefficient, solved)
            check_indices(term.tensors)
            number, tensors = without_metrics(term.tensors)
            lines, factors, mirrored, colours = structure(tensors, len(legs))
            if number != 1:
                coefficient = multiply({(): Fraction(number)}, coefficient)
            joins = tuple(sorted((left, right) for left, right, _ in lines))
            groups.setdefault((joins, colours), []).append((coefficient, sorted(lines), factors, mirrored))
        self.transverse = [leg.number for leg in legs if leg.mark == "T"]
        self.vectors = [
            self.vector_sum(leg) for leg, field in zip(legs, fields) if not leg.kind and len(field.indices) > 1
        ]
        self.pieces = [((left[1], right[1]), self.interference(groups[left], groups[right], left[0] == right[0]))
                       for left, right in itertools.product(groups, groups)]
        self.colours = [pair for pair, _ in self.pieces]

    def expression(self, colours):
        """The square in FORM's language, given the colour sums {(left, right): number as text}."""
        pieces = "+".join(f"({colours[pair]})*({text})" for pair, text in self.pieces if colours[pair] != "0") or "0"
        return "*".join([f"({pieces})", *self.vectors])

    def name(self, symbol):
        """FORM's name of a symbol: text of the row never reaches FORM's input."""
        if symbol == "i":
            return "i_"
        if four := epsilon_legs(symbol):                     # see _epsilons
            return f"(-i_*e_({','.join(f'p{k}' for k in four)}))"
        if symbol[:2] == "s_" and symbol[2:].isdigit():      # p_i . p_j, checked to be of two legs
            return f"s{symbol[2]}x{symbol[3]}"
        return self.symbols.setdefault(symbol, f"x{len(self.symbols)}")

    def known_products(self):
        """(FORM's name, FORM's value) of the products of two momenta that the mass shells and the basis replace."""
        for product, mass in self.on_shell.items():
            yield product, f"{self.name(mass)}^2" if mass else "0"
        for symbol, polynomial in self.eliminated.items():
            yield self.name(symbol), self.coefficient(polynomial)

    def coefficient(self, polynomial):
        terms = []
        for term, value in polynomial.items():
            powers = (f"{self.name(symbol)}^{power if power > 0 else f'({power})'}" for symbol, power in term)
            terms.append("*".join([f"({value})", *powers]))
        return f"({'+'.join(terms)})" if terms else "0"

    def spin_sum(self, number, line):
        """pslash +- m at a fermion's leg, on a spin line."""
        leg = self.legs[number]
        mass = self.masses[number]
        if not mass:
            return f"g_({line},p{number})"
        return f"(g_({line},p{number}){'+' if leg.kind == 'u' else '-'}{self.name(mass)}*gi_({line}))"

    def vector_sum(self, leg):
        """Sum over the states of a vector leg in its indices m (amplitude) and n (conjugate).

        Minus the metric, for massive vectors plus p p / m^2. Vectors with transverse polarisations only (_T) have
        -g + (p p_j + p_j p) / p.p_j, where p_j is the first of them (compare Peskin & Schroeder, section 16.1). With
        these in place the amplitude vanishes when p_j stands for the first one's polarisation, so the first one may
        have -g.
        """
        k, mass = leg.number, self.masses[leg.number]
        if mass and leg.mark == "T":
            raise InputError(f"{leg.name}(p_{leg.number}): only photons and gluons are marked _T")
        rest = f"+p{k}(m{k})*p{k}(n{k})*{self.name(mass)}^(-2)" if mass else ""
        if leg.mark == "T" and k != self.transverse[0]:
            j = self.transverse[0]
            product = substitute({((f"s_{j}{k}", -1),): Fraction(1)}, self.eliminated)
            rest = f"+(p{k}(m{k})*p{j}(n{k})+p{j}(m{k})*p{k}(n{k}))*{self.coefficient(product)}"
        return f"(-d_(m{k},n{k}){rest})"

    def group(self, terms, mirrored):
        """Sum of the terms of a group, or of their conjugates: coefficient * Dirac matrices * other factors."""
        texts = []
        for coefficient, lines, factors, conjugate_factors in terms:
            matrices = [gammas(line, k, mirrored) for k, (_, _, line) in enumerate(lines, 1)]
            if mirrored:
                coefficient, factors = conjugated(coefficient), conjugate_factors
            texts.append("*".join([self.coefficient(coefficient), *matrices, *factors]))
        return "+".join(texts)

    def interference(self, left, right, same_joins):
        """Sum over the terms of two groups of term * conjugated term, fermion lines closed into traces."""
        if same_joins:                                       # each line closes on itself: one product of two sums
            joins = [(start, end) for start, end, _ in left[0][1]]
            self.lines = max(self.lines, len(joins))
            ends = [self.spin_sum(end, k) for k, (_, end) in enumerate(joins, 1)]
            starts = [self.spin_sum(start, k) for k, (start, _) in enumerate(joins, 1)]
            return "*".join([f"({self.group(left, False)})", *ends, f"({self.group(right, True)})", *starts])
        pieces = []
        for (c, lines, rest, _), (d, back, _, mirrored) in itertools.product(left, right):
            forth = {start: (end, line) for start, end, line in lines}
            back = {end: (start, line) for start, end, line in back}
            factors, loop = [self.coefficient(multiply(c, conjugated(d))), *rest, *mirrored], 0
            while forth:
                loop, start = loop + 1, next(iter(forth))
                while start in forth:
                    end, line = forth.pop(start)
                    start, mirror = back[end]
                    factors += [gammas(line, loop, False), self.spin_sum(end, loop),
                                gammas(mirror, loop, True), self.spin_sum(start, loop)]
            self.lines = max(self.lines, loop)
            pieces.append("*".join(factors))
        return "+".join(pieces)

    def read(self, output):
        """The square as a polynomial over denominators, from FORM's terms, one a line."""
        total, names, found = {}, list(self.symbols), set()

        @functools.cache
        def read_factor(factor):
            number, symbol, power = split_factor(factor)
            found.add(symbol)
            return number, symbol, power

        def split_factor(factor):
            """(number, symbol, power) of one factor."""
            if factor[0].isdigit():
                return Fraction(factor), "", 0
            symbol, _, power = factor.partition("^")
            power = int(power.strip("()")) if power else 1
            if symbol == "i_":
                return 1, "i", power
            if symbol[0] == "s":
                return 1, "s_" + symbol[1:].replace("x", ""), power
            if symbol[0] == "y":
                return 1, _epsilon(*map(int, symbol[1:].split("x"))), power
            if symbol[0] != "x" or not symbol[1:].isdigit():
                raise InputError(f"the square is not a polynomial of scalar products: {symbol}")
            symbol = names[int(symbol[1:])]
            if root := ROOT.fullmatch(symbol):               # at most the first power of a root is left in the text
                return Fraction(int(root[1])) ** (power // 2), symbol, power % 2
            return 1, symbol, power

        for line in output:
            value, powers = -1 if line[0] == "-" else 1, {}
            for number, symbol, power in map(read_factor, line.lstrip("+-").split("*")):
                if number != 1:
                    value *= number
                if power:
                    powers[symbol] = powers.get(symbol, 0) + power
            key = monomial(powers)
            total[key] = total.get(key, 0) + value * self.weight
        total = {term: value for term, value in total.items() if value}                   # roots may cancel after FORM
        if any(map(epsilon_legs, found)):
            total = substitute(total, self.epsilons)
        if not all(map(is_real, found)):
            total = real_part(total)
        return one_fraction(total) if self.transverse and self.eliminated else total


def dependent_epsilons(signs):
    """{eps(..,p_n): polynomial}: the epsilon tensors with the last leg's momentum p_n, by momentum conservation.

    signs: as for conservation.
    """
    n, sign = len(signs), dict(enumerate(signs, 1))
    solved = {}
    for three in itertools.combinations(range(1, n), 3):
        total = {}
        for k in set(range(1, n)).difference(three):         # p_n = - sign_n (sum over legs k < n of sign_k p_k)
            order = -1 if sum(other > k for other in three) % 2 else 1
            total[((_epsilon(*three, k), 1),)] = Fraction(-sign[n] * sign[k] * order)
        solved[_epsilon(*three, n)] = total
    return solved


def _epsilon(*legs):
    return f"eps({','.join(f'p_{k}' for k in sorted(legs))})"


def conservation(signs, on_shell):
    """{s_ij: polynomial}: momentum conservation solved for the s_in with the last leg n and for s_(n-2)(n-1).

    signs: of each leg, 1 if it comes in and -1 if it goes out.
    """
    n, sign = len(signs), dict(enumerate(signs, 1))

    def product(i, j):                                       # p_i . p_j
        i, j = sorted((i, j))
        if i == j and f"s{i}x{i}" in on_shell:
            mass = on_shell[f"s{i}x{i}"]
            return {((mass, 2),): Fraction(1)} if mass else {}
        return {((f"s_{i}{j}", 1),): Fraction(1)}

    def total(terms):
        return functools.reduce(lambda left, right: add(left, right[1], right[0]), terms, {})

    solved = {}
    if n > 2:                                                # (sum over legs k < n of sign p_k)^2 = p_n^2
        pair = tuple(range(1, n))[-2:]
        others = [(sign[i] * sign[j] * (1 if i == j else 2), product(i, j))
                  for i, j in itertools.combinations_with_replacement(range(1, n), 2) if (i, j) != pair]
        rest = total([(-1, product(n, n)), *others])
        solved[f"s_{pair[0]}{pair[1]}"] = {
            term: -value / (2 * sign[pair[0]] * sign[pair[1]]) for term, value in rest.items()
        }
    for k in range(1, n):  # p_k . (sum over legs j < n of sign p_j) = - sign_n p_k . p_n
        terms = total((sign[j] * -sign[n], product(k, j)) for j in range(1, n))
        solved[f"s_{k}{n}"] = substitute(terms, solved)
    return solved


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


def average(fields, roles):
    """1 / (number of initial states * permutations of identical final particles)."""
    states = 1
    for field, mass, incoming in zip(fields, roles.masses, roles.incoming):
        if incoming:
            if field.kind:
                states *= 2
            elif len(field.indices) > 1:
                states *= 3 if mass else 2
            if len(field.indices) > 2:
                states *= 3 if field.kind else 8
    return Fraction(1, states * roles.identical)


def gammas(line, spin_line, mirrored):
    """FORM text of the Dirac matrices of a fermion line.

    mirrored: of its Dirac conjugate g0 (..)^dagger g0, which is reversed, with P_L and P_R exchanged and -gamma_5.
    """
    matrices = MIRRORED if mirrored else MATRICES
    text = [f"g_({spin_line},{back if mirrored else index})" if name == "gamma" else matrices[name].format(spin_line)
            for name, index, back in (reversed(line) if mirrored else line)]
    return "*".join(text) or f"gi_({spin_line})"


def check_indices(tensors):
    """InputError unless each index has one kind in all tensors and fields and deltas join two of one kind."""
    kinds, deltas = {}, []
    for tensor in tensors:
        indices = [index.lstrip("+") for index in tensor.indices]
        if type(tensor) is Field:
            indices = indices[1:]                            # the first one labels the polarisation
            expected = ("CD" if tensor.kind else "AL")[-len(indices) :] if indices else ""
            if len(indices) > 2 or tensor.kind and not indices:
                raise InputError(
                    f"{tensor.name}(p_{tensor.leg}): expected a label, [colour,] and a Dirac or Lorentz index"
                )
        else:
            expected = INDEX_KINDS.get(tensor.name, "")
            if tensor.name.startswith("p_"):
                expected = "L"
            elif GENERATOR.fullmatch(tensor.name):
                expected = "ACC"
            elif tensor.name == "C" and len(indices) == 2:
                raise InputError("the charge conjugation matrix C: Majorana fermions are not supported")
            if len(indices) != len(expected):
                raise InputError(f"unknown tensor {tensor.name} with {len(indices)} indices")
            if tensor.name == "delta":
                deltas.append(indices)
                continue
        for index, kind in zip(indices, expected):
            if kinds.setdefault(index, kind) != kind:
                raise InputError(f"index {index} is a {KIND_NAMES[kinds[index]]} index and a {KIND_NAMES[kind]} index")
    for left, right in deltas * len(deltas):                 # a chain of deltas has its kind at an end
        kind, other = kinds.get(left), kinds.get(right)
        if kind and other and kind != other:
            raise InputError(
                f"a delta joins {left}, a {KIND_NAMES[kind]} index, and {right}, a {KIND_NAMES[other]} index"
            )
        if kind or other:
            kinds[left] = kinds[right] = kind or other


def without_metrics(tensors):
    """(number, tensors) of a term with its metrics and deltas carried out: number * tensors is the same."""
    number, renamed, rest = 1, {}, []

    def final(index):
        while index in renamed:
            index = renamed[index]
        return index

    for tensor in tensors:
        if tensor.name not in ("g", "delta") or type(tensor) is Field:
            rest.append(tensor)
            continue
        left, right = (final(index.lstrip("+")) for index in tensor.indices)
        if left != right:
            renamed[left] = right
        elif tensor.name == "g":
            number *= 4
        else:
            raise InputError(f"delta_{{{','.join(tensor.indices)}}} is summed over its own index")
    if not renamed:
        return number, rest
    kept = [1 if type(tensor) is Field else 0 for tensor in rest]  # the label of a polarisation is no index
    return number, [
        tensor._replace(indices=tensor.indices[:n] + tuple(final(index.lstrip("+")) for index in tensor.indices[n:]))
        for tensor, n in zip(rest, kept)
    ]


def structure(tensors, legs_count):
    """The tensors of a term as (fermion lines, other factors, other factors of the conjugate, colour structure).

    A line is (starred leg, plain leg, [(matrix, its Lorentz index, that of the conjugate), ...]). The Lorentz index
    of leg 3 is m3, in the conjugate n3; summed ones are m1000, m1001, ... and n1000, ... For the colour structure
    see physics/colour.py.
    """
    ends = {}                                                # index -> the fields and tensors in which it occurs
    for tensor in tensors:
        for index in tensor.indices[1:] if type(tensor) is Field else tensor.indices:
            ends.setdefault(index.lstrip("+"), []).append(tensor)
    here, there = {}, {}                                     # index -> its FORM name in the amplitude, in the conjugate
    factors, mirrored, colours = [], [], []
    for k, (index, where) in enumerate(ends.items(), 1000):
        if len(where) != 2:
            raise InputError(f"index {index} occurs {len(where)} times in a term, expected 2")
        legs = [tensor for tensor in where if type(tensor) is Field]
        in_colour = any(index != leg.indices[-1].lstrip("+") for leg in legs)
        if in_colour:
            names = [f"{'c' if leg.kind else 'a'}{leg.leg}" for leg in legs]
            here[index] = names[0]
            if len(legs) == 2:
                colours.append(("d", *names))
        elif legs and not legs[0].kind:
            here[index], there[index] = f"m{legs[0].leg}", f"n{legs[0].leg}"
            if len(legs) == 2:
                factors.append(f"d_({here[index]},m{legs[1].leg})")
                mirrored.append(f"d_({there[index]},n{legs[1].leg})")
        else:
            here[index], there[index] = f"m{k}", f"n{k}"
    rows, starts, finish = {}, {}, {}                        # Dirac index -> the matrix whose row it is, the leg
    matrices = 0
    for tensor in tensors:
        bare = [index.lstrip("+") for index in tensor.indices]
        if type(tensor) is Field:
            if tensor.kind:
                (starts if tensor.starred else finish)[bare[-1]] = tensor.leg
        elif tensor.name == "gamma":
            rows[bare[1]] = ("gamma", here[bare[0]], there[bare[0]]), bare[2]
            matrices += 1
        elif tensor.name in ("P_L", "P_R", "gamma_5"):
            rows[bare[0]] = (tensor.name, None, None), bare[1]
            matrices += 1
        elif tensor.name.startswith("p_"):
            if not 1 <= int(tensor.name[2:]) <= legs_count:
                raise InputError(f"{tensor.name} is the momentum of no leg")
            factors.append(f"p{int(tensor.name[2:])}({here[bare[0]]})")
            mirrored.append(f"p{int(tensor.name[2:])}({there[bare[0]]})")
        else:                                                # a generator or f_SU3
            # a % marks a summed label
            labels = (here[index] if here[index][0] in "ac" else f"%{here[index]}" for index in bare)
            colours.append(("f" if tensor.name == "f_SU3" else "t", *labels))
    if len(starts) != len(finish):
        raise InputError(
            f"{len(starts)} starred and {len(finish)} plain spinors, expected as many of both: "
            "Majorana fermions are not supported"
        )
    lines, used = [], 0
    for index, leg in starts.items():
        line = []
        while index in rows:
            matrix, index = rows[index]
            line.append(matrix)
            used += 1
            if used > len(rows):
                raise InputError("the Dirac indices run in a circle")
        if index not in finish:
            raise InputError(f"the fermion line from p_{leg} does not end in a plain spinor but in the index {index}; "
                             "transposed matrices, as Majorana fermions have, are not supported")
        lines.append((leg, finish.pop(index), line))
    if used < matrices or finish:
        raise InputError(
            "the Dirac indices do not join all matrices and spinors into lines from a starred to a plain spinor"
        )
    return lines, factors, mirrored, colour.structure(colours)
