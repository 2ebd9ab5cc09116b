"""The theories, as plain data: particles with masses, charges and colour, vertices with couplings. Code elsewhere reads it.

A vertex lists its particles as fields flowing in, a fermion line first as (psibar, psi): `("e~", "e", "A")` is
psibar_e gamma psi_e A. Its Feynman rule is i * the sum over its rules of factor * couplings * structure; signs follow
Peskin & Schroeder, appendix A.1 (a fermion of charge Q has -i e Q gamma^mu, a quark i g gamma^mu T^a).
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


class Rule(NamedTuple):
    factor: Fraction
    couplings: tuple            # of (symbol, power)
    structure: str              # a name in physics/amplitude.py: 'gamma', 'gamma T', 'f', 'ff'


class Vertex(NamedTuple):
    particles: tuple
    rules: tuple


class Theory(NamedTuple):
    name: str
    particles: dict             # name -> Particle, antiparticles under their own names too
    vertices: tuple


def _fermion(name, charge, pdg, colour=1):
    return Particle(name, name + "~", 1, "m_" + name, Fraction(charge), colour, pdg)


PHOTON = Particle("A", "A", 2, "", Fraction(0), 1, 22)
GLUON = Particle("G", "G", 2, "", Fraction(0), 8, 21)
QED_FERMIONS = (                # MARTY's names: in its QED files t is the tau and tt the top
    _fermion("e", "-1", 11), _fermion("mu", "-1", 13), _fermion("t", "-1", 15),
    _fermion("u", "2/3", 2), _fermion("c", "2/3", 4), _fermion("tt", "2/3", 6),
    _fermion("d", "-1/3", 1), _fermion("s", "-1/3", 3), _fermion("b", "-1/3", 5),
)
QCD_QUARKS = (                  # in its QCD files t is the top
    _fermion("u", "2/3", 2, 3), _fermion("c", "2/3", 4, 3), _fermion("t", "2/3", 6, 3),
    _fermion("d", "-1/3", 1, 3), _fermion("s", "-1/3", 3, 3), _fermion("b", "-1/3", 5, 3),
)


def _theory(name, particles, vertices):
    table = {}
    for particle in particles:
        table[particle.name] = particle
        if particle.antiparticle != particle.name:
            table[particle.antiparticle] = particle._replace(
                name=particle.antiparticle, antiparticle=particle.name, charge=-particle.charge, pdg=-particle.pdg)
    return Theory(name, table, tuple(vertices))


def _rule(factor, couplings, structure):
    return (Rule(Fraction(factor), couplings, structure),)


THEORIES = {theory.name: theory for theory in (
    _theory("qed", (*QED_FERMIONS, PHOTON),
            [Vertex((f.antiparticle, f.name, "A"), _rule(-f.charge, (("e", 1),), "gamma")) for f in QED_FERMIONS]),
    _theory("qcd", (*QCD_QUARKS, GLUON),
            [*(Vertex((q.antiparticle, q.name, "G"), _rule(1, (("g", 1),), "gamma T")) for q in QCD_QUARKS),
             Vertex(("G", "G", "G"), _rule(1, (("g", 1),), "f")),
             Vertex(("G", "G", "G", "G"), _rule(1, (("g", 2),), "ff"))]),
)}


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
