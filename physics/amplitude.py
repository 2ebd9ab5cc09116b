r"""Processes -> tree diagrams (feyngraph) -> text of their amplitudes in MARTY's grammar.

One diagram gives one text: a prefactor with i, couplings and charges, a sum of products of Dirac matrices, momenta and
external fields, and the propagators' denominators q^2 - m^2 + reg_prop with their leading coefficient pulled out.
Feynman rules: Peskin & Schroeder, appendix A.1; photons and gluons in Feynman gauge, W and Z in unitary gauge. Fermion signs
between diagrams are feyngraph's.
"""
import functools
import itertools
import math
from fractions import Fraction

import feyngraph

from files import InputError
from physics.polynomial import denominator_text, factor_text, monomial, rank, scaled
from physics.theory import ROOT_2, THEORIES

@functools.lru_cache
def _one_thread():
    """feyngraph on one core: parallel work is split by process. Not at import, for its thread pool does not survive a fork."""
    feyngraph.set_threads(1)


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
    _one_thread()
    theory, model = THEORIES[name], feyngraph.Model.empty()
    for p in theory.particles.values():
        if p.pdg > 0:
            model.add_particle(p.name, p.antiparticle, p.twice_spin + 1, p.colour, p.pdg, p.name, p.antiparticle,
                               ("dashed", "straight", "wavy")[p.twice_spin], p.twice_spin == 1)
    for k, vertex in enumerate(theory.vertices):
        fermions = theory.particles[vertex.particles[0]].twice_spin == 1
        joined = [1, 0] if fermions else [-1, -1]            # which legs a fermion line joins
        model.add_vertex(str(k), list(vertex.particles), joined + [-1] * (len(vertex.particles) - 2), {theory.name: 1})
    return model


def diagrams(process, theory):
    """All tree diagrams of a process, as feyngraph's container (it can draw them too)."""
    return feyngraph.generate_diagrams(list(process[0]), list(process[1]), 0, model=_model(theory.name))


def amplitudes(process, theory):
    """Text of the amplitude of every tree diagram of a process; their sum is the process's amplitude."""
    return [amplitude(diagram, process, theory) for diagram in diagrams(process, theory)]


# ---------------------------------------------------------------------------------------------------------------------
# One diagram. While it is built, a term is (coefficient, scalars, tensors), a tensor (name, *indices), and an index of a
# leg or propagator is ("mu", its key) for Lorentz, ("c", its key) for colour; Dirac indices and dummies are texts already.

def amplitude(diagram, process, theory):
    """Text of one diagram's amplitude i*M."""
    legs = [theory.particles[name] for name in (*process[0], *process[1])]
    n_in = len(process[0])
    factor, phase = Fraction(diagram.sign(), diagram.symmetry_factor()), 0
    denominators = []
    for propagator in diagram.propagators():
        particle = theory.particles[propagator.particle().name()]
        scale, text = denominator(shortest(propagator.momentum(), n_in), particle.mass, legs)
        factor, phase = factor / scale, phase + (3 if particle.twice_spin == 2 else 1)     # -i g_{mu nu} or i (qslash + m)
        denominators.append(text)
    fresh = itertools.count(1)
    vertices = {v.id(): (theory.vertices[int(v.interaction().name())], v.propagators_ordered()) for v in diagram.vertices()}
    phase += len(vertices)
    lines, fields = [], []                                   # lines: fermion lines, vertices of bosons, massive vectors' numerators
    for at, (rule, ends) in vertices.items():
        if theory.particles[rule.particles[0]].twice_spin != 1:
            lines.append([(r.factor * c, [*r.couplings, *scalars], tensors) for r in rule.rules
                          for c, scalars, tensors in STRUCTURES[r.structure](ends, at, theory, n_in, fresh)])
        elif type(ends[0]) is feyngraph.Leg:                 # a fermion line, from its starred end
            line, spinors = _fermion_line(ends[0], vertices, legs, n_in, theory, fresh)
            lines.append(line)
            fields += spinors
    for propagator in diagram.propagators():
        particle = theory.particles[propagator.particle().name()]
        if particle.twice_spin == 2 and particle.mass:       # g - q q / m^2
            flow = shortest(propagator.momentum(), n_in)
            left, right = (_mu(propagator, vertex.id(), theory) for vertex in propagator.vertices())
            lines.append([(Fraction(1), [], [("g", left, right)])] +
                         [(Fraction(-flow[j] * flow[k]), [(particle.mass, -2)], [("p", j, left), ("p", k, right)]) for j in flow for k in flow])
    bosons = [(k, *([("mu", (feyngraph.Leg, k))] if leg.twice_spin == 2 else []), *([("c", (feyngraph.Leg, k))] if leg.colour > 1 else []))
              for k, leg in enumerate(legs) if leg.twice_spin != 1]
    terms = []
    for choice in itertools.product(*lines):
        coefficient, scalars, tensors = Fraction(1), {}, []
        for c, symbols, more in choice:
            coefficient *= c
            for symbol, power in symbols:
                scalars[symbol] = scalars.get(symbol, 0) + power
            tensors += more
        terms.append(_contract(coefficient, scalars, tensors, bosons, fields, legs))
    terms = [term for term in terms if term[0]]
    common = {symbol: min(scalars.get(symbol, 0) for _, scalars, *_ in terms) for symbol in terms[0][1] if rank(symbol)[0] == 0}
    content = Fraction(math.gcd(*(term[0].numerator for term in terms)), math.lcm(*(term[0].denominator for term in terms)))
    if len(terms) == 1 and terms[0][0] < 0:
        content = -content
    names = _Names()
    texts = []
    for coefficient, scalars, *tensors in terms:
        left = monomial({symbol: power - common.get(symbol, 0) for symbol, power in scalars.items()})
        texts.append(scaled(coefficient / content, [*(factor_text(*f) for f in left), *names.texts(*tensors, legs, n_in)]))
    phase += common.pop("i", 0)
    body = texts[0] if len(texts) == 1 else f"({' + '.join(texts)})"
    i = ["i"] * (phase % 2)
    front = [*i, *(factor_text(*f) for f in monomial(common))]
    return scaled(factor * content * (-1) ** (phase % 4 // 2), [*front, body]) + "".join(f"/({text})" for text in denominators)


def _key(end):
    return type(end), end.id()


def _mu(end, at, theory):
    """Lorentz index of a vector at a vertex; a massive propagator has one at each of its ends."""
    massive = type(end) is feyngraph.Propagator and theory.particles[end.particle().name()].mass
    return ("mu", (*_key(end), at)) if massive else ("mu", _key(end))


def _fermion_line(start, vertices, legs, n_in, theory, fresh):
    """A fermion line from its starred leg: (its alternatives, the two spinors as (leg, Dirac index, colour index)).

    An alternative is one way to take a rule at each vertex and qslash or m in each propagator, as a term.
    """
    dirac = f"%a_{next(fresh)}"
    spinors = [(start.id(), dirac, ("c", _key(start)))]
    alternatives = [(Fraction(1), [], [], dirac)]            # the last entry: Dirac index that the next matrix continues
    at = start.vertex().id()
    while True:
        vertex, (bar, psi, boson) = vertices[at]
        column, grown = f"%a_{next(fresh)}", []
        for scale, scalars, tensors, row in alternatives:
            for rule in vertex.rules:
                matrices, end = [], row
                for name in rule.structure.split():          # the last matrix ends in the index `column`
                    if name == "gamma":
                        before, end = end, f"%a_{next(fresh)}" if "P_L" in rule.structure else column
                        matrices.append(("gamma", _mu(boson, at, theory), before, end))
                    elif name == "P_L":
                        matrices.append(("P_L", end, column))
                        end = column
                    elif name == "T":
                        matrices.append(("T_C_10", ("c", _key(boson)), ("c", _key(bar)), ("c", _key(psi))))
                grown.append((scale * rule.factor, [*scalars, *rule.couplings], tensors + matrices, end))
        alternatives = grown
        if type(psi) is feyngraph.Leg:
            break
        mass = theory.particles[psi.particle().name()].mass
        rho, after = rf"%\mu_{next(fresh)}", f"%a_{next(fresh)}"
        # the line is walked against the fermion's flow: at this psi the propagator's momentum flows into the vertex
        flow = shortest(psi.momentum(), n_in)
        slashed = [(scale * sign, scalars, [*tensors, ("p", k, rho), ("gamma", rho, end, after)], after)
                   for scale, scalars, tensors, end in alternatives for k, sign in flow.items()]
        massive = [(scale, [*scalars, (mass, 1)], *rest) for scale, scalars, *rest in alternatives if mass]
        alternatives = slashed + massive
        at = next(vertex.id() for vertex in psi.vertices() if vertex.id() != at)
    spinors.append((psi.id(), column, ("c", _key(psi))))
    # where a vertex has no Dirac matrix (a scalar's), the two indices around it are one
    alternatives = [(scale, scalars, [*tensors, ("1", end, column)] if end != column else tensors)
                    for scale, scalars, tensors, end in alternatives]
    return alternatives, spinors


def _three_vectors(ends, at, theory, n_in, fresh):
    """g^mu nu (k - p)^rho + g^nu rho (p - q)^mu + g^rho mu (q - k)^nu, momenta k, p, q flowing in (Peskin & Schroeder, appendix A.1)."""
    mu = [_mu(end, at, theory) for end in ends]
    momenta = [shortest(end.momentum(), n_in) for end in ends]
    terms = []
    for k in range(3):
        first, second, third = k, (k + 1) % 3, (k + 2) % 3
        for which, sign in ((first, 1), (second, -1)):
            for leg, c in momenta[which].items():
                terms.append((Fraction(sign * c), [], [("g", mu[first], mu[second]), ("p", leg, mu[third])]))
    return terms


def _three_gluons(ends, at, theory, n_in, fresh):
    """-i f^abc [g^mu nu (k - p)^rho + ...]: the rule itself is g f^abc [...], without an i (Peskin & Schroeder, appendix A.1)."""
    colour = [("c", _key(end)) for end in ends]
    return [(scale, [("i", 3)], [("f_SU3", *colour), *tensors]) for scale, _, tensors in _three_vectors(ends, at, theory, n_in, fresh)]


def _four_vectors(ends, at, theory, n_in, fresh):
    """2 g^mu nu g^rho sigma - g^mu rho g^nu sigma - g^mu sigma g^nu rho (Denner, arXiv 0709.1075, appendix A: VVVV)."""
    mu, nu, rho, sigma = (_mu(end, at, theory) for end in ends)
    return [(Fraction(2), [], [("g", mu, nu), ("g", rho, sigma)]), (Fraction(-1), [], [("g", mu, rho), ("g", nu, sigma)]),
            (Fraction(-1), [], [("g", mu, sigma), ("g", nu, rho)])]


def _metric(ends, at, theory, n_in, fresh):
    """g^mu nu between the two vectors of a vertex, whatever scalars there are."""
    mu, nu = (_mu(end, at, theory) for end in ends if theory.particles[end.particle().name()].twice_spin == 2)
    return [(Fraction(1), [], [("g", mu, nu)])]


def _number(ends, at, theory, n_in, fresh):
    """1: scalars alone."""
    return [(Fraction(1), [], [])]


def _four_gluons(ends, at, theory, n_in, fresh):
    """-i g^2 [f^abe f^cde (g^mu rho g^nu sigma - g^mu sigma g^nu rho) + two permutations] (Peskin & Schroeder, appendix A.1)."""
    mu, colour = [("mu", _key(end)) for end in ends], [("c", _key(end)) for end in ends]
    terms = []
    for a, b, c, d in ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2)):
        dummy = f"%g_{next(fresh)}"
        colours = [("f_SU3", colour[a], colour[b], dummy), ("f_SU3", colour[c], colour[d], dummy)]
        terms.append((Fraction(-1), [], [*colours, ("g", mu[a], mu[c]), ("g", mu[b], mu[d])]))
        terms.append((Fraction(1), [], [*colours, ("g", mu[a], mu[d]), ("g", mu[b], mu[c])]))
    return terms


# vertices without fermions; those of fermions are products of 'gamma', 'P_L' and 'T', 'unit' is none of them
STRUCTURES = {"f": _three_gluons, "ff": _four_gluons, "VVV": _three_vectors, "VVVV": _four_vectors, "metric": _metric, "number": _number}


def _contract(coefficient, scalars, tensors, bosons, fields, legs):
    """Carry out the metrics, unit matrices and products of two momenta in a term; legs get the indices that they end up with."""
    renamed = {}

    def final(index):
        while index in renamed:
            index = renamed[index]
        return index

    for name, *indices in tensors:
        if name in ("g", "1"):                               # metric of two Lorentz indices, unit matrix of two Dirac indices
            left, right = (final(index) for index in indices)
            renamed[left if name == "1" else right] = right if name == "1" else left
    momenta, rest = {}, []                                   # Lorentz index -> the leg whose momentum has it
    scalars = dict(scalars)
    for name, *indices in tensors:
        if name in ("g", "1"):
            continue
        if name == "p":
            leg, index = indices[0], final(indices[1])
            if index not in momenta:
                momenta[index] = leg
                continue
            i, j = sorted((momenta.pop(index), leg))
            if i == j and not legs[i].mass:
                coefficient = Fraction(0)
            symbol, power = (legs[i].mass, 2) if i == j else (f"s_{i + 1}{j + 1}", 1)
            scalars[symbol] = scalars.get(symbol, 0) + power
        else:
            rest.append((name, *(final(index) for index in indices)))
    # i^n of the vertices: the even part is a sign
    power = scalars.pop("i", 0) % 4
    if power % 2:
        scalars["i"] = 1
    if ROOT_2 in scalars:                                    # leave at most one root of 2, in the numerator
        halves, left = divmod(scalars.pop(ROOT_2), 2)
        coefficient *= Fraction(2) ** halves
        if left:
            scalars[ROOT_2] = 1
    tensors = [("p", leg, index) for index, leg in momenta.items()] + rest
    bosons, fields = ([(k, *(final(index) for index in indices)) for k, *indices in external] for external in (bosons, fields))
    return coefficient * (-1) ** (power // 2), scalars, tensors, bosons, fields


class _Names:
    """Index names by first appearance in the text of one amplitude: %\\mu_1, ... Lorentz, %a_1, ... Dirac, %C_1 quark colour, %g_1 gluon colour."""

    def __init__(self):
        self.known = {}

    def name(self, index, kind):
        if index not in self.known:
            self.known[index] = f"{kind}{sum(name.startswith(kind) for name in self.known.values()) + 1}"
        return self.known[index]

    def texts(self, tensors, bosons, fields, legs, n_in):
        """Texts of a term's tensors and external fields. Of the two ends of a Lorentz index one is marked `+`: of two
        gammas the first, else the last."""
        places = {}
        for name, *indices in tensors:
            index = indices[1] if name == "p" else indices[0]
            if name in ("gamma", "p"):
                places.setdefault(index, []).append(name)
        met, texts = set(), []

        def lorentz(index):
            name = self.name(index, "%\\mu_")
            first = index not in met
            met.add(index)
            two_gammas = places.get(index) == ["gamma", "gamma"]
            return ("+" if first == two_gammas else "") + name

        for name, *indices in sorted(tensors, key=lambda tensor: tensor[0] != "p"):
            if name == "p":
                texts.append(f"p_{indices[0] + 1}_{lorentz(indices[1])}")
            elif name == "gamma":
                texts.append(f"gamma_{{{lorentz(indices[0])},{self.name(indices[1], '%a_')},{self.name(indices[2], '%a_')}}}")
            elif name == "P_L":
                texts.append(f"P_L_{{{self.name(indices[0], '%a_')},{self.name(indices[1], '%a_')}}}")
            elif name == "T_C_10":
                texts.append(f"T_C_10_{{{self.name(indices[0], '%g_')},{self.name(indices[1], '%C_')},{self.name(indices[2], '%C_')}}}")
            else:
                texts.append(f"{name}_{{{','.join(self.name(index, '%g_') for index in indices)}}}")
        for k, *indices in bosons:
            star = "" if k < n_in else "^(*)"
            if indices:
                mu, *colour = indices
                indices = [f"i_{k + 1}", *(self.name(c, "%g_") for c in colour), lorentz(mu)]
                texts.append(f"{legs[k].field}_{{{','.join(indices)}}}(p_{k + 1}){star}")
            else:
                texts.append(f"{legs[k].field}(p_{k + 1}){star}")
        for k, dirac, colour in fields:
            anti = legs[k].pdg < 0
            indices = [f"i_{k + 1}", *([self.name(colour, "%C_")] if legs[k].colour > 1 else []), self.name(dirac, "%a_")]
            texts.append(f"{legs[k].field}_{{{','.join(indices)}}}(p_{k + 1})_{'v' if anti else 'u'}"
                         f"{'^(*)' if anti == (k < n_in) else ''}")
        return texts


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


def denominator(momentum, mass, legs):
    """q^2 - m^2 + reg_prop for q = sum of momentum[k] p_(k+1), legs on their mass shells, as (leading coefficient, text)."""
    terms = {(("reg_prop", 1),): Fraction(1)}

    def add(monomial, value):
        terms[monomial] = terms.get(monomial, 0) + value

    for k in momentum:
        if legs[k].mass:
            add(((legs[k].mass, 2),), Fraction(1))
    for j, k in itertools.combinations(sorted(momentum), 2):
        add(((f"s_{j + 1}{k + 1}", 1),), Fraction(2 * momentum[j] * momentum[k]))
    if mass:
        add(((mass, 2),), Fraction(-1))
    return denominator_text({term: value for term, value in terms.items() if value})
