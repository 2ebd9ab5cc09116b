"""Cross sections from the texts of squares against the formulas of textbooks."""
import csv
import functools
import math
import re

import numpy as np
import pytest
from tiny import make_run

import cross_section as script
from dataset.rows import make_rows
from decode import choose
from generate import Hypothesis
from physics.amplitude import amplitudes, parse_process
from physics.cross_section import (
    ALPHA,
    NANOBARN,
    VALUES,
    differential,
    masses_of,
    poles,
    textbook,
    threshold,
    total,
    uncounted_states,
)
from physics.expression import parse
from physics.formats import to_function
from physics.square import square
from physics.theory import THEORIES
from runtime import checkpoint
from runtime.files import InputError
from tokenizer import EOS

QED = VALUES["qed"]


@functools.lru_cache
def whole(text, theory="qed"):
    """(|M|^2 of a process as a function, masses of the legs)"""
    process = parse_process(text, THEORIES[theory])
    amp = " + ".join(amplitudes(process, THEORIES[theory], whole=True))
    return to_function(parse(square(amp))), masses_of(process, theory, VALUES[theory])


def in_nanobarn(text, energy, cosine):
    """d sigma / d Omega in units of alpha^2 / s."""
    function, masses = whole(text)
    result = differential(function, energy, np.arctanh(np.float64(cosine)), masses, QED)
    return float(result) / (ALPHA**2 / energy**2 * NANOBARN)


# ---------------------------------------------------------------------------------------------------------------------
# total cross sections

def test_muon_pairs_at_high_energy_are_4_pi_alpha_squared_over_3_s():
    function, masses = whole("e e~ -> mu mu~")
    energies = np.array([10.0, 100.0])
    expected = 4 * math.pi * ALPHA**2 / (3 * energies**2) * NANOBARN
    assert total(function, energies, masses, QED) == pytest.approx(expected, rel=1e-6)
    assert total(function, np.array([1.0]), masses, QED) == pytest.approx(86.8, rel=2e-3)      # 86.8 nb GeV^2 / s
    near = np.array([0.22])
    assert total(function, near, masses, QED)[0] < 0.5 * 86.8 / near[0]**2                     # the muon's mass matters


@pytest.mark.parametrize("text", [
    "e e~ -> mu mu~", "mu~ mu -> t t~", "d d~ -> mu mu~", "e A -> e A", "A mu~ -> A mu~", "u A -> A u", "e e~ -> A A",
    "A A -> mu~ mu", "A A -> u u~",
])
def test_the_textbooks_formula_with_masses(text):
    process = parse_process(text, THEORIES["qed"])
    function, masses = whole(text)
    energies = np.geomspace(1.001 * threshold(masses), 1000 * threshold(masses), 7)
    _, formula = textbook(process, "qed", QED)
    assert total(function, energies, masses, QED) == pytest.approx(formula(energies**2), rel=1e-9)


def test_forward_peaks_keep_their_digits():
    function, masses = whole("e e~ -> A A")
    _, formula = textbook(parse_process("e e~ -> A A", THEORIES["qed"]), "qed", QED)
    assert total(function, np.array([200.0]), masses, QED) == pytest.approx(formula(200.0**2), rel=1e-6)


def test_slow_photons_scatter_by_thomson():
    function, masses = whole("e A -> e A")
    thomson = 8 * math.pi / 3 * (ALPHA / masses[0])**2 * NANOBARN
    assert thomson == pytest.approx(0.66524587e9, rel=1e-6)                                   # in nb: 0.665 barn
    assert total(function, np.array([masses[0] * 1.0001]), masses, QED) == pytest.approx(thomson, rel=1e-3)


def test_no_textbook_formula_where_there_is_none():
    for text in ("e e~ -> e e~", "e mu -> e mu", "e e -> e e"):
        assert textbook(parse_process(text, THEORIES["qed"]), "qed", QED) is None
    assert textbook(parse_process("u u~ -> d d~", THEORIES["qcd"]), "qcd", VALUES["qcd"]) is None


@pytest.mark.parametrize("text", ["e e~ -> e e~", "e mu -> e mu", "e e -> e e"])
def test_a_total_that_diverges_needs_a_cut(text):
    function, masses = whole(text)
    with pytest.raises(InputError, match="diverges.*--max_cos=0.95"):
        total(function, np.array([1.0]), masses, QED)
    assert total(function, np.array([1.0]), masses, QED, 0.9) < total(function, np.array([1.0]), masses, QED, 0.95)


# ---------------------------------------------------------------------------------------------------------------------
# angular distributions at high energy: Peskin & Schroeder (5.10), problem 5.2, (5.106); Halzen & Martin, section 6.6

MASSLESS = {
    "e e~ -> mu mu~": lambda c: (1 + c**2) / 4,
    "e mu -> e mu": lambda c: (4 + (1 + c)**2) / (2 * (1 - c)**2),
    "e e~ -> e e~": lambda c: (
        (1 + ((1 + c) / 2)**2) / ((1 - c) / 2)**2 - 2 * ((1 + c) / 2)**2 / ((1 - c) / 2) + (1 + c**2) / 2) / 2,
    "e e -> e e": lambda c: (3 + c**2)**2 / (1 - c**2)**2 / 2,                                # 1/2: identical electrons
    "e e~ -> A A": lambda c: (1 + c**2) / (1 - c**2) / 2,                                     # 1/2: identical photons
}


@pytest.mark.parametrize("text", MASSLESS)
@pytest.mark.parametrize("cosine", [-0.7, 0.0, 0.4, 0.9])
def test_angular_distributions_without_masses(text, cosine):
    assert in_nanobarn(text, 500.0, cosine) == pytest.approx(MASSLESS[text](cosine), rel=1e-5)


def test_the_angle_is_between_particles_1_and_3():
    forward, backward = (in_nanobarn("e mu -> e mu", 500.0, cosine) for cosine in (0.9, -0.9))
    assert forward > 100 * backward


# ---------------------------------------------------------------------------------------------------------------------
# the electroweak theory, and what rows do not count

EW = VALUES["ew"]


def electroweak(text, energies, max_cos=1.0):
    function, masses = whole(text, "ew")
    return uncounted_states(parse_process(text, THEORIES["ew"]), "ew") * total(function, np.array(energies), masses, EW,
                                                                              max_cos)


def test_neutrinos_scatter_off_electrons_by_the_fermi_constant():
    """sigma = G_F^2 s / pi (g_L^2 + g_R^2 / 3) at m_e^2 << s << m_W^2 (Halzen & Martin, section 13.5)."""
    sine_2, energy = math.sin(EW["theta_W"])**2, 0.3
    fermi = EW["e"]**2 / (4 * math.sqrt(2) * sine_2 * EW["m_W"]**2)
    left, right = -0.5 + sine_2, sine_2
    expected = fermi**2 * energy**2 / math.pi * (left**2 + right**2 / 3) * NANOBARN
    assert electroweak("nu_mu e -> nu_mu e", [energy])[0] == pytest.approx(expected, rel=1e-3)


def test_quarks_of_qed_and_ew_have_three_colours():
    for theory in ("qed", "ew"):
        factors = {"e e~ -> u u~": 3, "u u~ -> e e~": 1 / 3, "u A -> u A": 1, "A A -> d d~": 3, "e e~ -> mu mu~": 1}
        assert factors == {text: uncounted_states(parse_process(text, THEORIES[theory]), theory) for text in factors}
        with pytest.raises(InputError, match=f"quarks have no colour in {theory}"):
            uncounted_states(parse_process("u u~ -> d d~", THEORIES[theory]), theory)
    assert uncounted_states(parse_process("u u~ -> d d~", THEORIES["qcd"]), "qcd") == 1


def test_bosons_do_not_grow_with_the_energy():
    """W W~ -> Z Z is flat at high energies at a fixed angle; with another mixing angle it grows."""
    function, masses = whole("W W~ -> Z Z", "ew")
    energies = np.array([2e3, 1e4])
    low, high = energies**2 * differential(function, energies, np.arctanh(0.3), masses, EW)
    assert high == pytest.approx(low, rel=0.05)


def test_a_boson_without_width_is_a_pole_in_the_channel_where_it_is_made():
    for text, names in (("e e~ -> mu mu~", {"m_Z"}), ("b b~ -> tau tau~", {"m_Z", "m_h"}),
                        ("nu_e e~ -> nu_mu mu~", {"m_W"}),
                        ("nu_mu e -> nu_mu e", set())):  # electrons and muons hardly couple to the Higgs
        function, masses = whole(text, "ew")
        assert set(poles(function, np.array([20.0, 200.0]), masses, EW)) == names
        assert not poles(function, np.array([20.0, 70.0]), masses, EW)
    function, masses = whole("b W -> b W", "ew")
    assert set(poles(function, np.array([100.0, 300.0]), masses, EW)) == {"m_t"}


# ---------------------------------------------------------------------------------------------------------------------
# the script

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_run(folder)
    return folder


def columns(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_the_models_verified_answer_stands_beside_forms_and_the_textbooks(run, tmp_path, capsys):
    script.main(["e e~ -> mu mu~", f"--ckpt={run / 'run' / 'best.pt'}", f"--output={tmp_path / 'pair.csv'}",
                 "--device=cpu"])
    said = capsys.readouterr().out
    assert "verified" in said and "model and FORM: largest relative difference" in said
    totals, angles = columns(tmp_path / "pair.csv"), columns(tmp_path / "pair.angles.csv")
    assert list(totals) == ["energy_GeV", "form_nb", "model_nb", "textbook_nb"]
    assert totals["model_nb"] == pytest.approx(totals["textbook_nb"], rel=1e-9)
    assert totals["form_nb"] == pytest.approx(totals["textbook_nb"], rel=1e-9)
    assert list(angles) == ["cos_theta", "form_nb_per_sr", "model_nb_per_sr"]
    assert angles["model_nb_per_sr"] == pytest.approx(angles["form_nb_per_sr"], rel=1e-9)
    assert (tmp_path / "pair.png").read_bytes().startswith(b"\x89PNG")


def test_an_answer_that_is_not_verified_is_not_drawn(run, tmp_path, capsys):
    """The model knows single diagrams only, so that the sum of the two of Compton scattering is unknown to it."""
    script.main(["e A -> e A", f"--ckpt={run / 'run' / 'best.pt'}", f"--output={tmp_path / 'c.csv'}", "--device=cpu"])
    assert "verified\n" not in capsys.readouterr().out
    assert list(columns(tmp_path / "c.csv")) == ["energy_GeV", "form_nb", "textbook_nb"]


@pytest.fixture(scope="module")
def process_run(tmp_path_factory):
    """A model that has learned squares of whole processes by heart, from rows as --squares=process makes them."""
    folder, qed = tmp_path_factory.mktemp("processes"), THEORIES["qed"]
    processes = [parse_process(text, qed) for text in ("e A -> e A", "e e~ -> e e~", "e e~ -> A A")]
    rows = make_rows(processes, "qed", "process", "all", 0)["rows"]
    assert [row["process"] for row in rows] == ["e A -> e A", "e e~ -> e e~", "e e~ -> A A"]
    return folder, make_run(folder, 120, rows, 200, closed_vocabulary=True)


def test_a_model_of_whole_processes_squares_interference_too(process_run, tmp_path, capsys):
    """The two diagrams of Compton scattering together, from the text of the amplitude to nanobarns."""
    folder, rows = process_run
    script.main(["e A -> e A", f"--ckpt={folder / 'run' / 'best.pt'}", f"--output={tmp_path / 'c.csv'}",
                 "--device=cpu"])
    said, found = capsys.readouterr().out, columns(tmp_path / "c.csv")
    assert "verified\n" in said and f"|M|^2 of e A -> e A: {rows[0]['sqamp']}\n" in said
    assert list(found) == ["energy_GeV", "form_nb", "model_nb", "textbook_nb"]
    assert found["model_nb"] == pytest.approx(found["textbook_nb"], rel=1e-9)
    assert "model_nb_per_sr" in columns(tmp_path / "c.angles.csv")


def test_where_a_model_of_whole_processes_errs_forms_square_stands_alone(process_run, tmp_path, capsys):
    """A A -> e e~ is none of its three processes: it reads the amplitude, answers wrongly, and that is said."""
    script.main(["A A -> e e~", f"--ckpt={process_run[0] / 'run' / 'best.pt'}", f"--output={tmp_path / 'a.csv'}",
                 "--device=cpu"])
    assert re.search(r"the model's answer \(.*\): (unverified: |unfinished)", capsys.readouterr().out)
    found = columns(tmp_path / "a.csv")
    assert list(found) == ["energy_GeV", "form_nb", "textbook_nb"]
    assert found["form_nb"] == pytest.approx(found["textbook_nb"], rel=1e-9)


@pytest.mark.parametrize("wrong", [False, True])
def test_the_interference_of_a_whole_process_is_judged(monkeypatch, tmp_path, wrong):
    """Bhabha scattering in other invariants than FORM's is used; with a wrong sign of the interference it is not."""
    process = parse_process("e e~ -> e e~", THEORIES["qed"])
    text = square(" + ".join(amplitudes(process, THEORIES["qed"], whole=True)), basis="independent")
    if wrong:
        assert text.count(")^(-1)*(") == 1                   # two different propagators: the interference
        text = text.replace(")^(-1)*(", ")^(-1)*(-1)*(")

    def answer(loaded, amp, beam_size, check, facts):
        yield choose(amp, {text: Hypothesis([5, EOS], -0.1, -0.1)}, check, False, facts)

    monkeypatch.setattr(script, "load", lambda *_: None)
    monkeypatch.setattr(script, "decode", answer)
    script.main(["e e~ -> e e~", "--ckpt=stub.pt", f"--output={tmp_path / 'b.csv'}", "--max_cos=0.9", "--energies=1:9"])
    found = columns(tmp_path / "b.csv")
    assert ("model_nb" in found) == (not wrong)
    if not wrong:
        assert found["model_nb"] == pytest.approx(found["form_nb"], rel=1e-9)


def test_without_a_model_the_curves_are_forms(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "models")
    script.main(["u u~ -> d d~", "--theory=qcd", "--energies=10:100", "--max_cos=0.9"])
    assert "no model" in capsys.readouterr().err
    found = columns(tmp_path / "cross_section" / "u_u~_to_d_d~.csv")
    assert list(found) == ["energy_GeV", "form_nb"] and found["energy_GeV"][[0, -1]] == pytest.approx([10, 100])


@pytest.mark.parametrize("arguments, message", [
    ([], "got 0 processes, wanted one"), (["e e~ -> mu mu~ A"], "two particles that go to two"),
    (["e x -> e x"], "no particle 'x'"), (["A A -> A A"], "energies"), (["e e -> mu mu"], "no tree diagram"),
    (["e e~ -> mu mu~", "--energies=0.1:1"], "above the threshold of 0.211317 GeV"),
    (["e e~ -> mu mu~", "--energies=ten"], "wanted LOWEST:HIGHEST in GeV"),
    (["e e~ -> mu mu~", "--max_cos=2"], "max_cos: got 2.0, wanted more than 0 and at most 1"),
    (["e e~ -> mu mu~", "--theory=qd"], "theory: got 'qd'"), (["e e~ -> mu mu~", "--theory=general"], "theory: got"),
    (["e e~ -> mu mu~", "--ckpt=missing.pt"], "missing.pt"),
    (["e e~ -> mu mu~", "--output=pair.png"], "output: got pair.png, wanted a name that ends in .csv"),
    (["e e~ -> mu mu~", "--style=plain"], "style: got 'plain', wanted factored, inside, marty"),
    (["e e~ -> mu mu~", "--basis=some"], "basis: got 'some', wanted all, independent"),
    (["e e~ -> mu mu~", "--beam", "--beam_size=-3"], "beam_size: got -3, wanted at least 1"),
    (["--processes=e e~ -> mu mu~"], "got 0 processes, wanted one"),
])
def test_wrong_settings_are_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        script.main(arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["pair.csv", "pair.angles.csv", "pair.png"])
def test_no_file_of_a_user_is_overwritten(tmp_path, name):
    (tmp_path / name).write_text("amp,sqamp\n")
    with pytest.raises(InputError, match=f"{name}: exists and is no earlier output"):
        script.main(["e e~ -> mu mu~", f"--output={tmp_path / 'pair.csv'}"])
    assert (tmp_path / name).read_text() == "amp,sqamp\n"
