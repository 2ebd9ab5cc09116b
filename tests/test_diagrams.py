"""The kind and the picture of a row's diagram, from its columns or from its amplitude alone."""
import collections
import csv
import gzip
import re
from xml.etree import ElementTree

import pytest
from test_decode import HIGGS_A

from physics.amplitude import amplitudes, diagrams, parse_process, propagators_text
from physics.diagrams import POINT, TEXT, diagram_type, picture, process_of, svg_of
from physics.theory import THEORIES


def rows_of(process, theory):
    process = parse_process(process, THEORIES[theory])
    text = f"{' '.join(process[0])} -> {' '.join(process[1])}"
    found = diagrams(process, THEORIES[theory])
    return [{"process": text, "theory": theory, "diagram": propagators_text(diagram), "amp": amp}
            for diagram, amp in zip(found, amplitudes(process, THEORIES[theory]), strict=True)]


@pytest.mark.parametrize("theory, process, types", [
    ("qed", "e e~ -> mu mu~", ["s"]), ("qed", "e e -> e e", ["t", "u"]), ("qed", "e A -> e A", ["s", "u"]),
    ("qcd", "G G -> G G", ["contact", "s", "t", "u"]), ("ew", "mu -> e nu_e~ nu_mu", ["s"]),
    ("qed", "e e~ -> mu mu~ A", ["s, s", "s, s", "s, t", "s, t"]),
])
def test_types_of_diagrams(theory, process, types):
    assert sorted(diagram_type(row["amp"]) for row in rows_of(process, theory)) == types


def test_a_whole_process_is_a_sum_of_diagrams():
    amps = [row["amp"] for row in rows_of("e e -> e e", "qed")]
    assert diagram_type(" + ".join(amps)) == "sum of 2"


@pytest.mark.parametrize("theory, process", [
    ("qed", "e e~ -> mu mu~ A"), ("qcd", "u G -> u G"), ("ew", "e e~ -> W W~"), ("ew", "h Z -> W W~ h"),
])
def test_a_picture_shows_the_row_s_own_diagram(theory, process):
    """Each has a text for every leg and its own lines; the columns and the amplitude give the same one."""
    rows = rows_of(process, theory)
    pictures = [picture(row) for row in rows]
    assert len(set(pictures)) == len(rows)
    for drawn, row in zip(pictures, rows):
        root = ElementTree.fromstring(drawn)
        inner = row["diagram"].split()
        assert len(root.findall("text")) == len(re.findall(r"[^\s>-]+", process.replace("->", " "))) + len(inner)
        assert "nan" not in drawn and len(drawn) < 5000
        if theory != "ew":  # the W may be a particle or an antiparticle
            assert picture({"amp": row["amp"]}) == drawn


def test_names_of_propagators_stand_at_their_lines():
    """feyngraph draws the legs, each after its name, and then the propagators in their order: seen by their styles."""
    theory = THEORIES["ew"]
    process = parse_process("h Z -> W W~ h", theory)
    drawn = diagrams(process, theory)
    for number, diagram in enumerate(drawn):
        lines = [line for line in drawn.draw([number]).splitlines() if line.startswith(("<text", "<line", "<path"))]
        inner = [line for before, line in zip(lines, lines[1:]) if "<text" not in before + line]
        spins = [theory.particles[p.particle().name()].twice_spin for p in diagram.propagators()]
        styles = [0 if "dasharray" in line else 2 if "<path" in line else 1 for line in inner]
        assert styles == spins


def arrows_at_vertices(svg):
    """{(x, y) of the end of a line: [arrows that point to it, arrows that point away from it]} of one diagram."""
    counts, ends = collections.defaultdict(lambda: [0, 0]), None
    for line in svg.splitlines():
        points = [(float(x), float(y)) for x, y in POINT.findall(line)]
        if line.startswith("<line"):
            ends = points
        elif line.startswith("<polygon"):
            (x1, y1), (x2, y2) = ends
            along = sorted((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1) for x, y in points)
            forward = along[1] - along[0] < along[2] - along[1]  # two corners of the base, then the tip
            for end, inwards in zip(ends, (not forward, forward)):
                counts[tuple(round(x) for x in end)][not inwards] += 1
    return counts


@pytest.mark.parametrize("theory, process", [
    ("qed", "e mu~ -> e mu~ A"), ("qed", "A e~ -> e~ e e~"), ("qcd", "u G -> u G G"), ("ew", "mu -> e nu_e~ nu_mu"),
    ("ew", "e e~ -> W W~"),
])
def test_arrows_follow_the_fermions(theory, process):
    """One arrow comes into each vertex of a fermion line and one goes out; a leg's arrow says what the particle is."""
    theory = THEORIES[theory]
    process = parse_process(process, theory)
    drawn = diagrams(process, theory)
    for number in range(len(drawn)):
        svg = svg_of(drawn, [number])
        legs = {(round(float(x)), round(float(y))): int(leg) for x, y, _, leg in TEXT.findall(svg)}
        for end, (inwards, outwards) in arrows_at_vertices(svg).items():
            if end not in legs:
                assert inwards == outwards == 1
                continue
            particle = theory.particles[[*process[0], *process[1]][legs[end]]]
            incoming = legs[end] < len(process[0])
            assert (inwards, outwards) == ((0, 1) if incoming == (particle.pdg > 0) else (1, 0))


def test_no_picture_is_better_than_a_wrong_one():
    row = rows_of("e e~ -> mu mu~", "qed")[0]
    assert picture(row | {"diagram": "A(p1-p3)"}) == picture({"amp": row["amp"]}) != ""
    assert picture(row | {"process": "e+ e- -> mu+ mu-"}) == picture({"amp": row["amp"]})
    assert picture({"amp": HIGGS_A}) == picture({"amp": "no amplitude"}) == ""
    assert picture({"amp": f"{row['amp']} + {row['amp']}"}) == ""


def test_pictures_of_marty_s_rows(marty):
    """Rows of the benchmark set have columns of another program; nearly all are found by their amplitudes."""
    with gzip.open(marty / "qed-2to2-offshell.csv.gz", "rt") as lines:
        rows = list(csv.DictReader(lines))[::500]
    assert sum(bool(picture(row)) for row in rows) >= 0.9 * len(rows)
    assert {diagram_type(row["amp"]) for row in rows} <= {"s", "t", "u"}
    assert process_of(rows[0]) == "e e -> e e" and all(map(process_of, rows))
