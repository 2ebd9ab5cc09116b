r"""Text of amplitudes and squared amplitudes <-> trees, in MARTY's grammar.

    sum     := ['-'] product (('+' | '-') ['-'] product)*
    product := power (('*' | '/') power)*
    power   := atom [('^' | '**') power]
    atom    := number | symbol | function '(' sum ')' | '(' sum ')' | tensor | field

A number is an integer, or a decimal such as 0.5, which is read as 1/2. A power with the exponent 1/2 is a square root.

Symbols are real except `i`, the imaginary unit, and those named `V_..`, whose conjugates are `V_..^(*)`. `s_12` is
p_1.p_2; `s_21` is read as `s_12`. `eps(p_1,p_2,p_3,p_4)`, momenta in ascending order, is a symbol too: the
determinant of the matrix whose rows are the contravariant components (E, x, y, z) of the four momenta.

Tensors are momenta with an index, `p_2_%\nu_1`, and
    gamma_{%\mu,%a,%b}  gamma_5_{%a,%b}  P_L_{%a,%b}  P_R_{%a,%b}      Dirac matrices, P_L = (1 - gamma_5) / 2
    g_{%\mu,%\nu}  delta_{%a,%b}                                       metric, unit matrix for any kind of index
    T_C_10_{%g,%i,%j}  f_SU3_{%g,%h,%k}                                generators of the quarks, structure constants
MARTY numbers the generators; every T_C_.. is that of a quark. A repeated index is summed, a `+` before one marks its
position.

A field is a leg of the diagram, `e_{i_3,%gam_1}(p_1)_u^(*)`. MARTY's grammar has two additions for legs: `_T` marks
a photon or gluon with transverse polarisations only, `G_{..}(p_2)_T`; `_off` a leg off its mass shell,
`e_{..}(p_1)_u_off^(*)`.

Nothing is evaluated while reading, and no function here recurses: nesting is limited by memory alone.
"""
import re
from fractions import Fraction
from typing import NamedTuple

from runtime.files import InputError


class Number(NamedTuple):
    value: int


class Symbol(NamedTuple):
    name: str                   # 's_12', 'V_ub', its conjugate 'V_ub^(*)', 'eps(p_1,p_2,p_3,p_4)', ...


class Tensor(NamedTuple):
    name: str                   # 'gamma', 'P_L', 'T_C_10', ..., or the momentum 'p_2'
    indices: tuple              # ('+%\\sigma_1', '%a', '%b'), as written


class Field(NamedTuple):
    name: str                   # particle: 'e', 'mu', 'A', ...
    indices: tuple              # polarisation, [colour,] [Dirac or Lorentz]
    leg: int                    # n of its momentum p_n
    kind: str                   # 'u' or 'v' for fermions, '' otherwise
    starred: bool               # ^(*): conjugate
    mark: str = ""              # 'T': transverse polarisations only, 'off': off the mass shell


class Sum(NamedTuple):
    terms: tuple
    minus: tuple                # minus[k]: term k is subtracted (`a - b`; MARTY writes `a + -b`, a Negative term)


class Product(NamedTuple):
    factors: tuple
    inverse: tuple              # inverse[k]: factor k divides


class Power(NamedTuple):
    base: tuple
    exponent: tuple


class Negative(NamedTuple):
    operand: tuple


class Function(NamedTuple):
    name: str
    argument: tuple


FUNCTIONS = ("sin", "cos", "tan")                            # of theta_W
MOMENTUM = re.compile(r"p_\d+")
NO_SYMBOLS = {
    "I": "i, the imaginary unit",
    **dict.fromkeys(("nan", "NaN", "inf", "Inf", "Infinity", "oo", "zoo"), "a finite number"),
}
LONGEST = 1000                                               # digits of a number
LARGEST = 50_000                                             # terms of an amplitude
INDEX = r"\+?%?\\?[A-Za-z]\w*"
TOKEN = re.compile(rf"""
      (?P<space>    \s+ )
    | (?P<number>   (?: 0 | [1-9]\d* ) (?: \.\d+ )? )
    | (?P<epsilon>  eps\(\s* p_[1-9]\d? (?: \s*,\s* p_[1-9]\d? ){{3}} \s*\) )
    | (?P<field>    [A-Za-z]\w*? (?:_\{{ [^{{}}()]* \}})? \(p_[1-9]\d?\) (?:(?:_[uv])?(?:_T|_off)?\b)? (?:\^\(\*\))? )
    | (?P<momentum> p_[1-9]\d?_ \+?(?:%\\?|\\)[A-Za-z]\w* )
    | (?P<tensor>   (?!p_) [A-Za-z]\w*? _\{{ [^{{}}()]* \}} )
    | (?P<function> (?:{"|".join(FUNCTIONS)}) (?=\() )
    | (?P<symbol>   [A-Za-z]\w* (?:\^\(\*\))? )
    | (?P<operator> \*\* | [-+*/^()] )
    | (?P<unknown>  . )""", re.VERBOSE | re.DOTALL | re.ASCII)
FIELD = re.compile(r"(\w+?)(?:_\{(.*)\})?\(p_(\d+)\)(?:_([uv]))?(?:_(T|off))?(\^\(\*\))?")
POWER_NEXT = re.compile(r"\s*(?:\^|\*\*)")
INDICES = re.compile(rf"{INDEX}(?:,{INDEX})*")
INVARIANT = re.compile(r"s_\d+", re.ASCII)
REVERSED = re.compile(r"s_([2-9])([1-9])")                    # s_21 is s_12


class ParseError(InputError):
    def __init__(self, text, column, expected):
        found = f"'{text[column:column + 12].split()[0]}'" if text[column:].strip() else "the end of the text"
        super().__init__(f"column {column + 1}: found {found}, expected {expected}")
        self.column = column                                 # counted from 0

    def __reduce__(self):                                    # between processes it travels as its message
        return InputError, self.args


def parse(text):
    """Tree of an amplitude or squared amplitude, in linear time. ParseError with the column and what was expected."""
    outer = []  # the frames around the current parenthesis
    # One frame: finished terms of the sum, finished factors of the product, bases of a^b^c..., whether negated
    terms, minus, factors, inverse, bases, negative, function = [], [], [], [], [], False, None
    subtract = divide = False
    operand_next = True
    for match in TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "space":
            continue
        token = match.group()
        if operand_next:
            if kind == "number":
                if len(token) > LONGEST:
                    raise ParseError(text, match.start(), f"a number of at most {LONGEST} digits")
                node = _number(token)
                if type(node) is Product and not bases and not divide and not POWER_NEXT.match(text, match.end()):
                    factors.append(node.factors[0])          # 0.5*e is read as 1/2*e, not as (1/2)*e
                    inverse.append(False)
                    node, divide = node.factors[1], True
            elif kind == "symbol" or kind == "epsilon":
                node = _symbol(text, match)
            elif kind == "tensor":
                name, indices = token[:-1].split("_{", 1)
                node = Tensor(name, _indices(text, indices, match.start() + len(name) + 2))
            elif kind == "field":
                node = _field(text, match)
            elif kind == "momentum":
                _, leg, index = token.split("_", 2)
                node = Tensor("p_" + leg, (index,))
            elif token == "(" or kind == "function":
                if kind == "function":
                    function = token
                    continue
                outer.append((terms, minus, factors, inverse, bases, negative, function, subtract, divide))
                terms, minus, factors, inverse, bases, negative, function = [], [], [], [], [], False, None
                subtract = divide = False
                continue
            elif token == "-" and not factors and not bases and not negative:
                negative = True
                continue
            else:
                raise ParseError(text, match.start(), "a number, a name or '('")
        elif token == "*" or token == "/":
            factors.append(_power(bases, node))
            inverse.append(divide)
            divide = token == "/"
            operand_next = True
            continue
        elif token == "^" or token == "**":
            bases.append(node)
            operand_next = True
            continue
        elif token == "+" or token == "-":
            factors.append(_power(bases, node))
            inverse.append(divide)
            terms.append(_product(factors, inverse, negative))
            minus.append(subtract)
            factors, inverse, negative = [], [], False
            subtract, divide = token == "-", False
            operand_next = True
            continue
        elif token == ")" and outer:
            factors.append(_power(bases, node))
            inverse.append(divide)
            terms.append(_product(factors, inverse, negative))
            minus.append(subtract)
            node = _sum(terms, minus)
            terms, minus, factors, inverse, bases, negative, function, subtract, divide = outer.pop()
            if function:
                node, function = Function(function, node), None
        else:
            raise ParseError(text, match.start(), "an operator or ')'" if outer else "an operator or the end")
        operand_next = False
    if operand_next:
        raise ParseError(text, len(text), "a number, a name or '('")
    if outer:
        raise ParseError(text, len(text), "')'")
    factors.append(_power(bases, node))
    inverse.append(divide)
    terms.append(_product(factors, inverse, negative))
    minus.append(subtract)
    return _sum(terms, minus)


def _number(token):
    whole, _, decimals = token.partition(".")
    if not decimals.strip("0"):
        return Number(int(whole))
    value = Fraction(int(whole + decimals), 10 ** len(decimals))
    return Product((Number(value.numerator), Number(value.denominator)), (False, True))


def _symbol(text, match):
    name = match.group()
    if name in NO_SYMBOLS:
        raise ParseError(text, match.start(), NO_SYMBOLS[name])
    if MOMENTUM.fullmatch(name):
        raise ParseError(text, match.start(), "an index after a momentum, as in p_1_%mu_1")
    if match.lastgroup == "epsilon":
        name = "".join(name.split())
        legs = epsilon_legs(name)
        if legs != tuple(sorted(set(legs))):
            raise ParseError(text, match.start(), "eps of four different momenta in ascending order")
    elif name.endswith("^(*)") and not is_complex(name):
        raise ParseError(text, match.start(), "the conjugate of a symbol named V_.., the only complex ones")
    elif (pair := REVERSED.fullmatch(name)) and pair[1] > pair[2]:
        name = f"s_{pair[2]}{pair[1]}"
    return Symbol(name)


def epsilon_legs(name):
    """(1, 2, 3, 4) of the symbol eps(p_1,p_2,p_3,p_4), () of any other symbol."""
    return tuple(map(int, re.findall(r"p_(\d+)", name))) if name.startswith("eps(") else ()


def is_complex(name):
    """Whether a symbol is complex: V_ub and its conjugate V_ub^(*) are; all others but i are real."""
    return name.startswith("V_")


def conjugate(name):
    """Name of the complex conjugate of a symbol other than i."""
    if not is_complex(name):
        return name
    return name.removesuffix("^(*)") if name.endswith("^(*)") else name + "^(*)"


def check_momenta(names, legs):
    """InputError if one of these symbols is an s_ij or epsilon tensor with a momentum that none of so many legs has."""
    for name in sorted(names):
        numbers = epsilon_legs(name) or (tuple(map(int, name[2:])) if INVARIANT.fullmatch(name) else ())
        if numbers and (min(numbers) < 1 or max(numbers) > legs or name.startswith("s_") and len(numbers) != 2):
            raise InputError(f"{name} names a momentum that no leg carries")


def _indices(text, indices, column):
    if not INDICES.fullmatch(indices):
        raise ParseError(text, column, r"indices such as %\sigma_1,%gam_2 separated by commas")
    return tuple(indices.split(","))


def _field(text, match):
    name, indices, leg, kind, mark, star = FIELD.fullmatch(match.group()).groups()
    return Field(name, _indices(text, indices, match.start() + len(name) + 2) if indices is not None else (),
                 int(leg), kind or "", star is not None, mark or "")


def _power(bases, node):
    while bases:
        node = Power(bases.pop(), node)
    return node


def _product(factors, inverse, negative):
    node = factors[0] if len(factors) == 1 else Product(tuple(factors), tuple(inverse))
    return Negative(node) if negative else node


def _sum(terms, minus):
    return terms[0] if len(terms) == 1 else Sum(tuple(terms), tuple(minus))


def marked_off_shell(amp, legs):
    """The amplitude with the fields of these legs (numbers from 1) marked `_off`."""
    def mark(match):
        return match[0] + "_off" if int(match[1]) in legs else match[0]

    return re.sub(r"\(p_(\d+)\)(?:_[uv]\b)?", mark, amp)


# ---------------------------------------------------------------------------------------------------------------------
# Walking trees without recursion

def children(node):
    kind = type(node)
    if kind is Sum:
        return node.terms
    if kind is Product:
        return node.factors
    if kind is Power:
        return (node.base, node.exponent)
    if kind is Negative:
        return (node.operand,)
    if kind is Function:
        return (node.argument,)
    return ()


def fold(tree, visit):
    """Value of `tree` from the leaves up: visit(node, values of its children) is called once for every node."""
    values, todo = [], [tree]
    while todo:
        node = todo.pop()
        if node is None:                                     # the node below has all its children's values on the stack
            node = todo.pop()
            count = len(children(node))
            arguments = values[-count:]
            del values[-count:]
            values.append(visit(node, arguments))
        else:
            below = children(node)
            if below:
                todo.append(node)
                todo.append(None)
                todo.extend(reversed(below))
            else:
                values.append(visit(node, ()))
    return values[0]


def to_text(tree):
    """Infix text, spelled as MARTY spells it: parse(to_text(tree)) == tree."""
    pieces, todo = [], [tree]                                # the stack holds nodes and finished text, in reverse
    while todo:
        node = todo.pop()
        kind = type(node)
        if kind is str:
            pieces.append(node)
        elif kind is Number:
            pieces.append(str(node.value))
        elif kind is Symbol:
            pieces.append(node.name)
        elif kind is Tensor:
            if node.name.startswith("p_"):
                pieces.append(f"{node.name}_{node.indices[0]}")
            else:
                pieces.append(f"{node.name}_{{{','.join(node.indices)}}}")
        elif kind is Field:
            indices = f"_{{{','.join(node.indices)}}}" if node.indices else ""
            suffixes = "".join(f"_{suffix}" for suffix in (node.kind, node.mark) if suffix)
            pieces.append(f"{node.name}{indices}(p_{node.leg}){suffixes}{'^(*)' if node.starred else ''}")
        else:
            todo.extend(reversed(list(_layout(node, kind))))
    return "".join(pieces)


def _layout(node, kind):
    """The text and child nodes of an inner node in reading order, parentheses where the grammar needs them."""
    if kind is Sum:
        for k, (term, minus) in enumerate(zip(node.terms, node.minus)):
            if k:
                yield " - " if minus else " + "
            yield from _within(term, (Sum,))
    elif kind is Product:
        for k, (factor, inverse) in enumerate(zip(node.factors, node.inverse)):
            if k:
                yield "/" if inverse else "*"
            yield from _within(factor, (Sum, Product, Negative))
    elif kind is Negative:
        yield "-"
        yield from _within(node.operand, (Sum, Negative))
    elif kind is Power:
        yield from _within(node.base, (Sum, Product, Negative, Power))
        yield "^"
        yield from _within(node.exponent, (Sum, Product, Negative))
    else:
        yield node.name + "("
        yield node.argument
        yield ")"


def _within(node, weaker):
    return ("(", node, ")") if type(node) in weaker else (node,)


# ---------------------------------------------------------------------------------------------------------------------
# Amplitudes: sums of products of scalars and tensors over one set of legs

class Term(NamedTuple):
    scalars: tuple              # of (node, divides): numbers, couplings, masses, propagator denominators
    tensors: tuple              # of Tensor and Field


def expand(tree):
    """The amplitude as a list of Terms: sums are multiplied out where tensors stand in them, and only there."""
    return _as_terms(fold(tree, _expand_node))


def _expand_node(node, values):
    """Value of a subtree: the node itself if it is a scalar, a list of Terms if tensors stand in it."""
    kind = type(node)
    if kind is Tensor or kind is Field:
        return [Term((), (node,))]
    if all(type(value) is not list for value in values):
        return node
    if kind is Sum:
        terms = []
        for value, minus in zip(values, node.minus):
            terms += _negated(value) if minus else _as_terms(value)
            if len(terms) > LARGEST:
                raise InputError(f"an amplitude with more than {LARGEST} terms")
        return terms
    if kind is Negative:
        return _negated(values[0])
    if kind is Product:
        scalars, terms = (), [Term((), ())]
        for value, inverse in zip(values, node.inverse):
            if type(value) is not list:
                scalars += ((value, inverse),)
            elif inverse:
                raise InputError("a tensor or a field stands in a denominator")
            else:
                if len(terms) * len(value) > LARGEST:
                    raise InputError(f"an amplitude with more than {LARGEST} terms")
                terms = [Term(left.scalars + right.scalars, left.tensors + right.tensors)
                         for left in terms for right in value]
        return [Term(scalars + term.scalars, term.tensors) for term in terms]
    raise InputError("a tensor or a field stands inside a power or a function")


def _as_terms(value):
    return value if type(value) is list else [Term(((value, False),), ())]


def _negated(value):
    return [Term(((Number(-1), False),) + term.scalars, term.tensors) for term in _as_terms(value)]


class Leg(NamedTuple):
    number: int                 # momentum p_number
    name: str                   # particle
    kind: str                   # 'u', 'v' or ''
    starred: bool
    mark: str                   # 'T', 'off' or '', see Field

    @property
    def incoming(self):
        """u and the incoming antiparticle's vbar = v^(*) come in, as do bosons without a star.

        Some bosons with a star come in too, as antiparticles: physics/particles.py tells which.
        """
        return self.starred if self.kind == "v" else not self.starred


def fields_of(terms):
    """The fields of an amplitude's legs, in the order of their momenta."""
    return sorted((tensor for tensor in terms[0].tensors if type(tensor) is Field), key=lambda field: field.leg)


def legs_of(terms):
    """Legs of an amplitude in the order of their momenta. InputError unless every term has each leg exactly once."""
    legs = None
    for term in terms:
        for field in term.tensors:
            if type(field) is Field and field.mark == "T" and (field.kind or len(field.indices) < 2):
                raise InputError(f"{field.name}(p_{field.leg}): only photons and gluons are marked _T")
        here = sorted(Leg(t.leg, t.name, t.kind, t.starred, t.mark) for t in term.tensors if type(t) is Field)
        if legs is None:
            legs = here
            if not legs:
                raise InputError("the amplitude has no external legs such as e_{i_3,%gam_1}(p_1)_u")
            if [leg.number for leg in legs] != list(range(1, len(legs) + 1)):
                raise InputError(f"the legs carry the momenta {', '.join(f'p_{leg.number}' for leg in legs)}, "
                                 f"expected p_1 to p_{len(legs)}, each once")
            if len({leg.incoming for leg in legs}) < 2 and not any(leg.starred and not leg.kind for leg in legs):
                raise InputError("all legs come in or all go out; at least one of each is expected")
        elif here != legs:
            raise InputError("the terms of the amplitude have different external legs")
    return legs


# what reading and computing a text from anywhere may end in, a model's answer too
UNCOMPUTABLE = InputError, ArithmeticError, ValueError, TypeError, RecursionError

# of each tensor the kinds of its indices: Lorentz, Dirac, colour of quarks, colour of gluons
INDEX_KINDS = dict(gamma="LDD", gamma_5="DD", P_L="DD", P_R="DD", f_SU3="AAA", g="LL", delta="??")
KIND_NAMES = {"L": "Lorentz", "D": "Dirac", "C": "quark colour", "A": "gluon colour"}
GENERATOR = re.compile(r"T_C_\d+")  # MARTY numbers them; all are those of the quarks
MOST_DELTAS = 100


def kinds_of(tensor):
    """The kind of each index of a tensor, and of each but the first one of a field: L, D, C, A, or ? for any."""
    if type(tensor) is Field:
        count = len(tensor.indices) - 1                      # the first one labels the polarisation
        return ("CD" if tensor.kind else "AL")[-count:] if count > 0 else ""
    if tensor.name.startswith("p_"):
        return "L"
    return "ACC" if GENERATOR.fullmatch(tensor.name) else INDEX_KINDS.get(tensor.name, "")


def check_indices(tensors):
    """InputError unless each index has one kind in all tensors and fields and deltas join two of one kind."""
    kinds, deltas = {}, []
    for tensor in tensors:
        indices, expected = [index.lstrip("+") for index in tensor.indices], kinds_of(tensor)
        if type(tensor) is Field:
            indices = indices[1:]                            # the first one labels the polarisation
            if len(indices) > 2 or tensor.kind and not indices:
                raise InputError(
                    f"{tensor.name}(p_{tensor.leg}): expected a label, [colour,] and a Dirac or Lorentz index"
                )
        else:
            if tensor.name == "C" and len(indices) == 2:
                raise InputError("the charge conjugation matrix C: Majorana fermions are not supported")
            if len(indices) != len(expected):
                raise InputError(f"unknown tensor {tensor.name} with {len(indices)} indices")
            if tensor.name == "delta":
                deltas.append(indices)
                continue
        for index, kind in zip(indices, expected):
            if kinds.setdefault(index, kind) != kind:
                raise InputError(f"index {index} is a {KIND_NAMES[kinds[index]]} index and a {KIND_NAMES[kind]} index")
    if len(deltas) > MOST_DELTAS:
        raise InputError(f"more than {MOST_DELTAS} deltas in a term")
    for left, right in deltas * len(deltas):                 # a chain of deltas has its kind at an end
        kind, other = kinds.get(left), kinds.get(right)
        if kind and other and kind != other:
            raise InputError(
                f"a delta joins {left}, a {KIND_NAMES[kind]} index, and {right}, a {KIND_NAMES[other]} index"
            )
        if kind or other:
            kinds[left] = kinds[right] = kind or other


def names_in(tree):
    """Names of all symbols in a tree."""
    names = set()

    def visit(node, _):
        if type(node) is Symbol:
            names.add(node.name)

    fold(tree, visit)
    return names
