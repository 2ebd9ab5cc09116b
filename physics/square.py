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
from fractions import Fraction

from physics import colour, form
from physics.expression import (
    check_indices,
    check_momenta,
    epsilon_legs,
    expand,
    fields_of,
    legs_of,
    names_in,
    parse,
)
from physics.particles import NO_FACTS, roles_of
from physics.polynomial import add, factored_text, monomial, multiply, sum_text
from physics.rational import ROOT, coefficient_of, conjugated, is_real, one_fraction, real_part, substitute
from physics.structure import structure, without_metrics
from runtime.files import InputError

DECLARATIONS = """AutoDeclare Symbols x,s,y;
AutoDeclare Vectors p;
AutoDeclare Indices m,n;
"""
MATRICES = {"gamma_5": "g5_({})", "P_L": "g7_({})/2", "P_R": "g6_({})/2"}
MIRRORED = {"gamma_5": "(-g5_({}))", "P_L": MATRICES["P_R"], "P_R": MATRICES["P_L"]}     # in the Dirac conjugate

# prefactor, polynomial and propagators; the same with all numbers in the polynomial; or multiplied out into a plain sum
# of products, as many of MARTY's own rows are
STYLES = {"factored": factored_text, "inside": functools.partial(factored_text, number_in_front=False),
          "marty": sum_text}


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
            outputs = traces([row for _, row in batch], timeout)
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


def traces(rows, timeout):
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
# One row: its FORM expression, and its text from FORM's answer

class Row:
    """An amplitude ready for FORM: `expression` is its square as FORM's text, `read` makes the answer a polynomial."""

    def __init__(self, amp, basis, facts=NO_FACTS):
        tree = parse(amp)
        terms = expand(tree)
        legs = legs_of(terms)
        self.legs = {leg.number: leg for leg in legs}
        fields = fields_of(terms)
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
            coefficient = substitute(coefficient_of(term.scalars), solved)
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
        total, names = {}, list(self.symbols)

        @functools.cache
        def read_factor(factor):
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
        found = {symbol for term in total for symbol, _ in term}
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
