"""Random members of the family of renormalisable theories: some particles of theory.py's cast, some of their vertices.

No gauge group relates the couplings of such a theory. Its diagrams are exercises in algebra, each right by itself; the
sum over a process's diagrams is no prediction.
"""
import itertools
import random
from fractions import Fraction

from physics.theory import (
    CAST,
    Rule,
    Vertex,
    conjugate_vertex,
    is_symmetric,
    make_theory,
    structures_of,
)

PARTICLES = {"F": 7, "Q": 2, "S": 4, "C": 2, "V": 4, "X": 2}                 # weights of the kinds of particles
FEWEST_PARTICLES, MOST_PARTICLES = 5, 7
FEWEST_VERTICES, MOST_VERTICES = 8, 14
FEWEST_KINDS = 3             # of vertices that the particles allow; else others are drawn
# weights of the kinds of vertices: the twice-spins of their fields
VERTICES = {
    (0, 1, 1): 6, (1, 1, 2): 8, (0, 0, 0): 2, (0, 0, 2): 3, (0, 2, 2): 2, (2, 2, 2): 2,
    (0, 0, 0, 0): 1, (0, 0, 2, 2): 1, (2, 2, 2, 2): 1,
}
# the rules that a fermion's vertex with a scalar, a vector, a gluon may have: (factor, couplings, structure)
SCALAR = (
    ((1, "y_S", "unit"),),
    ((1, "i y_P", "P_R"), (-1, "i y_P", "P_L")),             # i gamma_5
    ((1, "y_L", "P_L"),),
    ((1, "y_L", "P_L"), (1, "y_R", "P_R")),
)
VECTOR = (
    ((1, "g_V", "gamma"),),
    ((1, "g_L", "gamma P_L"),),
    ((1, "g_R", "gamma P_R"),),
    ((1, "g_L", "gamma P_L"), (1, "g_R", "gamma P_R")),
)
GLUON = (((1, "g", "gamma T"),),)
BOSONS = {  # the couplings of bosons
    (0, 0, 0): "k_S", (0, 0, 2): "g_S", (0, 2, 2): "k_V", (2, 2, 2): "g_3",
    (0, 0, 0, 0): "l_S", (0, 0, 2, 2): "g_SV", (2, 2, 2, 2): "g_4",
}
GLUONS = (
    Vertex(("G", "G", "G"), (Rule(Fraction(1), (("g", 1),), "f"),)),
    Vertex(("G", "G", "G", "G"), (Rule(Fraction(1), (("g", 2),), "ff"),)),
)


def random_theory(seed):
    """The Theory random:SEED."""
    rng = random.Random(f"random theory {seed}")
    kinds = {}
    while len(kinds) < FEWEST_KINDS:
        chosen = _draw_particles(rng)
        kinds = _possible_vertices(chosen)
    coloured = any(particle.colour == 3 for particle in chosen.values())
    vertices = {}
    for _ in range(rng.randint(FEWEST_VERTICES, MOST_VERTICES)):
        (kind,) = rng.choices(list(kinds), [VERTICES[kind] for kind in kinds])
        names = rng.choice(kinds[kind])
        vertex = Vertex(names, _rules(kind, names, rng))
        other = conjugate_vertex(vertex, CAST)
        if not {tuple(sorted(names)), tuple(sorted(other.particles))} & vertices.keys():
            vertices[tuple(sorted(names))] = vertex
            vertices.setdefault(tuple(sorted(other.particles)), other)
    vertices = list(vertices.values())
    if coloured and rng.random() < 0.8:
        quarks = [name for name, particle in chosen.items() if particle.colour == 3]
        vertices += [Vertex((f"{name}~", name, "G"), _rules((1, 1, 2), (name, name, "G"), rng)) for name in quarks]
        vertices += GLUONS
    used = {name.rstrip("~") for vertex in vertices for name in vertex.particles}
    return make_theory(f"random:{seed}", [CAST[name] for name in CAST if name in used], vertices)


def _draw_particles(rng):
    """{name: Particle}."""
    chosen = {}
    for kind in rng.choices(list(PARTICLES), PARTICLES.values(), k=rng.randint(FEWEST_PARTICLES, MOST_PARTICLES)):
        name = rng.choice([name for name in CAST if name[0] == kind and name[-1] != "~" and name not in chosen])
        chosen[name] = CAST[name]
    return chosen


def _rules(kind, names, rng):
    if 1 not in kind:
        structure, = structures_of([CAST[name] for name in names])
        return (Rule(Fraction(1), ((BOSONS[kind], 1),), structure),)
    rules = rng.choice(SCALAR if 0 in kind else GLUON if names[2] == "G" else VECTOR)
    return tuple(Rule(Fraction(factor), tuple((symbol, 1) for symbol in symbols.split()), structure)
                 for factor, symbols, structure in rules)


def _possible_vertices(chosen):
    """{twice-spins: [the fields of a vertex, ...]} of {name: Particle}: fermion lines and bosons without colour.

    Complex bosons stand in pairs, so that there are charges that are conserved; beside fermions they stand alone.
    """
    fields = [name for particle in chosen.values() for name in dict.fromkeys((particle.name, particle.antiparticle))]
    bosons = [name for name in fields if CAST[name].twice_spin != 1]
    fermions = [name for name in chosen if CAST[name].twice_spin == 1]
    candidates = [(f"{left}~", right, boson) for left, right in itertools.product(fermions, repeat=2)
                  for boson in bosons]
    for count in (3, 4):
        for names in itertools.combinations_with_replacement(bosons, count):
            charged = [name.endswith("~") for name in names if CAST[name].antiparticle != name]
            if 2 * sum(charged) == len(charged):
                candidates.append(_ordered(names))
    kinds = {}
    for names in filter(None, candidates):
        if structures_of([CAST[name] for name in names]):
            kinds.setdefault(tuple(sorted(CAST[name].twice_spin for name in names)), []).append(names)
    return kinds


def _ordered(names):
    """The fields of a boson vertex in an order that its structure allows, None if there is none; an SSV's as S~ S V."""
    structures = structures_of([CAST[name] for name in names])
    names = sorted(names, key=lambda name: (CAST[name].twice_spin, not name.endswith("~"), name))
    orders = itertools.permutations(names) if structures else ()
    return next((order for order in orders if is_symmetric(order, structures[0])), None)
