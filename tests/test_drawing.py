"""Sheets of Feynman diagrams are XML that stands alone, with an amplitude and a square under each diagram."""
from xml.etree import ElementTree

import pytest

import physics.drawing
from physics.amplitude import amplitudes, parse_process
from physics.drawing import sheet
from physics.expression import parse
from physics.square import square
from physics.theory import THEORIES
from runtime.files import InputError

SVG = "{http://www.w3.org/2000/svg}"


def draw(theory, process):
    table = THEORIES[theory]
    return ElementTree.fromstring(sheet(parse_process(process, table), table).encode())


@pytest.mark.parametrize("theory, process, count", [("qed", "e A -> e A", 2), ("ew", "nu_e e~ -> W h", 2)])
def test_each_diagram_has_two_formulas(theory, process, count):
    root = draw(theory, process)
    groups = [group for group in root if group.tag == f"{SVG}g"]
    formulas = [group for group in groups if group.find(f".//{SVG}use") is not None]
    assert len(groups) - len(formulas) == count and len(formulas) == 2 * count
    defined = {path.get("id") for path in root.iter(f"{SVG}path") if path.get("id")}
    assert {use.get("href")[1:] for use in root.iter(f"{SVG}use")} == defined
    labels = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
    first = process.split()[0]
    assert f"{first}(p1)" in labels and f"{first}(0)" not in labels    # the legs are called as in the amplitude


def test_the_formulas_are_those_of_the_amplitudes(monkeypatch):
    written = []
    monkeypatch.setattr(physics.drawing, "latex_lines", lambda tree, longest: written.append(tree) or ["x"])
    draw("qed", "e A -> e A")
    amps = amplitudes(parse_process("e A -> e A", THEORIES["qed"]), THEORIES["qed"])
    assert written == [parse(text) for amp in amps for text in (amp, square(amp))] and len(set(amps)) == 2


def test_a_diagram_that_is_not_squared_has_its_amplitude(monkeypatch):
    monkeypatch.setattr(physics.drawing, "square_many", lambda amps, facts: [InputError("1 < 2")] * len(amps))
    labels = ["".join(text.itertext()) for text in draw("qed", "e A -> e A").iter(f"{SVG}text")]
    assert labels.count("not squared: 1 < 2") == 2
