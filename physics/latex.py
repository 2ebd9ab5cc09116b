r"""LaTeX of squares and amplitudes as it stands in papers: \frac, m_{\mu}, s_{12}, ubar gamma^mu u, T^a, f^{abc}.

    to_latex(parse(text))        for math mode, a single line
    latex_lines(parse(text))     the same in lines that fit a page
    latex_text(tree, note)       what a notebook shows

An amplitude has its scalars in front. In each of its terms the Dirac matrices stand between their spinors, so that
Dirac indices are not written. Spinors bear their particle below and their colour above; a Lorentz index stands up where
it occurs first, then down.
"""
import collections
import functools
import re
from fractions import Fraction

from physics.expression import (
    INVARIANT,
    Field,
    Function,
    Power,
    Sum,
    Symbol,
    Tensor,
    check_indices,
    conjugate,
    epsilon_legs,
    expand,
    fold,
    is_complex,
    names_in,
    to_text,
)
from physics.scalars import Ratio, as_fraction, bracketed, joined, product, signed, sum_layout, write
from physics.structure import without_metrics
from runtime.files import InputError

HALF = Fraction(1, 2)
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
        return sum_layout(node.terms, BRACKETS)
    if kind is Function:
        if type(node.argument) is Symbol:
            return [rf"\{node.name} ", node.argument]
        return [rf"\{node.name}", r"\left(", node.argument, r"\right)"]
    if kind is Power:
        return _latex_power(*node)
    sign, ratio = signed(node)
    if sign:
        return [sign, *bracketed(ratio, BRACKETS)]
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
    pieces = [bracketed(factor, BRACKETS) for factor in factors]
    return joined(pieces if number == 1 else [[str(number)], *pieces], " ")


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
        return write(as_fraction(tree), _latex)
    front, terms = _latex_amplitude(expand(tree))
    if not front or len(terms) == 1:
        return front + "".join(terms)
    return rf"{front}\left({''.join(terms)}\right)"


def latex_lines(tree, longest=100):
    """The LaTeX of a tree in lines of about so many characters as they are printed, broken between terms."""
    lines = []
    for piece in _amplitude_pieces(tree) if _is_amplitude(tree) else _square_pieces(as_fraction(tree), longest):
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
            front = product([(term.coefficient, False), *((factor, False) for factor in others),
                              *((factor, True) for factor in term.below)])
            first, *rest = [inner_sign + _latex_factor(inner) for inner_sign, inner in _latex_terms(sums[0].terms)]
            pieces += [f"{sign}{'' if front == 1 else write(front, _latex) + ' '}({first}", *rest]
            pieces[-1] += ")"
        else:
            pieces.append(sign + text)
    return pieces


def _latex_terms(terms):
    """(sign to write before it, term without its sign) of each term of a sum."""
    for k, (sign, term) in enumerate(map(signed, terms)):
        yield f" {sign or '+'} " if k else sign, term


def _latex_factor(node):
    return "".join(piece if type(piece) is str else write(piece, _latex) for piece in bracketed(node, BRACKETS))


def _printed(latex):
    """About how many characters of a formula are printed."""
    commands = re.sub(r"\\(left|right|mathrm|frac|bar|sqrt)\b", "", latex)
    return len(re.sub(r"[{}^_!\s]", "", re.sub(r"\\[A-Za-z]+", "x", commands)))


# ---------------------------------------------------------------------------------------------------------------------
# LaTeX of amplitudes: scalars in front, then each term with its Dirac lines as in a paper

LETTERS = {"L": r"\mu \nu \rho \sigma \lambda \kappa \tau \alpha \beta".split(),
           "A": "a b c d".split(), "C": "i j k l m n".split()}   # by kind of index, see KIND_NAMES
DIRAC = {"P_L": "P_{L}", "P_R": "P_{R}", "gamma_5": r"\gamma_{5}"}


def _latex_amplitude(terms):
    """(what stands in front of all terms, "" for 1; each term with its sign)."""
    keys = [collections.Counter((to_text(node), divides) for node, divides in term.scalars) for term in terms]
    common = functools.reduce(lambda left, right: left & right, keys)
    sign, scalars = _latex_scalars(terms[0].scalars, common)
    front = f"{sign}{scalars} " if scalars else sign
    texts = []
    for k, (term, key) in enumerate(zip(terms, keys)):
        check_indices(term.tensors)
        number, tensors = without_metrics(term.tensors)
        sign, scalars = _latex_scalars(term.scalars, key - common, number)
        texts.append((f" {sign or '+'} " if k else sign) + f"{scalars} {_latex_tensors(tensors)}".strip())
    return front, texts


def _latex_scalars(scalars, wanted, number=1):
    """
    (sign, LaTeX of a number times the wanted ones among a term's scalars), "" for 1.

    wanted: a Counter of (text, divides).
    """
    left, factors = collections.Counter(wanted), [(Fraction(number), False)]
    for node, divides in scalars:
        if left[key := (to_text(node), divides)]:
            left[key] -= 1
            factors.append((as_fraction(node), divides))
    sign, value = signed(product(factors))
    if value == 1:
        return sign, ""
    text = write(value, _latex)
    return sign, rf"\left({text}\right)" if type(value) is Sum else text


class _Letters:
    """LaTeX names of a term's indices, by first appearance, without the letters that name its particles."""

    def __init__(self, tensors):
        self.known = {}
        taken = {"\\" + part for tensor in tensors if type(tensor) is Field for part in tensor.name.split("_")}
        self.letters = LETTERS | {"L": [letter for letter in LETTERS["L"] if letter not in taken]}

    def __call__(self, index, kind):
        index = index.lstrip("+")
        if index not in self.known:
            number, letters = sum(name[1] == kind for name in self.known.values()), self.letters[kind]
            times, place = divmod(number, len(letters))
            self.known[index] = letters[place] + (f"_{{{times}}}" if times else ""), kind
        return self.known[index][0]

    def lorentz(self, index):
        """^{\\mu} where the index stands first, then _{\\mu}."""
        place = "_" if index.lstrip("+") in self.known else "^"
        return f"{place}{{{self(index, 'L')}}}"


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
    for tensor in tensors:
        if type(tensor) is Tensor and not tensor.name.startswith("p_") and tensor.name not in ("gamma", *DIRAC):
            pieces.append(_latex_colour(tensor, letters))
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


def _dirac_lines(tensors):
    """The Dirac lines of a term, each from its ubar or vbar through the matrices to its u or v. Raises InputError."""
    matrices = [tensor for tensor in tensors if type(tensor) is Tensor and tensor.name in ("gamma", *DIRAC)]
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
    if rows or ends or sum(map(len, lines)) != len(matrices) + len(spinors):
        raise InputError("the Dirac matrices do not form lines from a ubar or vbar to a u or v")
    return lines


def _latex_colour(tensor, letters):
    """T^{a}_{i j} or f^{a b c}."""
    if tensor.name == "f_SU3":
        return f"f^{{{' '.join(letters(index, 'A') for index in tensor.indices)}}}"
    gluon, *quarks = tensor.indices
    return f"T^{{{letters(gluon, 'A')}}}_{{{' '.join(letters(index, 'C') for index in quarks)}}}"


MARKS = {"T": r",\perp", "off": r",\mathrm{off}", "": ""}


def _latex_field(field, letters):
    """u_{e}(p_{1}), \\bar{v}_{e}(p_{2}), \\varepsilon^{*}_{\\gamma}{}^{\\mu}(p_{4}), \\phi_{h}(p_{3})."""
    who = PARTICLES.get(field.name) or latex_name(field.name)
    below, momentum = f"_{{{who}{MARKS[field.mark]}}}", f"(p_{{{field.leg}}})"
    colour = field.indices[1:-1]
    if field.kind:
        letter = rf"\bar{{{field.kind}}}" if field.starred else field.kind
        above = f"^{{{letters(colour[0], 'C')}}}" if colour else ""
        return f"{letter}{above}{below}{momentum}"
    star = "*" if field.starred else ""
    if len(field.indices) < 2:
        return rf"\phi{f'^{{{star}}}' if star else ''}{below}{momentum}"
    above = " ".join(filter(None, [star, letters(colour[0], "A") if colour else ""]))
    above = f"^{{{above}}}" if above else ""
    return rf"\varepsilon{above}{below}{{}}{letters.lorentz(field.indices[-1])}{momentum}"


# ---------------------------------------------------------------------------------------------------------------------
# With words around it

def latex_text(tree, note):
    """LaTeX between dollars, as notebooks show it: the formula, a note, and what its symbols are."""
    lines = latex_lines(tree)
    shown = lines[0]
    if len(lines) > 1:
        shown = r"\begin{aligned} & " + r" \\ & ".join(lines) + r" \end{aligned}"
    return ", ".join(filter(None, [rf"$\displaystyle {shown}$ {note}", definitions(names_in(tree))]))


def definitions(symbols):
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
