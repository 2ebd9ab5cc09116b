"""The theories, as plain data: particles with masses, charges and colour, vertices with couplings. Code elsewhere reads it.

A vertex lists its particles as fields flowing in, fermion lines as (psibar, psi): `("e~", "e", "A")` is psibar_e gamma psi_e A.
Its Feynman rule is i * factor * coupling * structure (Peskin & Schroeder, appendix A.1: a fermion of charge Q has -i e Q gamma^mu).
"""
from fractions import Fraction
from typing import NamedTuple

import numpy as np


class Particle(NamedTuple):
    name: str
    antiparticle: str           # the same name for a particle that is its own antiparticle
    twice_spin: int
    mass: str                   # symbol of its mass, "" if massless
    charge: Fraction            # in units of the positron's charge
    colour: int                 # dimension of its SU(3) representation; 1 where the theory has no strong interaction
    pdg: int                    # Particle Data Group number


class Vertex(NamedTuple):
    particles: tuple
    factor: Fraction
    coupling: str
    structure: str              # 'gamma': gamma^mu between psibar and psi


class Theory(NamedTuple):
    name: str
    particles: dict             # name -> Particle, antiparticles under their own names too
    vertices: tuple


def _fermion(name, charge, pdg):
    return Particle(name, name + "~", 1, "m_" + name, Fraction(charge), 1, pdg)


PHOTON = Particle("A", "A", 2, "", Fraction(0), 1, 22)
QED_FERMIONS = (             # MARTY's names: t is the tau, tt the top
    _fermion("e", "-1", 11), _fermion("mu", "-1", 13), _fermion("t", "-1", 15),
    _fermion("u", "2/3", 2), _fermion("c", "2/3", 4), _fermion("tt", "2/3", 6),
    _fermion("d", "-1/3", 1), _fermion("s", "-1/3", 3), _fermion("b", "-1/3", 5),
)


def _with_antiparticles(particles):
    table = {}
    for particle in particles:
        table[particle.name] = particle
        if particle.antiparticle != particle.name:
            table[particle.antiparticle] = particle._replace(
                name=particle.antiparticle, antiparticle=particle.name, charge=-particle.charge, pdg=-particle.pdg)
    return table


THEORIES = {
    "qed": Theory("qed", _with_antiparticles((*QED_FERMIONS, PHOTON)),
                  tuple(Vertex((f.antiparticle, f.name, "A"), -f.charge, "e", "gamma") for f in QED_FERMIONS)),
}


def is_massless(name):
    """Whether legs of this name have no mass symbol in MARTY's files; every other particle X has the mass m_X."""
    return name in ("A", "G") or name.startswith("nu")


def conserved_charges(theory):
    """{particle: vector}: a basis of all additive quantum numbers that every vertex conserves (charge, flavours, ...).

    They are the null space of the matrix (vertices, fields) that counts the fields at each vertex, antiparticles as -1.
    """
    fields = [p for p in theory.particles.values() if p.pdg > 0 and p.antiparticle != p.name]
    column = {p.name: k for k, p in enumerate(fields)}

    def count(name):
        row = np.zeros(len(fields))
        particle = theory.particles[name]
        if particle.antiparticle != name:
            row[column[name if name in column else particle.antiparticle]] = 1 if name in column else -1
        return row

    vertices = np.array([sum(count(name) for name in vertex.particles) for vertex in theory.vertices])
    _, sizes, basis = np.linalg.svd(vertices)
    free = basis[np.sum(sizes > 1e-9):]                      # (charges, fields)
    return {name: free @ count(name) for name in theory.particles}
