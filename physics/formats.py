r"""Formulas in the notations of other tools: LaTeX, SymPy, Mathematica, FORM, Python with NumPy.

    document({"f": parse(sqamp)}, "python")      a whole source text, its symbols defined once
    formula(parse(sqamp), "mathematica")         one expression alone
    to_sympy(parse(sqamp))                       the SymPy object
    to_function(parse(sqamp))                    f(s_12=..., m_e=...), vectorised over phase-space points

Formulas are written with every product as one fraction (scalars.py). LaTeX, of amplitudes too, is in latex.py.
"""
import inspect
import keyword
import re
import textwrap
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from physics import latex
from physics.expression import (
    INVARIANT,
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
    names_in,
    parse,
    to_text,
)
from physics.numeric import evaluate
from physics.polynomial import rank
from physics.scalars import Ratio, as_fraction, bracketed, joined, signed, sum_layout, write
from runtime.files import InputError

FORMATS = ("text", "latex", "sympy", "mathematica", "form", "python")
LARGEST_EXACT = 2**53        # a larger integer is written as a floating-point number in Python
WIDTH = 110                  # of the lines of a document


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
        return sum_layout(node.terms, "()")
    if kind is Function:
        name = node.name.capitalize() if format == "mathematica" else node.name
        return [language.call.format(name), node.argument, language.close]
    if kind is Ratio:
        sign, ratio = signed(node)
        if sign:
            return [sign, *bracketed(ratio, "()")]
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
    above = [bracketed(factor, "()") for factor in node.above]
    if abs(node.coefficient.numerator) != 1 or not above:
        above.insert(0, [_integer(node.coefficient.numerator, format)])
    below = [bracketed(factor, "()") for factor in node.below]
    if node.coefficient.denominator != 1:
        below.insert(0, [_integer(node.coefficient.denominator, format)])
    above, below, several = joined(above, "*"), joined(below, "*"), len(below) > 1
    if not below:
        return above
    return [*above, "/(", *below, ")"] if several else [*above, "/", *below]


def _form_ratio(node):
    """FORM divides by numbers and symbols only; den(x) stands for 1/x of all others."""
    pieces = []
    if node.coefficient != 1 or not node.above and not node.below:
        pieces.append([str(node.coefficient)])
    pieces += [bracketed(factor, "()") for factor in node.above]
    for factor in node.below:
        base, exponent = factor if type(factor) is Power else (factor, Fraction(1))
        whole = type(exponent) is Fraction and exponent.denominator == 1
        if type(base) is Symbol and whole and _has_inverse_in_form(base.name):
            pieces.append([base, f"^(-{exponent})"])
        else:
            power = f"^{exponent}" if whole and exponent != 1 else ""
            pieces.append(["den(", base if whole else factor, ")" + power])
    return joined(pieces, "*")


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

    as_fraction(tree)                                        # raises for what cannot be written
    return fold(tree, visit)


def to_function(tree):
    """
    A function of a scalar tree's symbols, by keyword: numbers or NumPy arrays, of one shape or broadcast.

    A symbol's argument has the name of `identifiers`: s_12, m_e, reg_prop, eps_1234. The result is real unless i or a
    complex argument makes it complex.
    """
    as_fraction(tree)                                        # raises for what cannot be written
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

COMMENTS = {"latex": "% {}", "sympy": "# {}", "mathematica": "(* {} *)", "form": "* {}", "python": "# {}"}


def check_format(format):
    """InputError for a notation that is not there."""
    if format not in FORMATS:
        raise InputError(f"format: got '{format}', wanted one of {', '.join(FORMATS)}")


def comment(line, format):
    """A text as a comment of a document, on one line that the text cannot end."""
    return COMMENTS[format].format(" ".join(line.split()).replace("*)", "* )"))


def formula(tree, format):
    """A tree as one expression: text, latex, sympy, mathematica, form or python. InputError for what it cannot hold."""
    if format == "text":
        return to_text(tree)
    if format == "latex":
        return latex.to_latex(tree)
    return _formula(tree, format, _spelling(names_in(tree), format))


def formula_or_empty(text, format):
    """A text in another notation; "" if it is no formula."""
    try:
        return formula(parse(text), format)
    except InputError:
        return ""


def _formula(tree, format, names):
    tree = as_fraction(tree)
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


def annotated(text, format, notes):
    """The document of a formula's text with lines of notes as comments before it; as text the notes stand behind."""
    if format == "text":
        return "".join(f"{line}\n" for line in [text, *notes])
    try:
        source = document({"f": parse(text)}, format)
    except InputError as error:
        source = comment(f"no formula: {text}: {error}", format) + "\n"
    return "".join(f"{comment(line, format)}\n" for line in notes) + source


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
    if told := latex.definitions(symbols):
        lines.append(f"Here {told}.")
    for name, tree in trees.items():
        letter, _, number = name.partition("_")
        lines.append(r"\begin{align*}")
        left = rf"{letter}_{{{number}}}" if number else letter
        lines.append(f"{left} ={{}}& " + " \\\\\n& ".join(latex.latex_lines(tree)))
        lines.append(r"\end{align*}")
    return "\n".join([*lines, r"\end{document}"]) + "\n"
