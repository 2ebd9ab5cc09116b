"""The theories as plain data: particles with masses, charges and colour, vertices with couplings.

A vertex lists its particles as fields flowing in, a fermion line first as (psibar, psi): `("e~", "e", "A")` is
psibar_e gamma psi_e A. Its Feynman rule is i * the sum over its rules of factor * couplings * structure; signs follow
Peskin & Schroeder, appendix A.1 and chapter 20: D = d - i e Q A - i g A^a T^a ..., so a fermion of charge Q has
i e Q gamma^mu, a scalar of charge Q has i e Q (p + p')^mu and 2 i e^2 Q^2 g^mu nu. Where a symmetry exchanges identical
fields the rule holds their permutations already: -lambda/4! phi^4 has the factor -1.

Gauge: massless vectors propagate with -i g (Feynman), massive ones with -i (g - q q / m^2) (unitary), so there are no
Goldstone bosons. amplitude.py carries out the q q / m^2 where the Dirac equation or the vertices allow it.
"""
import itertools
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
    field: str                  # its name in an amplitude's text, where fermions and antifermions share one


class Rule(NamedTuple):
    factor: Fraction
    couplings: tuple  # of (symbol, power); the imaginary unit is the symbol i
    structure: str  # one of FERMION_STRUCTURES for fermions, else a name in vertices.py's STRUCTURES


class Vertex(NamedTuple):
    particles: tuple
    rules: tuple


class Theory(NamedTuple):
    name: str
    particles: dict             # name -> Particle, antiparticles under their own names too
    vertices: tuple

    def __eq__(self, other):                                 # what is computed from a theory is cached by the object
        return self is other

    def __hash__(self):
        return id(self)


ROOT_2 = "2^(1/2)"              # as MARTY writes the square root of two
# Of fermions with a scalar and with a vector; with a gluon they end in T, its generator
FERMION_STRUCTURES = {0: ("unit", "P_L", "P_R"), 2: ("gamma", "gamma P_L", "gamma P_R")}
CONJUGATE = "_c"                # ends the field name of a complex boson's antiparticle


def _fermion(name, charge, pdg, colour=1):
    return Particle(name, name + "~", 1, "" if is_massless(name) else "m_" + name, Fraction(charge), colour, pdg, name)


def is_massless(name):
    """Whether a particle of our theories is massless; every other X has the mass m_X, both W the mass m_W."""
    return name in ("A", "G") or name.startswith("nu")


PHOTON = Particle("A", "A", 2, "", Fraction(0), 1, 22, "A")
GLUON = Particle("G", "G", 2, "", Fraction(0), 8, 21, "G")
QED_FERMIONS = (                # MARTY's names: in its QED files t is the tau and tt the top
    _fermion("e", "-1", 11), _fermion("mu", "-1", 13), _fermion("t", "-1", 15),
    _fermion("u", "2/3", 2), _fermion("c", "2/3", 4), _fermion("tt", "2/3", 6),
    _fermion("d", "-1/3", 1), _fermion("s", "-1/3", 3), _fermion("b", "-1/3", 5),
)
QCD_QUARKS = (                  # in its QCD files t is the top
    _fermion("u", "2/3", 2, 3), _fermion("c", "2/3", 4, 3), _fermion("t", "2/3", 6, 3),
    _fermion("d", "-1/3", 1, 3), _fermion("s", "-1/3", 3, 3), _fermion("b", "-1/3", 5, 3),
)


def make_theory(name, particles, vertices):
    """The Theory with the antiparticles of these particles."""
    table = {}
    for particle in particles:
        table[particle.name] = particle
        if particle.antiparticle != particle.name:
            table[particle.antiparticle] = particle._replace(
                name=particle.antiparticle, antiparticle=particle.name, charge=-particle.charge, pdg=-particle.pdg,
                field=_conjugate_field(particle))
    return Theory(name, table, tuple(vertices))


def _conjugate_field(particle):
    if particle.twice_spin == 1:
        return particle.field
    return "Wm" if particle.name == "W" else particle.field + CONJUGATE


def _rule(factor, couplings, structure):
    return (Rule(Fraction(factor), couplings, structure),)


def _electroweak():
    """The electroweak standard model in unitary gauge, without colour and with a diagonal CKM matrix.

    Rules from Peskin & Schroeder, sections 20.2 and 21.1 and appendix A.1. Those of Denner, arXiv 0709.1075,
    appendix A, are the same up to the signs of the fields. g = e / sin(theta_W), v = 2 m_W / g.
    """
    sin, cos, e = "sin(theta_W)", "cos(theta_W)", "e"
    doublets = [(_fermion(nu, 0, nu_pdg), _fermion(lepton, -1, pdg)) for nu, nu_pdg, lepton, pdg in
                (("nu_e", 12, "e", 11), ("nu_mu", 14, "mu", 13), ("nu_tau", 16, "tau", 15))]
    doublets += [(_fermion(up, "2/3", up_pdg), _fermion(down, "-1/3", pdg)) for up, up_pdg, down, pdg in
                 (("u", 2, "d", 1), ("c", 4, "s", 3), ("t", 6, "b", 5))]
    vertices = []
    for up, down in doublets:
        for f, isospin in ((up, Fraction(1, 2)), (down, Fraction(-1, 2))):
            if f.charge:
                vertices.append(Vertex((f.antiparticle, f.name, "A"), _rule(f.charge, ((e, 1),), "gamma")))
            neutral = _rule(isospin, ((e, 1), (sin, -1), (cos, -1)), "gamma P_L")
            if f.charge:                                     # g/cos (T3 P_L - Q sin^2)
                neutral += _rule(-f.charge, ((e, 1), (sin, 1), (cos, -1)), "gamma")
            vertices.append(Vertex((f.antiparticle, f.name, "Z"), neutral))
            if f.mass:
                vertices.append(
                    Vertex(
                        (f.antiparticle, f.name, "h"),
                        _rule("-1/2", ((e, 1), (f.mass, 1), (sin, -1), ("m_W", -1)), "unit"),
                    )
                )
        charged = _rule(1, ((e, 1), (sin, -1), (ROOT_2, -1)), "gamma P_L")
        vertices += [
            Vertex((up.antiparticle, down.name, "W"), charged),
            Vertex((down.antiparticle, up.name, "W~"), charged),
        ]
    for neutral, weight in (("A", ()), ("Z", ((cos, 1), (sin, -1)))):
        vertices.append(Vertex(("W", "W~", neutral), _rule(-1, ((e, 1), *weight), "VVV")))
    vertices += [
        Vertex(("W", "W", "W~", "W~"), _rule(1, ((e, 2), (sin, -2)), "VVVV")),
        Vertex(("W", "W~", "A", "A"), _rule(-1, ((e, 2),), "VVVV")),
        Vertex(("W", "W~", "A", "Z"), _rule(-1, ((e, 2), (cos, 1), (sin, -1)), "VVVV")),
        Vertex(("W", "W~", "Z", "Z"), _rule(-1, ((e, 2), (cos, 2), (sin, -2)), "VVVV")),
        Vertex(("W", "W~", "h"), _rule(1, ((e, 1), ("m_W", 1), (sin, -1)), "metric")),
        Vertex(("Z", "Z", "h"), _rule(1, ((e, 1), ("m_Z", 1), (sin, -1), (cos, -1)), "metric")),
        Vertex(("W", "W~", "h", "h"), _rule("1/2", ((e, 2), (sin, -2)), "metric")),
        Vertex(("Z", "Z", "h", "h"), _rule("1/2", ((e, 2), (sin, -2), (cos, -2)), "metric")),
        Vertex(("h", "h", "h"), _rule("-3/2", ((e, 1), ("m_h", 2), (sin, -1), ("m_W", -1)), "number")),
        Vertex(("h", "h", "h", "h"), _rule("-3/4", ((e, 2), ("m_h", 2), (sin, -2), ("m_W", -2)), "number")),
    ]
    bosons = (
        PHOTON,
        Particle("Z", "Z", 2, "m_Z", Fraction(0), 1, 23, "Z"),
        Particle("W", "W~", 2, "m_W", Fraction(1), 1, 24, "W"),
        Particle("h", "h", 0, "m_h", Fraction(0), 1, 25, "h"),
    )
    return make_theory("ew", (*(f for doublet in doublets for f in doublet), *bosons), vertices)


def _cast():
    """{name: Particle} of which `general` and the random theories choose: Fa1, Fo2, Sb1, ...

    The first letter is the kind, the second says the mass, m_a, m_b, m_c, or o for a massless one, the number tells
    particles of one kind and mass apart. So masses coincide, and the name alone tells the mass.
    """
    kinds = {  # letter: (twice the spin, colour, own antiparticle, masses)
        "F": (1, 1, False, "oabc"),
        "Q": (1, 3, False, "oab"),
        "S": (0, 1, True, "oabc"),
        "C": (0, 1, False, "oabc"),
        "V": (2, 1, True, "oabc"),
        "X": (2, 1, False, "abc"),
    }
    numbers, cast = itertools.count(101), {"G": GLUON}
    for kind, (twice_spin, colour, own, masses) in kinds.items():
        for mass, copy in itertools.product(masses, "12"):
            name, symbol = f"{kind}{mass}{copy}", "" if mass == "o" else f"m_{mass}"
            other = name if own else name + "~"
            cast[name] = Particle(name, other, twice_spin, symbol, Fraction(0), colour, next(numbers), name)
    return make_theory("cast", cast.values(), ()).particles


def structures_of(particles):
    """The structures that a vertex of these Particles may have, () where there is none. Each rule has one of them."""
    spins = sorted(particle.twice_spin for particle in particles)
    colours = sorted(particle.colour for particle in particles if particle.colour > 1)
    if spins.count(1) == 2 and len(spins) == 3 and particles[0].twice_spin == particles[1].twice_spin == 1:
        structures = FERMION_STRUCTURES[particles[2].twice_spin]
        if colours == [3, 3, 8] and particles[2].twice_spin == 2:
            return tuple(f"{structure} T" for structure in structures)
        return structures if colours in ([], [3, 3]) and particles[2].colour == 1 else ()
    if 1 in spins or colours and colours != [8] * len(spins):
        return ()
    if colours:
        return {(2, 2, 2): ("f",), (2, 2, 2, 2): ("ff",)}.get(tuple(spins), ())
    return {
        (0, 0, 0): ("number",),
        (0, 0, 0, 0): ("number",),
        (0, 0, 2): ("SSV",),
        (0, 2, 2): ("metric",),
        (0, 0, 2, 2): ("metric",),
        (2, 2, 2): ("VVV",),
        (2, 2, 2, 2): ("VVVV",),
    }.get(tuple(spins), ())


def is_symmetric(names, structure):
    """Whether exchanging identical fields of a vertex leaves its structure as it is.

    SSV and VVV change their sign. VVVV, 2 g^12 g^34 - g^13 g^24 - g^14 g^23, is the same if the first and the second
    or the third and the fourth field are exchanged.
    """
    places = [[k for k, other in enumerate(names) if other == name] for name in dict.fromkeys(names)]
    if structure in ("SSV", "VVV"):
        return all(len(where) == 1 for where in places)
    return structure != "VVVV" or all(len(where) == 1 or where in ([0, 1], [2, 3]) for where in places)


def conjugate_vertex(vertex, particles):
    """The Vertex of the antiparticles, whose sum with the vertex is Hermitian. particles: {name: Particle}."""
    names = [particles[name].antiparticle for name in vertex.particles]
    names[:2] = names[1::-1]
    rules = []
    for rule in vertex.rules:
        turns = sum(power for symbol, power in rule.couplings if symbol == "i")          # i is -i
        structure = rule.structure
        if structure in ("P_L", "P_R"):                      # (psibar P_L chi)^* = chibar P_R psi
            structure = {"P_L": "P_R", "P_R": "P_L"}[structure]
        rules.append(Rule(rule.factor * (-1) ** turns, rule.couplings, structure))
    return Vertex(tuple(names), tuple(rules))


def _general():
    """A theory with every renormalisable kind of vertex between fermions, scalars and vectors.

    The couplings are symbols of their own: no gauge group relates them, so that single diagrams are what it is for.
    """
    left_right = (Rule(Fraction(1), (("g_L", 1),), "gamma P_L"), Rule(Fraction(1), (("g_R", 1),), "gamma P_R"))
    yukawa = (Rule(Fraction(1), (("y_L", 1),), "P_L"), Rule(Fraction(1), (("y_R", 1),), "P_R"))
    vertices = []
    for f in ("Fo1", "Fa1", "Fb1", "Qa1"):
        for boson, rules in (("Va1", left_right), ("Vo1", _rule(1, (("g_V", 1),), "gamma")), ("Sb1", yukawa)):
            vertices.append(Vertex((f + "~", f, boson), rules))
    for boson, rules in (("Xb1", left_right), ("Ca1", yukawa)):
        vertex = Vertex(("Fa1~", "Fb1", boson), rules)
        vertices += [vertex, conjugate_vertex(vertex, CAST)]
    vertices += [
        Vertex(("Qa1~", "Qa1", "G"), _rule(1, (("g", 1),), "gamma T")),
        Vertex(("G", "G", "G"), _rule(1, (("g", 1),), "f")),
        Vertex(("G", "G", "G", "G"), _rule(1, (("g", 2),), "ff")),
    ]
    for bosons, coupling in (
        (("Ca1~", "Ca1", "Vo1"), "g_S"), (("Ca1~", "Ca1", "Va1"), "g_S"), (("Ca1~", "Ca1", "Vo1", "Vo1"), "g_SV"),
        (("Ca1~", "Ca1", "Va1", "Va1"), "g_SV"), (("Sb1", "Va1", "Va1"), "k_V"), (("Sb1", "Xb1", "Xb1~"), "k_V"),
        (("Sb1", "Sb1", "Va1", "Va1"), "g_SV"), (("Sb1", "Sb1", "Xb1", "Xb1~"), "g_SV"), (("Sb1", "Sb1", "Sb1"), "k_S"),
        (("Sb1", "Ca1", "Ca1~"), "k_S"), (("So1", "Sb1", "Sb1"), "k_S"), (("Sb1", "Sb1", "Sb1", "Sb1"), "l_S"),
        (("Sb1", "Sb1", "Ca1", "Ca1~"), "l_S"), (("Xb1", "Xb1~", "Vo1"), "g_3"), (("Xb1", "Xb1~", "Va1"), "g_3"),
        (("Xb1", "Xb1", "Xb1~", "Xb1~"), "g_4"), (("Xb1", "Xb1~", "Vo1", "Vo1"), "g_4"),
        (("Xb1", "Xb1~", "Va1", "Va1"), "g_4"),
    ):
        structure, = structures_of([CAST[name] for name in bosons])
        vertices.append(Vertex(bosons, _rule(1, ((coupling, 1),), structure)))
    used = dict.fromkeys(name for vertex in vertices for name in vertex.particles if not name.endswith("~"))
    return make_theory("general", [CAST[name] for name in used], vertices)


CAST = _cast()
THEORIES = {theory.name: theory for theory in (
    make_theory("qed", (*QED_FERMIONS, PHOTON),
                [Vertex((f.antiparticle, f.name, "A"), _rule(f.charge, (("e", 1),), "gamma")) for f in QED_FERMIONS]),
    make_theory("qcd", (*QCD_QUARKS, GLUON),
                [*(Vertex((q.antiparticle, q.name, "G"), _rule(1, (("g", 1),), "gamma T")) for q in QCD_QUARKS),
                 Vertex(("G", "G", "G"), _rule(1, (("g", 1),), "f")),
                 Vertex(("G", "G", "G", "G"), _rule(1, (("g", 2),), "ff"))]),
    _electroweak(),
    _general(),
)}


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
