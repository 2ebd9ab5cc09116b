"""Whole processes, all diagrams with their interference, against the formulas of textbooks.

Their values come from the text that square.py writes and from verify.py's explicit matrices. QED is in
test_physics.py, the widths of W, Z and h are in test_electroweak.py.
"""
import functools
import math
import re

import pytest
from points import averaged, two_to_two

from physics.amplitude import amplitudes, parse_process
from physics.expression import names_in, parse
from physics.numeric import evaluate, verify
from physics.square import square
from physics.theory import THEORIES


@functools.lru_cache
def whole(theory, text):
    """Amplitude and square of a whole process."""
    amp = " + ".join(amplitudes(parse_process(text, THEORIES[theory]), THEORIES[theory], whole=True))
    return amp, square(amp, "independent")


def from_text(sqamp, shell, constants, energy, angle):
    tree = parse(sqamp)
    return evaluate(tree, dict.fromkeys(names_in(tree), 0.0) | constants | two_to_two(shell, energy, angle)[1])


# -- QCD without masses: averaged |M|^2 / g^4. Combridge, Kripfganz, Ranft, Phys. Lett. B 70 (1977) 234; Ellis,
# Stirling,
#    Webber, QCD and Collider Physics, table 7.1; Peskin & Schroeder, section 17.4. Identical final particles count once
#    here: a factor 1/2.

PARTONS = {
    "u d -> u d": lambda s, t, u: 4 / 9 * (s**2 + u**2) / t**2,
    "u d~ -> u d~": lambda s, t, u: 4 / 9 * (s**2 + u**2) / t**2,
    "u u~ -> d d~": lambda s, t, u: 4 / 9 * (t**2 + u**2) / s**2,
    "u u -> u u": lambda s, t, u: (4 / 9 * ((s**2 + u**2) / t**2 + (s**2 + t**2) / u**2) - 8 / 27 * s**2 / (u * t)) / 2,
    "u u~ -> u u~": lambda s, t, u: 4 / 9 * ((s**2 + u**2) / t**2 + (t**2 + u**2) / s**2) - 8 / 27 * u**2 / (s * t),
    "u G -> u G": lambda s, t, u: -4 / 9 * (s**2 + u**2) / (s * u) + (s**2 + u**2) / t**2,
    "u~ G -> u~ G": lambda s, t, u: -4 / 9 * (s**2 + u**2) / (s * u) + (s**2 + u**2) / t**2,
    "u u~ -> G G": lambda s, t, u: (32 / 27 * (t**2 + u**2) / (t * u) - 8 / 3 * (t**2 + u**2) / s**2) / 2,
    "G G -> u u~": lambda s, t, u: 1 / 6 * (t**2 + u**2) / (t * u) - 3 / 8 * (t**2 + u**2) / s**2,
    "G G -> G G": lambda s, t, u: 9 / 2 * (3 - t * u / s**2 - s * u / t**2 - s * t / u**2) / 2,
}


@pytest.mark.parametrize("process", PARTONS)
def test_partons_scatter_as_in_the_textbooks(process):
    amp, sqamp = whole("qcd", process)
    assert verify(amp, sqamp)                                # with masses, at random points
    for angle in (0.4, 1.3, 2.5):
        s = 100.0
        t, u = -s / 2 * (1 - math.cos(angle)), -s / 2 * (1 + math.cos(angle))
        expected = PARTONS[process](s, t, u)
        assert averaged(amp, {"g": 1.0}, 10.0, angle) == pytest.approx(expected, rel=1e-9)
        assert from_text(sqamp, [0.0] * 4, {"g": 1.0}, 10.0, angle) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "process, expected",
    [
        ("u u~ -> t t~", lambda tau, upsilon, rho: 4 / 9 * (tau**2 + upsilon**2 + rho / 2)),
        (
            "G G -> t t~",
            lambda tau, upsilon, rho: (
                (1 / (6 * tau * upsilon) - 3 / 8) * (tau**2 + upsilon**2 + rho - rho**2 / (4 * tau * upsilon))
            ),
        ),
    ],
)
def test_heavy_quarks_are_produced_as_in_the_textbooks(process, expected):
    """Ellis, Stirling, Webber, chapter 10: tau = 2 p1.p3 / s, upsilon = 2 p2.p3 / s, rho = 4 m^2 / s."""
    amp, sqamp = whole("qcd", process)
    assert verify(amp, sqamp)
    m, energy = 3.0, 8.0
    for angle in (0.4, 1.3, 2.5):
        invariants = two_to_two([0.0, 0.0, m, m], energy, angle)[1]
        value = expected(2 * invariants["s_13"] / energy**2, 2 * invariants["s_23"] / energy**2, 4 * m**2 / energy**2)
        assert averaged(amp, {"g": 1.0, "m_t": m}, energy, angle) == pytest.approx(value, rel=1e-9)
        assert from_text(sqamp, [0.0, 0.0, m, m], {"g": 1.0, "m_t": m}, energy, angle) == pytest.approx(value, rel=1e-9)


def test_gluon_scattering_is_one_short_fraction():
    assert whole("qcd", "G G -> G G")[1] == (
        "9/4*g^4*s_12^(-2)*s_13^(-2)*(s_12^6 + (-3)*s_12^5*s_13 + 6*s_12^4*s_13^2 + (-7)*s_12^3*s_13^3 "
        "+ 6*s_12^2*s_13^4 + (-3)*s_12*s_13^5 + s_13^6)*(s_12 + -s_13)^(-2)"
    )


@pytest.mark.parametrize("process", ["u u~ -> G G", "G G -> u u~", "G G -> G G"])
def test_minus_the_metric_for_every_gluon_would_be_wrong(process):
    """The sum of single diagrams, written for polarisation sums -g, is not the process."""
    amp = " + ".join(amplitudes(parse_process(process, THEORIES["qcd"]), THEORIES["qcd"]))
    s, t, u = 100.0, -50.0 * (1 - math.cos(1.3)), -50.0 * (1 + math.cos(1.3))
    assert "_T" not in amp and abs(averaged(amp, {"g": 1.0}, 10.0, 1.3) / PARTONS[process](s, t, u) - 1) > 0.01


# -- electroweak

def test_photon_and_z_interfere_as_in_the_textbooks():
    """e e~ -> mu mu~ by photon and Z, massless. Helicity amplitudes: Peskin & Schroeder, section 5.2, couplings: 20.2.

    M(e_a -> mu_b) = e^2 (1 +- cos) [1 + g_a g_b s / (s - m_Z^2)], + for equal helicities a = b,
    g_L = (-1/2 + sin^2)/(sin cos), g_R = sin / cos.
    """
    amp, sqamp = whole("ew", "e e~ -> mu mu~")
    assert verify(amp, sqamp)
    theta, mz, e, energy = 0.5, 9.0, 0.3, 12.0
    constants = {"e": e, "theta_W": theta, "m_Z": mz, "m_W": mz * math.cos(theta), "m_h": 11.0}
    left, right = (-1 / 2 + math.sin(theta)**2) / (math.sin(theta) * math.cos(theta)), math.tan(theta)
    for angle in (0.4, 1.3, 2.5):
        total = sum((1 + (1 if a == b else -1) * math.cos(angle))**2 * (1 + a * b * energy**2 / (energy**2 - mz**2))**2
                    for a in (left, right) for b in (left, right)) * e**4 / 4
        assert averaged(amp, constants, energy, angle) == pytest.approx(total, rel=1e-9)
        assert from_text(sqamp, [0.0] * 4, constants, energy, angle) == pytest.approx(total, rel=1e-9)


def test_right_handed_electrons_make_longitudinal_w_pairs_as_goldstone_bosons():
    """e_R e~ -> W W~ at high energy (Peskin & Schroeder, section 21.2).

    Only hypercharge couples, -1 to e_R and 1/2 to the Goldstone boson. Scalars in place of muons give e^4 sin^2 per
    helicity: |M|^2 -> (g'^2 / 2)^2 sin^2, averaged over four helicities; g' = e / cos.
    """
    amp, _ = whole("ew", "e e~ -> W W~")
    polarised = re.sub(r"e_\{i_1,(%a_\d+)\}\(p_1\)_u", r"P_R_{\1,%a_99}*e_{i_1,%a_99}(p_1)_u", amp)
    theta, e = 0.5, 0.3
    constants = {"e": e, "theta_W": theta, "m_Z": 1.0, "m_W": math.cos(theta), "m_h": 1.4}
    for angle in (0.6, 1.5):
        expected = (e**2 / math.cos(theta)**2 / 2)**2 * math.sin(angle)**2 / 4
        assert averaged(polarised, constants, 300.0, angle) == pytest.approx(expected, rel=1e-3)


def test_top_decay():
    """t -> b W with a massless b: averaged |M|^2 = g^2/4 m_t^4/m_W^2 (1 - x)(1 + 2 x), x = m_W^2/m_t^2.

    Source: Peskin & Schroeder, section 21.2.
    """
    amp, sqamp = whole("ew", "t -> b W")
    assert verify(amp, sqamp)
    mt, mw, e, theta = 2.0, 0.9, 0.3, 0.5
    x, g = mw**2 / mt**2, e / math.sin(theta)
    values = {"m_t": mt, "m_b": 0.0, "m_W": mw, "e": e, "theta_W": theta}
    assert evaluate(parse(sqamp), values) == pytest.approx(g**2 / 4 * mt**4 / mw**2 * (1 - x) * (1 + 2 * x), rel=1e-12)


def test_higgs_decays_into_two_z_half_as_often_as_into_distinguishable_vectors():
    """h -> Z Z: g^2 m_Z^2 / cos^2 (2 + (p.k)^2 / m_Z^4), times 1/2 (Peskin & Schroeder, final project of part III)."""
    amp, sqamp = whole("ew", "h -> Z Z")
    assert verify(amp, sqamp)
    mh, mz, e, theta = 5.0, 1.3, 0.3, 0.5
    dot = mh**2 / 2 - mz**2
    expected = (e / math.sin(theta) / math.cos(theta))**2 * mz**2 * (2 + dot**2 / mz**4) / 2
    assert evaluate(parse(sqamp), {"m_h": mh, "m_Z": mz, "e": e, "theta_W": theta}) == pytest.approx(
        expected, rel=1e-12
    )

