r"""Every formula of files in every notation, read back and compared with the tree it was written from.

    PYTHONPATH=. python tests/roundtrip.py FILE.csv ... [amp] [every=10]

The column sqamp goes to LaTeX, SymPy, Mathematica, FORM and Python, with `amp` the column amp to LaTeX. SymPy, NumPy
and FORM themselves compute the values; LaTeX and Mathematica are read back by the small readers below. All values but
NumPy's are compared with 40 digits, or as fractions. Prints the number of differences.
"""
import itertools
import re
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import sympy

from dataset.reader import read_rows
from physics.expression import (
    Function,
    Negative,
    Number,
    Product,
    Sum,
    Symbol,
    epsilon_legs,
    fold,
    names_in,
    parse,
)
from physics.form import executable
from physics.formats import document, formula, identifiers, to_function, to_sympy
from physics.latex import PARTICLES, latex_lines, latex_name, to_latex
from physics.matrices import read_amplitude
from physics.numeric import averaged_square, random_point
from physics.particles import NO_FACTS, Facts, roles_of

BATCH = 200                  # formulas that one FORM process evaluates
DIGITS = 40
NESTED = 3                   # so deep are denominators within denominators, for FORM


# ---------------------------------------------------------------------------------------------------------------------
# Values

def value(tree, symbols, functions, root):
    """Value of a tree over any numbers. functions: {name: function}; root: the square root."""
    def visit(node, values):
        kind = type(node)
        if kind is Number:
            return node.value * symbols["one"]
        if kind is Symbol:
            return symbols[node.name]
        if kind is Negative:
            return -values[0]
        if kind is Sum:
            return sum((-x if minus else x for x, minus in zip(values, node.minus)), 0 * symbols["one"])
        if kind is Product:
            total = symbols["one"]
            for x, inverse in zip(values, node.inverse):
                total = total / x if inverse else total * x
            return total
        if kind is Function:
            return functions[node.name](values[0])
        base, exponent = node
        twice = int(2 * fold(exponent, rational_node))
        return base_power(values[0], twice, root)

    return fold(tree, visit)


def base_power(base, twice, root):
    if twice % 2:
        base = root(base)
        return base ** twice if twice > 0 else 1 / base ** -twice
    return base ** (twice // 2) if twice > 0 else 1 / base ** (-twice // 2)


def rational_node(node, values):
    """A number in an exponent."""
    if type(node) is Number:
        return Fraction(node.value)
    if type(node) is Negative:
        return -values[0]
    assert type(node) is Product
    return values[0] / values[1] if node.inverse[1] else values[0] * values[1]


def random_values(names, seed, number):
    """{symbol: value} of a formula's symbols; number(numerator, denominator) makes one. V_.. are complex."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in sorted(name.removesuffix("^(*)") for name in names):
        if name not in found:
            found[name] = number(*map(int, rng.integers(100, 1000, 2)))
            if name.startswith("V_"):
                imaginary = number(*map(int, rng.integers(100, 1000, 2)))
                found[name + "^(*)"] = found[name] - imaginary * 1j
                found[name] = found[name] + imaginary * 1j
    return found | {"i": mpmath.mpc(0, 1), "one": number(1, 1)}


MPMATH = {name: getattr(mpmath, name) for name in ("sin", "cos", "tan")}


def close(left, right, digits=DIGITS - 10):
    return abs(left - right) <= mpmath.mpf(10) ** -digits * max(abs(left), abs(right))


# ---------------------------------------------------------------------------------------------------------------------
# Reader of Mathematica: its text becomes one of ours

def read_mathematica(text, names):
    symbols = {called: name for name, called in identifiers(names, "mathematica").items()}

    def replace(match):
        word = match[0]
        if word.startswith("Conjugate["):
            return symbols[word[10:-1]] + "^(*)"
        if word.endswith("["):
            return word[:-1].lower() + "("
        return "i" if word == "I" else symbols[word]

    return re.sub(r"Conjugate\[\w+\]|[A-Za-z]\w*\[?", replace, text).replace("]", ")")


# ---------------------------------------------------------------------------------------------------------------------
# Reader of LaTeX: scalars and amplitudes become texts in our grammar

class Latex:
    """Recursive descent over LaTeX. symbols, particles: {LaTeX: name}."""

    def __init__(self, text, symbols, particles=()):
        self.text, self.at, self.symbols, self.particles = text, 0, symbols, dict(particles)
        self.dirac, self.count = None, itertools.count(1)

    def match(self, pattern):
        self.skip()
        found = re.compile(pattern).match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def skip(self):
        while self.text.startswith((" ", "{}"), self.at):
            self.at += 1 if self.text[self.at] == " " else 2

    def whole(self):
        result = self.sum()
        self.skip()
        assert self.at == len(self.text), self.text[self.at:self.at + 60]
        return result

    def sum(self):
        pieces = ["-" if self.match("-") else "", self.product()]
        while sign := self.match("[+-]"):
            pieces += [f" {sign[0]} ", self.product()]
        return "".join(pieces)

    def product(self):
        factors = []
        while (factor := self.factor()) is not None:
            factors.append(factor)
        assert factors, self.text[self.at:self.at + 60]
        return "*".join(factors)

    def group(self):
        assert self.match(r"\{"), self.text[self.at:self.at + 60]
        inside = self.sum()
        assert self.match(r"\}"), self.text[self.at:self.at + 60]
        return inside

    def factor(self):
        tensor = self.tensor()
        if tensor is not None:
            return tensor
        if number := self.match(r"\d+"):
            base = number[0]
        elif self.match(r"\\frac(?=\{)"):
            return f"(({self.group()})/({self.group()}))"
        elif self.match(r"\\sqrt(?=\{)"):
            return f"({self.group()})^(1/2)"
        elif name := self.match(r"\\(sin|cos|tan)\b"):
            power = f"^({self.group()})" if self.match(r"\^") else ""
            inside = self.parenthesis() or self.symbol()
            return f"({name[1]}({inside})){power}"
        else:
            base = self.parenthesis()
            base = f"({base})" if base else self.symbol()
            if base is None:
                return None
        return f"{base}^({self.group()})" if self.match(r"\^") else base

    def parenthesis(self):
        if not self.match(r"\\left\(|\("):
            return None
        inside = self.sum()
        assert self.match(r"\\right\)|\)"), self.text[self.at:self.at + 60]
        return inside

    def symbol(self):
        self.skip()
        found = [name for name in self.symbols if self.text.startswith(name, self.at)
                 and not (name[-1].isalpha() and self.text[self.at + len(name):self.at + len(name) + 1].isalpha())]
        if not found:
            return None
        longest = max(found, key=len)
        self.at += len(longest)
        return self.symbols[longest]

    def tensor(self):
        """One tensor or field of an amplitude, as our text; Dirac indices are numbered along the line."""
        indices = r"\{((?:[^{}]|\{\w+\})*)\}"
        if found := self.match(rf"(\\bar\{{[uv]\}}|[uv])(?:\^{indices})?_{indices}\(p_\{{(\d+)\}}\)"
                               .replace(indices, INDICES)):
            return self.spinor(*found.groups())
        if found := self.match(rf"\\gamma[_^]{INDICES}"):
            if found[1] == "5":
                return f"gamma_5_{{{self.step()}}}"
            return f"gamma_{{{lorentz(found[1])},{self.step()}}}"
        if found := self.match(r"\{p\\!\\!\\!/\}_\{(\d+)\}"):
            index = rf"%\slash_{next(self.count)}"
            return f"p_{found[1]}_{index}*gamma_{{+{index},{self.step()}}}"
        if found := self.match(r"P_\{([LR])\}"):
            return f"P_{found[1]}_{{{self.step()}}}"
        if found := self.match(rf"T\^{INDICES}_{INDICES}"):
            return f"T_C_10_{{{gluons(found[1])},{quarks(found[2])}}}"
        if found := self.match(rf"f\^{INDICES}"):
            return f"f_SU3_{{{gluons(found[1])}}}"
        if found := self.match(rf"p_\{{(\d+)\}}\^{INDICES}|p_\{{(\d+) ([^{{}}]+(?:\{{\w+\}})?)\}}"):
            return f"p_{found[1] or found[3]}_{lorentz(found[2] or found[4])}"
        if found := self.match(rf"\\varepsilon(?:\^{INDICES})?_{INDICES}\{{\}}[_^]{INDICES}\(p_\{{(\d+)\}}\)"):
            above, below, index, leg = found.groups()
            star, colour = re.fullmatch(r"(\*?) ?(.*)", above or "").groups()
            name, mark = self.particle(below)
            labels = ",".join([f"i_{leg}", *([gluons(colour)] if colour else []), lorentz(index)])
            return f"{name}_{{{labels}}}(p_{leg}){mark}{'^(*)' if star else ''}"
        if found := self.match(rf"\\phi(\^\{{\*\}})?_{INDICES}\(p_\{{(\d+)\}}\)"):
            name, mark = self.particle(found[2])
            return f"{name}(p_{found[3]}){mark}{'^(*)' if found[1] else ''}"
        return None

    def spinor(self, letter, colour, below, leg):
        name, mark = self.particle(below)
        starred = letter.startswith("\\bar")
        assert (self.dirac is None) == starred, "a line begins with a bar and ends without one"
        if starred:
            self.dirac = next(self.count)
        labels = ",".join([f"i_{leg}", *([quarks(colour)] if colour else []), f"%d_{self.dirac}"])
        if not starred:
            self.dirac = None
        return f"{name}_{{{labels}}}(p_{leg})_{letter.strip(chr(92) + 'bar{}')}{mark}{'^(*)' if starred else ''}"

    def step(self):
        before, self.dirac = self.dirac, next(self.count)
        return f"%d_{before},%d_{self.dirac}"

    def particle(self, below):
        who, _, mark = below.partition(",")
        return self.particles[who], {"": "", r"\perp": "_T", r"\mathrm{off}": "_off"}[mark]


INDICES = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"      # a group with groups in it


def lorentz(index):
    return "%\\" + re.sub(r"\W", "", index)


def gluons(indices):
    return ",".join("%g_" + re.sub(r"\W", "", index) for index in indices.split(" "))


def quarks(indices):
    return ",".join("%C_" + re.sub(r"\W", "", index) for index in indices.split(" "))


def read_latex(text, names, fields=()):
    symbols = {latex_name(name): name for name in names | {"i"}}
    particles = {PARTICLES.get(field.name) or latex_name(field.name): field.name for field in fields}
    return Latex(text, symbols, particles).whole()


# ---------------------------------------------------------------------------------------------------------------------
# Comparisons: each returns why a formula is not the same in some notation, or ""

def differences_of_square(text, seed=0):
    """Names of the notations, FORM aside, in which a square is not the tree of its text."""
    mpmath.mp.dps = DIGITS
    tree = parse(text)
    names = names_in(tree)
    at = random_values(names, seed, lambda a, b: mpmath.mpf(a) / b)

    def evaluate(other):
        return value(parse(other), at, MPMATH, mpmath.sqrt)

    expected, wrong = evaluate(text), []
    if parse(formula(tree, "text")) != tree:
        wrong.append("text")
    for latex in (to_latex(tree), " ".join(latex_lines(tree, 30))):
        if not close(evaluate(read_latex(latex, names)), expected):
            wrong.append("latex")
    if not close(evaluate(read_mathematica(formula(tree, "mathematica"), names)), expected):
        wrong.append("mathematica")
    called = identifiers(names, "sympy")
    here = {identifier: at[name] for name, identifier in called.items()}
    built, written = to_sympy(tree), run(document({"f": tree}, "sympy"))["f"]
    for found in {built, written}:
        if not close(sympy_value(found, here), expected):
            wrong.append("sympy")
    called = identifiers(names, "python")
    points = [random_values(names, seed + k, lambda a, b: mpmath.mpf(a) / b) for k in range(3)]
    kind = complex if any(name.startswith("V_") for name in names) else float
    arrays = {called[name]: np.array([kind(point[name]) for point in points]) for name in called}
    expected = np.array([complex(value(tree, point, MPMATH, mpmath.sqrt)) for point in points])
    for function in (to_function(tree), run(document({"f": tree}, "python"))["f"]):
        found = function(**arrays)
        if not np.allclose(found, expected, rtol=1e-8, atol=0):
            wrong.append("python")
    return sorted(set(wrong))


def sympy_value(expression, at):
    """Value of a SymPy expression. at: {name of a symbol: number}"""
    arguments = [sympy_value(argument, at) for argument in expression.args]
    if expression.is_Symbol:
        return at[expression.name]
    if expression.is_Rational:
        return mpmath.mpf(expression.p) / expression.q
    if expression is sympy.I:
        return mpmath.mpc(0, 1)
    if expression.is_Add:
        return mpmath.fsum(arguments)
    if expression.is_Mul:
        return mpmath.fprod(arguments)
    if expression.is_Pow:
        return mpmath.power(*arguments)
    name = expression.func.__name__                          # sin(i*x) has become i*sinh(x)
    return mpmath.conj(*arguments) if name == "conjugate" else getattr(mpmath, name)(*arguments)


def run(source):
    """The names that a Python source defines. Only our own output is run, and only in tests."""
    namespace = {}
    exec(source, namespace)
    return namespace


def differences_in_form(texts, seed=0):
    """Numbers of the squares that FORM evaluates to something else than the tree of their text."""
    trees = {f"f_{k}": parse(text) for k, text in enumerate(texts)}
    names = set().union(*map(names_in, trees.values())) - {"i"}
    rng = np.random.default_rng(seed)
    at = {name: Fraction(*map(int, rng.integers(2, 100, 2))) for name in sorted(names)}
    functions = {name: Fraction(*map(int, rng.integers(2, 100, 2))) for name in ("sin", "cos", "tan")}
    roots = {number: Fraction(*map(int, rng.integers(2, 100, 2))) for number in (2, 3, 5, 6)}
    called = identifiers(names, "form")
    statements = []
    for name, number in at.items():
        left = called[name]
        if legs := epsilon_legs(name):
            left, number = f"e_({','.join(f'p{k}' for k in legs)})", f"i_*{number}"
        elif re.fullmatch(r"s_\d\d", name):
            left = f"p{name[2]}.p{name[3]}"
        statements.append(f"id {left} = {number};")
        if not left.startswith("e_"):
            statements.append(f"id {left}^-1 = {1 / number};")
    first = [f"id {name}_(x?) = {number};" for name, number in functions.items()]
    first += [f"id sqrt_({number}) = {root};" for number, root in roots.items()]
    block = "\n".join([*first, *statements])
    source = document(trees, "form").replace("CFunction den;", "CFunction den;\nSymbol x;")
    inside = f"{block}\nendargument;\nid den(x?) = 1/x;\n"                           # one den(..) within another
    source = source.replace("Print;\n", "argument den;\n" * NESTED + inside * NESTED + block
                            + "\nFormat nospaces;\nPrint +s;\n")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "f.frm").write_text("#-\nOff statistics;\n" + source)
        done = subprocess.run([executable(), "-q", "f.frm"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    found = {}
    for name, body in re.findall(r"(f\d+)=([^;]*);", re.sub(r"\s|\\", "", done.stdout)):
        real = imaginary = Fraction(0)
        for term in re.findall(r"[+-]?[^+-]+", body):
            number = Fraction(re.sub(r"\*?i_", "", term).strip("+") or 1) if "i_" not in term or term.strip("+-i_*") \
                else Fraction(-1 if term[0] == "-" else 1)
            real, imaginary = (real, imaginary + number) if "i_" in term else (real + number, imaginary)
        found[name] = real, imaginary
    numbers = {name: Gauss(number) for name, number in at.items()} | {"i": Gauss(0, 1), "one": Gauss(1)}
    constant = {name: lambda _, number=number: Gauss(number) for name, number in functions.items()}
    wrong = []
    for k, tree in enumerate(trees.values()):
        expected = value(tree, numbers, constant, lambda base: Gauss(roots[int(base.real)]))
        if found.get(f"f{k}") != (expected.real, expected.imaginary):
            wrong.append(k)
    return wrong


class Gauss:
    """A complex number whose parts are Fractions."""

    def __init__(self, real, imaginary=0):
        self.real, self.imaginary = Fraction(real), Fraction(imaginary)

    def __add__(self, other):
        return Gauss(self.real + other.real, self.imaginary + other.imaginary)

    def __neg__(self):
        return Gauss(-self.real, -self.imaginary)

    def __mul__(self, other):
        if isinstance(other, int):
            return Gauss(self.real * other, self.imaginary * other)
        return Gauss(self.real * other.real - self.imaginary * other.imaginary,
                     self.real * other.imaginary + self.imaginary * other.real)

    __rmul__ = __mul__

    def __truediv__(self, other):
        size = other.real ** 2 + other.imaginary ** 2
        return self * Gauss(other.real / size, -other.imaginary / size)

    def __rtruediv__(self, other):
        return Gauss(other) / self

    def __pow__(self, exponent):
        result = Gauss(1)
        for _ in range(exponent):
            result = result * self
        return result


def differs_as_latex(amp, facts=NO_FACTS, seed=0):
    """Why an amplitude's LaTeX, read back, is another amplitude; "" if it is the same. facts: see Facts."""
    amplitude = read_amplitude(amp)
    tree, names = parse(amp), set(amplitude.names)
    back = read_latex(to_latex(tree), names, amplitude.fields)
    if read_latex(" ".join(latex_lines(tree)), names, amplitude.fields) != back:
        return "other lines"
    again = read_amplitude(back)
    if [(f.name, f.leg, f.kind, f.starred, f.mark) for f in again.fields] != \
            [(f.name, f.leg, f.kind, f.starred, f.mark) for f in amplitude.fields]:
        return "other legs"
    both = read_amplitude(f"({amp}) - ({back})")
    roles = roles_of(both.fields, both.names, facts)
    fields = tuple(field._replace(mark="") if field.mark == "T" else field for field in both.fields)
    rng = np.random.default_rng(seed)
    values, momenta = random_point(fields, roles, both.names, rng, 2, continued=True)
    square, scale = averaged_square(both.terms, fields, roles, values, momenta)
    # equal colour structures in another order cancel in the square only, down to its rounding
    if not np.all(np.abs(square) <= 1e-10 * scale):
        return f"the difference is {np.max(np.abs(square) / scale):.3g} of its parts"
    return ""


def main():
    options = dict(word.split("=") for word in sys.argv[1:] if "=" in word)
    paths = [word for word in sys.argv[1:] if "=" not in word and word != "amp"]
    count = wrong = 0
    for path in paths:
        column = "amp" if "amp" in sys.argv else "sqamp"
        rows = itertools.islice(read_rows(path, (column,)), 0, None, int(options.get("every", 1)))
        for batch in iter(lambda: list(itertools.islice(rows, BATCH)), []):
            found = differences_in_form([row[column] for _, row in batch]) if column == "sqamp" else []
            failed = [(batch[k][0], "form") for k in found]
            for line, row in batch:
                if column == "amp":
                    reason = differs_as_latex(row["amp"], Facts(row.get("process", "")))
                else:
                    reason = " ".join(differences_of_square(row["sqamp"], line))
                if reason:
                    failed.append((line, reason))
            count, wrong = count + len(batch), wrong + len(failed)
            for line, reason in failed:
                print(f"{path}:{line}: {reason}")
    print(f"{count} formulas, {wrong} differences")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
