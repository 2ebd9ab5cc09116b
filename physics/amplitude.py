r"""Processes -> tree diagrams (feyngraph) -> text of their amplitudes in MARTY's grammar.

One diagram gives one text: a prefactor with i, couplings and charges, a sum of products of Dirac matrices, momenta and
external fields, and the propagators' denominators q^2 - m^2 + reg_prop with their leading coefficient pulled out.
Feynman rules: Peskin & Schroeder, appendix A.1, in Feynman gauge; fermion signs between diagrams are feyngraph's.
"""
import functools
import itertools
from fractions import Fraction

import feyngraph

from files import InputError
from physics.polynomial import denominator_text, scaled

PHASES = ("", "i", "-", "-i")                                # i^n


def parse_process(text, theory):
    """'e e~ -> mu mu~' as (('e', 'e~'), ('mu', 'mu~')). Raises InputError for an unknown particle or another form."""
    sides = text.split("->")
    if len(sides) != 2 or not sides[0].split() or not sides[1].split():
        raise InputError(f"process '{text}': expected particles '->' particles, for example 'e e~ -> mu mu~'")
    process = tuple(tuple(side.split()) for side in sides)
    for name in itertools.chain(*process):
        if name not in theory.particles:
            raise InputError(f"process '{text}': no particle '{name}' in {theory.name}; it has {' '.join(theory.particles)}")
    return process


def process_text(process):
    return " -> ".join(" ".join(side) for side in process)


@functools.lru_cache
def _model(name):
    from physics.theory import THEORIES
    theory, model = THEORIES[name], feyngraph.Model.empty()
    feyngraph.set_threads(1)                                 # parallel work is split by process, one core each
    for p in theory.particles.values():
        if p.pdg > 0:
            model.add_particle(p.name, p.antiparticle, p.twice_spin + 1, p.colour, p.pdg, p.name, p.antiparticle,
                               "straight" if p.twice_spin == 1 else "wavy", p.twice_spin == 1)
    for k, vertex in enumerate(theory.vertices):
        model.add_vertex(str(k), list(vertex.particles), [1, 0] + [-1] * (len(vertex.particles) - 2), {theory.name: 1})
    return model


def diagrams(process, theory):
    """All tree diagrams of a process, as feyngraph's container (it can draw them too)."""
    return feyngraph.generate_diagrams(list(process[0]), list(process[1]), 0, model=_model(theory.name))


def amplitudes(process, theory):
    """Text of the amplitude of every tree diagram of a process; their sum is the process's amplitude."""
    return [amplitude(diagram, process, theory) for diagram in diagrams(process, theory)]


def amplitude(diagram, process, theory):
    """Text of one diagram's amplitude i*M."""
    legs = process[0] + process[1]
    n_in = len(process[0])
    factor, phase, coupling = Fraction(diagram.sign(), diagram.symmetry_factor()), 0, {}
    for vertex in diagram.vertices():
        rule = theory.vertices[int(vertex.interaction().name())]
        factor, phase = factor * rule.factor, phase + 1
        coupling[rule.coupling] = coupling.get(rule.coupling, 0) + 1
    denominators = []
    for propagator in diagram.propagators():
        particle = theory.particles[propagator.particle().name()]
        momentum = shortest(propagator.momentum(), n_in)
        scale, text = denominator(momentum, particle.mass, legs, theory)
        factor, phase = factor / scale, phase + (3 if particle.twice_spin == 2 else 1)     # -i g_{mu nu} or i (qslash + m)
        denominators.append(text)
    lorentz = {}                                             # leg or propagator -> its Lorentz index
    lines = _fermion_lines(diagram, legs, theory, n_in, lorentz)
    bosons = [f"{legs[k]}_{{i_{k + 1},+{lorentz[feyngraph.Leg, k]}}}(p_{k + 1}){'' if k < n_in else '^(*)'}"
              for k in range(len(legs)) if theory.particles[legs[k]].twice_spin == 2]
    terms = []
    for choice in itertools.product(*(line for line, _ in lines)):
        coefficient = Fraction(1)
        scalars, momenta, gammas = [], [], []
        for scale, masses, vectors, matrices in choice:
            coefficient *= scale
            scalars += masses
            momenta += vectors
            gammas += matrices
        fields = [field for _, ends in lines for field in ends]
        terms.append(scaled(coefficient, [*scalars, *momenta, *gammas, *bosons, *fields]))
    body = terms[0] if len(terms) == 1 else f"({' + '.join(terms)})"
    phase = PHASES[phase % 4]
    sign = -1 if phase.startswith("-") else 1
    front = [phase.lstrip("-")] * bool(phase.lstrip("-")) + [name if n == 1 else f"{name}^{n}" for name, n in sorted(coupling.items())]
    return scaled(factor * sign, [*front, body]) + "".join(f"/({text})" for text in denominators)


def shortest(momentum, n_in):
    """A propagator's momentum as {leg: +-1}, from 0, written with the fewer of the legs on its two sides."""
    flow = {k: c for k, c in enumerate(momentum) if c}
    if 2 * len(flow) <= len(momentum):
        return flow
    # p_1 + ... + p_in - p_out - ... = 0: take it away as often as makes the flow's coefficients vanish
    whole = [1 if k < n_in else -1 for k in range(len(momentum))]
    first = next(iter(flow))
    sign = flow[first] * whole[first]
    other = {k: flow.get(k, 0) - sign * whole[k] for k in range(len(momentum))}
    return {k: c for k, c in other.items() if c}


def denominator(momentum, mass, legs, theory):
    """q^2 - m^2 + reg_prop for q = sum of momentum[k] p_(k+1), legs on their mass shells, as (leading coefficient, text)."""
    terms = {(("reg_prop", 1),): Fraction(1)}

    def add(monomial, value):
        terms[monomial] = terms.get(monomial, 0) + value

    for k in momentum:
        if theory.particles[legs[k]].mass:
            add(((theory.particles[legs[k]].mass, 2),), Fraction(1))
    for j, k in itertools.combinations(sorted(momentum), 2):
        add(((f"s_{j + 1}{k + 1}", 1),), Fraction(2 * momentum[j] * momentum[k]))
    if mass:
        add(((mass, 2),), Fraction(-1))
    return denominator_text({term: value for term, value in terms.items() if value})


def _fermion_lines(diagram, legs, theory, n_in, lorentz):
    r"""Every fermion line as (alternatives, [its starred field, its plain field]); names the Lorentz indices in `lorentz`.

    An alternative is one way to take qslash or m in each propagator: (coefficient, masses, momenta with index, gammas).
    """
    dirac = (f"%a_{n}" for n in itertools.count(1))
    fresh = (rf"%\mu_{n}" for n in itertools.count(1))

    def field(k, index):
        name = legs[k].removesuffix("~")
        kind = "v" if legs[k].endswith("~") else "u"
        star = (kind == "v") == (k < n_in)
        return f"{name}_{{i_{k + 1},{index}}}(p_{k + 1})_{kind}{'^(*)' if star else ''}"

    vertices = {vertex.id(): vertex.propagators_ordered() for vertex in diagram.vertices()}
    lines = []
    for bar, *_ in vertices.values():
        if type(bar) is not feyngraph.Leg:
            continue                                         # inside a line, reached from its starred end
        at, row = bar.vertex().id(), next(dirac)
        start = field(bar.id(), row)
        alternatives = [(Fraction(1), [], [], [], row)]      # the last entry: Dirac index that the next gamma continues
        while True:
            _, psi, boson = vertices[at]
            column = next(dirac)
            key = type(boson), boson.id()
            if key not in lorentz:
                lorentz[key] = next(fresh)
                mark = "+" if key[0] is feyngraph.Propagator else ""
            else:
                mark = ""
            alternatives = [(scale, masses, momenta, [*gammas, f"gamma_{{{mark}{lorentz[key]},{row},{column}}}"], column)
                            for scale, masses, momenta, gammas, row in alternatives]
            if type(psi) is feyngraph.Leg:
                break
            mass = theory.particles[psi.particle().name()].mass
            rho, after = next(fresh), next(dirac)
            # the line is walked against the fermion's flow: at this psi the propagator's momentum flows into the vertex
            flow = shortest(psi.momentum(), n_in)
            slashed = [(scale * sign, masses, [*momenta, f"p_{k + 1}_{rho}"], [*gammas, f"gamma_{{+{rho},{column},{after}}}"], after)
                       for scale, masses, momenta, gammas, _ in alternatives for k, sign in flow.items()]
            massive = [(scale, [*masses, mass], *rest) for scale, masses, *rest in alternatives if mass]
            alternatives = slashed + massive
            at = next(vertex.id() for vertex in psi.vertices() if vertex.id() != at)
        lines.append(([alternative[:4] for alternative in alternatives], [start, field(psi.id(), column)]))
    return lines
