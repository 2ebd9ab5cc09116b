import re
from fractions import Fraction

import pytest

import evaluate
from dataset.baseline import (
    _split_number,
    every_nth,
    kinematics_key,
    look_up,
    lookup_scores,
    lookup_table,
    orbit_key,
    template_key,
)
from dataset.rows import randomise_indices
from physics.amplitude import amplitudes, parse_process
from physics.numeric import verify
from physics.orbits import orbit_of
from physics.particles import parse_masses
from physics.square import square
from physics.theory import THEORIES
from runtime import summary

QED = THEORIES["qed"]


def rows(*processes, style="factored"):
    found = [{"amp": amp} for process in processes for amp in amplitudes(parse_process(process, QED), QED)]
    return [row | {"sqamp": square(row["amp"], style=style)} for row in found]


def whole(process, style="factored"):
    """The one row of a process with all its diagrams."""
    amp = " + ".join(amplitudes(parse_process(process, QED), QED, whole=True))
    return {"amp": amp, "sqamp": square(amp, style=style)}


def test_index_names_do_not_hide_a_known_row():
    train = rows("e e~ -> mu mu~")
    asked = [{"amp": randomise_indices(row["amp"], 7), "sqamp": row["sqamp"]} for row in train]
    assert asked[0]["amp"] != train[0]["amp"]
    assert lookup_scores(train, asked) == {"exact": 1, "renamed": 1, "rescaled": 1, "relabelled": 1}


def test_particles_of_equal_charge_are_looked_up_under_other_names():
    """mu, tau and e have one charge; with the names only the order of the masses in the text changes."""
    train, asked = rows("t mu -> t mu"), rows("e t -> e t", "mu e -> mu e")
    assert lookup_scores(train, asked) == {"exact": 0, "renamed": 1, "rescaled": 1, "relabelled": 1}
    assert "m_e" in look_up(lookup_table(train), asked[0]["amp"], "renamed")


def test_masses_of_other_names_belong_to_their_particles():
    """A file may call the masses m and M; --masses says whose they are."""
    def other(row, symbols):
        return {name: re.sub(r"m_(\w+)", lambda match: symbols[match[1]], text) for name, text in row.items()}

    train = [other(row, {"e": "m", "mu": "M"}) for row in rows("e mu -> e mu")]
    asked = [other(row, {"e": "m", "mu": "M"}) for row in rows("mu e -> mu e")]
    assert "m_" not in train[0]["sqamp"] + asked[0]["amp"]
    masses = parse_masses("e=m mu=M")
    assert lookup_scores(train, asked, masses) == {"exact": 0, "renamed": 1, "rescaled": 1, "relabelled": 1}
    assert lookup_scores(train, asked, ())["renamed"] == 0


def test_other_charges_need_the_number_in_front_rescaled():
    """Charge 2/3 for 1: the square is multiplied by 4/9 for a muon and an up quark, by 16/81 in Compton scattering."""
    assert lookup_scores(rows("e mu -> e mu"), rows("u mu -> u mu", "d u -> d u")) == {
        "exact": 0,
        "renamed": 0,
        "rescaled": 1,
        "relabelled": 1,
    }
    assert lookup_scores(rows("e A -> e A"), rows("u A -> u A")) == {
        "exact": 0,
        "renamed": 0,
        "rescaled": 1,
        "relabelled": 1,
    }


@pytest.mark.parametrize("style", ["factored", "inside", "marty"])
def test_of_a_sum_every_term_is_rescaled(style):
    """Squares multiplied out are sums, so are the amplitudes of whole processes, with the signs between diagrams."""
    nothing = {"exact": 0, "renamed": 0, "rescaled": 0, "relabelled": 0}
    found = nothing | {"rescaled": 1, "relabelled": 1}
    assert lookup_scores(rows("e mu -> e mu", style=style), rows("u mu -> u mu", "d u -> d u", style=style)) == found
    unit, other = whole("e A -> e A", style), whole("u A -> u A", style)
    assert (
        " + " in unit["sqamp"]
        and kinematics_key(unit["amp"]) == kinematics_key(other["amp"])
        and template_key(unit["amp"]) != template_key(other["amp"])
    )
    assert lookup_scores([unit], [other]) == found and lookup_scores([other], [unit]) == found
    assert verify(other["amp"], look_up(lookup_table([unit]), other["amp"], "rescaled"))
    assert (
        lookup_scores([unit], [other | {"amp": other["amp"].replace("-2/9*", "2/9*", 1)}]) == nothing
    )  # another relative sign


def test_sums_may_be_spelled_with_minus_signs_and_without_spaces():
    sums = ["4*a*x + -2*b*x", "2*a*x - b*x", "2*a*x-b*x", "(-6)*a*x+3*b*x", "-2*a*x + b*x"]
    assert {_split_number(text) for text in sums} == {(Fraction(n), "a*x + -1/2*b*x") for n in (4, 2, -6, -2)}
    for text in (r"2*(a + -b)*p_1_+%\mu_1*x^(-2)", r"2*gamma_{+%\mu_1,%a,%b}*c/(a-b)"):
        assert _split_number(text) == (2, text[2:])


def test_other_legs_are_not_found():
    assert lookup_scores(rows("e mu -> e mu"), rows("e mu~ -> e mu~", "e A -> e A")) == {
        "exact": 0,
        "renamed": 0,
        "rescaled": 0,
        "relabelled": 1 / 3,  # e mu~ is e mu with the muon's legs exchanged
    }


def test_massless_and_massive_particles_are_not_exchanged():
    """Photon and Z, neutrino and electron may have one text up to names, but differ in their sums over spins."""
    line = r"e*gamma_{%\mu_1,%a_1,%a_2}*V_{i_1,+%\mu_1}(p_1)*F_{i_2,%a_1}(p_2)_u^(*)*F_{i_3,%a_2}(p_3)_v"
    keys = {name: template_key(line.replace("V_", name + "_")) for name in ("A", "Z", "W", "zork")}
    assert keys["Z"] == keys["W"] == keys["zork"] != keys["A"]
    assert (
        template_key(line.replace("F_", "nu_e_"))
        == template_key(line.replace("F_", "nu_mu_"))
        != template_key(line.replace("F_", "e_"))
    )


@pytest.mark.parametrize(
    "massless, massive",
    [
        (r"A_{i_1,%\mu}(p_1)", r"Z_{i_1,%\mu}(p_1)"),
        (r"A_{i_1,+%\mu}(p_1)_off^(*)", r"G_{i_1,+%\mu}(p_1)_off^(*)"),
        (r"G_{i_1,%g,%\mu}(p_1)_T", r"A_{i_1,%g,%\mu}(p_1)_T"),
        (r"nu_e_{i_1,%a}(p_1)_v^(*)", r"nu_R_{i_1,%a}(p_1)_v^(*)"),
        (r"nu_tau_{i_1,%a}(p_1)_u_off^(*)", r"nutau_{i_1,%a}(p_1)_u_off^(*)"),
    ],
)
def test_massless_is_a_particle_by_name_and_kind(massless, massive):
    rest = r"h(p_2)^(*)*gamma_{+%\mu,%a,%b}*T_C_10_{%g,%i,%j}"
    assert template_key(f"{massless}*{rest}").split()[0][0] == "N"
    assert template_key(f"{massive}*{rest}").split()[0][0] == "P"


def test_scalars_are_massive_whatever_their_names():
    assert {template_key(f"{name}(p_1)*h(p_2)^(*)") for name in ("A", "G", "nu_e", "S")} == {"P0(p_1) P1(p_2)^(*)"}


def test_kinematics_are_shared_by_all_charges():
    (unit,), (other,) = rows("e mu -> e mu"), rows("d u -> d u")
    assert template_key(unit["amp"]) != template_key(other["amp"]) and kinematics_key(unit["amp"]) == kinematics_key(
        other["amp"]
    )


def test_of_many_rows_every_nth_is_relabelled():
    assert [every_nth(count) for count in (0, 1, 1000, 1001, 6432)] == [1, 1, 1, 2, 7]
    train, test = rows("e mu -> e mu"), rows("u~ d -> u~ d", "e A -> e A")  # one is found, two are not
    assert lookup_scores(train, test, step=2)["relabelled"] == 1 / 2
    assert lookup_scores(train, test, step=3)["relabelled"] == 1


def test_the_report_and_the_table_have_the_relabelled_score():
    train, test = rows("e mu -> e mu"), rows("u~ d -> u~ d")
    answered = [row | {"prediction": row["sqamp"], "status": "unchecked", "verdict": "right", "logprob": 0.0}
                for row in test]
    report = evaluate.report_of(answered, train, [])
    assert report["lookup"] == {"exact": 0, "renamed": 0, "rescaled": 0, "relabelled": 1}
    assert report["lookup_accuracy"] == 0
    assert "100.00% if the order and sides of the legs too;" in summary.table(report)


def test_masses_that_are_not_called_after_their_particle_tell_orbits_apart():
    """W+ and W- share m_W, W and Z do not share a mass, and the two texts have one template."""
    contact = r"k*W_{i_1,%\mu}(p_1)*Wm_{i_2,+%\mu}(p_2)*A_{i_3,%\nu}(p_3)^(*)*A_{i_4,+%\nu}(p_4)^(*)"
    texts = contact, contact.replace("Wm", "Z")
    assert template_key(texts[0]) == template_key(texts[1])
    assert [orbit_key({"amp": text}) for text in texts] == [orbit_of(text).key for text in texts]
    assert orbit_of(texts[0]).key != orbit_of(texts[1]).key
