"""The generator and the squarer against textbooks, against MARTY and against verify.py."""
import random
import re
from fractions import Fraction

import numpy as np
import pytest

from dataset.reader import read_rows
from physics import colour, form
from physics import square as squarer
from physics.amplitude import amplitudes, diagrams, external_legs, parse_process, shortest
from physics.expression import Sum, children, expand, legs_of, marked_off_shell, parse
from physics.numeric import evaluate, verify
from physics.polynomial import factored_text
from physics.rational import rational
from physics.square import Row, square, square_many
from physics.theory import THEORIES, conserved_charges
from runtime.files import InputError

QED = THEORIES["qed"]


def process_amplitudes(text):
    return amplitudes(parse_process(text, QED), QED)


# -- theory

def test_charges_of_the_particles_are_those_of_the_particle_data_group():
    charge = {name: particle.charge for name, particle in QED.particles.items()}
    assert [charge[x] for x in ("e", "mu", "t", "u", "c", "tt", "d", "s", "b", "A")] == [
        Fraction(q) for q in "-1 -1 -1 2/3 2/3 2/3 -1/3 -1/3 -1/3 0".split()
    ]
    assert charge["e~"] == 1 and charge["u~"] == Fraction(-2, 3)


def test_conserved_charges_of_qed_are_the_nine_flavours():
    charges = conserved_charges(QED)
    assert np.linalg.matrix_rank(np.array([charges[name] for name in QED.particles])) == 9
    assert np.allclose(charges["A"], 0) and np.allclose(charges["e"], -charges["e~"])


# -- amplitudes

@pytest.mark.parametrize(
    "process, count",
    [
        ("e e~ -> mu mu~", 1),
        ("e e~ -> e e~", 2),
        ("e e -> e e", 2),
        ("e A -> e A", 2),
        ("e e~ -> A A", 2),
        ("A A -> A A", 0),
        ("e e~ -> mu mu~ A", 4),
        ("e e~ -> e e~ A", 8),
        ("e e~ -> A A A", 6),
    ],
)
def test_number_of_tree_diagrams(process, count):
    assert len(process_amplitudes(process)) == count


def test_amplitude_is_spelled_as_marty_spells_it():
    """The row of MARTY for this process, up to index names, the order of the fields and an overall sign."""
    assert process_amplitudes("e e~ -> mu mu~") == [
        r"1/2*i*e^2*gamma_{+%\mu_1,%a_1,%a_2}*gamma_{%\mu_1,%a_3,%a_4}*e_{i_2,%a_1}(p_2)_v^(*)*e_{i_1,%a_2}(p_1)_u"
        r"*mu_{i_3,%a_3}(p_3)_u^(*)*mu_{i_4,%a_4}(p_4)_v/(m_e^2 + s_12 + 1/2*reg_prop)"]
    assert process_amplitudes("A tt -> A tt")[0].endswith("/(s_12 + 1/2*reg_prop)")
    # charge (2/3)^2, over the factor 2 of the denominator
    assert process_amplitudes("A tt -> A tt")[0].startswith("-2/9*i*e^2*(")


def test_propagator_momentum_takes_the_shorter_way_round():
    four, five = (external_legs(parse_process(text, QED), QED) for text in ("e e~ -> mu mu~", "e e~ -> mu mu~ A"))
    assert shortest([1, 1, 0, 0], four) == {0: 1, 1: 1}
    assert shortest([1, 1, -1, 0, 0], five) == {3: 1, 4: 1}                               # p1 + p2 - p3 = p4 + p5
    assert shortest([0, -1, 1, 1, 0], five) == {0: 1, 4: -1}                              # -p2 + p3 + p4 = p1 - p5


@pytest.mark.parametrize("text", ["e e~ mu mu~", "e e~ -> ", "e x -> e x", "-> e"])
def test_unknown_processes_are_refused_in_one_line(text):
    with pytest.raises(InputError, match="process '"):
        parse_process(text, QED)


# -- textbook formulas: |M|^2 / e^4 with unit charges, spins averaged, identical final particles count once (1/2)
#    s, t, u Mandelstam; m the mass of the first fermion, M of the second

def _muons(s, t, u, m, M):
    # Peskin & Schroeder (5.10) before the electron's mass is dropped, dot products in Mandelstam form
    p13, p14, p12, p34 = (m**2 + M**2 - t) / 2, (m**2 + M**2 - u) / 2, (s - 2 * m**2) / 2, (s - 2 * M**2) / 2
    return 8 / s**2 * (p13**2 + p14**2 + M**2 * p12 + m**2 * p34 + 2 * m**2 * M**2)


def _moller(s, t, u, m, M):      # Berestetskii, Lifshitz, Pitaevskii, Quantum Electrodynamics, section 81
    return 2 * (((s**2 + u**2) / 2 + 4 * m**2 * (t - m**2)) / t**2 + ((s**2 + t**2) / 2 + 4 * m**2 * (u - m**2)) / u**2
                + 4 / (t * u) * (s / 2 - m**2) * (s / 2 - 3 * m**2))


def _compton(s, t, u, m, M):     # Peskin & Schroeder (5.87), p.k = (s - m^2)/2, p.k' = (m^2 - u)/2
    a, b = (s - m**2) / 2, (m**2 - u) / 2
    return 2 * (b / a + a / b + 2 * m**2 * (1 / a - 1 / b) + m**4 * (1 / a - 1 / b)**2)


def _annihilation(s, t, u, m, M):      # Peskin & Schroeder (5.105), p1.k1 = (m^2 - t)/2, p1.k2 = (m^2 - u)/2
    a, b = (m**2 - t) / 2, (m**2 - u) / 2
    return 2 * (b / a + a / b + 2 * m**2 * (1 / a + 1 / b) - m**4 * (1 / a + 1 / b)**2)


TEXTBOOK = {  # process: (formula, power of the charges relative to the electron's, masses of the legs)
    "e e~ -> mu mu~": (_muons, 1, "mmMM"),
    "e mu -> e mu": (lambda s, t, u, m, M: _muons(t, s, u, m, M), 1, "mMmM"),  # crossing s <-> t
    "e mu~ -> e mu~": (lambda s, t, u, m, M: _muons(t, u, s, m, M), 1, "mMmM"),
    "e e -> e e": (_moller, 1, "mmmm"),
    "e~ e~ -> e~ e~": (_moller, 1, "mmmm"),
    # Bhabha: crossing s <-> u, distinguishable
    "e e~ -> e e~": (lambda s, t, u, m, M: 2 * _moller(u, t, s, m, M), 1, "mmmm"),
    "e A -> e A": (_compton, 1, "m0m0"),
    "e~ A -> e~ A": (_compton, 1, "m0m0"),
    "e e~ -> A A": (lambda *x: _annihilation(*x) / 2, 1, "mm00"),
    "A A -> e e~": (lambda s, t, u, m, M: _annihilation(s, t, u, m, M), 1, "00mm"),
    "u u~ -> d d~": (_muons, Fraction(2, 9) ** 2, "mmMM"),
    "tt A -> tt A": (_compton, Fraction(2, 3) ** 4, "m0m0"),
    "b b~ -> A A": (lambda *x: _annihilation(*x) / 2, Fraction(1, 3) ** 4, "mm00"),
}


@pytest.mark.parametrize("basis", ["all", "independent"])
@pytest.mark.parametrize("massive", [False, True], ids=["massless", "massive"])
@pytest.mark.parametrize("process", TEXTBOOK)
def test_textbook_formula(process, massive, basis):
    formula, charges, legs = TEXTBOOK[process]
    sqamp = square(" + ".join(process_amplitudes(process)), basis)  # all diagrams with their interference
    rng = random.Random(1)
    for _ in range(5):
        mass = {"0": 0, "m": rng.uniform(0.5, 1.5) if massive else 0, "M": rng.uniform(0.5, 1.5) if massive else 0}
        squares = [mass[leg]**2 for leg in legs]
        s, t = rng.uniform(20, 40), -rng.uniform(2, 8)
        u = sum(squares) - s - t
        values = {
            "e": 1.0,
            "reg_prop": 0.0,
            "i": 1j,
            "s_12": (s - squares[0] - squares[1]) / 2,
            "s_34": (s - squares[2] - squares[3]) / 2,
            "s_13": (squares[0] + squares[2] - t) / 2,
            "s_24": (squares[1] + squares[3] - t) / 2,
            "s_14": (squares[0] + squares[3] - u) / 2,
            "s_23": (squares[1] + squares[2] - u) / 2,
        }
        names = dict.fromkeys(("e", "u", "tt", "b", "mu", "d"))
        values |= {f"m_{name}": mass["M"] if name in ("mu", "d") else mass["m"] for name in names}
        assert evaluate(parse(sqamp), values) == pytest.approx(
            float(charges) * formula(s, t, u, mass["m"], mass["M"]), rel=1e-10
        )


# -- squares

def test_square_of_a_process_with_interference_is_right():
    for process in ("e e~ -> e e~", "e e -> e e", "e A -> e A", "e e~ -> A A", "u u~ -> u u~", "e e~ -> mu mu~ A"):
        amp = " + ".join(process_amplitudes(process))
        assert verify(amp, square(amp)), process


def test_square_of_every_marty_amplitude_is_right(marty):
    for name, step in (("qed-2to2", 1), ("qcd-2to2", 1), ("qed-2to2-offshell", 40)):
        amps = [row["amp"] for _, row in read_rows(marty / f"{name}.csv.gz")][::step]
        for amp, sqamp in zip(amps, square_many(amps)):
            assert verify(amp, str(sqamp)), (amp, sqamp)


def test_same_diagrams_as_marty_have_the_same_square(marty):
    """For each on-shell row of MARTY some diagram of ours over the same legs has a square of the same value."""
    seen = []
    for _, row in read_rows(marty / "qed-2to2.csv.gz"):
        amp = row["amp"]
        legs = {int(leg): (name, kind, bool(star)) for name, leg, kind, star in
                re.findall(r"([a-zA-Z]+)_\{[^}]*\}\(p_(\d)\)(?:_([uv]))?(\^\(\*\))?", amp)}
        names = [name + "~" * (kind == "v") for name, kind, _ in (legs[k] for k in sorted(legs))]
        process = f"{names[0]} {names[1]} -> {names[2]} {names[3]}"
        seen.append(process)
        ours = process_amplitudes(process)
        assert any(verify(a, row["sqamp"]) for a in ours), (process, row["sqamp"])
    assert len(seen) == 190 and len(set(seen)) > 60


def test_same_qcd_diagrams_as_marty_have_the_same_square(marty):
    """Each MARTY QCD row, three-gluon vertices included: some diagram of ours with these legs has its square."""
    for line, row in read_rows(marty / "qcd-2to2.csv.gz"):
        legs = {
            int(leg): name + "~" * (kind == "v")
            for name, leg, kind in re.findall(r"([a-zA-Z]+)_\{[^}]*\}\(p_(\d)\)(?:_([uv]))?", row["amp"])
        }
        ours = amplitudes(((legs[1], legs[2]), (legs[3], legs[4])), THEORIES["qcd"])
        assert any(verify(amp, row["sqamp"]) for amp in ours), line


@pytest.mark.parametrize("process", ["G G -> G G", "u u~ -> G G", "G u -> G u", "d d -> d d", "u t~ -> t~ u"])
def test_qcd_squares_are_right(process):
    for amp in amplitudes(parse_process(process, THEORIES["qcd"]), THEORIES["qcd"]):
        assert verify(amp, square(amp))


def test_colour_sums_of_conjugated_pairs(monkeypatch):
    """One of each pair and its conjugate is summed; all sums are what FORM says of every pair by itself."""
    process = parse_process("u u~ -> G G", THEORIES["qcd"])
    pairs = Row(" + ".join(amplitudes(process, THEORIES["qcd"], whole=True)), "all").colours
    monkeypatch.setattr(colour, "_known", {})
    monkeypatch.setattr(colour, "CHUNK", 2)
    found = colour.sums(set(pairs))
    alone = {
        pair: "".join(
            form.run(
                colour.DECLARATIONS, [f"{colour._text(pair[0], False)}*{colour._text(pair[1], True)}"], colour.FIERZ, 60
            )[0]
        )
        or "0"
        for pair in pairs
    }
    assert {pair: value.removeprefix("+") for pair, value in found.items()} == {
        pair: value.removeprefix("+") for pair, value in alone.items()
    }
    assert len(alone) == 9 and sum("i_" in value for value in alone.values()) == 4 and len(set(alone.values())) > 3


def test_momentum_conservation_makes_squares_unique():
    """Texts that are equal only by momentum conservation have one square in the independent basis, two in the other."""
    amp, = process_amplitudes("e e~ -> mu mu~")
    other = amp.replace("m_e^2 + s_12", "m_mu^2 + s_34")  # (p_1 + p_2)^2 = (p_3 + p_4)^2
    assert square(amp) != square(other) and square(amp, "independent") == square(other, "independent")
    assert verify(amp, square(other)) and verify(amp, square(amp, "independent"))
    assert not re.search("s_(14|23|24|34)", square(amp, "independent"))


def test_muon_decay_has_the_chiral_structure_of_the_textbooks():
    """Both currents (1 - gamma5)/2: 16 p1.p4 p2.p3 summed over spins (Fermi theory, any textbook), averaged half."""
    amp = (r"gamma_{+%\mu_1,%a_1,%a_2}*P_L_{%a_2,%a_3}*gamma_{%\mu_1,%a_4,%a_5}*P_L_{%a_5,%a_6}"
           r"*nu_mu_{i_2,%a_1}(p_2)_u^(*)*mu_{i_1,%a_3}(p_1)_u*e_{i_3,%a_4}(p_3)_u^(*)*nu_e_{i_4,%a_6}(p_4)_v")
    assert square(amp) == "8*s_14*s_23"
    assert verify(amp, "8*s_14*s_23")


MOLLER = " + ".join(process_amplitudes("e e -> e e"))


def test_one_physics_one_text():
    """The order of terms and factors, names of indices and a common factor inside do not change the canonical text."""
    amp = process_amplitudes("e A -> e A")[0]
    expected = square(amp)
    head, body, tail = re.fullmatch(r"(.*?\*)\((.*)\)(/.*)", amp).groups()
    rng = random.Random(2)
    for _ in range(10):
        terms = []
        for term in body.split(" + "):
            factors = re.split(r"\*(?![)])", term)
            rng.shuffle(factors)
            terms.append("*".join(factors))
        rng.shuffle(terms)
        other = f"{head}({' + '.join(terms)}){tail}"
        for name in (r"\mu_1", r"\mu_2", r"\mu_3", "a_1", "a_2", "a_3", "a_4"):
            other = other.replace(f"%{name}", f"%{name.rstrip('0123456789')}{rng.randint(10**6, 10**7)}{name[-1]}")
        assert square(other) == expected
    assert square(f"{head}(2*({body})){tail}*1/2") == expected
    assert square(f"{head}(-1)*({body})*(-1){tail}") == expected
    first, second = process_amplitudes("e e -> e e")
    assert square(f"{second} + {first}") == square(f"{first} + {second}")


def test_canonical_text_has_one_prefactor_one_polynomial_and_the_propagators():
    assert square(process_amplitudes("e e~ -> mu mu~")[0]) == \
        "2*e^4*(2*m_e^2*m_mu^2 + m_mu^2*s_12 + s_14*s_23 + s_13*s_24 + m_e^2*s_34)*(m_e^2 + s_12 + 1/2*reg_prop)^(-2)"
    assert (
        factored_text({(("e", 2), ("m_e", 2)): Fraction(-2, 3), (("e", 2), ("m_e", 2), ("s_12", 1)): Fraction(4, 9)})
        == "-2/9*e^2*m_e^2*(3 + (-2)*s_12)"
    )
    assert factored_text({}) == "0"


def test_the_style_inside_has_no_number_in_front_of_a_sum():
    polynomial = {(("e", 2), ("m_e", 2)): Fraction(-2, 3), (("e", 2), ("m_e", 2), ("s_12", 1)): Fraction(4, 9)}
    assert factored_text(polynomial, number_in_front=False) == "e^2*m_e^2*(-2/3 + 4/9*s_12)"
    assert factored_text({(("e", 2), ("s_12", 1)): Fraction(-2, 3)}, number_in_front=False) == "-2/3*e^2*s_12"
    for amp in process_amplitudes("e A -> e A"):
        assert rational(parse(square(amp, style="inside"))) == rational(parse(square(amp)))


BAD = [
    ("2*s_12", "no external legs"),
    ("e_{i_1,%a}(p_1)_u*(", "column"),
    (r"e_{i_1,%a}(p_1)_u*e_{i_2,%a}(p_2)_u^(*)/(s_12 - s_12)", "division by zero"),
    (r"sin(theta_W + e)*e_{i_1,%a}(p_1)_u*e_{i_2,%a}(p_2)_u^(*)", "of an angle"),
    (r"e^theta_W*e_{i_1,%a}(p_1)_u*e_{i_2,%a}(p_2)_u^(*)", "exponent"),
    (r"gamma_{%\m,%a,%b}*gamma_{%\m,%b,%a}*e_{i_1,%c}(p_1)_u*e_{i_2,%c}(p_2)_u^(*)", "do not join"),
    (r"x_{%a,%b}*e_{i_1,%b}(p_1)_u*e_{i_2,%a}(p_2)_u^(*)", "unknown tensor"),
]


@pytest.mark.parametrize("amp, reason", BAD)
def test_what_cannot_be_squared_says_why(amp, reason):
    with pytest.raises(InputError, match=reason):
        square(amp)


def test_bad_rows_do_not_stop_the_good_ones():
    good = process_amplitudes("e e~ -> mu mu~")[0]
    answers = square_many([good, *(amp for amp, _ in BAD), good])
    assert answers[0] == answers[-1] == square(good)
    assert all(isinstance(answer, InputError) for answer in answers[1:-1])


def test_a_row_on_which_form_fails_or_hangs_is_found_among_the_others(monkeypatch):
    """FORM itself is made to fail on one row's expression; halving finds it and answers the rest."""
    amps = process_amplitudes("e e~ -> e e~") + process_amplitudes("e A -> e A") + process_amplitudes("e e~ -> mu mu~")
    expected = square_many(amps)
    read = squarer.Row.__init__

    def broken(self, amp, *rest):
        read(self, amp, *rest)
        if amp == amps[2]:
            self.vectors.append("(")

    monkeypatch.setattr(squarer.Row, "__init__", broken)
    answers = square_many(amps)
    assert isinstance(answers[2], InputError) and "FORM" in str(answers[2])
    assert [a for k, a in enumerate(answers) if k != 2] == [a for k, a in enumerate(expected) if k != 2]
    monkeypatch.setattr(squarer.Row, "__init__", read)
    assert all("more than" in str(answer) for answer in square_many(amps[:2], timeout=1e-4))


def test_text_of_a_row_never_becomes_form_input():
    amp = process_amplitudes("e e~ -> mu mu~")[0]
    for name in ("system", "Local", "end", "g_", "d_", "x0", "s1x2", "p1"):
        answer = square(f"{name}*{amp}")
        assert answer == square(amp).replace(
            "e^4", "*".join(sorted(["e^4", f"{name}^2"], key=lambda x: x.split("^")[0]))
        )


def test_feyngraph_draws_what_the_amplitude_says():
    assert [p.particle().name() for d in diagrams(parse_process("e A -> e A", QED), QED) for p in d.propagators()] == [
        "e",
        "e",
    ]


@pytest.mark.parametrize("name", ["a1", "a3", "c1", "c3", "zz", "d_", "x0"])
def test_names_of_indices_mean_nothing_to_form(name):
    """An index without its % is read as well; it collides with nothing in the program that FORM gets."""
    for process in ("u d -> u d", "u G -> u G"):
        amp = amplitudes(parse_process(process, THEORIES["qcd"]), THEORIES["qcd"])[0]
        for index in ("%g_1", "%C_1", "%a_1"):
            other = re.sub(re.escape(index) + r"(?!\d)", lambda _: name, amp)
            assert square(other) == square(amp)


def test_a_row_does_not_depend_on_its_neighbours():
    amp = process_amplitudes("e e~ -> mu mu~")[0]
    stranger = rf"p_5_%\mu_9*p_1_+%\mu_9*{amp}"
    five = process_amplitudes("e e~ -> mu mu~ A")[0]
    for answers in (square_many([stranger]), square_many([stranger, five])):
        assert "p_5 is the momentum of no leg" in str(answers[0])
    assert "s_15 names a momentum" in str(square_many([f"s_15*{amp}", five])[0])


def test_roots_of_two_are_exact():
    amp = process_amplitudes("e e~ -> mu mu~")[0]
    for factor in ("2^(1/2)", "(1/2^(1/2) + e)", "2^(1/2)*2^(1/2)*2^(1/2)"):
        assert verify(f"{factor}*{amp}", square(f"{factor}*{amp}"))


def test_long_terms_of_form_are_read_whole():
    amp = process_amplitudes("e e~ -> mu mu~")[0]
    long = "*".join(f"k{j}" for j in range(60)) + f"*{amp}"
    assert verify(long, square(long))
    assert isinstance(square_many(["7" * 2500 + f"*{amp}"])[0], InputError)


def test_an_amplitude_that_vanishes_has_the_square_zero():
    amp = process_amplitudes("e e~ -> mu mu~")[0]
    zero = rf"(p_1_%\mu_9 + p_2_%\mu_9 - p_3_%\mu_9 - p_4_%\mu_9)*p_1_+%\mu_9*{amp}"
    assert (
        square(zero, "independent") == "0" and verify(zero, "0") and not verify(zero, "s_12") and not verify(amp, "0")
    )


# -- any number of legs

@pytest.mark.parametrize(
    "theory, process, off_shell",
    [
        ("qed", "A -> e e~", (1,)),
        ("qed", "A -> A mu mu~", (1,)),
        ("qed", "e mu -> e mu A", ()),
        ("qed", "A A e -> A e", ()),
        ("qed", "e A -> e mu mu~ A", ()),
        ("qcd", "G -> G G", (1,)),
        ("qcd", "G -> u u~ G", (1,)),
        ("qcd", "u G -> u G G", ()),
        ("qcd", "u d~ G -> u d~", ()),
        ("qcd", "u d -> u d s s~", ()),
        ("ew", "Z -> d d~", ()),
        ("ew", "t -> b nu_mu mu~", ()),
        ("ew", "e e~ -> nu_e nu_e~ h", ()),
        ("ew", "e e~ A -> W W~", ()),
        ("ew", "nu_e e~ -> mu nu_mu~ u d~", ()),
    ],
)
def test_diagrams_with_any_number_of_legs(theory, process, off_shell):
    amps = amplitudes(parse_process(process, THEORIES[theory]), THEORIES[theory], off_shell=off_shell)
    amps = random.Random(1).sample(amps, min(4, len(amps)))
    for amp, sqamp in zip(amps, square_many(amps)):
        assert verify(amp, str(sqamp)), (amp, sqamp)


# -- legs off their mass shell

def off_shell_legs(row):
    """Numbers of the legs that MARTY's column `diagram` says are off shell."""
    return {int(k) for k in re.findall(r"OffShell (?:AntiPart )?\w+\(X_(\d)\)", row["diagram"])}


def test_marty_off_shell_rows_are_right_with_the_flag_that_they_lack(marty):
    """The column `diagram` names the legs off shell. Marked in amp they explain the square without its s_kk."""
    rows = [row for _, row in read_rows(marty / "qed-2to2-offshell.csv.gz")][::50]
    amps = []
    for row in rows:
        amps.append(marked_off_shell(row["amp"], off_shell_legs(row)))
        assert {leg.number for leg in legs_of(expand(parse(amps[-1]))) if leg.mark == "off"} == off_shell_legs(row)
    for amp, row, sqamp in zip(amps, rows, square_many(amps)):
        assert verify(amp, row["sqamp"]) and verify(amp, str(sqamp))


def test_a_leg_off_its_mass_shell_is_seen_in_the_text():
    amp, = amplitudes(parse_process("e mu -> e mu", QED), QED, off_shell=(3,))
    assert "(p_3)_u_off^(*)" in amp and "s_33" in amp
    assert verify(amp, square(amp)) and verify(amp, square(amp, "independent"))
    decay, = amplitudes(parse_process("A -> e e~", QED), QED, off_shell=(1,))
    assert verify(decay, "2*e^2*(2*m_e^2 + s_11)") and not verify(
        decay.replace("_off", ""), "2*e^2*(2*m_e^2 + s_11)".replace("s_11", "0")
    )


# -- transverse polarisations

@pytest.mark.parametrize(
    "amp, reason",
    [
        (
            amplitudes(parse_process("u u~ -> G G", THEORIES["qcd"]), THEORIES["qcd"], whole=True)[0],
            "not gauge invariant",
        ),
        (
            " + ".join(amplitudes(parse_process("u u~ -> G G", THEORIES["qcd"]), THEORIES["qcd"])).replace(
                "(p_3)^", "(p_3)_T^"
            ),
            "not gauge invariant",
        ),
        (
            amplitudes(parse_process("Z -> e e~", THEORIES["ew"]), THEORIES["ew"])[0].replace("(p_1)*", "(p_1)_T*"),
            "only photons and gluons",
        ),
        (
            amplitudes(parse_process("e e~ -> mu mu~", QED), QED)[0].replace("(p_1)_u", "(p_1)_u_T"),
            "only photons and gluons",
        ),
    ],
)
def test_transverse_polarisations_need_a_gauge_invariant_amplitude(amp, reason):
    assert "_T" in amp
    verdict = verify(amp, "1")
    assert verdict.status == "unreadable" and reason in verdict.reason


# -- styles

@pytest.mark.parametrize("process", ["e e~ -> mu mu~", "e A -> e A", "e e~ -> mu mu~ A"])
def test_a_plain_sum_of_products_is_the_same_square(process):
    for amp in process_amplitudes(process):
        factored, plain = square(amp), square(amp, style="marty")
        assert verify(amp, plain) and rational(parse(plain)) == rational(parse(factored))
        tree = parse(plain)
        assert type(tree) is Sum and all(type(node) is not Sum for term in tree.terms for node in children(term))
