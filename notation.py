r"""
Three notations of a formula, and larger or smaller tokens for its parts.

tokenizer.py reads and writes infix tokens, in which `(a + b)*c/d + -e` is `( a + b ) c / d -e`, see there. This file
turns them into the tokens that a model reads or writes, and back:

    infix       ( a  + b ) c / d  -e                      as they are; the joiner of two factors may be implied
    prefix      + * + a b * c / d -e                      each operator has a fixed number of operands
    hybrid      plus( times( plus( a b ) c / d ) -e )     a sum and a product have any number and an end

In both prefix notations `/` stands before a factor that divides, ` - ` before a term that is subtracted, `-` before a
factor with a minus sign of its own and `()^(-2)` before the base of a power. A sum inside a product needs no
parentheses. Parentheses that infix would not need are `()`, so that each text has one sequence of tokens and each
sequence one text. The operands keep their order.

    shorten_masses          m_e^2*s_12 is one token. (m_e^2 is one in any case, as every symbol with its power.)
    glue="tensor"           a tensor and its first index are one token, gamma_{+%L0
    glue="all"              a field and its leg too, e_{}(p_1)_u
    glue="none"             gamma_{  +%L0  and  e_{  }(p_1)_u
"""
import collections
import re
from typing import NamedTuple

from runtime.files import InputError

ORDERS = "infix", "prefix", "hybrid"
GLUES = "tensor", "all", "none"
NARY = {"+": "plus(", "*": "times("}                        # operators with any number of operands
NAMES = {name: operator for operator, name in NARY.items()}
UNARY = "-", " - ", "/", "()"                               # `()` also with a power
OPERATORS = {
    "infix": ["(", ")", "*", "/", "/(", " + ", " - ", "-"],
    "prefix": [*NARY, *UNARY],
    "hybrid": [*NAMES, *UNARY, ")"],
}
# (outer, inner): an inner operator that infix writes in parentheses inside the outer one
PARENTHESES = {(outer, "+") for outer in ("*", "/", "-", " - ")} | {("/", "*"), ("-", "*")}
JOINERS = {"*", " + ", " - "}
MASS = re.compile(r"-?m_\w+(\^\d+)?")
PRODUCT = re.compile(r"s_\d\d")
SHORT = re.compile(rf"({MASS.pattern})\*({PRODUCT.pattern})")
INDEX_TOKEN = re.compile(r"(.*)%([LDCA])(\d+)")             # what stands before the index, its kind and number
GLUED = re.compile(r"(.*[{_])(\+?%[LDCA]\d+)")              # a tensor or momentum with its first index
FIELD = re.compile(r"(.*\{)(\}.*)")                         # a field with its leg


class Notation(NamedTuple):
    """How the amplitudes or the squares are written."""
    order: str = "infix"  # one of ORDERS
    shorten_masses: bool = False
    glue: str = "tensor"  # one of GLUES


def implied_joiner(token):
    """What joins `token` to a factor before it unless another joiner stands there."""
    return " + " if token[0] in "-#0123456789" or token.startswith("(-") else "*"


def continues(token):
    """Whether a token goes on with the tensor or field before it."""
    return token[0] in "}%" or token.startswith("+%")


def write(tokens, notation, known=None):
    """
    Infix tokens in this notation. known: the tokens that there are, where mass and product are one token only if it is
    among them; None: all. InputError for prefix tokens of unbalanced parentheses.
    """
    if notation.shorten_masses:
        tokens = _shorten(tokens, known)
    if notation.order != "infix":
        tokens = _prefix(_infix_tree(tokens), notation.order)
    if notation.glue == "none":
        tokens = [piece for token in tokens for piece in _split(GLUED, token)]
    elif notation.glue == "all":
        tokens = _join(tokens, lambda left, right: left[-1] == "{" and right[0] == "}")
    return tokens


def read(tokens, notation):
    """Infix tokens of tokens in this notation. ValueError if they are no formula, as a model may write anything."""
    if notation.glue == "none":
        tokens = _join(tokens, lambda left, right: left[-1] in "{_" and right[0] != "}" and continues(right))
    elif notation.glue == "all":
        tokens = [piece for token in tokens for piece in _split(FIELD, token)]
    if notation.order != "infix":
        tokens = _infix(_prefix_tree(_unspell(tokens)))
    return tokens


def _shorten(tokens, known):
    short, before = [], ""  # before: the token before the last one
    for token in tokens:
        if short and before != "/" and PRODUCT.fullmatch(token) and MASS.fullmatch(short[-1]):
            product = f"{short[-1]}*{token}"
            if known is None or product in known:
                short[-1] = product
                continue
        before = short[-1] if short else ""
        short.append(token)
    return short


def _split(pattern, token):
    match = pattern.fullmatch(token)
    return match.groups() if match else (token,)


def _join(tokens, belong):
    """The tokens, neighbours that belong together joined."""
    joined = []
    for token in tokens:
        if joined and belong(joined[-1], token):
            joined[-1] += token
        else:
            joined.append(token)
    return joined


def _unspell(tokens):
    """Tokens with those that are spelled (tokenizer.spell) in one piece again."""
    whole = []
    for token in tokens:
        if token[0] != "#":
            whole.append(token)
        elif token in ("#", "#-", "#(-") or not whole:
            whole.append(token[1:])
        else:
            whole[-1] += token[1:]
    return whole


# ---------------------------------------------------------------------------------------------------------------------
# Trees. A node is (operator, operands); a number, symbol, tensor or field is (list of its tokens, ()). Nothing recurses

def _infix_tree(tokens):
    outer = []  # the sums around the current parenthesis
    terms, factors, unary, minus = [], [], [], False  # unary: operators of the next factor; minus: a subtracted term
    leaf, joiner, opened = [], "", True  # opened: an operand follows without a joiner
    for token in tokens:
        if continues(token):
            leaf.append(token)
        elif token in JOINERS or token == "/":
            joiner = token
        elif token[0] == ")":
            node = _sum(terms, factors, minus)
            if not outer:
                raise InputError("found ')' without '('")
            terms, factors, unary, minus = outer.pop()
            factors.append(_apply(unary, (f"(){token[1:]}", [node])))
            unary = []
        else:
            if not opened:
                joiner = "/" if token == "/(" else joiner or implied_joiner(token)
                if joiner == "/":
                    unary.append("/")
                elif joiner != "*":
                    terms.append(_term(factors, minus))
                    factors, minus = [], joiner == " - "
            joiner, opened = "", token in ("(", "/(", "-")
            if token == "-":
                unary.append(token)
            elif opened:
                outer.append((terms, factors, unary, minus))
                terms, factors, unary, minus = [], [], [], False
            else:
                leaf = [token]
                factors.append(_apply(unary, (leaf, ())))
                unary = []
    if outer:
        raise InputError("found '(' without ')'")
    return _sum(terms, factors, minus)


def _apply(unary, node):
    for operator in reversed(unary):
        node = operator, [node]
    return node


def _term(factors, minus):
    term = ("*", factors) if len(factors) > 1 else factors[0]
    return (" - ", [term]) if minus else term


def _sum(terms, factors, minus):
    terms.append(_term(factors, minus))
    return ("+", terms) if len(terms) > 1 else terms[0]


def _prefix(tree, order):
    """Tokens of a tree in prefix or hybrid notation."""
    tokens, todo = [], [(tree, "")]  # (node, the operator around it), or a token; the next one is last
    while todo:
        item = todo.pop()
        if item.__class__ is str:
            tokens.append(item)
            continue
        (operator, operands), around = item
        if not operands:
            tokens += operator
        elif operator in NARY:
            last, *others = ((operand, operator) for operand in reversed(operands))
            if order == "hybrid":
                tokens.append(NARY[operator])
                todo += [")", last, *others]
            else:
                todo.append(last)
                for operand in others:
                    todo += [operand, operator]
        elif operator == "()" and (around, _kind(operands[0])) in PARENTHESES:
            todo.append((operands[0], ""))
        else:
            tokens.append(operator)
            todo.append((operands[0], operator))
    return tokens


def _prefix_tree(tokens):
    """The tree of prefix or hybrid tokens. ValueError if there is none, or more than one."""
    leaf, stack = [], []  # stack: what stands right of the token, the nearest last; None: the end of a sum or product
    try:
        for token in reversed(tokens):
            if continues(token):
                leaf.append(token)
                continue
            if token == ")":
                node = None
            elif token in NARY:
                first, node = _pop(stack), _pop(stack)
                if node[0] != token:
                    node = token, collections.deque([node])
                node[1].appendleft(first)
            elif token in NAMES:
                operands = []
                while stack[-1]:
                    operands.append(stack.pop())
                stack.pop()
                if len(operands) < 2:
                    raise ValueError
                node = NAMES[token], collections.deque(operands)
            elif token in UNARY or token.startswith("()"):
                node = token, [_pop(stack)]
            elif token in OPERATORS["infix"] or token.count("(") != token.count(")"):
                raise ValueError
            else:
                node, leaf = ([token, *reversed(leaf)], ()), []
            stack.append(node)
        if leaf or len(stack) != 1:
            raise ValueError
        return _pop(stack)
    except (IndexError, ValueError):
        raise ValueError("the tokens are no formula") from None


def _pop(stack):
    node = stack.pop()
    if node is None:
        raise ValueError
    return node


def _infix(tree):
    """Infix tokens of a tree."""
    tokens, joiner, todo = [], "", [(tree, "")]  # todo: as above
    while todo:
        item = todo.pop()
        if item.__class__ is str:
            if item in JOINERS or item == "/":
                joiner = item
                continue
            if item[0] == ")":
                tokens.append(item)
                continue
            if joiner == "/":
                tokens.append("/(" if item == "(" else "/")
                joiner = ""
                if item == "(":
                    continue
            elif joiner and joiner != implied_joiner(item):
                tokens.append(joiner)
            joiner = ""
            tokens.append(item)
            continue
        (operator, operands), around = item
        if not operands:
            first, *others = operator
            todo += [*reversed(others), first]
        elif operator in NARY:
            if (around, operator) in PARENTHESES or around == operator:
                todo.append(")")
                todo += [((operator, operands), ""), "("]
                continue
            inverse = "/" if operator == "*" else " - "
            for k, operand in enumerate(reversed(operands), 1 - len(operands)):
                if operand[0] == inverse:
                    if k == 0:
                        raise ValueError(f"the tokens begin with {inverse}")
                    todo += [(operand[1][0], inverse), inverse]
                else:
                    todo.append((operand, operator))
                    if k:
                        todo.append("*" if operator == "*" else " + ")
        elif operator == "-":
            todo += [(operands[0], operator), operator]
        elif operator in UNARY[1:3]:
            raise ValueError(f"{operator} outside a sum or product")
        else:
            todo += [f"){operator[2:]}", (operands[0], ""), "("]
    return tokens


def _kind(node):
    """The operator of a node, "" for a leaf."""
    return node[0] if node[1] else ""
