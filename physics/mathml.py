r"""Squares and amplitudes as MathML, for pages that a browser shows.

A formula is a sequence of <math> elements, one for the factors in front and one for each term of its sum, so that a
browser breaks a long one between its terms. Only elements and attributes of MathML Core are used.

- Factors without a sum make one fraction: 2*e^4*(a + b)*(c + d)^(-2) is the fraction of 2 e^4 and (c + d)^2, then
  (a + b). Factors that stand side by side are multiplied.
- reg_prop is written ϵ. s_12 is p_1 . p_2, as everywhere in this program.
- In an amplitude the Dirac indices of a fermion line are not written: its matrices stand in their order between two
  spinors, bars above those that are conjugated. A momentum or polarisation that is contracted with a gamma matrix is
  slashed. Other Lorentz indices are μ, ν, ..., colours of quarks i, j, ..., of gluons a, b, ...
"""
import html
import itertools
import re

from physics.expression import (
    GENERATOR,
    INVARIANT,
    Field,
    Function,
    Negative,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    epsilon_legs,
    expand,
    fold,
    kinds_of,
    names_in,
    parse,
    to_text,
)
from physics.structure import without_metrics
from runtime.files import InputError

GREEK = {"mu": "μ", "tau": "τ", "nu": "ν", "theta": "θ", "alpha": "α", "lambda": "λ"}
NAMES = {"L": "μνρσλκταβδηξ", "D": "xyzwrsqhnm", "C": "ijklmnopqr", "A": "abcdefgh"}  # of indices, by kind
OPEN, CLOSE = '<mo stretchy="false">(</mo>', '<mo stretchy="false">)</mo>'
STATUS_COLOURS = {"verified": "#1f7a4d", "computed": "#1b6f86", "unverified": "#b3261e"}  # of an answer; others amber
SLASH, BAR = "\u0338", "\u0304"  # combining characters
ITALIC = {"u": "𝑢", "v": "𝑣"}  # as browsers print a letter that is alone in its element


def square(text, other=None):
    """
    MathML of a squared amplitude. Factors and terms that do not stand in the square `other` have the class `diff`.

    InputError for a text that is no formula.
    """
    tree, known = parse(text), None
    if other is not None:
        try:
            known = pieces(parse(other))
        except InputError:  # nothing of a text that is no formula can be compared
            known = set()
    return "".join(map(_math, _chunks(tree, known)))


def amplitude(text):
    """MathML of an amplitude. InputError for a text that is no amplitude."""
    terms = expand(parse(text))
    shared = 0  # scalars that all terms begin with
    for column in zip(*(term.scalars for term in terms)):
        if any(scalar != column[0] for scalar in column):
            break
        shared += 1
    front = _scalars(terms[0].scalars[:shared])
    bodies = [_term(term.scalars[shared:], term.tensors) for term in terms]
    if len(bodies) == 1:
        sign, body = bodies[0]
        return _math(_minus(sign) + front) + _math(body)
    chunks = [(_infix(sign) if k else _minus(sign)) + body for k, (sign, body) in enumerate(bodies)]
    if front:
        chunks = [front, OPEN + chunks[0], *chunks[1:-1], chunks[-1] + CLOSE]
    return "".join(map(_math, chunks))


def answer(text, status, meaning, notes):
    """
    HTML of an answer, as a notebook shows it: the square `text`, or its characters if it is no formula; below it the
    status, coloured, with what it means; what its symbols are; notes.
    """
    try:
        shown = square(text).replace("<math>", '<math displaystyle="true">')
        told = definitions(names_in(parse(text)))
    except InputError:
        shown, told = f"<code>{html.escape(text)}</code>", ""
    colour = STATUS_COLOURS.get(status, "#8a5a00")
    small = "".join(f'<div style="font-size:85%;opacity:.75">{line}</div>'
                    for line in (html.escape(notes), told) if line)
    return (f'<div><div style="font-size:110%;line-height:2.4;overflow-x:auto">{shown}</div>'
            f'<div style="margin-top:.3em"><b style="color:{colour}">{status}</b>{html.escape(meaning)}</div>'
            f"{small}</div>")


def definitions(symbols):
    """What s_ij, ϵ and ε are, for those that occur, as HTML."""
    told = []
    if any(INVARIANT.fullmatch(name) for name in symbols):
        told.append("<i>s<sub>ij</sub></i> = <i>p<sub>i</sub></i>·<i>p<sub>j</sub></i>")
    if "reg_prop" in symbols:
        told.append("<i>ϵ</i> is added to <i>q</i>² − <i>m</i>² in the denominator of each propagator")
    if any(map(epsilon_legs, symbols)):
        momenta = ", ".join(f"<i>p<sub>{letter}</sub></i>" for letter in "ijkl")
        told.append(f"<i>ε</i>({momenta}) is the determinant of the contravariant components of the four momenta")
    return ", ".join(told)


def pieces(tree):
    """The texts that two squares are compared by: those of the factors in front and of the terms, with their signs."""
    sign, factors, inverse = _parts(tree)
    found = {"-"} if sign else set()
    for factor, divides in zip(factors, inverse):
        if type(factor) is Sum and not divides:
            found |= {_key(*_signed(term, minus)) for term, minus in zip(factor.terms, factor.minus)}
        else:
            found.add(_key(divides, factor, "/"))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Scalars: squares, and what stands before the tensors of an amplitude

def _math(content):
    return f"<math>{content}</math>" if content else ""


def _mo(operator):
    return f"<mo>{operator}</mo>"


def _infix(minus):
    """A sign between two terms, also where a line may break before it and it comes first in its element."""
    return f'<mo form="infix">{"−" if minus else "+"}</mo>'


def _minus(sign):
    return _mo("−") if sign else ""


def _row(content):
    return f"<mrow>{content}</mrow>"


def _in_parentheses(content):
    return _row(_mo("(") + content + _mo(")"))


def _of(content):
    """Parentheses around an argument: they do not grow with it."""
    return OPEN + content + CLOSE


def _key(sign, node, mark="-"):
    return (mark if sign else "") + to_text(node)


def _signed(node, minus=False):
    """(whether a term is subtracted, the term without its sign): of -a and of (-2)*a too."""
    if type(node) is Negative:
        return not minus, node.operand
    if type(node) is Product and type(node.factors[0]) is Negative and not node.inverse[0]:
        return not minus, node._replace(factors=(node.factors[0].operand, *node.factors[1:]))
    return minus, node


def _parts(tree):
    """(sign, factors, inverse) of a tree; a tree that is no product is its only factor."""
    sign, tree = _signed(tree)
    return (sign, tree.factors, tree.inverse) if type(tree) is Product else (sign, (tree,), (False,))


def _chunks(tree, known):
    """Markup of a square in chunks between which a line may break; `known`: see `square`, None marks nothing."""
    def mark(content, key):
        return content if known is None or key in known else f'<mrow class="diff">{content}</mrow>'

    sign, factors, inverse = _parts(tree)
    front, sums = [], []
    for factor, divides in zip(factors, inverse):
        if type(factor) is Sum and not divides:
            sums.append(factor)
        else:
            up, down = fold(factor, _visit)
            key = _key(divides, factor, "/")
            front.append((factor, divides, mark(up, key), down and mark(down, key)))
    chunks = [(mark(_mo("−"), "-") if sign else "") + (_fraction(front) if front else "")]
    for factor in sums:
        terms = []
        for k, (term, minus) in enumerate(zip(factor.terms, factor.minus)):
            minus, term = _signed(term, minus)
            content = (_infix(minus) if k else _minus(minus)) + fold(term, _visit)[0]
            terms.append(mark(content, _key(minus, term)))
        if len(factors) > 1 or sign:
            terms = [OPEN + terms[0], *terms[1:-1], terms[-1] + CLOSE]
        chunks += terms
    return chunks


def _visit(node, values):
    """
    (markup, markup of its inverse where that is shorter, else None) of a node. values: those of its children.
    """
    kind = type(node)
    if kind is Number:
        return f"<mn>{node.value}</mn>", None
    if kind is Symbol:
        return _symbol(node.name), None
    if kind is Negative:
        return _mo("−") + _grouped(node.operand, values[0][0], (Sum, Negative)), None
    if kind is Sum:
        content = ""
        for k, (term, minus, (markup, _)) in enumerate(zip(node.terms, node.minus, values)):
            if type(term) in (Negative, Product) and markup.startswith(_mo("−")):  # a + -b, a + (-2)*b
                minus, markup = not minus, markup.removeprefix(_mo("−"))
            content += (_mo("−" if minus else "+") if k or minus else "") + markup
        return content, None
    if kind is Product:
        parts = [(factor, divides, *value) for factor, divides, value in zip(node.factors, node.inverse, values)]
        sign, first = _signed(node.factors[0])
        if sign and not node.inverse[0]:
            parts[0] = first, False, parts[0][2].removeprefix(_mo("−")), None
        return _minus(sign and not node.inverse[0]) + _fraction(parts), None
    if kind is Power:
        return _power(node, *(markup for markup, _ in values))
    if kind is Function:
        return _row(f"<mi>{node.name}</mi>" + _in_parentheses(values[0][0])), None
    return _tensor(node, {}), None


def _power(node, base, exponent):
    if node.exponent == Product((Number(1), Number(2)), (False, True)):
        return f"<msqrt>{_row(base)}</msqrt>", None
    base = _grouped(node.base, base, (Sum, Product, Negative, Power, Function))
    inverse = None
    if type(node.exponent) is Negative and type(node.exponent.operand) is Number:
        power = node.exponent.operand.value
        inverse = base if power == 1 else _superscript(base, f"<mn>{power}</mn>")
    return _superscript(base, _row(exponent)), inverse


def _superscript(base, exponent):
    if base.startswith("<msub>"):
        return f"<msubsup>{base[6:-7]}{exponent}</msubsup>"
    return f"<msup>{base}{exponent}</msup>"


def _grouped(node, markup, weaker):
    return _in_parentheses(markup) if type(node) in weaker else markup


def _fraction(parts):
    """
    Markup of a product. parts: (factor, whether it divides, markup, markup of its inverse or None).

    Numbers alone make a fraction of their own, 1/2 x; with other divisors there is one fraction.
    """
    above, below, sums = [], [], []
    for factor, divides, markup, inverse in parts:
        if inverse and not divides:
            below.append((factor, inverse))
        elif divides:
            below.append((factor, markup if inverse is None else _row(markup)))
        elif factor != Number(1) or len(parts) == 1:
            (sums if type(factor) is Sum else above).append((factor, markup))
    numbers = sum(1 for _ in itertools.takewhile(lambda part: type(part[0]) is Number, above))
    only_numbers = all(type(factor) is Number for factor, _ in below)
    inside = above[:numbers] if only_numbers else above
    content = _times(inside)
    if below:
        below = _times(below, alone=True)
        content = f"<mfrac>{_row(content or '<mn>1</mn>')}{_row(below)}</mfrac>"
        if only_numbers:
            content += _times(above[numbers:])
    else:
        content = _times(above)
    return content + "".join(_in_parentheses(markup) for _, markup in sums)


def _times(parts, alone=False):
    """Factors side by side, a dot before a number that follows another factor. alone: a sum needs no parentheses."""
    content = ""
    for factor, markup in parts:
        if len(parts) > 1 or not alone:
            # the base of an inverse power has its parentheses already
            markup = _grouped(factor, markup, (Sum, Product, Negative))
        digit = type(factor) is Number or type(factor) is Power and type(factor.base) is Number
        content += (_mo("⋅") if content and digit and not markup.startswith("<msqrt>") else "") + markup
    return content


def _symbol(name):
    if legs := epsilon_legs(name):
        return "<mi>ε</mi>" + _of(_mo(",").join(map(_momentum, legs)))
    if name == "reg_prop":
        return "<mi>ϵ</mi>"
    starred = name.endswith("^(*)")
    letter, _, index = name.removesuffix("^(*)").partition("_")
    letter = _mi(letter)
    if index:
        index = f"<mn>{index}</mn>" if INVARIANT.fullmatch(name) else _row("".join(map(_mi, index.split("_"))))
    if starred:
        return f"<msubsup>{letter}{index}{_mo('*')}</msubsup>"
    return f"<msub>{letter}{index}</msub>" if index else letter


def _mi(name):
    return f"<mi>{html.escape(GREEK.get(name, name))}</mi>"


def _momentum(leg):
    return f"<msub><mi>p</mi><mn>{leg}</mn></msub>"


def _scalars(scalars):
    """Markup of (node, divides) pairs of an amplitude's term."""
    if not scalars:
        return ""
    sign, parts = False, []
    for node, divides in scalars:
        if type(node) is Number and node.value < 0:  # `expand` writes the sign of a term as the number -1
            sign, node = not sign, Number(-node.value)
        if node != Number(1):
            parts.append((node, divides, *fold(node, _visit)))
    return _minus(sign) + _fraction(parts)


# ---------------------------------------------------------------------------------------------------------------------
# Tensors: a term of an amplitude

def _term(scalars, tensors):
    """(whether it is subtracted, markup) of a term of an amplitude."""
    with_number = without_metrics(list(tensors))
    if with_number[0] == 1:
        tensors = with_number[1]
    front = _scalars(scalars)
    sign = front.startswith(_mo("−"))
    lines, rest = _fermion_lines(list(tensors))
    slashed = _slashed(lines, rest)
    rest = [tensor for tensor in rest if tensor not in slashed.values()]
    in_slashes = {index for vector in slashed.values() for index in _indices(vector, "L")}
    names = _index_names(tensors, in_slashes)
    content = front.removeprefix(_mo("−")) + "".join(_tensor(tensor, names) for tensor in rest)
    for line in lines:
        inside = "".join(_tensor(tensor, names, slashed.get(tensor), in_line=True) for tensor in line)
        content += OPEN.replace("(", "[") + inside + CLOSE.replace(")", "]") if len(lines) > 1 else inside
    return sign, content


def _indices(tensor, kind):
    """The names of a tensor's indices of a kind, without the mark of their position."""
    indices = tensor.indices[1:] if type(tensor) is Field else tensor.indices
    return [index.lstrip("+") for index, other in zip(indices, kinds_of(tensor)) if other == kind]


def _index_names(tensors, unwritten):
    """{index: letter} by first appearance within its kind, of all that are written."""
    names = {}
    for kind, letters in NAMES.items():
        found = dict.fromkeys(index for tensor in tensors for index in _indices(tensor, kind) if index not in unwritten)
        letters = itertools.chain(letters, (f"{letters[0]}{n}" for n in itertools.count(1)))
        names |= dict(zip(found, letters))
    return names


def _fermion_lines(tensors):
    """(lines, the other tensors): a line goes from a conjugated spinor through its matrices to a spinor."""
    rows = {}
    for tensor in tensors:
        dirac = _indices(tensor, "D")
        if dirac and not (type(tensor) is Field and tensor.starred):
            rows[dirac[0]] = tensor
    lines, used = [], []
    for start in tensors:
        if type(start) is not Field or not start.kind or not start.starred:
            continue
        line, index = [start], _indices(start, "D")[0]
        while (tensor := rows.get(index)) and tensor not in line:
            line.append(tensor)
            if type(tensor) is Field:
                lines.append(line)
                used += line
                break
            index = _indices(tensor, "D")[1]
    return lines, [tensor for tensor in tensors if tensor not in used]


def _slashed(lines, rest):
    """{gamma matrix of a line: the momentum or polarisation that it is contracted with}"""
    vectors = {}
    for tensor in rest:
        for index in _indices(tensor, "L"):
            vectors.setdefault(index, []).append(tensor)
    partners = {}
    for gamma in (tensor for line in lines for tensor in line if tensor.name == "gamma"):
        found = vectors.get(_indices(gamma, "L")[0], [])
        if len(found) == 1 and (type(found[0]) is Field or found[0].name.startswith("p_")):
            partners[gamma] = found[0]
    return partners


def _tensor(tensor, names, slashed=None, in_line=False):
    """Markup of a tensor or field. slashed: what a gamma matrix is contracted with; in_line: without Dirac indices."""
    def letters(kind):
        found = (names.get(index, index.lstrip("%\\")) for index in _indices(tensor, kind))
        return "".join(f"<mi>{html.escape(letter)}</mi>" for letter in found)

    dirac = "" if in_line else letters("D")
    if slashed is not None:
        return _vector(slashed, names, SLASH)
    if type(tensor) is Field and tensor.kind:
        letter = f"<mi>{ITALIC[tensor.kind] + BAR if tensor.starred else tensor.kind}</mi>"
        index = letters("C") + dirac
        letter = f"<msub>{letter}{_row(index)}</msub>" if index else letter
        return _row(letter + _of(_momentum(tensor.leg)))
    if type(tensor) is Field and not _indices(tensor, "L"):
        return _row(_symbol(tensor.name) + _of(_momentum(tensor.leg)))
    if type(tensor) is Field or tensor.name.startswith("p_"):
        return _vector(tensor, names)
    if tensor.name in ("P_L", "P_R"):
        matrix = f"<msub><mi>P</mi><mi>{tensor.name[2]}</mi></msub>"
        return _superscript(matrix, _row(dirac)) if dirac else matrix
    if tensor.name == "gamma":
        return _scripts("<mi>γ</mi>", dirac, letters("L"))
    if tensor.name == "gamma_5":
        return _scripts("<mi>γ</mi>", dirac, "<mn>5</mn>")
    if GENERATOR.fullmatch(tensor.name):
        return _scripts("<mi>T</mi>", letters("C"), letters("A"))
    if tensor.name == "f_SU3":
        return _scripts("<mi>f</mi>", "", letters("A"))
    indices = "".join(_mi(names.get(index.lstrip("+"), index.lstrip("+%\\"))) for index in tensor.indices)
    return _scripts(_mi(tensor.name), indices, "")


def _vector(tensor, names, slash=""):
    """A momentum p_1, or the polarisation ε(p_1) of a boson, with its Lorentz index or slashed."""
    index = "" if slash else f"<mi>{names.get(*_indices(tensor, 'L') * 2)}</mi>"
    if type(tensor) is not Field:
        leg = re.sub(r"\D", "", tensor.name)
        return _scripts(f"<mi>p{slash}</mi>", f"<mn>{leg}</mn>", index)
    colour = "".join(f"<mi>{names.get(name, name)}</mi>" for name in _indices(tensor, "A"))
    star = _mo("*") if tensor.starred else ""
    return _row(_scripts(f"<mi>ε{slash}</mi>", index, star + colour) + _of(_momentum(tensor.leg)))


def _scripts(base, below, above):
    if below and above:
        return f"<msubsup>{base}{_row(below)}{_row(above)}</msubsup>"
    if below:
        return f"<msub>{base}{_row(below)}</msub>"
    return f"<msup>{base}{_row(above)}</msup>" if above else base


