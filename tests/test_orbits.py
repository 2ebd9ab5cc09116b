import collections
import csv
import functools
import gzip
import itertools
import json
import random
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import networkx
import numpy as np
import pytest

import prepare
from dataset.baseline import look_up, lookup_scores, lookup_table, orbit_key
from dataset.rows import randomise_indices
from physics import exact
from physics.amplitude import amplitude, amplitudes, diagrams, parse_process, process_text
from physics.exact import is_prime
from physics.expression import names_in, parse
from physics.matrices import read_amplitude, read_roles
from physics.numeric import evaluate, random_point, verify
from physics.orbits import CONJUGATION, MATRICES, PRIME, I, _fraction, _squared_ratio, orbit_of, relabel
from physics.particles import Facts
from physics.processes import choose_processes
from physics.square import square, square_many
from physics.theory import THEORIES
from runtime.files import InputError

ROOT = Path(__file__).parent.parent
MARTY = ROOT.parent / "shared" / "marty"
SETS = [("qed", "2->2", 150), ("qed", "2->3", 250), ("qcd", "2->2", 0), ("qcd", "2->3", 60), ("ew", "1->2; 2->2", 250)]
QED, QCD, EW = (THEORIES[name] for name in ("qed", "qcd", "ew"))


@functools.cache
def rows_of(theory_name, processes, sample):
    """Some rows of a standard set without their squares, each with its diagram."""
    theory, rows = THEORIES[theory_name], []
    for process in choose_processes(processes, theory, sample, 1):
        for diagram in diagrams(process, theory):
            text = process_text(process)
            rows.append({"process": text, "amp": amplitude(diagram, process, theory), "diagram": diagram})
    random.Random(2).shuffle(rows)
    return rows[:50]


def key_of(row):
    return orbit_of(row["amp"], Facts(row["process"])).key


def key(amp):
    return orbit_of(amp).key


def one(process, theory, number=0):
    return amplitudes(parse_process(process, theory), theory)[number]


def test_arithmetic():
    """C turns gamma^mu into minus its transpose; the prime is one of exact.py's; fractions come back."""
    gamma = MATRICES["gamma"]
    left = np.einsum("ab,mcb->mac", CONJUGATION, gamma)
    assert ((left + gamma @ CONJUGATION) % PRIME == 0).all()
    assert is_prime(PRIME) and PRIME % 24 == 1 and exact.LOW < PRIME < exact.HIGH
    for above, below in ((1, 1), (-1, 1), (3, 8), (-16, 81), (225, 128)):
        residue = above * pow(below, -1, PRIME) % PRIME
        assert _fraction(residue) == Fraction(above, below)
        assert _squared_ratio(residue) == _squared_ratio(residue * I % PRIME) == Fraction(above, below) ** 2


# ---------------------------------------------------------------------------------------------------------------------
# The same orbits from the diagrams: graphs with a node for each leg, propagator, vertex and mass

def graph(diagram, process, theory):
    """
    A leg or propagator is labelled with its spin and colour and joined to the node of its mass, a vertex is labelled
    with its rule up to a factor. A fermion line has a direction if a vertex on it is chiral.
    """
    found = networkx.DiGraph()
    ends = collections.defaultdict(list)
    for vertex in diagram.vertices():
        rule = theory.vertices[int(vertex.interaction().name())]
        first = rule.rules[0]
        label = [(r.structure, r.factor / first.factor, sorted(set(r.couplings) ^ set(first.couplings)))
                 for r in rule.rules]
        found.add_node(("vertex", vertex.id()), label=str(label))
        bent = theory.particles[rule.particles[0]].twice_spin == 1
        chiral = any("P_L" in r.structure for r in rule.rules)
        for place, end in enumerate(vertex.propagators_ordered()):
            line = bent and place < 2
            ends[type(end).__name__, end.id()].append((vertex.id(), place if line else None, line and chiral))
            particle = theory.particles[end.particle().name()]
            label = (type(end).__name__, particle.twice_spin, particle.colour > 1, bool(particle.mass))
            found.add_node((type(end).__name__, end.id()), label=str(label))
            if particle.mass:
                found.add_node(particle.mass, label="mass")
                found.add_edge(particle.mass, (type(end).__name__, end.id()))
    lines = networkx.Graph()
    lines.add_edges_from((end, ("vertex", vertex)) for end, at in ends.items() for vertex, place, _ in at
                         if place is not None)
    directed = set()
    for line in networkx.connected_components(lines):
        if any(chiral for end in line for _, _, chiral in ends.get(end, ())):
            directed |= line
    for end, at in ends.items():
        for vertex, place, _ in at:
            forth, back = (end, ("vertex", vertex)), (("vertex", vertex), end)
            arrows = ([forth], [back])[place == 0] if place is not None and end in directed else [forth, back]
            found.add_edges_from(arrows, kind="line")
    return found


def flipped(found):
    """The graph with all fermion lines turned round, as after a reflection of space."""
    turned = networkx.DiGraph()
    turned.add_nodes_from(found.nodes(data=True))
    turned.add_edges_from((b, a) if data else (a, b) for a, b, data in found.edges(data=True))
    return turned


def isomorphic(left, right):
    def same(a, b):
        return a["label"] == b["label"]

    return any(networkx.is_isomorphic(left, other, node_match=same) for other in (right, flipped(right)))


@pytest.mark.parametrize("theory_name, processes, sample", SETS)
def test_orbits_are_the_classes_of_isomorphic_diagrams(theory_name, processes, sample):
    theory, known = THEORIES[theory_name], {}
    for row in rows_of(theory_name, processes, sample):
        found = graph(row["diagram"], parse_process(row["process"], theory), theory)
        if key_of(row) in known:
            assert isomorphic(found, known[key_of(row)]), (row["process"], row["amp"])
        else:
            assert not any(isomorphic(found, other) for other in known.values()), (row["process"], row["amp"])
            known[key_of(row)] = found


# ---------------------------------------------------------------------------------------------------------------------
# The same orbits from the squares: a search of all permutations, in floating point

def maps_onto(left, right, points=3):
    """Whether a permutation of the legs maps a square onto another one up to a number. left, right: rows."""
    amplitudes = [read_amplitude(row["amp"]) for row in (left, right)]
    trees = [parse(row["sqamp"]) for row in (left, right)]
    roles = [read_roles(row["amp"], names_in(tree), Facts(row["process"])) for row, tree in zip((left, right), trees)]
    (_, fields, names), (_, other_fields, other_names) = amplitudes
    if len(fields) != len(other_fields):
        return False
    names = names | names_in(trees[0])
    values, momenta = random_point(fields, roles[0], names | {"reg_prop"}, np.random.default_rng(1), points)
    values |= {"e": 1, "g": 1, "theta_W": 0.5}
    expected = evaluate(trees[0], values) * np.ones(points)
    signs, other_signs = ([1 if comes_in else -1 for comes_in in role.incoming] for role in roles)
    flow = momenta * np.array(signs)[:, None, None]
    products = np.einsum("ipm,m,jpm->ijp", flow, [1, -1, -1, -1], flow)
    kinds, other_kinds = ([(field.kind != "", len(field.indices)) for field in some] for some in (fields, other_fields))
    legs = range(len(fields))
    for order in itertools.permutations(legs):
        masses = {}
        if any(other_kinds[k] != kinds[order[k]] or
               masses.setdefault(roles[1].masses[k], roles[0].masses[order[k]]) != roles[0].masses[order[k]] or
               (roles[1].masses[k] is None) != (roles[0].masses[order[k]] is None) for k in legs):
            continue
        if len(set(masses.values())) < len(masses):
            continue
        at = values | {name: values[other] for name, other in masses.items() if name}
        at |= {f"s_{i + 1}{j + 1}": other_signs[i] * other_signs[j] * products[order[i], order[j]]
               for i in legs for j in legs}
        at |= {name: np.full(points, 1.234) for name in (other_names | names_in(trees[1])) - at.keys()}
        ratio = evaluate(trees[1], at) / expected
        if np.allclose(ratio, ratio[0], rtol=1e-7, atol=0):
            return True
    return False


@pytest.mark.parametrize("theory_name, processes, sample", SETS)
def test_orbits_are_the_classes_of_squares_that_a_permutation_maps_onto_each_other(theory_name, processes, sample):
    orbits = collections.defaultdict(list)
    for row in rows_of(theory_name, processes, sample):
        if len(orbits[key_of(row)]) < 2:
            orbits[key_of(row)].append(row)
    chosen = [row for rows in list(orbits.values())[:6] for row in rows]
    squares = square_many([row["amp"] for row in chosen], facts=[Facts(row["process"]) for row in chosen])
    chosen = [row | {"sqamp": text} for row, text in zip(chosen, squares)]
    firsts = {key_of(row): row for row in reversed(chosen)}
    for row in chosen:
        for other_key, other in firsts.items():
            assert maps_onto(row, other) == (other_key == key_of(row)), (row["amp"], other["amp"])


# ---------------------------------------------------------------------------------------------------------------------
# One orbit

@pytest.mark.parametrize("theory_name, processes, sample", SETS)
def test_a_square_is_relabelled_into_that_of_any_other_row_of_the_orbit(theory_name, processes, sample):
    rows = rows_of(theory_name, processes, sample)[:30]
    squares = square_many([row["amp"] for row in rows], facts=[Facts(row["process"]) for row in rows])
    first, compared = {}, 0
    for row, sqamp in zip(rows, squares):
        facts = Facts(row["process"])
        found = orbit_of(row["amp"], facts)
        source, known = first.setdefault(found.key, (found, sqamp))
        assert exact.prove(row["amp"], relabel(known, source, found), facts=facts), (row["process"], row["amp"])
        compared += source is not found
    assert compared >= 5


@pytest.mark.parametrize("processes, count", [
    ("e mu -> e mu; e e -> e e; e A -> e A", 3),
    ("e mu -> e mu A; e e -> e e A; e A -> e A A", 3),
    ("e mu -> e mu A A; A A -> e e~ A A", 4),
    ("e mu -> e mu t t~", 1),
])
def test_orbits_counted_by_hand(processes, count):
    """In QED one or two fermion lines of equal or different mass and photons; the order of the photons on a line."""
    found = [key(amp) for text in processes.split(";") for amp in amplitudes(parse_process(text, QED), QED)]
    assert len(set(found)) == count


def test_amplitudes_without_masses_are_relabelled_too():
    amps = amplitudes(parse_process("G G -> G G", QCD), QCD)
    found = list(map(orbit_of, amps))
    assert [orbit.constants for orbit in found] == [()] * 4 and len({orbit.key for orbit in found}) == 2
    same = [k for k in range(4) if found[k].key == found[0].key]
    for k in same if len(same) > 1 else range(1, 4):
        source = next(j for j in range(4) if found[j].key == found[k].key)
        assert exact.prove(amps[k], relabel(square(amps[source]), found[source], found[k]))


def test_names_charges_and_order_of_legs_do_not_matter():
    amps = [one("e mu -> e mu", QED), one("u s~ -> s~ u", QED), one("mu~ mu -> b~ b", QED), one("e mu -> e mu", EW)]
    assert len(set(map(key, amps))) == 1
    assert key(randomise_indices(amps[0], 3)) == key(amps[0])
    assert len({key(amp) for amp in (one("e A -> e A", QED), one("e A -> e A", QED, 1), one("A A -> t t~", QED))}) == 1


def test_equal_masses_and_massless_legs_are_orbits_of_their_own():
    exchange = [one("e mu -> e mu", QED), one("e e -> e e", QED), one("nu_e e -> nu_e e", EW), one("u d -> u d", QCD)]
    assert len(set(map(key, exchange))) == 4


def test_spelling_does_not_matter():
    """The momentum of the propagator may be p_1 - p_3 or p_4 - p_2, and the Dirac equation may have been used."""
    ours = one("e e~ -> A A", QED)
    other = ours.replace(r"p_1_%\mu_1", r"p_4_%\mu_1", 1).replace(r"-p_3_%\mu_1", r"-p_2_%\mu_1", 1)
    line = r"A_{i_3,+%\mu_3}(p_3)^(*)*A_{i_4,+%\mu_2}(p_4)^(*)*e_{i_2,%a_1}(p_2)_v^(*)*e_{i_1,%a_4}(p_1)_u"
    shorter = (rf"-i*e^2*(p_2_%\mu_2*gamma_{{%\mu_3,%a_1,%a_4}}*{line} + -1/2*p_4_%\n*gamma_{{%\mu_2,%a_1,%a_2}}"
               rf"*gamma_{{+%\n,%a_2,%a_3}}*gamma_{{%\mu_3,%a_3,%a_4}}*{line})/(s_13 + -1/2*reg_prop)")
    assert ours != other and verify(shorter, square(ours))
    assert key(ours) == key(other) == key(shorter)
    assert key(ours) != key(other.replace("m_e*gamma", "-m_e*gamma"))


def test_couplings_are_renamed_but_stay_different():
    """On a line with a left and a right coupling their names do not matter; equal ones are another orbit."""
    line = r"Zp_{i_3,+%\mu}(p_3)*f_{i_1,%a}(p_1)_u^(*)*f_{i_2,%c}(p_2)_u*gamma_{%\mu,%a,%b}"
    chiral = rf"i*(a*{line}*P_L_{{%b,%c}} + b*{line}*P_R_{{%b,%c}})*m_f/m_f*m_Zp/m_Zp"
    names = chiral.replace("a*Zp", "x*Zp").replace("b*Zp", "a*Zp")
    turned = chiral.replace("a*Zp", "c*Zp").replace("b*Zp", "a*Zp").replace("c*Zp", "b*Zp")
    assert key(chiral) == key(names) == key(turned)
    assert key(chiral) != key(chiral.replace("a*Zp", "b*Zp"))
    source, target = orbit_of(chiral), orbit_of(names)
    assert exact.equal(names, relabel(square(chiral), source, target), square(names))


def test_a_reflection_of_space_changes_the_sign_of_an_epsilon_tensor():
    """A complex phase between two terms of a chiral line leaves an epsilon tensor in the square."""
    def line(matrix, first, second, legs):
        ends = "*".join(f"{field.format(leg)}" for field, leg in zip(
            (r"nu_e_{{i,%a}}(p_{})_u", r"nu_e_{{i,%c}}(p_{})_u^(*)", "h(p_{})", "h(p_{})^(*)", "h(p_{})^(*)"), legs))
        start, end = ("%c", "%a")
        terms = [rf"{name}*p_{leg}_%\m*gamma_{{%\m,{start},%b}}*{matrix}_{{%b,{end}}}*{ends}"
                 for name, leg in (first, second)]
        return " + ".join(terms)

    left = line("P_L", ("V_a", 3), ("V_b", 4), (1, 2, 3, 4, 5))
    right = line("P_R", ("V_c", 2), ("V_d", 4), (1, 3, 2, 4, 5))
    source, target = orbit_of(left), orbit_of(right)
    assert source.key == target.key and source.reflected != target.reflected
    sqamp = square(left)
    assert "eps(" in sqamp
    assert exact.prove(right, relabel(sqamp, source, target))


def test_particles_and_antiparticles_of_a_chiral_theory_are_one_orbit():
    assert key_of({"amp": one("W -> nu_tau tau~", EW), "process": ""}) == key(one("W~ -> mu nu_mu~", EW))
    assert key(one("W -> nu_tau tau~", EW)) != key(one("Z -> e e~", EW)) != key(one("Z -> nu_e nu_e~", EW))


@pytest.mark.parametrize("text, theory", [("e A -> e A", QED), ("e e -> e e", QED), ("u u~ -> G G", QCD)])
def test_whole_processes_have_orbits(text, theory):
    def whole(text):
        return " + ".join(amplitudes(parse_process(text, theory), theory, whole=True))

    crossed = {"e A -> e A": "A A -> mu mu~", "e e -> e e": "e mu -> e mu", "u u~ -> G G": "G d -> d G"}[text]
    other = whole(crossed)
    same = text != "e e -> e e"
    assert (key(whole(text)) == key(other)) == same
    if same:
        assert verify(other, relabel(square(whole(text)), orbit_of(whole(text)), orbit_of(other)))
    assert key(whole(text)) != key(amplitudes(parse_process(text, theory), theory)[0])


def test_marty_has_our_orbits():
    if not MARTY.exists():
        pytest.skip("no MARTY data beside the repository")
    rows = []
    for name in ("qed-2to2.csv.gz", "qcd-2to2.csv.gz"):
        with gzip.open(MARTY / name, "rt") as file:
            rows += random.Random(1).sample(list(csv.DictReader(file)), 40)
    ours = [{"process": text, "amp": amp, "sqamp": square(amp)} for text, theory in
            (("e A -> e A", QED), ("e mu -> e mu", QED), ("u d -> u d", QCD), ("u G -> u G", QCD))
            for amp in amplitudes(parse_process(text, theory), theory)]
    assert lookup_scores(ours, rows)["relabelled"] == 1


def test_what_is_no_amplitude_has_no_orbit():
    for text in ("m_e", "gamma_{%a}", "nonsense", "e(p_1)*e(p_2)^(*)*x", ""):
        with pytest.raises(InputError):
            orbit_of(text)
        assert orbit_key({"amp": text, "sqamp": "1"}) == ""


# ---------------------------------------------------------------------------------------------------------------------
# Data sets

@pytest.mark.parametrize("theory_name, processes, sample", SETS)
def test_remembered_keys_are_those_of_the_amplitudes(theory_name, processes, sample):
    for row in rows_of(theory_name, processes, sample):
        assert orbit_key(row) == key_of(row)


def prepared(folder, *flags):
    flavours = "e mu u d".split()
    kinds = "{f} A -> {f} A; {f} {f} -> {f} {f}; {f} {f}~ -> {f} {f}~; {f} {f}~ -> A A; A {f} -> A {f}"
    processes = [kinds.format(f=f) for f in flavours]
    processes += [f"{a} {b} -> {a} {b}; {a} {a}~ -> {b} {b}~" for a, b in itertools.combinations(flavours, 2)]
    command = [sys.executable, ROOT / "prepare.py", f"--data_dir={folder}", f"--processes={'; '.join(processes)}",
               "--workers=1", "--test_fraction=0.2", "--valid_fraction=0.2", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {}
    for name in ("train", "valid", "test"):
        with open(folder / f"{name}.csv", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    return rows, json.loads((folder / "manifest.json").read_text())


def test_with_all_orbits_in_training_relabelling_answers_everything(tmp_path):
    rows, manifest = prepared(tmp_path, "--split=kinematics", "--valid_fraction=0", "--test_fraction=0.1", "--seed=3")
    train, test = ({row["orbit"] for row in rows[name]} for name in ("train", "test"))
    assert test <= train and manifest["orbits"] == 3 and manifest["kinds"]["2->2"]["orbits"] == 3
    assert manifest["lookup_accuracy"]["relabelled"] == 1 > manifest["lookup_accuracy"]["rescaled"]
    assert all(re.fullmatch("[0-9a-f]{12}", row["orbit"]) and row["orbit"] == key(row["amp"]) for row in rows["test"])


def test_no_orbit_is_on_two_sides(tmp_path):
    rows, manifest = prepared(tmp_path, "--split=orbit")
    train, valid, test = ({row["orbit"] for row in rows[name]} for name in ("train", "valid", "test"))
    assert train and valid and test and not train & valid and not train & test and not valid & test
    assert manifest["lookup_accuracy"] == dict.fromkeys(("exact", "renamed", "rescaled", "relabelled"), 0)
    assert manifest["orbits_by_split"] == {"train": 1, "valid": 1, "test": 1}


def test_a_split_of_few_groups_gets_those_that_fit():
    sizes = np.array([80, 9, 3, 8])
    assert prepare._that_fit([0, 1, 2, 3], sizes, 12) == [1, 2]
    assert prepare._that_fit([0, 3, 1], sizes, 5) == [3]
    assert prepare._that_fit([0, 3, 1], sizes, 0) == [] == prepare._that_fit([], sizes, 9)


def test_rows_without_an_orbit_are_not_answered():
    rows = [{"amp": amp, "sqamp": square(amp)} for amp in (one("e mu -> e mu", QED), one("e mu~ -> e mu~", QED))]
    assert look_up(lookup_table(rows[:1]), rows[1]["amp"], "relabelled")
    assert look_up(lookup_table([rows[0] | {"orbit": ""}]), rows[1]["amp"], "relabelled") is None
    assert look_up(lookup_table(rows[:1]), one("e A -> e A", QED), "relabelled") is None
