"""
Split a square into the texts of its terms, each a square of its own, and join them again: for termwise models.

    2*e^4*(m_e^2*s_34 + s_13*s_24)*(s_12 + 1/2*reg_prop)^(-2)

is split into

    2*e^4*(m_e^2*s_34)*(s_12 + 1/2*reg_prop)^(-2)
    2*e^4*(s_13*s_24)*(s_12 + 1/2*reg_prop)^(-2)

The square is cut at its top-level sum, and each product there at the first sum that is one of its factors. In our own
squares these are the terms of the polynomial. The pieces keep the prefactor, the parentheses and the propagators; by
these `join` knows which pieces belong together.
"""
import itertools
import operator
import re

ENDS = operator.itemgetter(0, 2)
MARK = re.compile(r"[()]| [+-] ")
NUMBER = re.compile(r"-?[\d/]+")


def split(sqamp):
    """Texts of the terms, at least one, such that join(split(sqamp)) == sqamp."""
    terms = []
    for (head, tail), same in itertools.groupby(map(frame, summands(sqamp)), key=ENDS):
        insides = [inside for _, inside, _ in same]
        if len(insides) == 1 or head == tail == "":
            terms += [head + term + tail for inside in insides for term in summands(inside)]
        else:  # rare, in MARTY's squares: `join` would put the pieces within one pair of parentheses
            terms.append(" + ".join(head + inside + tail for inside in insides))
    return terms if join(terms) == sqamp else [sqamp]


def join(terms):
    """The sum of the terms. Neighbours that differ only in their first factor in parentheses share the parentheses."""
    products = []
    for (head, tail), same in itertools.groupby(map(frame, terms), key=ENDS):
        products.append(head + " + ".join(inside for _, inside, _ in same) + tail)
    return " + ".join(products)


def summands(text):
    """The pieces between the text's top-level ` + `. `a - b` stays together."""
    pieces, start, depth = [], 0, 0
    for mark in MARK.finditer(text):
        if mark[0] in "()":
            depth += 1 if mark[0] == "(" else -1
        elif mark[0] == " + " and depth == 0:
            pieces.append(text[start:mark.start()])
            start = mark.end()
    return [*pieces, text[start:]]


def frame(product):
    """
    (before, inside, after) of the product's first factor in parentheses that is no number, power or denominator.
    ("", product, "") where there is none.
    """
    found, depth = None, 0
    for mark in MARK.finditer(product):
        if mark[0] == "(":
            if depth == 0:
                start = mark.end()
            depth += 1
        elif mark[0] == ")":
            depth -= 1
            if depth == 0:
                begins = product[:start - 1] in ("", "-") or product[start - 2] == "*"
                ends = product[mark.end():mark.end() + 1] in "*/"
                if begins and ends and not found and not NUMBER.fullmatch(product, start, mark.start()):
                    found = start, mark.start()
        elif depth == 0:
            found = None
            break
        if depth < 0:  # not a square: a model may write anything
            break
    if not found or depth != 0:
        return "", product, ""
    start, end = found
    return product[:start], product[start:end], product[end:]
