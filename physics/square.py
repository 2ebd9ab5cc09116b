r"""Text of an amplitude -> FORM program -> canonical text of its squared, summed and averaged form.

Any amplitude of the grammar can be squared, not only our own. Its terms are grouped by how its fermion lines join the legs;
amplitude times conjugate then closes the lines into traces, with a spin sum at each leg:

    sum u ubar = pslash + m, sum v vbar = pslash - m, photons and gluons -g, massive vectors -g + p p / m^2

(Peskin & Schroeder (3.66), (3.67), (5.75)). FORM takes the traces and contracts, and sums the colours. Prefactors, denominators
and the canonical form are exact rational arithmetic here. One FORM process squares many rows.
"""
import functools
import itertools
import math
from fractions import Fraction

from physics import colour, form
from physics.expression import Field, Function, Negative, Number, Power, Product, Sum, Symbol, expand, fold, legs_of, names_in, parse, to_text
from physics.polynomial import add, denominator_text, divided, factored_text, monomial, multiply, sum_text
from physics.theory import ROOT_2, mass_symbol
from runtime.files import InputError

DECLARATIONS = """AutoDeclare Symbols x,s;
AutoDeclare Vectors p;
AutoDeclare Indices m,n;
"""


# prefactor, polynomial and propagators; or multiplied out, a plain sum of products, as MARTY's own simplification ends in many rows
STYLES = {"factored": factored_text, "marty": sum_text}


def square(amp, basis="all", style="factored", timeout=60):
    """Canonical sqamp text of one amplitude's text. Raises InputError with the reason."""
    result, = square_many([amp], basis, style, timeout)
    if isinstance(result, InputError):
        raise result
    return result


def square_many(amps, basis="all", style="factored", timeout=60, facts=None):
    """Canonical sqamp texts of a list of amplitudes; in the place of a row that fails stands the InputError that says why.

    basis: "all" leaves the s_ij as the traces give them; "independent" eliminates by momentum conservation, so that one
    function over the same propagators has one text.
    style: a key of STYLES, how the same polynomial is written.
    timeout: seconds for one FORM process over all rows; when it fails or takes longer the list is halved until the bad row is alone.
    """
    results, rows = [None] * len(amps), []
    for k, amp in enumerate(amps):
        try:
            rows.append((k, Row(amp, basis)))
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
    # what is left of a single epsilon tensor comes with an i: it cancels in |amp|^2, which is real
    statements += "id e_(m1?,m2?,m3?,m4?) = 0;\n"
    statements += "".join(f"id p{i}.p{j} = s{i}x{j};\n" for i, j in itertools.combinations_with_replacement(range(1, legs + 1), 2))
    expressions = [row.expression(colours) for row in rows]
    values = {}                                              # (product of two momenta, what it is in some rows) -> those rows
    for k, row in enumerate(rows):
        for value in row.known_products():
            values.setdefault(value, []).append(f"R{k}")
    for (product, value), names in values.items():
        statements += f"if ( expression({','.join(names)}) );\nid {product} = {value};\nendif;\n"
    return form.run(DECLARATIONS, expressions, statements, timeout)


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
    if kind is Power and values == [{(): 2}, {(): Fraction(1, 2)}]:
        return {((ROOT_2, 1),): Fraction(1)}
    if kind is Power:
        if not (set(values[1]) <= {()} and values[1].get((), Fraction(0)).denominator == 1):
            raise InputError("an exponent that is not an integer")
        exponent = int(values[1].get((), 0))
        if abs(exponent) > 100:
            raise InputError("an exponent above 100")
        base = reciprocal(values[0]) if exponent < 0 else values[0]
        return functools.reduce(multiply, [base] * abs(exponent), {(): Fraction(1)})
    raise InputError(f"{to_text(node)[:40]}: only numbers, symbols, sin, cos and tan of an angle, their sums, products and powers can be squared")


def reciprocal(polynomial):
    """1/polynomial; a sum becomes the symbol of a denominator."""
    if not polynomial:
        raise ZeroDivisionError
    if len(polynomial) == 1:
        (term, value), = polynomial.items()
        return {monomial({symbol: -power for symbol, power in term}): 1 / value}
    if any(symbol in ("i", ROOT_2) for term in polynomial for symbol, _ in term):
        raise InputError("a sum with i or a root in a denominator (widths of propagators are not supported)")
    lead, text = denominator_text(polynomial)
    return {((f"({text})", -1),): 1 / lead}


def conjugated(polynomial):
    return {term: -value if dict(term).get("i", 0) % 2 else value for term, value in polynomial.items()}


# ---------------------------------------------------------------------------------------------------------------------
# One row: its FORM expression, and its text from FORM's answer

class Row:
    """An amplitude ready for FORM: `expression` gives its square in FORM's language, `read` turns FORM's answer into a polynomial."""

    def __init__(self, amp, basis):
        tree = parse(amp)
        terms = expand(tree)
        legs = legs_of(terms)
        self.legs = {leg.number: leg for leg in legs}
        fields = sorted((t for t in terms[0].tensors if type(t) is Field), key=lambda field: field.leg)
        used = names_in(tree)
        known = {f"s_{i}{j}" for i, j in itertools.combinations_with_replacement(range(1, len(legs) + 1), 2)}
        for name in sorted(used - known):
            if name.startswith("s_") and name[2:].isdigit():
                raise InputError(f"{name} names a momentum that no leg carries")
        self.symbols = {}                                    # our symbol -> FORM's x0, x1, ... in this order
        self.lines = 0                                       # spin lines in use
        self.on_shell = {f"s{leg.number}x{leg.number}": mass_symbol(leg.name) for leg in legs
                         if leg.mark != "off" and f"s_{leg.number}{leg.number}" not in used}
        self.weight = average(legs, fields)
        self.eliminated = conservation(legs, self.on_shell) if basis == "independent" else {}
        groups = {}                                          # (which leg each fermion line joins to which, colour) -> terms
        for term in terms:
            coefficient = functools.reduce(multiply, (reciprocal(rational(node)) if inverse else rational(node)
                                                      for node, inverse in term.scalars), {(): Fraction(1)})
            coefficient = substitute(coefficient, self.eliminated)
            lines, factors, mirrored, colours = structure(term, len(legs))
            joins = tuple(sorted((left, right) for left, right, _ in lines))
            groups.setdefault((joins, colours), []).append((coefficient, sorted(lines), factors, mirrored))
        self.transverse = [leg.number for leg in legs if leg.mark == "T"]
        self.vectors = [self.vector_sum(leg) for leg, field in zip(legs, fields) if not leg.kind and len(field.indices) > 1]
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
        if symbol[:2] == "s_" and symbol[2:].isdigit():      # p_i . p_j, checked to be of two legs
            return f"s{symbol[2]}x{symbol[3]}"
        return self.symbols.setdefault(symbol, f"x{len(self.symbols)}")

    def known_products(self):
        """(FORM's name, FORM's text of the value) of the products of two momenta that the mass shells and the basis replace."""
        for product, mass in self.on_shell.items():
            yield product, f"{self.name(mass)}^2" if mass else "0"
        for symbol, polynomial in self.eliminated.items():
            yield self.name(symbol), self.coefficient(polynomial)

    def coefficient(self, polynomial):
        terms = ["*".join([f"({value})", *(f"{self.name(symbol)}^{power}" if power > 0 else f"{self.name(symbol)}^({power})"
                                            for symbol, power in term)]) for term, value in polynomial.items()]
        return f"({'+'.join(terms)})" if terms else "0"

    def spin_sum(self, number, line):
        """pslash +- m at a fermion's leg, on a spin line."""
        leg = self.legs[number]
        mass = mass_symbol(leg.name)
        if not mass:
            return f"g_({line},p{number})"
        return f"(g_({line},p{number}){'+' if leg.kind == 'u' else '-'}{self.name(mass)}*gi_({line}))"

    def vector_sum(self, leg):
        """Sum over the states of a vector leg in its indices m (amplitude) and n (conjugate).

        Minus the metric; massive ones have + p p / m^2. Of those with transverse polarisations only (_T) all but the first, p_j, have
        -g + (p p_j + p_j p) / p.p_j (compare Peskin & Schroeder, section 16.1). With these in place the amplitude vanishes when p_j
        stands for the first one's polarisation, so that one may have -g.
        """
        k, mass = leg.number, mass_symbol(leg.name)
        if mass and leg.mark == "T":
            raise InputError(f"{leg.name}(p_{leg.number}): only photons and gluons are marked _T")
        rest = f"+p{k}(m{k})*p{k}(n{k})*{self.name(mass)}^(-2)" if mass else ""
        if leg.mark == "T" and k != self.transverse[0]:
            j = self.transverse[0]
            product = substitute({((f"s_{j}{k}", -1),): Fraction(1)}, self.eliminated)
            rest = f"+(p{k}(m{k})*p{j}(n{k})+p{j}(m{k})*p{k}(n{k}))*{self.coefficient(product)}"
        return f"(-d_(m{k},n{k}){rest})"

    def interference(self, left, right, same_joins):
        """Sum over the terms of two groups of term * conjugated term, fermion lines closed into traces."""
        if same_joins:                                       # each line closes on itself: one product of two sums
            joins = [(start, end) for start, end, _ in left[0][1]]
            self.lines = max(self.lines, len(joins))
            numerator = "+".join("*".join([self.coefficient(c), *(gammas(line, k, False) for k, (_, _, line) in enumerate(lines, 1)), *rest])
                                 for c, lines, rest, _ in left)
            conjugate = "+".join("*".join([self.coefficient(conjugated(c)),
                                           *(gammas(line, k, True) for k, (_, _, line) in enumerate(lines, 1)), *mirrored])
                                 for c, lines, _, mirrored in right)
            ends = [self.spin_sum(end, k) for k, (_, end) in enumerate(joins, 1)]
            starts = [self.spin_sum(start, k) for k, (start, _) in enumerate(joins, 1)]
            return "*".join([f"({numerator})", *ends, f"({conjugate})", *starts])
        pieces = []
        for (c, lines, rest, _), (d, back, _, mirrored) in itertools.product(left, right):
            forth, back = {start: (end, line) for start, end, line in lines}, {end: (start, line) for start, end, line in back}
            factors, loop = [self.coefficient(multiply(c, conjugated(d))), *rest, *mirrored], 0
            while forth:
                loop, start = loop + 1, next(iter(forth))
                while start in forth:
                    end, line = forth.pop(start)
                    start, conjugate = back[end]
                    factors += [gammas(line, loop, False), self.spin_sum(end, loop), gammas(conjugate, loop, True), self.spin_sum(start, loop)]
            self.lines = max(self.lines, loop)
            pieces.append("*".join(factors))
        return "+".join(pieces)

    def read(self, output):
        """The square as a polynomial over denominators, from FORM's terms, one a line."""
        total, names = {}, list(self.symbols)

        @functools.cache
        def read_factor(factor):
            """(number, symbol, power) of one factor."""
            if factor[0].isdigit():
                return Fraction(factor), "", 0
            symbol, _, power = factor.partition("^")
            power = int(power.strip("()")) if power else 1
            if symbol[0] == "s":
                return 1, "s_" + symbol[1:].replace("x", ""), power
            if symbol[0] != "x" or not symbol[1:].isdigit():
                raise InputError(f"the square is not a real polynomial of scalar products: {symbol}")
            symbol = names[int(symbol[1:])]
            if symbol == ROOT_2:                             # at most one root is left: it has no power in the text
                return Fraction(2) ** (power // 2), symbol, power % 2
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
        return one_fraction(total) if self.transverse and self.eliminated else total


def conservation(legs, on_shell):
    """{s_ij: polynomial}: momentum conservation solved for the s_in with the last leg n and for s_(n-2)(n-1)."""
    n, sign = len(legs), {leg.number: 1 if leg.incoming else -1 for leg in legs}

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
        solved[f"s_{pair[0]}{pair[1]}"] = {term: -value / (2 * sign[pair[0]] * sign[pair[1]]) for term, value in rest.items()}
    for k in range(1, n):                                    # p_k . (sum over legs j < n of sign p_j) = - sign_n p_k . p_n
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
    """The polynomial over its common denominator, in lowest terms; each denominator has a symbol in it linearly, as q^2 - m^2 has an s_ij."""
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


def average(legs, fields):
    """1 / (number of initial states * permutations of identical final particles)."""
    states = 1
    for leg, field in zip(legs, fields):
        if leg.incoming:
            if leg.kind:
                states *= 2
            elif len(field.indices) > 1:
                states *= 3 if mass_symbol(leg.name) else 2
            if len(field.indices) > 2:
                states *= 3 if leg.kind else 8
    final = [(leg.name, leg.kind) for leg in legs if not leg.incoming]
    return Fraction(1, states * math.prod(math.factorial(final.count(name)) for name in set(final)))


def gammas(line, spin_line, conjugate):
    """FORM text of the Dirac matrices of a fermion line; its Dirac conjugate reversed, with P_L and P_R exchanged."""
    if conjugate:
        line = [({"P_L": "P_R", "P_R": "P_L"}.get(name, name), back) for name, back in ((n, c) for n, _, c in reversed(line))]
    else:
        line = [(name, index) for name, index, _ in line]
    text = [f"g_({spin_line},{index})" if name == "gamma" else f"g{'7' if name == 'P_L' else '6'}_({spin_line})/2" for name, index in line]
    return "*".join(text) or f"gi_({spin_line})"


def structure(term, legs_count):
    """The tensors of a term as (fermion lines, other factors, other factors of the conjugate, colour structure).

    A line is (starred leg, plain leg, [(matrix, its Lorentz index, that of the conjugate), ...]). The Lorentz index of leg 3 is m3, in the
    conjugate n3; summed ones are m1000, m1001, ... and n1000, ... For the colour structure see physics/colour.py.
    """
    ends = {}                                                # index -> the fields and tensors in which it occurs
    for tensor in term.tensors:
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
    for tensor in term.tensors:
        bare = [index.lstrip("+") for index in tensor.indices]
        if type(tensor) is Field:
            if tensor.kind:
                (starts if tensor.starred else finish)[bare[-1]] = tensor.leg
        elif tensor.name == "gamma" and len(bare) == 3:
            rows[bare[1]] = ("gamma", here[bare[0]], there[bare[0]]), bare[2]
        elif tensor.name in ("P_L", "P_R") and len(bare) == 2:
            rows[bare[0]] = (tensor.name, None, None), bare[1]
        elif tensor.name.startswith("p_") and len(bare) == 1:
            if not 1 <= int(tensor.name[2:]) <= legs_count:
                raise InputError(f"{tensor.name} is the momentum of no leg")
            factors.append(f"p{int(tensor.name[2:])}({here[bare[0]]})")
            mirrored.append(f"p{int(tensor.name[2:])}({there[bare[0]]})")
        elif tensor.name in ("T_C_10", "f_SU3") and len(bare) == 3:
            labels = (here[index] if here[index][0] in "ac" else f"%{here[index]}" for index in bare)      # % marks a summed one
            colours.append(("t" if tensor.name == "T_C_10" else "f", *labels))
        else:
            raise InputError(f"unknown tensor {tensor.name} with {len(bare)} indices")
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
            raise InputError(f"the fermion line from p_{leg} does not end in a spinor: index {index}")
        lines.append((leg, finish.pop(index), line))
    if used < len(rows) or finish:
        raise InputError("the Dirac indices do not join all matrices and spinors into lines from a starred to a plain spinor")
    return lines, factors, mirrored, colour.structure(colours)
