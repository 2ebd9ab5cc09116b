r"""Formulas in the notations of other tools: LaTeX, SymPy, Mathematica, FORM, Python with NumPy.

    document({"f": parse(sqamp)}, "python")      a whole source text, its symbols defined once
    formula(parse(sqamp), "mathematica")         one expression alone
    to_sympy(parse(sqamp))                       the SymPy object
    to_function(parse(sqamp))                    f(s_12=..., m_e=...), vectorised over phase-space points

A formula is written from its tree in a normal form: numbers are added up and multiplied out, every product is one
fraction. The order of terms and factors stays. Amplitudes, with their Dirac matrices and fields, have a LaTeX form too.
"""
import collections
import functools
import inspect
import keyword
import re
import textwrap
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from physics.expression import (
    INVARIANT,
    Field,
    Function,
    Negative,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    Tensor,
    conjugate,
    epsilon_legs,
    expand,
    fold,
    is_complex,
    names_in,
    to_text,
)
from physics.numeric import evaluate
from physics.polynomial import rank
from runtime.files import InputError

FORMATS = ("text", "latex", "sympy", "mathematica", "form", "python")
LARGEST_BITS = 100_000       # of the numbers in a power of numbers, some 30,000 digits
LARGEST_EXACT = 2**53        # a larger integer is written as a floating-point number in Python
HALF = Fraction(1, 2)
WIDTH = 110                  # of the lines of a document


# ---------------------------------------------------------------------------------------------------------------------
# The normal form: a tree of Fraction, Symbol, Sum (nothing subtracted), Ratio, Power (positive exponents), Function

class Ratio(NamedTuple):
    coefficient: Fraction       # not zero
    above: tuple                # factors, none of them a Fraction or a Ratio
    below: tuple                # factors of the denominator, likewise


def normal(tree):
    """The normal form of a scalar expression. InputError for a tensor, a field, or a division by zero."""
    try:
        return fold(tree, _normal_node)
    except ZeroDivisionError:
        raise InputError("division by zero") from None


def _normal_node(node, values):
    kind = type(node)
    if kind is Number:
        return Fraction(node.value)
    if kind is Symbol:
        return node
    if kind is Negative:
        return _product([(Fraction(-1), False), (values[0], False)])
    if kind is Sum:
        terms = []
        for value, minus in zip(values, node.minus):
            value = _product([(Fraction(-1), False), (value, False)]) if minus else value
            terms += value.terms if type(value) is Sum else (value,)
        if all(type(term) is Fraction for term in terms):
            return sum(terms)
        return Sum(tuple(terms), (False,) * len(terms))
    if kind is Product:
        return _product(zip(values, node.inverse))
    if kind is Function:
        return Function(node.name, values[0])
    if kind is Power:
        return _power(*values)
    raise InputError("an amplitude, with its tensors and fields, can be written as text and LaTeX only")


def _product(factors):
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


def _power(base, exponent):
    if type(exponent) is not Fraction:
        return Power(base, exponent)
    if abs(exponent) > 1000:
        raise InputError("an exponent above 1000")
    if type(base) is Fraction and exponent.denominator == 1:
        if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) > LARGEST_BITS:
            raise InputError("a power of numbers with more than 30,000 digits")
        return base ** int(exponent)
    if exponent < 0:
        return _product([(_power(base, -exponent), True)])
    if exponent == 0:
        return Fraction(1)
    return base if exponent == 1 else Power(base, exponent)


def _signed(node):
    """("-" or "", the node without that sign)."""
    if type(node) is Fraction and node < 0 or type(node) is Ratio and node.coefficient < 0:
        return "-", _product([(Fraction(-1), False), (node, False)])
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


def _sum_layout(terms, brackets):
    pieces = []
    for k, term in enumerate(terms):
        sign, term = _signed(term)
        pieces += [f" {sign or '+'} " if k else sign, *_factor(term, brackets)]
    return pieces


def _factor(node, brackets):
    """A factor, or what stands behind a sign: a sum is put in brackets."""
    return [brackets[0], node, brackets[1]] if type(node) is Sum else [node]


def _joined(pieces, separator):
    """[[a, b], [c]] -> [a, b, separator, c]."""
    return [piece for k, group in enumerate(pieces) for piece in ([separator] if k else []) + group]


# ---------------------------------------------------------------------------------------------------------------------
# SymPy, Mathematica, FORM, Python: one infix notation with other operators and names

class Language(NamedTuple):
    power: str
    call: str                   # how a call of the function {} begins
    close: str                  # how it ends
    number: str                 # how a fraction that stands alone is written


LANGUAGES = {
    "python": Language("**", "numpy.{}(", ")", "{}/{}"),
    "sympy": Language("**", "sympy.{}(", ")", "sympy.Rational({}, {})"),
    "mathematica": Language("^", "{}[", "]", "{}/{}"),
    "form": Language("^", "{}_(", ")", "{}/{}"),
}


def _infix(node, format, names):
    """Layout of a node. names: what each symbol is called."""
    language, kind = LANGUAGES[format], type(node)
    if kind is Fraction:
        if node.denominator == 1:
            return [_integer(node.numerator, format)]
        return [language.number.format(*(_integer(n, format) for n in node.as_integer_ratio()))]
    if kind is Symbol:
        return [names[node.name]]
    if kind is Sum:
        return _sum_layout(node.terms, "()")
    if kind is Function:
        name = node.name.capitalize() if format == "mathematica" else node.name
        return [language.call.format(name), node.argument, language.close]
    if kind is Ratio:
        sign, ratio = _signed(node)
        if sign:
            return [sign, *_factor(ratio, "()")]
        return _form_ratio(node) if format == "form" else _ratio(node, format)
    if format == "form":
        return _form_power(node)
    whole = type(node.exponent) is Fraction and (node.exponent.denominator == 1 or format == "sympy")
    simple = whole or type(node.exponent) is Symbol
    return [*_atom(node.base), language.power, *([node.exponent] if simple else ["(", node.exponent, ")"])]


def _integer(value, format):
    if format != "python" or abs(value) < LARGEST_EXACT:
        return str(value)
    try:
        return repr(float(value))
    except OverflowError:
        raise InputError("a number too large for floating-point numbers") from None


def _atom(node):
    """A base of a power: in parentheses unless it is a positive integer, a symbol or a function."""
    simple = type(node) in (Symbol, Function) or type(node) is Fraction and node.denominator == 1 and node >= 0
    return [node] if simple else ["(", node, ")"]


def _ratio(node, format):
    above = [_factor(factor, "()") for factor in node.above]
    if abs(node.coefficient.numerator) != 1 or not above:
        above.insert(0, [_integer(node.coefficient.numerator, format)])
    below = [_factor(factor, "()") for factor in node.below]
    if node.coefficient.denominator != 1:
        below.insert(0, [_integer(node.coefficient.denominator, format)])
    above, below, several = _joined(above, "*"), _joined(below, "*"), len(below) > 1
    if not below:
        return above
    return [*above, "/(", *below, ")"] if several else [*above, "/", *below]


def _form_ratio(node):
    """FORM divides by numbers and symbols only; den(x) stands for 1/x of all others."""
    pieces = []
    if node.coefficient != 1 or not node.above and not node.below:
        pieces.append([str(node.coefficient)])
    pieces += [_factor(factor, "()") for factor in node.above]
    for factor in node.below:
        base, exponent = factor if type(factor) is Power else (factor, Fraction(1))
        whole = type(exponent) is Fraction and exponent.denominator == 1
        if type(base) is Symbol and whole and _has_inverse_in_form(base.name):
            pieces.append([base, f"^(-{exponent})"])
        else:
            power = f"^{exponent}" if whole and exponent != 1 else ""
            pieces.append(["den(", base if whole else factor, ")" + power])
    return _joined(pieces, "*")


def _has_inverse_in_form(name):
    return name != "i" and not epsilon_legs(name)


def _form_power(node):
    base, exponent = node
    if type(exponent) is not Fraction or exponent.denominator > 2:
        raise InputError("FORM has no powers but whole ones and square roots")
    if exponent.denominator == 2:
        return ["sqrt_(", base, ")"] + ([f"^{exponent.numerator}"] if exponent.numerator > 1 else [])
    return [*_atom(base), f"^{exponent}"]


# ---------------------------------------------------------------------------------------------------------------------
# Names

RESERVED = {                    # what a symbol cannot be called
    "python": {"numpy", "f"},
    "sympy": {"sympy", "f"},
    # built-in symbols of Mathematica that may well be a symbol's name; those of physics mostly begin with small letters
    "mathematica": set("C D E I K N O Pi Degree Sin Cos Tan Conjugate Beta Gamma Zeta Sum Product Power Plus Times Re "
                       "Im Abs Sqrt Max Min Mod List Log Exp Limit Set Integrate Head Rule True False Null f".split()),
    "form": {"den", "f"},
}
IMAGINARY = {"python": "1j", "sympy": "sympy.I", "mathematica": "I", "form": "i_"}
CONJUGATE = {"python": "numpy.conj({})", "sympy": "sympy.conjugate({})", "mathematica": "Conjugate[{}]"}


def identifiers(names, format):
    """{symbol: what it is called} for all symbols but i and conjugates, in the order in which arguments stand.

    `V_ub^(*)` counts as V_ub, except in FORM, which has no conjugates.
    """
    plain = {name if format == "form" else name.removesuffix("^(*)") for name in names} - {"i"}
    plain = sorted(plain, key=lambda name: (rank(name), name))
    chosen = {}
    for name in plain:
        called = re.sub(r"\W+", "", name.replace("eps(p_", "eps_").replace(",p_", "").replace("^(*)", "conj"))
        if format in ("mathematica", "form"):
            called = called.replace("_", "") or "x"
        while (called in RESERVED[format] or keyword.iskeyword(called) or re.fullmatch(r"f_?\d+|p\d+", called)
               or called in chosen.values() or called != name and called in plain):
            called += "x" if format in ("mathematica", "form") else "_"
        chosen[name] = called
    return chosen


def _spelling(names, format):
    """{symbol: its text} for the symbols of a formula, i, conjugates and FORM's products of momenta included."""
    chosen = identifiers(names, format)
    spelled = dict(chosen)
    for name in names:
        if name == "i":
            spelled[name] = IMAGINARY[format]
        elif format == "form":
            spelled[name] = _form_momenta(name) or chosen[name]
        elif name not in chosen:
            spelled[name] = CONJUGATE[format].format(chosen[conjugate(name)])
    return spelled


def _form_momenta(name):
    """FORM's own notation of s_ij and epsilon tensors, "" for other symbols."""
    if INVARIANT.fullmatch(name) and len(name) == 4:
        return f"p{name[2]}.p{name[3]}"
    if legs := epsilon_legs(name):                           # FORM's e_ is i eps, see physics/square.py
        return f"(-i_*e_({','.join(f'p{k}' for k in legs)}))"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# LaTeX

BRACKETS = r"\left(", r"\right)"
GREEK = set("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi "
            "psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split())
PARTICLES = {"A": r"\gamma", "G": "g", "Wm": "W^{-}"}


def latex_name(name):
    r"""A symbol or particle: `m_mu` is m_{\mu}, `s_12` is s_{12}, `m_nu_e` is m_{\nu_{e}}, `reg_prop` is \epsilon."""
    if name == "reg_prop":
        return r"\epsilon"
    if legs := epsilon_legs(name):
        return rf"\varepsilon\left({', '.join(f'p_{{{k}}}' for k in legs)}\right)"
    if name.endswith("^(*)"):
        return latex_name(conjugate(name)) + "^{*}"
    if is_complex(name) and re.fullmatch(r"V_[A-Za-z]+", name):
        return f"V_{{{name[2:]}}}"
    parts = name.split("_")
    if not all(parts):
        return rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}"
    text = ""
    for part in reversed(parts):
        head = r"\varepsilon" if part == "epsilon" else "\\" + part if part in GREEK else part
        if head == part and len(part) > 1 and not part.isdigit():
            head = rf"\mathrm{{{part}}}"
        text = f"{head}_{{{text}}}" if text else head
    return text


def _latex(node):
    kind = type(node)
    if kind is Fraction:
        return [str(node)] if node.denominator == 1 else [r"\frac{%d}{%d}" % node.as_integer_ratio()]
    if kind is Symbol:
        return [latex_name(node.name)]
    if kind is Sum:
        return _sum_layout(node.terms, BRACKETS)
    if kind is Function:
        if type(node.argument) is Symbol:
            return [rf"\{node.name} ", node.argument]
        return [rf"\{node.name}", r"\left(", node.argument, r"\right)"]
    if kind is Power:
        return _latex_power(*node)
    sign, ratio = _signed(node)
    if sign:
        return [sign, *_factor(ratio, BRACKETS)]
    above = _latex_factors(node.coefficient.numerator, node.above)
    if not node.below and node.coefficient.denominator == 1:
        return above
    return [r"\frac{", *above, "}{", *_latex_factors(node.coefficient.denominator, node.below), "}"]


def _latex_factors(number, factors):
    """number * factors; a sum that is the only factor needs no parentheses in a fraction, where it would stand."""
    if not factors:
        return [str(number)]
    if number == 1 and len(factors) == 1:
        return list(factors)
    pieces = [_factor(factor, BRACKETS) for factor in factors]
    return _joined(pieces if number == 1 else [[str(number)], *pieces], " ")


def _latex_power(base, exponent):
    if exponent == HALF:
        return [r"\sqrt{", base, "}"]
    if type(base) is Function and type(base.argument) is Symbol:
        return [rf"\{base.name}^{{", exponent, "} ", base.argument]
    if type(base) is Symbol and not base.name.endswith("^(*)") and not epsilon_legs(base.name):
        return [base, "^{", exponent, "}"]
    return [r"\left(", base, r"\right)^{", exponent, "}"]


def to_latex(tree):
    """LaTeX of a square or an amplitude, in math mode. InputError for an amplitude whose indices do not close."""
    if not _is_amplitude(tree):
        return write(normal(tree), _latex)
    front, terms = _latex_amplitude(expand(tree))
    if not front or len(terms) == 1:
        return front + "".join(terms)
    return rf"{front}\left({''.join(terms)}\right)"


def latex_lines(tree, longest=100):
    """The LaTeX of a tree in lines of about so many characters as they are printed, broken between terms."""
    lines = []
    for piece in _amplitude_pieces(tree) if _is_amplitude(tree) else _square_pieces(normal(tree), longest):
        if lines and _printed(lines[-1] + piece) <= longest:
            lines[-1] += piece
        else:
            lines.append(piece.strip() if not lines else f"{{}}{piece}")
    return lines


def _is_amplitude(tree):
    found = []
    fold(tree, lambda node, _: found.append(node) if type(node) in (Tensor, Field) else None)
    return bool(found)


def _amplitude_pieces(tree):
    front, terms = _latex_amplitude(expand(tree))
    if not front or len(terms) == 1:
        return [front + terms[0], *terms[1:]]
    return [f"{front}(", *terms[:-1], f"{terms[-1]})"]


def _square_pieces(tree, longest):
    """What a line may hold: the terms of a square. A long term that has one sum as a factor is broken within it."""
    pieces = []
    for sign, term in _latex_terms(tree.terms if type(tree) is Sum else (tree,)):
        text = _latex_factor(term)
        sums = [factor for factor in term.above if type(factor) is Sum] if type(term) is Ratio else []
        if len(sums) == 1 and _printed(text) > longest:
            others = [factor for factor in term.above if factor is not sums[0]]
            front = _product([(term.coefficient, False), *((factor, False) for factor in others),
                              *((factor, True) for factor in term.below)])
            first, *rest = [inner_sign + _latex_factor(inner) for inner_sign, inner in _latex_terms(sums[0].terms)]
            pieces += [f"{sign}{'' if front == 1 else write(front, _latex) + ' '}({first}", *rest]
            pieces[-1] += ")"
        else:
            pieces.append(sign + text)
    return pieces


def _latex_terms(terms):
    """(sign to write before it, term without its sign) of each term of a sum."""
    for k, (sign, term) in enumerate(map(_signed, terms)):
        yield f" {sign or '+'} " if k else sign, term


def _latex_factor(node):
    return "".join(piece if type(piece) is str else write(piece, _latex) for piece in _factor(node, BRACKETS))


def _printed(latex):
    """About how many characters of a formula are printed."""
    commands = re.sub(r"\\(left|right|mathrm|frac|bar|not|sqrt)\b", "", latex)
    return len(re.sub(r"[{}^_!\s]", "", re.sub(r"\\[A-Za-z]+", "x", commands)))


# ---------------------------------------------------------------------------------------------------------------------
# LaTeX of amplitudes: scalars in front, then each term with its Dirac lines as in a paper

LETTERS = {"Lorentz": r"\mu \nu \rho \sigma \lambda \kappa \tau \alpha \beta".split(),
           "gluon": "a b c d".split(), "quark": "i j k l m n".split()}
DIRAC = {"P_L": "P_{L}", "P_R": "P_{R}", "gamma_5": r"\gamma_{5}"}


def _latex_amplitude(terms):
    """(what stands in front of all terms, "" for 1; each term with its sign)."""
    keys = [collections.Counter((to_text(node), divides) for node, divides in term.scalars) for term in terms]
    common = functools.reduce(lambda left, right: left & right, keys)
    sign, scalars = _latex_scalars(terms[0].scalars, common)
    front = f"{sign}{scalars} " if scalars else sign
    texts = []
    for k, (term, key) in enumerate(zip(terms, keys)):
        sign, scalars = _latex_scalars(term.scalars, key - common)
        texts.append((f" {sign or '+'} " if k else sign) + f"{scalars} {_latex_tensors(term.tensors)}".strip())
    return front, texts


def _latex_scalars(scalars, wanted):
    """(sign, LaTeX of the wanted ones among a term's scalars), "" for 1. wanted: a Counter of (text, divides)."""
    left, factors = collections.Counter(wanted), []
    for node, divides in scalars:
        if left[key := (to_text(node), divides)]:
            left[key] -= 1
            factors.append((normal(node), divides))
    sign, value = _signed(_product(factors))
    if value == 1:
        return sign, ""
    text = write(value, _latex)
    return sign, rf"\left({text}\right)" if type(value) is Sum else text


class _Letters:
    """LaTeX names of a term's indices, by first appearance, without the letters that name its particles."""

    def __init__(self, tensors):
        self.known = {}
        taken = {"\\" + part for tensor in tensors if type(tensor) is Field for part in tensor.name.split("_")}
        self.letters = LETTERS | {"Lorentz": [letter for letter in LETTERS["Lorentz"] if letter not in taken]}

    def __call__(self, index, kind):
        index = index.lstrip("+")
        if index not in self.known:
            number, letters = sum(name[1] == kind for name in self.known.values()), self.letters[kind]
            round_, place = divmod(number, len(letters))
            self.known[index] = letters[place] + (f"_{{{round_}}}" if round_ else ""), kind
        return self.known[index][0]

    def lorentz(self, index):
        """^{\\mu} where the index stands first, then _{\\mu}."""
        place = "_" if index.lstrip("+") in self.known else "^"
        return f"{place}{{{self(index, 'Lorentz')}}}"


def _latex_tensors(tensors):
    """A term's tensors and fields: momenta, colour, the Dirac lines, the bosons' polarisation vectors."""
    letters, momenta = _Letters(tensors), {}
    for tensor in tensors:
        if tensor.name.startswith("p_") and type(tensor) is Tensor:
            momenta.setdefault(_bare(tensor.indices[0]), []).append(tensor)
    lines, slashed = _dirac_lines(tensors), set()
    for line in lines:
        for tensor in line:
            if type(tensor) is Tensor and tensor.name == "gamma":
                index = _bare(tensor.indices[0])
                if len(momenta.get(index, ())) == 1:
                    slashed.add(index)
    pieces = []
    for tensor in tensors:
        if type(tensor) is Tensor and tensor.name.startswith("p_") and _bare(tensor.indices[0]) not in slashed:
            pieces.append(_latex_momentum(tensor, letters))
    kinds = _colour_kinds(tensors)
    for tensor in tensors:
        if type(tensor) is Field or tensor.name.startswith("p_") or _is_dirac(tensor, kinds):
            continue
        pieces.append(_latex_tensor(tensor, kinds, letters))
    for line in lines:
        for tensor in line:
            if type(tensor) is Field:
                pieces.append(_latex_field(tensor, letters))
            elif tensor.name in DIRAC:
                pieces.append(DIRAC[tensor.name])
            elif tensor.name == "gamma":
                index = _bare(tensor.indices[0])
                pieces.append(rf"{{p\!\!\!/}}_{{{momenta[index][0].name[2:]}}}" if index in slashed
                              else rf"\gamma{letters.lorentz(tensor.indices[0])}")
    pieces += [_latex_field(tensor, letters) for tensor in tensors if type(tensor) is Field and not tensor.kind]
    return " ".join(pieces)


def _latex_momentum(tensor, letters):
    place = letters.lorentz(tensor.indices[0])
    return f"p_{{{tensor.name[2:]}}}{place}" if place[0] == "^" else f"p_{{{tensor.name[2:]} {place[2:]}"


def _bare(index):
    return index.lstrip("+")


def _colour_kinds(tensors):
    """{index: "Dirac", "quark", "gluon" or "Lorentz"} by the places where the indices of a term stand."""
    kinds = {}
    for tensor in tensors:
        indices = [_bare(index) for index in tensor.indices]
        if type(tensor) is Field:
            if len(indices) > 2:
                kinds[indices[1]] = "quark" if tensor.kind else "gluon"
            if len(indices) > 1:
                kinds[indices[-1]] = "Dirac" if tensor.kind else "Lorentz"
        elif tensor.name == "gamma" and len(indices) == 3:
            kinds |= dict(zip(indices, ("Lorentz", "Dirac", "Dirac")))
        elif tensor.name in DIRAC:
            kinds |= dict.fromkeys(indices, "Dirac")
        elif re.fullmatch(r"T_C_\d+", tensor.name) and len(indices) == 3:
            kinds |= dict(zip(indices, ("gluon", "quark", "quark")))
        elif tensor.name == "f_SU3":
            kinds |= dict.fromkeys(indices, "gluon")
        elif tensor.name.startswith("p_"):
            kinds[indices[0]] = "Lorentz"
        elif tensor.name == "g":
            kinds |= dict.fromkeys(indices, "Lorentz")
    deltas = [tuple(map(_bare, tensor.indices)) for tensor in tensors if tensor.name == "delta"]
    for _ in deltas:                                         # the two indices of a delta are of one kind
        for left, right in deltas:
            if left in kinds or right in kinds:
                kinds[left] = kinds[right] = kinds.get(left) or kinds[right]
    return kinds


def _is_dirac(tensor, kinds):
    return tensor.name in ("gamma", *DIRAC) or tensor.name == "delta" and kinds.get(_bare(tensor.indices[0])) == "Dirac"


def _dirac_lines(tensors):
    """The Dirac lines of a term, each from its ubar or vbar through the matrices to its u or v. Raises InputError."""
    kinds = _colour_kinds(tensors)
    matrices = [tensor for tensor in tensors if type(tensor) is Tensor and _is_dirac(tensor, kinds)]
    rows = {_bare(tensor.indices[-2]): tensor for tensor in matrices}
    spinors = [tensor for tensor in tensors if type(tensor) is Field and tensor.kind]
    ends = {_bare(field.indices[-1]): field for field in spinors if not field.starred}
    lines = []
    for field in spinors:
        if field.starred:
            line, index = [field], _bare(field.indices[-1])
            while index in rows:
                line.append(rows.pop(index))
                index = _bare(line[-1].indices[-1])
            if index not in ends:
                raise InputError(f"the Dirac index {index} leads to no u or v")
            lines.append([*line, ends.pop(index)])
    if rows or ends or len(rows) + sum(map(len, lines)) != len(matrices) + len(spinors):
        raise InputError("the Dirac matrices do not form lines from a ubar or vbar to a u or v")
    return lines


def _latex_tensor(tensor, kinds, letters):
    indices = tensor.indices
    if re.fullmatch(r"T_C_\d+", tensor.name) and len(indices) == 3:
        quarks = " ".join(letters(index, "quark") for index in indices[1:])
        return f"T^{{{letters(indices[0], 'gluon')}}}_{{{quarks}}}"
    if tensor.name == "f_SU3" and len(indices) == 3:
        return f"f^{{{' '.join(letters(index, 'gluon') for index in indices)}}}"
    kind = kinds.get(_bare(indices[0]))
    if tensor.name in ("g", "delta") and len(indices) == 2 and kind == "Lorentz":
        return f"g{letters.lorentz(indices[0])}{{}}{letters.lorentz(indices[1])}".replace("}{}^{", " ")
    if tensor.name == "delta" and len(indices) == 2 and kind in ("quark", "gluon"):
        return rf"\delta_{{{' '.join(letters(index, kind) for index in indices)}}}"
    raise InputError(f"unknown tensor {tensor.name} with {len(indices)} indices")


MARKS = {"T": r",\perp", "off": r",\mathrm{off}", "": ""}


def _latex_field(field, letters):
    """u_{e}(p_{1}), \\bar{v}_{e}(p_{2}), \\varepsilon^{*}_{\\gamma}{}^{\\mu}(p_{4}), \\phi_{h}(p_{3})."""
    who = PARTICLES.get(field.name) or latex_name(field.name)
    below, momentum = f"_{{{who}{MARKS[field.mark]}}}", f"(p_{{{field.leg}}})"
    colour = field.indices[1:-1]
    if field.kind:
        letter = rf"\bar{{{field.kind}}}" if field.starred else field.kind
        above = f"^{{{letters(colour[0], 'quark')}}}" if colour else ""
        return f"{letter}{above}{below}{momentum}"
    star = "*" if field.starred else ""
    if len(field.indices) < 2:
        return rf"\phi{f'^{{{star}}}' if star else ''}{below}{momentum}"
    above = " ".join(filter(None, [star, letters(colour[0], "gluon") if colour else ""]))
    above = f"^{{{above}}}" if above else ""
    return rf"\varepsilon{above}{below}{{}}{letters.lorentz(field.indices[-1])}{momentum}"


# ---------------------------------------------------------------------------------------------------------------------
# SymPy objects and functions of NumPy arrays

def to_sympy(tree):
    """The SymPy expression of a scalar tree. Its symbols have the names of `identifiers`: Symbol("s_12"), ..."""
    import sympy

    names = identifiers(names_in(tree), "sympy")

    def visit(node, values):
        kind = type(node)
        if kind is Number:
            return sympy.Integer(node.value)
        if kind is Symbol:
            if node.name == "i":
                return sympy.I
            if node.name in names:
                return sympy.Symbol(names[node.name])
            return sympy.conjugate(sympy.Symbol(names[conjugate(node.name)]))
        if kind is Negative:
            return -values[0]
        if kind is Sum:
            return sympy.Add(*(-value if minus else value for value, minus in zip(values, node.minus)))
        if kind is Product:
            return sympy.Mul(*(1 / value if inverse else value for value, inverse in zip(values, node.inverse)))
        if kind is Power:
            return values[0] ** values[1]
        if kind is Function:
            return getattr(sympy, node.name)(values[0])
        raise InputError("an amplitude, with its tensors and fields, is no SymPy expression")

    normal(tree)                                             # raises for what cannot be written
    return fold(tree, visit)


def to_function(tree):
    """
    A function of a scalar tree's symbols, by keyword: numbers or NumPy arrays, of one shape or broadcast.

    A symbol's argument has the name of `identifiers`: s_12, m_e, reg_prop, eps_1234. The result is real unless i or a
    complex argument makes it complex.
    """
    normal(tree)                                             # raises for what cannot be written
    symbols = names_in(tree)
    names = identifiers(symbols, "python")
    arguments = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names.values()]
    signature = inspect.Signature(arguments)

    def f(**arguments):
        signature.bind(**arguments)                          # TypeError that names a missing or unknown argument
        values = {symbol: np.asarray(arguments[name]) * 1.0 for symbol, name in names.items()}
        values["i"] = 1j
        values |= {name: np.conj(values[conjugate(name)]) for name in symbols if name not in values}
        return evaluate(tree, values)

    f.__signature__ = signature
    f.__doc__ = definitions(symbols, names) or None
    return f


# ---------------------------------------------------------------------------------------------------------------------
# One formula, and whole documents

COMMENTS = {"text": "{}", "latex": "% {}", "sympy": "# {}", "mathematica": "(* {} *)", "form": "* {}", "python": "# {}"}


def check_format(format):
    """InputError for a notation that is not there."""
    if format not in FORMATS:
        raise InputError(f"format: got '{format}', wanted one of {', '.join(FORMATS)}")


def comment(line, format):
    """A line of text as a comment of a document."""
    return COMMENTS[format].format(line)


def formula(tree, format):
    """A tree as one expression: text, latex, sympy, mathematica, form or python. InputError for what it cannot hold."""
    if format == "text":
        return to_text(tree)
    if format == "latex":
        return to_latex(tree)
    return _formula(tree, format, _spelling(names_in(tree), format))


def _formula(tree, format, names):
    tree = normal(tree)
    if format == "sympy" and type(tree) is Fraction:
        return "sympy.Rational({}, {})".format(*tree.as_integer_ratio())
    return write(tree, lambda node: _infix(node, format, names))


def definitions(symbols, names):
    """What the symbols are that need an explanation, as one line: "s_12 = p_1.p_2, ..."."""
    told = []
    for symbol, name in names.items():
        if symbol not in symbols:
            continue
        if INVARIANT.fullmatch(symbol) and len(symbol) == 4:
            told.append(f"{name} = p_{symbol[2]}.p_{symbol[3]}")
        elif legs := epsilon_legs(symbol):
            told.append(f"{name} = determinant of the contravariant components of {', '.join(f'p_{k}' for k in legs)}")
        elif symbol == "reg_prop":
            told.append(f"{name} is added to q^2 - m^2 in the denominator of each propagator")
    return ", ".join(told)


def document(trees, format):
    """
    A source text of {name: tree}, for LaTeX a file that compiles: symbols are declared and defined once, at its
    beginning. Names: `f`, or `f_1`, `f_2`, ... for several.
    """
    if format == "text":
        return "".join(f"{to_text(tree)}\n" for tree in trees.values())
    if format == "latex":
        return _latex_document(trees)
    symbols = set().union(*map(names_in, trees.values()))
    names, spelled = identifiers(symbols, format), _spelling(symbols, format)
    told = definitions(symbols, {name: spelled[name] for name in names if format != "form" or name == "reg_prop"})
    texts = {name: _formula(tree, format, spelled) for name, tree in trees.items()}
    if format == "mathematica":
        lines = [comment(line, format) for line in textwrap.wrap(told, WIDTH)]
        return "\n".join([*lines, *(f"{name.replace('_', '')} = {text};" for name, text in texts.items())]) + "\n"
    if format == "form":
        return _form_document(texts, names, told)
    lines = [comment(line, format) for line in textwrap.wrap(told, WIDTH)]
    if format == "sympy":
        lines.append("import sympy\n")
        if names:
            several = f"{', '.join(names.values())} = sympy.symbols({' '.join(names.values())!r})"
            lines.append(several if len(names) > 1 else several.replace("symbols", "Symbol"))
        return "\n".join([*lines, *(f"{name} = {text}" for name, text in texts.items())]) + "\n"
    lines.append("import numpy\n")
    for name, text in texts.items():
        own = identifiers(names_in(trees[name]), format)
        arguments = ", ".join(["*", *(names[symbol] for symbol in own)]) if own else ""
        lines.append(f"\ndef {name}({arguments}):\n    return {text}\n")
    return "\n".join(lines)


def _form_document(texts, names, told):
    symbols = [name for symbol, name in names.items() if not _form_momenta(symbol)]
    legs = {int(leg) for name in names if _form_momenta(name) for leg in epsilon_legs(name) or name[2:]}
    lines = ["* den(x) = 1/x" + (f", {told}" if told else "")]
    if symbols:
        lines.append(f"Symbols {', '.join(symbols)};")
    if legs:
        lines.append(f"Vectors {', '.join(f'p{k}' for k in sorted(legs))};")
    lines.append("CFunction den;")
    for name, text in texts.items():
        lines += textwrap.wrap(f"Local {name.replace('_', '')} = {text};", WIDTH, subsequent_indent="    ",
                               break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines, "Print;", ".end"]) + "\n"


def _latex_document(trees):
    symbols = set().union(*map(names_in, trees.values()))
    lines = [r"\documentclass{article}", r"\usepackage{amsmath}", r"\allowdisplaybreaks", r"\begin{document}"]
    if told := latex_definitions(symbols):
        lines.append(f"Here {told}.")
    for name, tree in trees.items():
        letter, _, number = name.partition("_")
        lines.append(r"\begin{align*}")
        lines.append(rf"{letter}{f'_{{{number}}}' if number else ''} ={{}}& " + " \\\\\n& ".join(latex_lines(tree)))
        lines.append(r"\end{align*}")
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def latex_definitions(symbols):
    r"""What s_{ij} and \epsilon are, for those that occur: text in which formulas stand between dollars."""
    told = []
    if any(INVARIANT.fullmatch(name) for name in symbols):
        told.append(r"$s_{ij} = p_i \cdot p_j$")
    if "reg_prop" in symbols:
        told.append(r"$\epsilon$ is added to $q^2 - m^2$ in the denominator of each propagator")
    if any(map(epsilon_legs, symbols)):
        told.append(r"$\varepsilon(p_i, p_j, p_k, p_l)$ is the determinant of the contravariant components of the four "
                    "momenta")
    return ", ".join(told)
