"""The electroweak rules: signs and couplings against decay widths, Ward identities and the behaviour at high energy
that gauge invariance demands. None of these shares anything with the rules themselves."""

import math

import points
import pytest

from physics import matrices
from physics.amplitude import amplitudes, parse_process
from physics.expression import parse
from physics.numeric import evaluate, verify
from physics.square import square, square_many
from physics.theory import THEORIES

EW = THEORIES["ew"]
PROCESSES = [
    "mu -> e nu_e~ nu_mu",
    "Z -> e e~",
    "W -> u d~",
    "h -> b b~",
    "h -> W W~",
    "t -> b W",
    "e e~ -> mu mu~",
    "e nu_mu -> e nu_mu",
    "e e~ -> Z h",
    "e e~ -> nu_e nu_e~",
    "nu_e e~ -> W A",
    "u d~ -> W h",
    "h h -> h h",
    "W A -> W A",
    "u u~ -> c c~",
]


def process_amplitudes(text):
    return amplitudes(parse_process(text, EW), EW)


@pytest.mark.parametrize("process", PROCESSES)
def test_square_of_every_diagram_is_right(process):
    amps = process_amplitudes(process)
    assert amps
    for amp, sqamp in zip(amps, square_many(amps)):
        assert verify(amp, str(sqamp)), (amp, sqamp)


# -- widths: averaged |M|^2 = 16 pi m Gamma of decays into two massless fermions (Peskin & Schroeder, problem 20.2):
#    g^2 m^2 / 3 for the W, 2 (gL^2 + gR^2) g^2 m^2 / (3 cos^2) for the Z, gL = T3 - Q sin^2, gR = -Q sin^2


@pytest.mark.parametrize(
    "process, expected",
    [
        ("W -> nu_e e~", lambda g, sin, m: g**2 * m**2 / 3),
        ("Z -> nu_e nu_e~", lambda g, sin, m: g**2 / (1 - sin**2) * m**2 / 3 * 2 * (1 / 2) ** 2),
        ("Z -> e e~", lambda g, sin, m: g**2 / (1 - sin**2) * m**2 / 3 * 2 * ((-1 / 2 + sin**2) ** 2 + sin**4)),
        (
            "Z -> u u~",
            lambda g, sin, m: (
                g**2 / (1 - sin**2) * m**2 / 3 * 2 * ((1 / 2 - 2 / 3 * sin**2) ** 2 + (2 / 3 * sin**2) ** 2)
            ),
        ),
        (
            "Z -> d d~",
            lambda g, sin, m: g**2 / (1 - sin**2) * m**2 / 3 * 2 * ((-1 / 2 + sin**2 / 3) ** 2 + (sin**2 / 3) ** 2),
        ),
    ],
)
def test_decay_of_massive_vectors(process, expected):
    sqamp, m, theta, e = square(process_amplitudes(process)[0]), 3.0, 0.5, 0.3
    values = {
        "m_W": m,
        "m_Z": m,
        "m_e": 0.0,
        "m_u": 0.0,
        "m_d": 0.0,
        "theta_W": theta,
        "e": e,
        "s_12": m**2 / 2,
        "s_13": m**2 / 2,
        "s_23": m**2 / 2,
    }
    assert evaluate(parse(sqamp), values) == pytest.approx(expected(e / math.sin(theta), math.sin(theta), m), rel=1e-12)


def test_decay_of_the_higgs():
    """h -> f fbar: (g m_f / 2 m_W)^2 * 2 (m_h^2 - 4 m_f^2); h -> W W: g^2 m_W^2 (2 + (p.k)^2 / m_W^4).

    Peskin & Schroeder, final project III.
    """
    mh, mb, mw, e, theta = 5.0, 0.7, 1.3, 0.3, 0.5
    g = e / math.sin(theta)
    values = {"m_h": mh, "m_b": mb, "m_W": mw, "theta_W": theta, "e": e, "s_12": mh**2 / 2, "s_13": mh**2 / 2}
    assert evaluate(
        parse(square(process_amplitudes("h -> b b~")[0])), values | {"s_23": mh**2 / 2 - mb**2}
    ) == pytest.approx((g * mb / (2 * mw)) ** 2 * 2 * (mh**2 - 4 * mb**2), rel=1e-12)
    dot = mh**2 / 2 - mw**2
    assert evaluate(parse(square(process_amplitudes("h -> W W~")[0])), values | {"s_23": dot}) == pytest.approx(
        g**2 * mw**2 * (2 + dot**2 / mw**4), rel=1e-12
    )


def test_muon_decay_goes_over_into_fermi_theory():
    """m_W -> infinity: averaged |M|^2 = 64 G_F^2 p_mu.p_nubar_e p_e.p_nu_mu, G_F / sqrt 2 = g^2 / 8 m_W^2."""
    sqamp, mw, e, theta = square(process_amplitudes("mu -> e nu_e~ nu_mu")[0]), 1e4, 0.3, 0.5
    values = {
        "m_W": mw,
        "m_mu": 1.0,
        "m_e": 0.01,
        "theta_W": theta,
        "e": e,
        "reg_prop": 0.0,
        "s_12": 0.3,
        "s_13": 0.25,
        "s_14": 0.45,
        "s_23": 0.1,
        "s_24": 0.2,
        "s_34": 0.15,
    }
    fermi = math.sqrt(2) * (e / math.sin(theta)) ** 2 / (8 * mw**2)
    assert evaluate(parse(sqamp), values) == pytest.approx(64 * fermi**2 * values["s_13"] * values["s_24"], rel=1e-6)


def averaged(text, energy, angle=1.0):
    """Averaged |M|^2 of a 2 -> 2 process with massless light fermions."""
    return points.averaged(
        text,
        {"theta_W": 0.5, "m_Z": 1.0, "m_W": math.cos(0.5), "m_h": 1.4, "e": 0.3, "m_t": 1.9, "m_b": 0.4},
        energy,
        angle,
    )


@pytest.mark.parametrize("process", ["nu_e e~ -> W A", "u d~ -> W A", "W A -> W A"])
def test_photon_ward_identity_fixes_the_sign_of_the_photons_coupling_to_w(process, monkeypatch):
    leg_matrix = matrices.leg_matrix

    def momentum_for_polarisation(field, mass, momentum, *rest):
        if (
            (field.name, field.leg) not in (("A", 4), ("A", 2))
            or (field.name, field.leg) == ("A", 2)
            and process != "W A -> W A"
        ):
            return leg_matrix(field, mass, momentum, *rest)
        lower = momentum * matrices.METRIC.diagonal()
        return lower[:, :, None] * lower[:, None, :]

    monkeypatch.setattr(matrices, "leg_matrix", momentum_for_polarisation)
    diagrams = process_amplitudes(process)
    single = max(abs(averaged(amp, energy=4.0)) for amp in diagrams)
    assert single > 1e-4 and abs(averaged(" + ".join(diagrams), energy=4.0)) < 1e-11 * single


@pytest.mark.parametrize(
    "process",
    [
        "e e~ -> W W~",
        "u u~ -> W W~",
        "e e~ -> Z h",
        "t t~ -> W W~",
        "t t~ -> Z Z",
        "W W~ -> Z Z",
        "W W -> W W",
        "W W~ -> h h",
        "Z Z -> h h",
        "t t~ -> Z h",
    ],
)
def test_gauge_cancellations_at_high_energy(process):
    """Longitudinal W and Z make single diagrams grow with the energy. |M|^2 of their sum stays bounded."""
    diagrams = process_amplitudes(process)
    low, high = (averaged(" + ".join(diagrams), energy=energy) for energy in (15.0, 60.0))
    growth = max(
        averaged(amp, energy=60.0) / averaged(amp, energy=15.0) for amp in diagrams if averaged(amp, energy=15.0)
    )
    assert low > 0 and high > 0
    assert high < 3 * low
    if process != "e e~ -> Z h":  # whose one diagram for a massless electron is well behaved by itself
        assert growth > 10


def test_averaged_squares_of_whole_processes_are_positive():
    for process in ("e e~ -> W W~", "e e~ -> mu mu~", "e e~ -> Z h", "nu_e e~ -> W A", "t t~ -> Z Z"):
        amp = " + ".join(process_amplitudes(process))
        for angle in (0.3, 1.0, 2.0, 2.8):
            assert averaged(amp, energy=6.0, angle=angle) > 0
