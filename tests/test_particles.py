"""Who the legs are: every rule with names invented here, and the cases from public files."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from conftest import MARTY, ROOT
from test_verify import ELECTRON_MUON, SQUARE

from physics import exact, numeric
from physics.amplitude import amplitudes, parse_process
from physics.exact import prove
from physics.expression import NO_SYMBOLS
from physics.matrices import METRIC, read_amplitude, read_roles
from physics.numeric import same, verify
from physics.particles import NO_FACTS, Facts, mass_of, parse_masses, roles_of, unexplained
from physics.square import square
from physics.theory import THEORIES
from runtime.files import InputError

EE = r"e_{i_1,%a_2}(p_1)_u*e_{i_2,%a_1}(p_2)_v^(*)"


def fields_of(text):
    return read_amplitude(text).fields


def rows_of(name):
    path = MARTY.parent / "cases" / name
    if not path.is_file():
        pytest.skip("no cases beside this repository")
    with open(path, newline="") as file:
        return [(row["amp"], row["sqamp"]) for row in csv.DictReader(file)]


# -- masses


@pytest.mark.parametrize(
    "field, mass",
    [
        (r"A_{i_1,%\mu}(p_1)", None),
        (r"A(p_1)", "m_A"),
        (r"A_{i_1,%a}(p_1)_u", "m_A"),
        (r"A_{i_1,%g,%\mu}(p_1)", "m_A"),
        (r"G_{i_1,%g,%\mu}(p_1)", None),
        (r"G_{i_1,%\mu}(p_1)", "m_G"),
        (r"G(p_1)", "m_G"),
        (r"G0(p_1)", "m_G0"),
        (r"nu_mu_{i_1,%a}(p_1)_u", None),
        (r"nu_mu(p_1)", "m_nu_mu"),
        (r"nuR_{i_1,%a}(p_1)_u", "m_nuR"),
        (r"nu_4_{i_1,%a}(p_1)_u", "m_nu_4"),
        (r"W_{i_1,%\mu}(p_1)", "m_W"),
        (r"Wm_{i_1,%\mu}(p_1)", "m_W"),
        (r"W(p_1)", "m_W"),
        (r"tt_{i_1,%a}(p_1)_u", "m_tt"),
        (r"zeta_{i_1,%C,%a}(p_1)_v", "m_zeta"),
        (r"Zprime_{i_1,%\mu}(p_1)", "m_Zprime"),
    ],
)
def test_a_mass_follows_from_name_and_kind(field, mass):
    (field,) = fields_of(f"{field}*nobody(p_2)^(*)")[:1]
    known = in_table(field)
    if mass and not known:
        with pytest.raises(InputError, match=rf'--masses="{field.name}=m"'):
            mass_of(field, {"m_other"})
    assert mass_of(field, {mass}) == mass
    assert mass_of(field, {mass}, Facts(masses=((field.name, "M"),))) == "M"
    assert mass_of(field, set(), Facts(masses=((field.name, None),))) is None


def test_a_massless_particle_whose_mass_stands_in_the_row_is_unreadable_until_said():
    for text in (r"nu_mu_{i_1,%a}(p_1)_u", r"A_{i_1,%\mu}(p_1)", r"G_{i_1,%g,%\mu}(p_1)"):
        field = fields_of(f"{text}*nobody(p_2)^(*)")[0]
        with pytest.raises(InputError, match=f'"{field.name}=0"'):
            mass_of(field, {f"m_{field.name}"})
        for mass in (f"m_{field.name}", None):
            assert mass_of(field, {f"m_{field.name}"}, Facts(masses=((field.name, mass),))) == mass


def in_table(field):
    """Whether the particle needs no symbol in the row."""
    try:
        mass_of(field, set())
    except InputError:
        return False
    return True


def test_masses_are_read_from_text():
    assert parse_masses("e=m mu=M  A_em=0") == (("A_em", None), ("e", "m"), ("mu", "M"))
    assert parse_masses("") == ()
    for text in ("e", "e=", "e=2", "e=m e=M", "=m", "e==m", "e:m", "é=m"):
        with pytest.raises(InputError, match="masses: got"):
            parse_masses(text)


def test_a_pseudoscalar_named_as_the_photon_keeps_its_mass():
    for amp, sqamp in rows_of("scalar-named-A.csv"):
        assert verify(amp, sqamp) and prove(amp, sqamp)
        assert verify(amp, sqamp.replace("m_h^2*s_12", "2*m_h^2*s_12")).status == "wrong"
        massless = sqamp.replace("m_A^2*s_12", "0").replace("m_A0^2*s_12", "0")
        assert verify(amp, massless).status == "unreadable" and not verify(
            amp, massless, facts=Facts(masses=(("A", "m_A"), ("A0", "m_A")))
        )
        assert verify(amp, massless, facts=Facts(masses=(("A", None), ("A0", None))))


@pytest.mark.parametrize("names", [("m", "M"), ("M", "m"), ("x0", "mass_1")])
def test_a_mass_symbol_that_nothing_explains_is_unreadable_until_it_is_said(names):
    text = [text.replace("m_e", names[0]).replace("m_mu", names[1]) for text in (ELECTRON_MUON, SQUARE)]
    verdict = verify(*text)
    assert verdict.status == "unreadable" and f'--masses="mu={names[1]}"' in verdict.reason
    facts = Facts(masses=parse_masses(f"e={names[0]} mu={names[1]}"))
    assert verify(*text, facts=facts) and prove(*text, facts=facts)
    assert verify(text[0], text[1] + " + e^4", facts=facts).status == "wrong"
    assert same(*text, text[1], facts=facts) and exact.equal(*text, text[1], facts=facts)


def test_particles_that_nobody_knows_are_unreadable_until_said():
    for file, masses in (("gluon-A_C.csv", "A_C=0"), ("weyl-names.csv", "e_L=m_e mu_R=m_mu")):
        ((amp, sqamp),) = rows_of(file)
        verdict = verify(amp, sqamp)
        assert verdict.status == "unreadable" and "--masses=" in verdict.reason
        facts = Facts(masses=parse_masses(masses))
        assert verify(amp, sqamp, facts=facts) and prove(amp, sqamp, facts=facts)
        assert verify(amp, f"2*({sqamp})", facts=facts).status == "wrong"


def test_a_row_of_massless_electrons_says_so():
    amp = ELECTRON_MUON.replace("m_e^2 + ", "")
    massless = "2*e^4*(s_14*s_23 + s_13*s_24)/(s_12 + 1/2*reg_prop)^2"
    verdict = verify(amp, massless)
    assert verdict.status == "unreadable" and 'right if e and mu are massless: --masses="e=0 mu=0"' in verdict.reason
    assert verify(amp, massless, facts=Facts(masses=parse_masses("e=0 mu=0")))
    assert verify(amp, massless.replace("2*", "3*", 1)).status == "wrong"
    assert verify(amp, massless, facts=Facts(masses=parse_masses("e=m mu=m"))).status == "wrong"


@pytest.mark.parametrize("name", sorted(NO_SYMBOLS))
def test_what_is_no_symbol_is_unreadable(name):
    for amp, sqamp in (
        (ELECTRON_MUON.replace("i*", f"{name}*", 1), SQUARE),
        (ELECTRON_MUON, f"{SQUARE}*{name}/{name}"),
    ):
        assert verify(amp, sqamp).status == "unreadable"
        with pytest.raises(InputError):
            prove(amp, sqamp)


def test_a_symbol_that_cancels_needs_no_reason():
    assert verify(ELECTRON_MUON, f"{SQUARE}*m_x/m_x") and prove(ELECTRON_MUON, f"{SQUARE}*m_x/m_x")
    verdict = verify(ELECTRON_MUON, f"{SQUARE} + m_x^4")
    assert verdict.status == "unreadable" and "m_x stands in sqamp" in verdict.reason
    fields = fields_of(ELECTRON_MUON)
    assert unexplained(fields, roles_of(fields, set()).masses, {"e"}, {"e", "m_e", "s_12", "theta_W", "i"}) == ""


# -- incoming, outgoing, identical


def roles(text, process="", names=()):
    fields = fields_of(text)
    return roles_of(fields, {f"m_{field.name}" for field in fields if not in_table(field)} | set(names), Facts(process))


def test_w_plus_and_w_minus_are_not_identical():
    ((amp, sqamp),) = rows_of("W-W-final.csv")
    marty = r"Interaction:  e_\alpha_1(X)^(*)  AntiPart e_\beta_2(X)  to  W_\mu_3(X)  AntiPart W_\nu_4(X)"
    for process in ("", "e e~ -> W W~", marty, "e- e+ -> W+ W-", "some process"):
        assert verify(amp, sqamp, facts=Facts(process)) and prove(amp, sqamp, facts=Facts(process))
        assert verify(amp, f"1/2*({sqamp})", facts=Facts(process)).status == "wrong"
    assert verify(amp, f"1/2*({sqamp})", facts=Facts("e e~ -> W W"))  # said to be identical


def test_a_scalar_pair_is_decided_by_the_process_or_by_charge_or_not_at_all():
    pair = f"{EE}*phi(p_3)^(*)*phi(p_4)^(*)"
    for process in ("", "nonsense", "e e~ -> chi chi~"):
        with pytest.raises(InputError, match="process"):
            roles(pair, process)
    assert roles(pair, "e e~ -> phi phi~").identical == 1
    assert roles(pair, "e e~ -> phi phi").identical == 2
    assert roles(pair, r"e_a_1(X) AntiPart e_b_2(X) to phi(X) AntiPart phi(X)").identical == 1
    same_charge = (
        r"u_{i_1,%a}(p_1)_u*u_{i_2,%b}(p_2)_u*d_{i_3,%a}(p_3)_u^(*)*d_{i_4,%b}(p_4)_u^(*)*phi(p_5)^(*)*phi(p_6)^(*)"
    )
    assert roles(same_charge).identical == 4  # two d, and two phi of charge 1 each
    assert roles(f"{EE}*h(p_3)^(*)*h(p_4)^(*)").identical == 2


@pytest.mark.parametrize("boson", ["Z(p_{0})", "A(p_{0})", "W(p_{0})", "Zork(p_{0})", r"h_{{i_{0},%\mu}}(p_{0})"])
def test_charge_and_antiparticle_belong_to_name_and_kind(boson):
    """A scalar named as the Z need not be its own antiparticle, nor has one named as the W its charge."""
    pair = f"{EE}*{boson.format(3)}^(*)*{boson.format(4)}^(*)"
    with pytest.raises(InputError, match="are particles or antiparticles is not known"):
        roles(pair)
    name = boson.partition("(")[0].partition("_")[0]
    assert roles(pair, f"e e~ -> {name} {name}~").identical == 1
    assert roles(pair, f"e e~ -> {name} {name}").identical == 2


def test_a_process_names_particles_that_begin_with_one_another():
    """chi, chi_1 and chi_10 are three particles; MARTY appends an index to each name."""
    three = f"{EE}*chi(p_3)^(*)*chi_1(p_4)^(*)*chi_1(p_5)^(*)*chi_10(p_6)^(*)*chi_10(p_7)^(*)"
    start = r"e_\alpha_1(X)^(*) AntiPart e_\beta_2(X) to chi(X) chi_1(X) AntiPart chi_1(X)"
    assert roles(three, f"{start} chi_10(X) chi_10(X)").identical == 2
    assert roles(three, f"{start} chi_10(X) AntiPart chi_10(X)").identical == 1
    with pytest.raises(InputError, match="process"):
        roles(three, f"{start} chi_1(X) chi_10(X)")


def test_incoming_antiparticles_with_a_star():
    compton = r"{}_{{i_1,%a}}(p_1)_u*W_{{i_2,%\mu}}(p_2)^(*)*{}_{{i_3,%a}}(p_3)_u^(*)*A_{{i_4,%\mu}}(p_4)^(*)"
    assert roles(compton.format("nu_e", "e")).incoming == (True, True, False, False)  # a neutrino cannot decay
    assert roles(compton.format("mu", "nu_mu")).incoming == (
        True,
        False,
        False,
        False,
    )  # mu+ W- has another charge than nu_mu
    with pytest.raises(InputError, match="come in or go out"):
        roles(compton.format("t", "b"))
    assert roles(compton.format("t", "b"), "t W~ -> b A").incoming == (True, True, False, False)
    assert roles(compton.format("t", "b"), "t -> W b A").incoming == (True, False, False, False)
    assert roles(r"W_{i_1,%\mu}(p_1)^(*)*e_{i_2,%a}(p_2)_u^(*)*nu_e_{i_3,%a}(p_3)_v").incoming == (True, False, False)


@pytest.mark.parametrize(
    "text",
    [
        "W W -> W W",
        "W A -> W A",
        "u d~ -> Z W A",
        "h -> W W~ A",
        "W -> nu_e e~ A",
        "e e~ -> W W~",
        "nu_e W~ -> e A",
        "t -> W b",
    ],
)
def test_our_own_texts_tell_who_comes_in(text):
    theory = THEORIES["ew"]
    process = parse_process(text, theory)
    fields = fields_of(amplitudes(process, theory)[0])
    expected = tuple(k < len(process[0]) for k in range(len(fields)))
    for facts in (NO_FACTS, Facts(text)):
        found = roles_of(fields, set(), facts)
        assert found.incoming == expected and found.identical == (2 if text == "W W -> W W" else 1)


def test_legs_in_any_order_of_momenta():
    rows = rows_of("marty-1to2.csv")
    assert len(rows) == 54
    for amp, sqamp in rows:
        assert verify(amp, sqamp) and prove(amp, sqamp)
        assert not verify(amp, f"2*({sqamp})")
    swapped = str.maketrans("1234", "3142")  # p_1 -> p_3 and so on
    renamed = [text.translate(swapped) for text in ("(p_1)(p_2)(p_3)(p_4)s_14*s_23+s_13*s_24",)]
    assert renamed == ["(p_3)(p_1)(p_4)(p_2)s_32*s_14+s_34*s_12"]
    amp = (
        r"1/2*i*e^2*gamma_{+%\mu_1,%a_1,%a_2}*gamma_{%\mu_1,%a_3,%a_4}*e_{i_2,%a_1}(p_1)_v^(*)*e_{i_1,%a_2}(p_3)_u"
        r"*mu_{i_3,%a_3}(p_4)_u^(*)*mu_{i_4,%a_4}(p_2)_v/(m_e^2 + s_13 + 1/2*reg_prop)"
    )
    sqamp = "2*e^4*(2*m_e^2*m_mu^2 + m_mu^2*s_13 + s_23*s_14 + s_34*s_12 + m_e^2*s_24)/(m_e^2 + s_13 + 1/2*reg_prop)^2"
    assert verify(amp, sqamp) and prove(amp, sqamp)
    assert verify(amp, sqamp.replace("s_24", "s_12")).status == "wrong"


def test_very_many_legs_are_refused_at_once():
    scalars = "*".join(f"S(p_{k})^(*)" for k in range(3, 40))
    assert "may be particles" in verify(f"{EE}*{scalars}", "m_S").reason
    photons = "*".join(rf"p_1_+%\mu_{k}*A_{{i_{k},%\mu_{k}}}(p_{k})^(*)" for k in range(3, 30))
    assert "legs with spin" in verify(f"{EE}*{photons}", "m_e").reason


# -- verdicts at the edge


def test_a_right_square_that_cancels_is_right():
    ((amp, sqamp),) = rows_of("big-cancellation.csv")
    assert verify(amp, sqamp)
    for power in (7, 9, 12, 18, 100):
        assert verify(ELECTRON_MUON, f"{SQUARE} + 10^{power}*s_12*s_34*s_13 - s_34*10^{power}*s_13*s_12")
        wrong = f"{SQUARE}*(1 + 1/10^8) + 10^{power}*s_12*s_34*s_13 - s_34*10^{power}*s_13*s_12"
        assert verify(ELECTRON_MUON, wrong).status == "wrong"
        equal = f"10^{power}*s_12*s_34"  # of one text: floating-point numbers, long ones too, lose SQUARE beside it
        assert verify(ELECTRON_MUON, f"{SQUARE} + {equal} - {equal}")
        assert verify(ELECTRON_MUON, f"{SQUARE} + {equal} - {equal} + 1/9*s_13^2").status == "wrong"
    for cancelled in ("(10^17 + e - 10^17)/e", "((10^20 + e) - 10^20)^3/e^3", "e^2*(10^20 + e - 10^20)^(-2)"):
        assert verify(ELECTRON_MUON, f"{SQUARE}*{cancelled}")
        assert verify(ELECTRON_MUON, f"2*{SQUARE}*{cancelled}").status == "wrong"


def test_an_amplitude_that_vanishes_has_the_square_zero():
    ((amp, sqamp),) = rows_of("zero-by-chirality.csv")
    assert sqamp == "0" and verify(amp, "0") and verify(amp, "e^4*(s_12 - s_12)")
    for wrong in ("1/10^28*e^4", "e^4", "1/10^200"):
        assert verify(amp, wrong).status == "wrong"
    cancelled = f"{ELECTRON_MUON} - {ELECTRON_MUON}"
    assert verify(cancelled, "0") and verify(cancelled, "1/10^28*e^4").status == "wrong"


# -- tensors and symbols of the wider grammar


@pytest.mark.parametrize(
    "old, new",
    [
        (r"gamma_{%\mu_1,%a_3,%a_4}", r"gamma_{+%\nu_7,%a_3,%a_4}*g_{%\nu_7,%\mu_1}"),
        (r"gamma_{%\mu_1,%a_3,%a_4}", r"gamma_{%\nu_7,%a_3,%a_4}*delta_{+%\nu_7,%\rho_1}*g_{+%\rho_1,%\mu_1}"),
        (r"gamma_{%\mu_1,%a_3,%a_4}", r"gamma_{%\mu_1,%a_3,%b}*delta_{%b,%a_4}"),
        (r"gamma_{%\mu_1,%a_3,%a_4}", r"gamma_{%\mu_1,%a_3,%b}*gamma_5_{%b,%c}*gamma_5_{%c,%a_4}"),
    ],
)
def test_metric_delta_and_gamma_5_square_to_what_they_stand_for(old, new):
    amp = ELECTRON_MUON.replace(old, new)
    assert amp != ELECTRON_MUON and verify(amp, SQUARE) and prove(amp, SQUARE)


def test_gamma_5_is_the_difference_of_the_projectors():
    five = ELECTRON_MUON.replace("%a_3,%a_4}", "%a_3,%b}*gamma_5_{%b,%a_4}")
    axial = ELECTRON_MUON.replace(
        r"gamma_{%\mu_1,%a_3,%a_4}", r"gamma_{%\mu_1,%a_3,%b}*(P_R_{%b,%a_4} - P_L_{%b,%a_4})"
    )
    right = "2*e^4*(-2*m_e^2*m_mu^2 - m_mu^2*s_12 + s_14*s_23 + s_13*s_24 + m_e^2*s_34)/(m_e^2 + s_12 + 1/2*reg_prop)^2"
    for amp in (five, axial):
        assert verify(amp, right) and prove(amp, right) and not verify(amp, SQUARE)


@pytest.mark.parametrize("tensor", [r"g_{%a_9,%b_9}", r"g_{%\mu_9,%\mu_8}", r"delta_{%\mu_9,%b_9}",
                                    r"delta_{%a_9,%a_9}"])
def test_a_metric_or_delta_with_open_ends_or_its_own_index_is_unreadable(tensor):
    assert verify(f"{ELECTRON_MUON}*{tensor}", SQUARE).status == "unreadable"


def test_a_generator_may_have_any_number():
    ((amp, sqamp),) = rows_of("generator-T_C_6.csv")
    for name in ("T_C_6", "T_C_10", "T_C_123"):
        assert verify(amp.replace("T_C_6", name), sqamp)
    assert verify(amp.replace("T_C_6", "T_D_6"), sqamp).status == "unreadable"


def test_epsilon_is_a_determinant_and_its_square_the_gram_determinant():
    names = {"eps(p_1,p_2,p_3,p_4)", "eps(p_1,p_3,p_4,p_5)", "e"}
    fields = fields_of(f"{EE}*h(p_3)^(*)*h(p_4)^(*)*h(p_5)^(*)")
    known = roles_of(fields, names)
    values, momenta = numeric.random_point(fields, known, names, np.random.default_rng(3), 5)
    value = values["eps(p_1,p_2,p_3,p_4)"]
    assert np.allclose(value, [np.linalg.det(rows) for rows in momenta[:4].swapaxes(0, 1)])
    gram = np.einsum("ipm,mn,jpn->pij", momenta[:4], METRIC, momenta[:4])
    assert np.allclose(value**2, -np.linalg.det(gram)) and np.all(np.abs(value) > 1e-6)
    assert np.allclose(values["eps(p_1,p_3,p_4,p_5)"], value)  # p_5 = p_1 + p_2 - p_3 - p_4, an even permutation
    p = exact.draw_prime(np.random.default_rng(1))
    values, momenta = exact.random_point(fields, known, names, np.random.default_rng(3), p)
    gram = exact.determinant([[exact.dot(a, b, p) for b in momenta[:4]] for a in momenta[:4]])
    assert (values["eps(p_1,p_2,p_3,p_4)"][0] ** 2 + gram) % p == 0
    assert values["eps(p_1,p_2,p_3,p_4)"] == values["eps(p_1,p_3,p_4,p_5)"]
    five = f"{EE}*h(p_3)^(*)*h(p_4)^(*)*h(p_5)^(*)"
    with pytest.raises(InputError, match="a momentum that no leg carries"):
        read_roles(five, {"eps(p_1,p_2,p_3,p_6)"})
    assert "no leg carries" in verify(five, "eps(p_1,p_2,p_3,p_6)").reason


def test_couplings_with_a_conjugate_are_complex():
    fields = fields_of(f"{EE}*h(p_3)^(*)")
    names = {"V_ub", "V_ub^(*)", "V_cb", "V_x^(*)", "g"}
    values, _ = numeric.random_point(fields, roles_of(fields, names), names, np.random.default_rng(3), 5)
    assert all(np.all(values[name].imag) for name in names - {"g"}) and np.isrealobj(values["g"])
    for name in ("V_ub", "V_cb", "V_x"):
        assert np.array_equal(values[name].conj(), values[f"{name}^(*)"])
    values, _ = exact.random_point(
        fields, roles_of(fields, names), names, np.random.default_rng(3), exact.draw_prime(np.random.default_rng(1))
    )
    for name in ("V_ub", "V_cb", "V_x"):
        assert values[name] == values[f"{name}^(*)"][::-1] and len(set(values[name])) == 2
    assert len(set(values["g"])) == 1


@pytest.mark.parametrize("ours, other", [("V_2", "V_2^(*)"), ("V_qb^(*)", "V_qb")])
def test_a_square_may_have_the_conjugate_of_a_coupling_of_its_amplitude(ours, other):
    """Whichever of the two stands in the amplitude: the other one is explained by it, and has its conjugate's value."""
    amp = f"{ours}*{ELECTRON_MUON}"
    for sqamp in (f"{ours}*{other}*{SQUARE}", square(amp)):
        assert verify(amp, sqamp) and prove(amp, sqamp)
    for wrong in (f"{other}^2*{SQUARE}", f"{ours}^2*{SQUARE}", f"{other}*{SQUARE}"):
        assert verify(amp, wrong).status == "wrong" and not prove(amp, wrong)
    assert verify(amp, f"V_other*{SQUARE}").status == "unreadable"


@pytest.mark.parametrize(
    "trace", [r"g_{%\mu_8,%\mu_8}", r"g_{+%\mu_8,%\mu_8}", r"g_{%\mu_8,%\nu_8}*g_{+%\nu_8,+%\mu_8}"]
)
def test_the_trace_of_the_metric_is_four(trace):
    amp = f"{trace}*{ELECTRON_MUON}"
    for sqamp in (f"16*{SQUARE}", square(amp)):
        assert verify(amp, sqamp) and prove(amp, sqamp)
    assert verify(amp, SQUARE).status == "wrong"


# -- the command


def test_command_takes_masses_and_the_process_column(tmp_path):
    path = tmp_path / "rows.csv"
    ((amp, sqamp),) = rows_of("mass-named-m.csv")
    phi = r"y*gamma_{+%\mu,%a_1,%a_2}*p_3_%\mu*" + EE + "*phi(p_3)^(*)*phi(p_4)^(*)"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("amp", "sqamp", "process"),
                (amp, sqamp, ""),
                (phi, "y^2*(2*s_13*s_23 - m_phi^2*(m^2 + s_12))", "e e~ -> phi phi~"),
            ]
        )
    done = [
        subprocess.run(
            [sys.executable, ROOT / "verify.py", path, "--workers=1", *more],
            capture_output=True,
            text=True,
            timeout=120,
        )
        for more in ((), ("--masses=mu=M e=m phi=m_phi",), ("--masses=mu",))
    ]
    assert "0 right, 0 wrong, 2 unreadable" in done[0].stdout and '--masses="' in done[0].stdout
    assert done[1].stdout.splitlines()[-1] == "2 right, 0 wrong, 0 unreadable"
    assert done[2].returncode == 2 and "masses: got 'mu'" in done[2].stderr


def test_a_vector_said_to_be_massless_is_its_own_antiparticle():
    pair = r"*X_{i_3,%\mu}(p_3)^(*)*X_{i_4,%\mu}(p_4)^(*)"
    assert roles_of(fields_of(EE + pair), set(), Facts(masses=(("X", None),))).identical == 2
    with pytest.raises(InputError, match="process"):
        roles_of(fields_of(EE + pair), set(), Facts(masses=(("X", "M"),)))


def test_our_own_squares_use_the_same_rule():
    for text in ("e e~ -> W W~", "W W -> W W"):
        amp = amplitudes(parse_process(text, THEORIES["ew"]), THEORIES["ew"])[0]
        assert verify(amp, square(amp)) and verify(amp, square(amp), facts=Facts(text))
