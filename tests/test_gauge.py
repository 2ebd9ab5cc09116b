"""Whole processes do not depend on a choice of gauge, and their |M|^2 is never negative at a physical point."""

import re

import numpy as np
import pytest

import physics.amplitude as generator
from physics import matrices
from physics import numeric as judge
from physics.amplitude import amplitudes, external_legs, parse_process
from physics.expression import names_in, parse
from physics.matrices import read_amplitude
from physics.numeric import evaluate, verify
from physics.particles import roles_of
from physics.square import square
from physics.theory import THEORIES


def texts(theory, process):
    """Amplitudes of the diagrams of a whole process, without reg_prop, which spoils gauge invariance."""
    return [
        re.sub(r" \+ -?(1/2\*)?reg_prop", "", amp)
        for amp in amplitudes(parse_process(process, theory), theory, whole=True)
    ]


def at_points(text, points=4, seed=3, extra=()):
    """(averaged |M|^2 at random physical points, values of the symbols there)."""
    terms, fields, names = read_amplitude(text)
    roles = roles_of(fields, names)
    values, momenta = judge.random_point(fields, roles, names | set(extra), np.random.default_rng(seed), points)
    return judge.averaged_square(terms, fields, roles, values, momenta)[0], values


# -- Ward identity: with one photon's polarisation replaced by its momentum the sum of all diagrams vanishes


@pytest.mark.parametrize(
    "theory, process",
    [
        ("qed", "mu~ A -> A mu~"),
        ("qed", "e e~ -> A A"),
        ("qed", "A A -> u u~"),
        ("qed", "e e~ -> mu mu~ A"),
        ("qed", "e mu -> A mu e"),
        ("qed", "e e -> e e A"),
        ("qed", "e A A -> e A"),
        ("qed", "e e~ -> A A A"),
        ("ew", "mu nu_e -> A e nu_mu"),
        ("ew", "h -> W W~ A"),
        ("ew", "u d~ -> Z W A"),
        ("ew", "mu A -> mu Z"),
    ],
)
def test_photons_couple_to_a_conserved_current(theory, process, monkeypatch):
    legs = parse_process(process, THEORIES[theory])
    photon = [*legs[0], *legs[1]].index("A") + 1
    sum_over_states = matrices.leg_matrix

    def momentum_for_polarisation(field, mass, momentum, *rest):
        if field.leg != photon:
            return sum_over_states(field, mass, momentum, *rest)
        lower = momentum * matrices.METRIC.diagonal()
        return lower[:, :, None] * lower[:, None, :]

    monkeypatch.setattr(matrices, "leg_matrix", momentum_for_polarisation)
    amps = texts(THEORIES[theory], process)
    single = max(np.abs(at_points(amp, extra=names_in(parse(" + ".join(amps))))[0]).max() for amp in amps)
    assert single > 1e-6
    assert np.abs(at_points(" + ".join(amps))[0]).max() < 1e-12 * single


# -- gauge parameter: -g + xi q q in every photon's or gluon's propagator, for any xi


@pytest.mark.parametrize(
    "theory, vector, process, single",
    [
        ("qed", "A", "e e~ -> mu mu~ A", False),
        ("qed", "A", "e A mu -> mu e", False),
        ("qcd", "G", "u u~ -> G G", False),
        ("qcd", "G", "G u -> G u", False),
        ("qcd", "G", "G G -> G G", True),
        ("qcd", "G", "u d -> u d G", False),
        ("qcd", "G", "u u~ -> u u~ G", False),
        ("ew", "A", "e e~ -> W W~ A", False),
    ],
)
def test_whole_amplitudes_do_not_depend_on_the_gauge_parameter(theory, vector, process, single, monkeypatch):
    """The generator's q q / m^2 with a symbol xi for the mass, in the numerators alone, without any shortcut.

    single: whether a single diagram depends on xi; none does where one end of each propagator is a conserved current.
    """
    particles = THEORIES[theory].particles
    other = THEORIES[theory]._replace(particles=particles | {vector: particles[vector]._replace(mass="m_xi")})
    denominator = generator.denominator
    # to legs marked "off" neither the Dirac equation nor p . polarisation = 0 is applied
    monkeypatch.setattr(
        generator,
        "external_legs",
        lambda process, _, *rest: [leg._replace(mark="off") for leg in external_legs(process, THEORIES[theory], *rest)],
    )
    monkeypatch.setattr(
        generator, "denominator", lambda q, mass, *rest: denominator(q, mass.replace("m_xi", ""), *rest)
    )
    gauged, amps = ([amp.replace("_off", "") for amp in texts(model, process)] for model in (other, THEORIES[theory]))
    names = names_in(parse(" + ".join(gauged)))
    alone = [
        np.allclose(at_points(new, extra=names)[0], at_points(old, extra=names)[0], rtol=1e-9)
        for new, old in zip(gauged, amps)
    ]
    assert "m_xi" in names and single != all(alone)
    if process.count("G") > 1:
        gauged, amps = ([re.sub(r"(G_\{[^}]*\}\(p_\d\))", r"\1_T", amp) for amp in sums] for sums in (gauged, amps))
    whole, without = (at_points(" + ".join(sums), extra=names)[0] for sums in (gauged, amps))
    assert np.allclose(whole, without, rtol=1e-9)


# -- |M|^2 >= 0. Some published rows of e e -> e e Z have a negative one.


@pytest.mark.parametrize(
    "theory, process",
    [
        ("qed", "e e~ -> mu mu~"),
        ("qed", "e e~ -> A A"),
        ("qed", "e e -> e e"),
        ("qed", "e e -> e e A"),
        ("qed", "e e~ -> A A A"),
        ("qcd", "u u~ -> G G"),
        ("qcd", "G u~ -> u~ G"),
        ("qcd", "G G -> G G"),
        ("qcd", "u u~ -> u u~ G"),
        ("qcd", "u d~ -> u d~ G"),
        ("ew", "Z -> u u~"),
        ("ew", "h -> Z Z"),
        ("ew", "t -> b W"),
        ("ew", "W -> nu_e e~ A"),
        ("ew", "mu -> e nu_e~ nu_mu"),
        ("ew", "t -> b nu_e e~"),
        ("ew", "h -> W~ nu_e e~"),
        ("ew", "e e~ -> W W~"),
        ("ew", "W W -> W W"),
        ("ew", "t t~ -> Z h"),
        ("ew", "nu_e e -> nu_e e"),
        ("ew", "e e -> e e Z"),
        ("ew", "e e~ -> nu_mu nu_mu~ h"),
        ("ew", "u d~ -> W A Z"),
    ],
)
def test_squares_of_whole_processes_are_never_negative(theory, process):
    amp = " + ".join(texts(THEORIES[theory], process))
    values = at_points(amp, points=50)[0]
    assert (values.real > 0).all() and (np.abs(values.imag) < 1e-9 * values.real).all()
    if len(amp) < 10_000:  # its text too
        sqamp = square(amp, "independent")
        assert verify(amp, sqamp)
        _, at = at_points(amp, points=50)
        assert (evaluate(parse(sqamp), at).real > 0).all()
