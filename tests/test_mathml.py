"""A small reader finds the same function in the MathML of a square; amplitudes keep their tensors."""
import random
import re
from fractions import Fraction
from xml.etree import ElementTree

import pytest
from test_decode import HIGGS_A
from tiny import qed_rows

from physics import mathml
from physics.amplitude import amplitudes, parse_process
from physics.expression import Field, expand, fold, names_in, parse
from physics.numeric import evaluate
from physics.theory import THEORIES
from runtime.files import InputError

SQUARES = [
    "2*e^4*(m_e^4 + -1/2*m_e^2*s_13 + 1/2*s_12*s_34)*(m_e^2 + -s_23 + 1/2*reg_prop)^(-2)",
    "-64/729*e^6*(2*m_u^6 + (-2)*m_u^4*s_13 + -s_12)*(s_13 + -1/2*reg_prop)^(-2)*(s_25 + reg_prop)^(-1)",
    "8*s_12 + 4*s_13", "-(e + g)", "e/g/2", "-e^2*g^(-2)/(m_e + g)", "2*3^2*5*e", "(e^2)^3",
    "(-2)*e + (-e)*g", "1/2*(e - g)*3",
    "-1/4*e^4*m_mu^2 - -3*e^2*(g + (-2)*(e + -g)^2)*m_W", "1/(2*e*(e + g))", "e^(2*g)*2^(-3)", "((e + g))*s_12*(g + 7)",
]


def value(nodes, values):
    """Value of a sequence of MathML elements."""
    total, product, sign, nodes = 0, None, 1, list(nodes)
    while nodes:
        node = nodes.pop(0)
        if node.tag == "mo" and node.text in "+−":
            if product is not None:
                total += sign * product
            product, sign = None, -1 if node.text == "−" else 1
            continue
        if node.tag == "mo" and node.text == "⋅":
            continue
        if node.tag == "mo" and node.text == "(":
            depth, inside = 1, []
            while depth:
                inner = nodes.pop(0)
                depth += {"(": 1, ")": -1}.get(inner.text, 0) if inner.tag == "mo" else 0
                inside.append(inner)
            factor = value(inside[:-1], values)
        else:
            factor = value_of(node, values)
        product = factor if product is None else product * factor
    return total if product is None else total + sign * product


def flat(nodes):
    """The elements without the <mrow>s around some of them."""
    for node in nodes:
        if node.tag in ("mrow", "math"):
            yield from flat(node)
        else:
            yield node


def value_of(node, values):
    parts = list(node)
    if node.tag == "mn":
        return Fraction(node.text)
    if node.tag == "mi":
        return values[node.text]
    if node.tag == "msub":
        return values["_".join("".join(part.itertext()) for part in parts)]
    if node.tag == "msubsup":
        name = "_".join("".join(part.itertext()) for part in parts[:2])
        return values[name] ** int(value(flat([parts[2]]), values))
    if node.tag == "msup":
        return value(flat(parts[:1]), values) ** int(value(flat(parts[1:]), values))
    if node.tag == "mfrac":
        return value(flat(parts[:1]), values) / value(flat(parts[1:]), values)
    raise AssertionError(f"unexpected <{node.tag}>")


def read(markup):
    return ElementTree.fromstring(f"<div>{markup}</div>")


def spelled(name):
    return {"reg_prop": "ϵ", "m_mu": "m_μ"}.get(name, name)


@pytest.mark.parametrize("text", SQUARES)
def test_a_square_is_the_same_function(text):
    tree, rng = parse(text), random.Random(1)
    for _ in range(3):
        values = {name: Fraction(rng.randint(2, 5) if name == "g" else rng.randint(11, 99))
                  for name in sorted(names_in(tree))}
        expected = fold(tree, lambda node, arguments: exactly(node, arguments, values))
        assert value(flat(read(mathml.square(text))), {spelled(name): x for name, x in values.items()}) == expected


def exactly(node, arguments, values):
    kind = type(node).__name__
    if kind == "Number":
        return Fraction(node.value)
    if kind == "Symbol":
        return values[node.name]
    if kind == "Negative":
        return -arguments[0]
    if kind == "Power":
        return arguments[0] ** int(arguments[1])
    if kind == "Sum":
        return sum(-x if minus else x for x, minus in zip(arguments, node.minus))
    product = Fraction(1)
    for x, divides in zip(arguments, node.inverse):
        product = product / x if divides else product * x
    return product


def test_the_squares_of_a_set_are_the_same_functions():
    for row in qed_rows():
        tree, rng = parse(row["sqamp"]), random.Random(2)
        values = {name: Fraction(rng.randint(1000, 9999), 1009) for name in sorted(names_in(tree))}
        names = {spelled(name): x for name, x in values.items()}
        found = value(flat(read(mathml.square(row["sqamp"]))), names)
        assert abs(complex(evaluate(tree, {name: float(x) for name, x in values.items()})) / float(found) - 1) < 1e-12


def test_what_differs_is_marked():
    truth = "2*e^4*(m_e^4 + -s_13 + 1/2*s_12*s_34)*(m_e^2 + reg_prop)^(-2)"
    answer = "-4*e^4*(m_e^4 + s_13 + 1/2*s_12*s_34)*(m_e^2 + reg_prop)^(-2)"

    def marked(text, other):
        found = read(mathml.square(text, other)).findall(".//mrow[@class='diff']")
        return ["".join(node.itertext()) for node in found]

    assert marked(answer, truth) == ["−", "4", "+s13"] and marked(truth, answer) == ["2", "−s13"]
    assert marked(truth, truth) == [] and 'class="diff"' not in mathml.square(truth)
    assert len(marked(truth, "2*e^4*(")) == 6  # no formula: nothing is known to be the same


def test_a_text_that_is_no_formula_is_refused():
    for text in ("2*(", "", "<b>"):
        with pytest.raises(InputError):
            mathml.square(text)


@pytest.mark.parametrize("theory, process", [("qed", "e e~ -> mu mu~ A"), ("qcd", "G G -> G G"), ("qcd", "u G -> u G"),
                                             ("ew", "mu -> e nu_e~ nu_mu"), ("ew", "e e~ -> W W~")])
def test_amplitudes_have_each_external_leg_in_every_term(theory, process):
    theory = THEORIES[theory]
    process = parse_process(process, theory)
    legs = len(process[0]) + len(process[1])
    for amp in amplitudes(process, theory):
        markup = mathml.amplitude(amp)
        read(markup)
        text = re.sub(r"<[^>]*>", "", markup)
        assert all(f"(p{leg})" in text for leg in range(1, legs + 1))
        fields = re.findall(r"\(p(\d)\)", text)
        assert len(fields) % legs == 0 and len({fields.count(str(leg)) for leg in range(1, legs + 1)}) == 1


@pytest.mark.parametrize("theory, process", [
    ("qed", "e e~ -> mu mu~ A"), ("qcd", "u G -> u G"), ("ew", "e e~ -> W W~"),
])
def test_each_term_keeps_its_matrices_and_its_contractions(theory, process):
    """As many gammas and slashes as gamma matrices; an index or vector that is contracted stands twice or slashed."""
    theory = THEORIES[theory]
    for amp in amplitudes(parse_process(process, theory), theory):
        terms = expand(parse(amp))
        shown = re.findall(r"<math>(.*?)</math>", mathml.amplitude(amp))[-len(terms):]
        for term, markup in zip(terms, shown, strict=True):
            text = re.sub(r"<[^>]*>", "", markup).replace("mμ", "").translate({ord("("): None, ord(")"): None})
            names = [tensor.name for tensor in term.tensors]
            assert text.count("γ") + text.count("\u0338") == names.count("gamma")
            momenta = len(re.findall("p\u0338?\\d", text)) - sum(type(tensor) is Field for tensor in term.tensors)
            assert momenta == sum(name.startswith("p_") for name in names)
            assert all(text.count(letter) == 2 for letter in set(text) & set("μνρσλκ"))


def test_a_fermion_line_is_written_without_dirac_indices():
    amp = (r"-1/2*i*e^2*p_1_%\nu_7*gamma_{+%\nu_7,%a_1,%a_2}*gamma_{%\sigma_3,%a_2,%a_4}"
           r"*e_{i_3,%a_4}(p_1)_u*e_{k_3,%a_1}(p_3)_u^(*)*A_{l_1,+%\sigma_3}(p_2)/(m_e^2 + s_12)")
    text = re.sub(r"<[^>]*>", "", mathml.amplitude(amp))
    assert text == "−ie22(me2+s12)𝑢\u0304(p3)p\u03381ε\u0338(p2)u(p1)"


def test_a_boson_without_an_index_is_a_name():
    assert "(<mo>" not in mathml.amplitude(HIGGS_A)
