"""Chosen physical points of 2->2, and |M|^2 there from an amplitude's text by verify.py's explicit matrices."""

import math

import numpy as np

from physics import matrices
from physics.matrices import read_amplitude
from physics.numeric import averaged_square
from physics.particles import NO_FACTS, roles_of


def two_to_two(shell, energy, angle):
    """Momenta (4, 1, 4) in the centre of mass for the four masses, scattered by `angle`, and all s_ij."""
    momenta = []
    for (m, other), axis, sign in (
        ((shell[0], shell[1]), (0, 0, 1), 1),
        ((shell[1], shell[0]), (0, 0, 1), -1),
        ((shell[2], shell[3]), (math.sin(angle), 0, math.cos(angle)), 1),
        ((shell[3], shell[2]), (math.sin(angle), 0, math.cos(angle)), -1),
    ):
        size = math.sqrt((energy**2 - (m + other) ** 2) * (energy**2 - (m - other) ** 2)) / (2 * energy)
        momenta.append([math.sqrt(m**2 + size**2), *(sign * size * x for x in axis)])
    momenta = np.array(momenta)[:, None]
    return momenta, {
        f"s_{i + 1}{j + 1}": momenta[i, 0] * matrices.METRIC.diagonal() @ momenta[j, 0]
        for i in range(4)
        for j in range(i, 4)
    }


def averaged(text, constants, energy, angle=1.0, facts=NO_FACTS):
    """Averaged |M|^2 of a 2->2 process; constants: values of masses and couplings, 0 for what is not among them."""
    terms, fields, names = read_amplitude(text)
    roles = roles_of(fields, names, facts)
    shell = [constants.get(mass, 0.0) for mass in roles.masses]
    momenta, invariants = two_to_two(shell, energy, angle)
    values = dict.fromkeys([*names, *roles.masses], 0.0) | constants | invariants
    values = {name: np.full(1, value) for name, value in values.items()} | {"i": 1j, None: np.zeros(1)}
    return averaged_square(terms, fields, roles, values, momenta)[0].real[0]
