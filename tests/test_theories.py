"""General theories: textbook formulas for what the standard theories lack, files of users, random theories.

The formulas are compared with the text that square.py writes, or with verify.py's explicit matrices.
"""

import csv
import json
import math
import re
import subprocess
import sys

import numpy as np
import points
import pytest
from conftest import ROOT

import physics.amplitude as generator
import prepare
from physics import exact, matrices
from physics import numeric as judge
from physics.amplitude import amplitude, amplitudes, diagrams, external_legs, parse_process, process_text
from physics.expression import names_in, parse
from physics.matrices import read_amplitude
from physics.numeric import evaluate, verify
from physics.particles import Facts, parse_masses, roles_of, unknown_masses
from physics.processes import count_diagrams, list_processes
from physics.square import square, square_many
from physics.theories import find_theory, read_theory, theory_names
from physics.theory import CAST, THEORIES, structures_of
from runtime.files import InputError

GENERAL = THEORIES["general"]
# Scalar QED, Yukawa theories and an abelian Higgs model together, in the form of a user's file
MODEL = """
particles = (
    ("e", "e~", "1/2", "m_e"),
    ("q", "q~", "1/2", "m_q", 3),
    ("phi", "phi~", 0, "m_phi"),
    ("S", "S", 0, "m_S"),
    ("P", "P", 0, "m_P"),
    ("A", "A", 1, ""),
    ("G", "G", 1, "", 8),
    ("V", "V", 1, "m_V"),
    ("Y", "Y~", 1, "m_Y"),
)
vertices = (
    (("e~", "e", "A"), ("-e", "gamma")),
    (("q~", "q", "A"), ("2/3*e", "gamma")),
    (("q~", "q", "G"), ("g", "gamma T")),
    (("phi~", "phi", "A"), ("e", "SSV")),
    (("phi~", "phi", "A", "A"), ("2*e^2", "metric")),
    (("e~", "e", "S"), ("-y", "unit")),
    (("q~", "q", "S"), ("-y_q", "unit")),
    (("e~", "e", "P"), ("i*y", "P_R"), ("-i*y", "P_L")),
    (("e~", "e", "V"), ("g_L", "gamma P_L"), ("g_R", "gamma P_R")),
    (("phi~", "phi", "V"), ("g_S", "SSV")),
    (("S", "V", "V"), ("k", "metric")),
    (("S", "Y", "Y~"), ("k", "metric")),
    (("S", "S", "S"), ("lam", "number")),
)
"""
MASSLESS = dict.fromkeys(("m_e", "m_q", "m_phi", "m_S", "m_P", "reg_prop"), 0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("theory") / "model.py"
    path.write_text(MODEL)
    return read_theory(path)


def facts_of(process, theory):
    return Facts(process_text(process), unknown_masses(theory))


def square_of(theory, text, **values):
    """Value of the square of the only diagram of a process."""
    process = parse_process(text, theory)
    (amp,) = amplitudes(process, theory)
    sqamp, facts = square(amp, facts=facts_of(process, theory)), facts_of(process, theory)
    assert verify(amp, sqamp, facts=facts) and exact.prove(amp, sqamp, facts=facts)
    return evaluate(parse(sqamp), MASSLESS | values)


def decay(mass, first, second):
    """s_ij of a decay into these masses."""
    return {
        "s_12": (mass**2 + first**2 - second**2) / 2,
        "s_13": (mass**2 + second**2 - first**2) / 2,
        "s_23": (mass**2 - first**2 - second**2) / 2,
    }


def averaged(theory, text, without, constants, energy, angle):
    """Averaged |M|^2 of the whole process from the diagrams that have none of the couplings `without`."""
    process = parse_process(text, theory)
    amps = [amp for amp in amplitudes(process, theory) if not without & names_in(parse(amp))]
    return points.averaged(" + ".join(amps), constants, energy, angle, facts_of(process, theory))


# -- decays: averaged |M|^2 of one diagram (Romao & Silva, arXiv 1209.6213, for the rules; widths of Denner 0709.1075)


def test_scalar_and_pseudoscalar_decay_into_fermions(model):
    """2 y^2 (M^2 - 4 m^2) and 2 y^2 M^2: the pseudoscalar's fermions are in an s wave."""
    m, mass, y = 0.7, 3.0, 0.4
    kinematics = decay(mass, m, m)
    assert square_of(model, "S -> e e~", y=y, m_e=m, m_S=mass, **kinematics) == pytest.approx(
        2 * y**2 * (mass**2 - 4 * m**2)
    )
    assert square_of(model, "P -> e e~", y=y, m_e=m, m_P=mass, **kinematics) == pytest.approx(2 * y**2 * mass**2)
    assert square_of(model, "S -> q q~", y_q=y, m_q=m, m_S=mass, **kinematics) == pytest.approx(
        3 * 2 * y**2 * (mass**2 - 4 * m**2)
    )


def test_vector_with_left_and_right_couplings_decays_into_fermions(model):
    """2/3 M^2 ((g_L^2 + g_R^2) (1 - r) + 6 g_L g_R r), r = m^2 / M^2."""
    m, mass, left, right = 0.7, 3.0, 0.4, 0.9
    r = m**2 / mass**2
    value = square_of(model, "V -> e e~", g_L=left, g_R=right, m_e=m, m_V=mass, **decay(mass, m, m))
    assert value == pytest.approx(2 / 3 * mass**2 * ((left**2 + right**2) * (1 - r) + 6 * left * right * r))


def test_vector_decays_into_scalars(model):
    """g^2 (M^2 - 4 m^2) / 3."""
    m, mass = 0.7, 3.0
    value = square_of(model, "V -> phi phi~", g_S=0.4, m_phi=m, m_V=mass, **decay(mass, m, m))
    assert value == pytest.approx(0.4**2 * (mass**2 - 4 * m**2) / 3)


def test_higgs_decays_into_vectors(model):
    """k^2 (2 + (p.p')^2 / M^4), half of it where the two are identical (Peskin & Schroeder, final project III)."""
    mass, vector, k = 5.0, 1.3, 0.4
    kinematics = decay(mass, vector, vector)
    expected = k**2 * (2 + kinematics["s_23"] ** 2 / vector**4)
    assert square_of(model, "S -> Y Y~", k=k, m_Y=vector, m_S=mass, **kinematics) == pytest.approx(expected)
    assert square_of(model, "S -> V V", k=k, m_V=vector, m_S=mass, **kinematics) == pytest.approx(expected / 2)


# -- 2 -> 2


def test_scalar_pair_production(model):
    """e^4 / 2 beta^2 sin^2 for a massless electron (Peskin & Schroeder, problem 9.1)."""
    for angle in (0.4, 1.3, 2.5):
        value = averaged(model, "e e~ -> phi phi~", {"g_S"}, {"e": 0.3, "m_phi": 1.0}, 5.0, angle)
        beta_2 = 1 - 4 / 25
        assert value == pytest.approx(0.3**4 / 2 * beta_2 * math.sin(angle) ** 2)


def test_scalar_compton_scattering(model):
    """2 e^4 (1 + cos^2 theta) with the angle in the rest frame of the incoming scalar, whatever the energy.

    1 - cos theta = m^2 (1 / k'.p - 1 / k.p). Itzykson & Zuber, Quantum Field Theory, section 5-2.
    """
    for energy, angle in ((1.5, 0.4), (3.0, 1.3), (9.0, 2.5)):
        _, s = points.two_to_two((1.0, 0.0, 1.0, 0.0), energy, angle)
        cosine = 1 - (1 / s["s_14"] - 1 / s["s_12"])
        value = averaged(model, "phi A -> phi A", set(), {"e": 0.3, "m_phi": 1.0}, energy, angle)
        assert value == pytest.approx(2 * 0.3**4 * (1 + cosine**2))


def test_yukawa_scattering(model):
    """y^4 (s^2 / (s - M^2)^2 + t^2 / (t - M^2)^2 + s t / (s - M^2) (t - M^2)) for massless fermions.

    The two diagrams have a relative sign (Peskin & Schroeder, section 4.7), and tr(p3 p4 p2 p1) = -2 s t.
    """
    process = parse_process("e e~ -> e e~", model)
    amp = " + ".join(amplitude(diagram, process, model) for diagram in diagrams(process, model)
                     if [propagator.particle().name() for propagator in diagram.propagators()] == ["S"])
    for angle, mass in ((0.4, 0.0), (1.3, 2.0), (2.5, 9.0)):
        s, t = 25.0, -25 / 2 * (1 - math.cos(angle))
        s_part, t_part = s / (s - mass**2), t / (t - mass**2)
        value = points.averaged(amp, {"y": 0.3, "m_S": mass}, 5.0, angle)
        assert value == pytest.approx(0.3**4 * (s_part**2 + t_part**2 + s_part * t_part))


@pytest.mark.parametrize(
    "process, expected",
    [
        ("e e~ -> q q~", lambda s, t, u: 3 * 4 / 9 * 2 * (t**2 + u**2) / s**2),
        ("q G -> q A", lambda s, t, u: -4 / 9 / 3 * (u / s + s / u)),
        ("q q~ -> G A", lambda s, t, u: 4 / 9 * 8 / 9 * (u / t + t / u)),
    ],
)
def test_quarks_with_colour_beside_photons(model, process, expected):
    """Massless partons (Ellis, Stirling, Webber, QCD and Collider Physics, tables 5.1 and 9.1), e = g = 1."""
    for angle in (0.4, 1.3, 2.5):
        t, u = -50 * (1 - math.cos(angle)), -50 * (1 + math.cos(angle))
        value = averaged(model, process, {"g_L", "y", "y_q"}, {"e": 1.0, "g": 1.0}, 10.0, angle)
        assert value == pytest.approx(expected(100.0, t, u))


def test_gluons_may_couple_to_left_and_right_quarks(model, tmp_path):
    """With equal couplings the square is that of gamma T; with others it is proven."""
    path, rule = tmp_path / "chiral.py", '("g", "gamma T")'
    path.write_text(MODEL.replace(rule, '("g_L", "gamma P_L T"), ("g_R", "gamma P_R T")'))
    theory = read_theory(path)
    process = parse_process("q A -> q G", theory)
    facts = facts_of(process, theory)
    for amp, plain in zip(amplitudes(process, theory), amplitudes(process, model)):
        sqamp = square(amp, facts=facts)
        assert exact.prove(amp, sqamp, facts=facts)
        equal = sqamp.replace("g_L", "g").replace("g_R", "g")
        assert verify(plain, equal, facts=facts)


@pytest.mark.parametrize("process", ["phi A -> phi A", "phi phi~ -> A A A", "e phi -> e phi A", "q A -> q G"])
def test_photons_couple_to_a_conserved_current(model, process, monkeypatch):
    """Scalar currents and contact terms: with one photon's polarisation replaced by its momentum the sum vanishes."""
    process = parse_process(process, model)
    amps = [amp for amp in amplitudes(process, model) if not {"g_L", "g_S", "y", "y_q"} & names_in(parse(amp))]
    amps = [re.sub(r" \+ -?(1/2\*)?reg_prop", "", amp) for amp in amps]
    photon, leg_matrix = len(process[0]) + len(process[1]) if process[1][-1] == "A" else 2, matrices.leg_matrix

    def momentum_for_polarisation(field, mass, momentum, *rest):
        if field.leg != photon:
            return leg_matrix(field, mass, momentum, *rest)
        lower = momentum * matrices.METRIC.diagonal()
        return lower[:, :, None] * lower[:, None, :]

    monkeypatch.setattr(matrices, "leg_matrix", momentum_for_polarisation)
    facts, names = facts_of(process, model), names_in(parse(" + ".join(amps)))
    single = max(np.abs(at_points(amp, names, facts)).max() for amp in amps)
    assert single > 1e-6 and np.abs(at_points(" + ".join(amps), names, facts)).max() < 1e-12 * single


def at_points(text, extra, facts):
    """Averaged |M|^2 at random physical points."""
    terms, fields, names = read_amplitude(text)
    roles = roles_of(fields, names | extra, facts)
    values, momenta = judge.random_point(fields, roles, names | extra, np.random.default_rng(3), 4)
    return judge.averaged_square(terms, fields, roles, values, momenta)[0]


# -- every kind of vertex


def test_the_general_theory_has_every_kind_of_vertex():
    kinds = {"".join(sorted("SFV"[CAST[name].twice_spin] for name in vertex.particles)) for vertex in GENERAL.vertices}
    assert kinds == {"FFS", "FFV", "SSV", "SVV", "SSVV", "SSS", "SSSS", "VVV", "VVVV"}
    structures = {rule.structure for vertex in GENERAL.vertices for rule in vertex.rules}
    assert {"gamma P_L", "gamma P_R", "P_L", "P_R", "gamma T", "f", "ff", "SSV", "metric"} <= structures
    for vertex in GENERAL.vertices:
        allowed = structures_of([GENERAL.particles[name] for name in vertex.particles])
        assert all(rule.structure in allowed for rule in vertex.rules)


@pytest.mark.parametrize(
    "process",
    [
        "Fa1 Fa1~ -> Fb1 Fb1~",  # Va1, Vo1, Sb1 and, across, Xb1 and Ca1
        "Fo1 Va1 -> Fo1 Sb1",
        "Qa1 Qa1~ -> Va1 G",
        "Qa1 Fa1 -> Qa1 Fa1",
        "Ca1 Va1 -> Ca1 Vo1",
        "Ca1 Ca1~ -> Xb1 Xb1~",
        "Va1 Sb1 -> Va1 Sb1",
        "Xb1 Xb1 -> Xb1 Xb1",
        "Xb1 Va1 -> Xb1 Va1",
        "Sb1 So1 -> Sb1 Sb1",
        "Ca1 Ca1 -> Ca1 Ca1",
        "Fa1 Fb1~ -> Xb1 Sb1",
        "Fa1 Ca1~ -> Fb1 Xb1 Ca1~",
        "Sb1 Sb1 -> Sb1 Sb1 Sb1",
        "Qa1 Qa1~ -> Fa1 Fa1~ G",
    ],
)
def test_squares_in_the_general_theory_are_right(process):
    process = parse_process(process, GENERAL)
    amps = [amp for amp in amplitudes(process, GENERAL) if amp != "0"]
    facts = Facts(process_text(process))
    assert amps
    for amp, sqamp in zip(amps[:6], square_many(amps[:6], facts=[facts] * 6)):
        assert verify(amp, sqamp, facts=facts) and exact.prove(amp, sqamp, facts=facts), (amp, sqamp)


@pytest.mark.parametrize(
    "process", ["Fa1 Fa1~ -> Fb1 Fb1~", "Ca1 Sb1 -> Ca1 Va1", "Fa1 Fa1~ -> Ca1 Ca1~ Sb1"]
)
def test_what_carrying_out_q_q_leaves_is_the_same(process, monkeypatch):
    """The Dirac equation, the scalar current in q q / m^2 and transverse legs, against the rules without shortcuts."""
    process = parse_process(process, GENERAL)
    amps = amplitudes(process, GENERAL)
    monkeypatch.setattr(
        generator,
        "external_legs",
        lambda process, _, *rest: [leg._replace(mark="off") for leg in external_legs(process, GENERAL, *rest)],
    )
    monkeypatch.setitem(generator.STRUCTURES, "SSV", plain_scalar_current)
    plain = [amp.replace("_off", "") for amp in amplitudes(process, GENERAL)]
    names, facts = names_in(parse(" + ".join(plain))), Facts(process_text(process))
    assert any(a != b for a, b in zip(amps, plain))
    for left, right in [*zip(amps, plain), (" + ".join(amps), " + ".join(plain))]:
        assert np.allclose(*(at_points(amp, names, facts) for amp in (left, right)), rtol=1e-9)


def plain_scalar_current(ends, fresh):
    """(k_2 - k_1)^mu, times the momentum of a longitudinal vector."""
    (first, second), (vector,) = ([end for end in ends if end.vector == kind] for kind in (False, True))
    terms = [(sign * c, [], [("p", leg, vector.mu)]) for end, sign in ((second, 1), (first, -1))
             for leg, c in end.flow.items()]
    if vector.longitudinal:
        terms = [(c * a, [], [*tensors, ("p", leg, vector.mu)])
                 for c, _, tensors in terms for leg, a in vector.flow.items()]
    return terms


def test_a_diagram_that_vanishes_by_chirality_has_no_row(tmp_path):
    path = tmp_path / "left.py"
    path.write_text("""particles = (("n", "n~", "1/2", ""), ("S", "S", 0, "m_S"), ("A", "A", 1, ""))
vertices = ((("n~", "n", "S"), ("y", "P_L")), (("n~", "n", "A"), ("e", "gamma P_L")))""")
    theory = read_theory(path)
    assert amplitudes(parse_process("n S -> n S", theory), theory) == ["0", "0"]
    assert "0" not in amplitudes(parse_process("n A -> n A", theory), theory)
    done = prepare.make_rows([(("n", "S"), ("n", "S")), (("n", "A"), ("n", "A"))], str(path), "diagram", "all", 1)
    assert len(done["rows"]) == 2 and done["left_out"]["vanishing"] == 2 and not done["wrong"]


def test_a_process_is_the_sum_of_the_diagrams_that_do_not_vanish():
    """In random:6 one of the diagrams is zero by chirality."""
    theory, process = find_theory("random:6"), (("Qo1", "Qo1~"), ("Sb1", "Xb2~"))
    amps = amplitudes(parse_process("Qo1 Qo1~ -> Sb1 Xb2~", theory), theory)
    done = prepare.make_rows([process], "random:6", "process", "all", 1)
    row, = done["rows"]
    assert 0 < amps.count("0") < len(amps) and not done["wrong"] and "vanishing" not in done["left_out"]
    assert row["diagram"].count(" + ") + 1 == len(amps) - amps.count("0")


def test_roots_in_couplings_are_multiplied_out(tmp_path):
    def square_with(number):
        path = tmp_path / "roots.py"
        path.write_text(f"""particles = (("chi", "chi~", "1/2", "m_chi"), ("S", "S", 0, "m_S"))
vertices = ((("chi~", "chi", "S"), ("{number}", "unit")),)""")
        theory = read_theory(path)
        process = parse_process("chi chi~ -> chi chi~", theory)
        return [square(amp, facts=facts_of(process, theory)) for amp in amplitudes(process, theory)]

    nine, one = square_with("3^(1/2)*y"), square_with("y")
    assert nine == [text.replace("y^4", "9*y^4") if text.startswith("y^4") else text.replace(
        text.split("*")[0], str(9 * int(text.split("*")[0])), 1) for text in one]
    assert square_with("2*5^(-1/2)*y")[0].count("/25*y^4") == 1


def test_the_antiparticle_of_a_complex_boson_has_a_name_of_its_own():
    """Whether two outgoing bosons are identical is read in the text alone."""
    for process, identical in (("Ca1 Ca1 -> Ca1 Ca1", 2), ("Ca1 Ca1~ -> Ca1 Ca1~", 1), ("Xb1~ Xb1~ -> Xb1~ Xb1~", 2)):
        amp = amplitudes(parse_process(process, GENERAL), GENERAL)[0]
        _, fields, names = read_amplitude(amp)
        roles = roles_of(fields, names)
        assert (roles.incoming, roles.identical) == ((True, True, False, False), identical)
        assert ("_c" in amp) == ("~" in process)


# -- files


def prepared(folder, *flags):
    """The rows that prepare.py makes."""
    command = [sys.executable, ROOT / "prepare.py", *flags, f"--data_dir={folder}", "--workers=1"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return [row for name in ("train", "valid", "test") for row in csv.DictReader(open(folder / f"{name}.csv"))]


def test_the_dark_photon_is_prepared_and_decays_as_it_should(tmp_path):
    """Ap -> e e~: 4/3 epsilon^2 e^2 (M^2 + 2 m^2)."""
    path = ROOT / "docs" / "dark_photon.py"
    rows = prepared(tmp_path, f"--theory={path}", "--processes=1->2; chi chi~ -> e e~; 2->2", "--sample=30")
    assert len(rows) > 30 and {row["theory"] for row in rows} == {"dark_photon"}
    (sqamp,) = (row["sqamp"] for row in rows if row["process"] == "Ap -> e e~")
    values = {"e": 0.3, "epsilon": 0.1, "m_e": 0.7, "m_Ap": 3.0, **decay(3.0, 0.7, 0.7)}
    assert evaluate(parse(sqamp), values) == pytest.approx(4 / 3 * 0.1**2 * 0.3**2 * (9 + 2 * 0.49))
    assert any(row["process"] == "chi chi~ -> e e~" for row in rows)
    said = json.loads((tmp_path / "manifest.json").read_text())["settings"]["masses"]
    masses = {"Ap": "m_Ap", "chi": "m_chi", "hD": "m_hD", "phi": "m_phi"}
    assert dict(parse_masses(said)) == masses


def test_another_file_of_the_same_name_is_another_data_set(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MODEL)
    settings = prepare.load_settings("", prepare.KEYS, [f"--theory={path}"])
    first = prepare.fingerprint(prepare.facts_of(settings))
    path.write_text(MODEL.replace("m_phi", "m_f"))
    assert prepare.fingerprint(prepare.facts_of(settings)) != first


@pytest.mark.parametrize(
    "old, new, line, said",
    [
        ('("S", "S", 0, "m_S"),', '("S", "S", 0),', 6, "expected (name, antiparticle, spin, mass[, colour])"),
        ('("S", "S", 0, "m_S"),', '("S", "S", 2, "m_S"),', 6, 'the spin of S: got 2, expected 0, "1/2" or 1'),
        ('("S", "S", 0, "m_S"),', '("S", "S", "1/2", "m_S"),', 6, "Majorana"),
        ('("S", "S", 0, "m_S"),', '("S", "T", 0, "m_S"),', 6, "expected 'S~', or 'S'"),
        ('("S", "S", 0, "m_S"),', '("S", "S", 0, "M"),', 6, "expected a symbol m_.."),
        ('("S", "S", 0, "m_S"),', '("S", "S", 0, "m_S", 3),', 6, "the colour of S: got 3, expected 1"),
        ('("S", "S", 0, "m_S"),', '("e", "e~", 0, "m_S"),', 6, "the particle e stands twice"),
        ('("S", "S", 0, "m_S"),', '("i", "i", 0, "m_S"),', 6, "the particle: got 'i'"),
        ('("S", "S", 0, "m_S"),', '("S", "S", 0, open("x")),', 6, "expected a tuple of texts, numbers and tuples"),
        ('("Y", "Y~", 1, "m_Y")', '("Y", "Y~", 1, "")', 11, "it needs a mass"),
        ('(("e~", "e", "S")', '(("e~", "e", "Z")', 19, "no particle 'Z'; there are e e~ q"),
        ('(("e~", "e", "S")', '(("e~", "e", ["S"])', 19, "no particle ['S']"),
        ('(("e~", "e", "S")', '(("e", "e~", "S")', 19, "expected psibar and psi first, such as e~ e"),
        ('(("e~", "e", "S")', '(("e~", "S", "S")', 19, "no renormalisable vertex"),
        ('(("e~", "e", "S")', '(("q~", "e", "S")', 19, "no renormalisable vertex"),
        ('(("e~", "e", "V")', '(("e~", "e", "A")', 22, "the vertex of A e e~ stands in line 14 too"),
        ('("-y", "unit")', '("-y", "gamma")', 19, "the structure 'gamma': expected 'unit' or 'P_L' or 'P_R'"),
        ('("-y", "unit")', '("y + 1", "unit")', 19, "expected a product"),
        ('("-y", "unit")', '("y*", "unit")', 19, "the couplings 'y*': column 3"),
        ('("-y", "unit")', '("s_12", "unit")', 19, "s_12 is no coupling"),
        ('("-y", "unit")', '("-y",)', 19, "expected (couplings, structure)"),
        ('(("S", "S", "S"), ("lam", "number"))', '(("S", "S", "A"), ("lam", "SSV"))', 26, "cannot be exchanged in SSV"),
        ('(("S", "Y", "Y~"), ("k"', '(("S", "Y", "Y"), ("k"', 25, "needs that of their antiparticles, S Y~ Y~"),
        ("vertices = (", "import os\nvertices = (", 13, "expected only `particles = (..)` and `vertices = (..)`"),
        ("vertices = (", "vertices = ((", 26, "not valid Python"),
        ("vertices = (", "vertex = (", 13, "expected only"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path, old, new, line, said):
    path = tmp_path / "mine.py"
    assert MODEL.count(old) == 1
    path.write_text(MODEL.replace(old, new))
    with pytest.raises(InputError) as error:
        read_theory(path)
    message = str(error.value)
    assert said in message and "\n" not in message and re.match(rf"{re.escape(str(path))}:\d+: ", message)
    if "valid" not in said:
        assert message.startswith(f"{path}:{line}: ")


def test_a_file_is_never_run(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"particles = (__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch(),)\nvertices = ()")
    with pytest.raises(InputError, match="mine.py:1: expected a tuple"):
        read_theory(path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="no.py: No such file"):
        read_theory(tmp_path / "no.py")


# -- random theories


def test_a_seed_gives_one_theory_everywhere_and_others_differ():
    find_theory.cache_clear()
    first = [find_theory(f"random:{seed}") for seed in range(200)]
    find_theory.cache_clear()
    again = [find_theory(f"random:{seed}") for seed in range(20)]
    assert [list(theory) for theory in first[:20]] == [list(theory) for theory in again]
    assert len({theory.vertices for theory in first}) == 200
    for theory in first:
        fields = [tuple(sorted(vertex.particles)) for vertex in theory.vertices]
        assert len(set(fields)) == len(fields)
        conjugates = {tuple(sorted(theory.particles[name].antiparticle for name in names)) for names in fields}
        assert conjugates == set(fields)


def test_names_of_random_theories():
    assert theory_names("random:7") == ["random:7"] and len(theory_names("random:0-199")) == 200
    assert theory_names("qed random:1-2 ew") == ["qed", "random:1", "random:2", "ew"]
    for setting in ("qed sm", "my.py qed", "", "random:9-7", "random:0-200000", "random", "random:x", "sm"):
        with pytest.raises(InputError, match="^theory: got"):
            theory_names(setting)


@pytest.mark.parametrize("seed", range(6))
def test_rows_of_random_theories_are_proven(seed):
    theory = find_theory(f"random:{seed}")
    processes = [p for p in list_processes("2->2", theory)[seed::97] if count_diagrams(p, theory)][:3]
    done = prepare.make_rows(processes, theory.name, "diagram", "all", 1)
    assert not done["wrong"] and (done["rows"] or done["left_out"].get("vanishing"))
    for row in done["rows"][:4]:
        assert exact.prove(row["amp"], row["sqamp"], facts=Facts(row["process"]))


def test_several_theories_make_one_data_set(tmp_path):
    rows = prepared(tmp_path, "--theory=random:3-5", "--sample=6", "--processes=2->2; 1->2", "--longest_sqamp=400")
    assert {row["theory"] for row in rows} == {"random:3", "random:4", "random:5"}
    assert {row["process"].count(" ") for row in rows} == {3, 4}
    for flags, said in ((["--sample=0"], "sample: got 0"), (["--max_diagrams=30"], "up to 36 diagrams")):
        settings = prepare.load_settings("", prepare.KEYS, ["--theory=random:3-5", "--processes=2->2; 2->3",
                                                            "--sample=6", *flags])
        with pytest.raises(InputError, match=said):
            prepare.check(settings)
