r"""Processes -> tree diagrams (feyngraph) -> text of their amplitudes in MARTY's grammar.

One diagram gives one text: a prefactor with i, couplings and charges, a sum of products of Dirac matrices, momenta and
external fields, and the propagators' denominators q^2 - m^2 + reg_prop with their leading coefficient pulled out.
Feynman rules: physics/theory.py and physics/vertices.py. Three simplifications leave the amplitude as it is: the
Dirac equation of external fermions and the conserved currents of bosons in the unitary gauge's q q / m^2, products of
chiral projectors, and p . polarisation = 0 of external massive vectors. Fermion signs between diagrams are feyngraph's.
"""
import functools
import itertools
from fractions import Fraction
from typing import NamedTuple

import feyngraph

from physics.polynomial import common_powers, content, denominator_text, factor_text, monomial, rank, scaled
from physics.rational import ROOT
from physics.theory import Particle, Rule
from physics.vertices import STRUCTURES, End
from runtime.files import InputError


@functools.lru_cache
def _one_thread():
    """Keep feyngraph on one core. Not called at import: its thread pool does not survive a fork."""
    feyngraph.set_threads(1)


def parse_process(text, theory):
    """'e e~ -> mu mu~' as (('e', 'e~'), ('mu', 'mu~')). Raises InputError for an unknown particle or another form."""
    sides = text.split("->")
    if len(sides) != 2 or not sides[0].split() or not sides[1].split():
        raise InputError(f"process '{text}': expected particles '->' particles, for example 'e e~ -> mu mu~'")
    if len(sides[0].split()) + len(sides[1].split()) < 3:
        raise InputError(f"process '{text}': expected three particles or more")
    if len(sides[0].split()) + len(sides[1].split()) > 9:
        raise InputError(f"process '{text}': expected nine particles at most, as s_ij has one digit for each leg")
    process = tuple(tuple(side.split()) for side in sides)
    for name in itertools.chain(*process):
        if name not in theory.particles:
            raise InputError(
                f"process '{text}': no particle '{name}' in {theory.name}; it has {' '.join(theory.particles)}"
            )
    return process


def process_text(process):
    return " -> ".join(" ".join(side) for side in process)


@functools.lru_cache
def _model(theory):
    _one_thread()
    model = feyngraph.Model.empty()
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
    return feyngraph.generate_diagrams(list(process[0]), list(process[1]), 0, model=_model(theory))


def propagators_text(diagram):
    """What the column `diagram` says: the particle and the momentum of each propagator, "A(p1-p3) e(p1-p3-p4)"."""
    return " ".join(f"{p.particle().name()}({p.momentum_str()})" for p in diagram.propagators())


def amplitudes(process, theory, whole=False, off_shell=()):
    """Amplitudes of all tree diagrams of a process; their sum is the process's amplitude. See amplitude()."""
    return [amplitude(diagram, process, theory, whole, off_shell) for diagram in diagrams(process, theory)]


# ---------------------------------------------------------------------------------------------------------------------
# One diagram. While it is built, a term is (coefficient, scalars, tensors) and a tensor (name, *indices). The index
# of a leg or propagator is ("mu", its key) for Lorentz, ("c", its key) for colour. Dirac indices and dummies are texts.

class Leg(NamedTuple):
    particle: Particle
    incoming: bool
    mark: str                   # 'T': transverse polarisations only, 'off': off the mass shell, ''
    squared: tuple              # p^2 as (symbol, power), () where it vanishes

    @property
    def transverse(self):
        """Whether p . polarisation = 0 in the sum over states: true for -g + p p / m^2, false for a photon's -g."""
        return self.mark == "T" or bool(self.particle.mass) and self.mark != "off"


def external_legs(process, theory, whole=False, off_shell=()):
    """The Legs of a process; whole and off_shell as in amplitude()."""
    particles = [theory.particles[name] for name in itertools.chain(*process)]
    transverse = whole and sum(particle.colour == 8 for particle in particles) > 1
    legs = []
    for k, particle in enumerate(particles):
        mark = "off" if k + 1 in off_shell else "T" if transverse and particle.colour == 8 else ""
        squared = (f"s_{k + 1}{k + 1}", 1) if mark == "off" else (particle.mass, 2) if particle.mass else ()
        legs.append(Leg(particle, k < len(process[0]), mark, squared))
    return legs


def amplitude(diagram, process, theory, whole=False, off_shell=()):
    """Text of one diagram's amplitude i*M; "0" where it vanishes, as with P_L P_R on a fermion line.

    whole: the text is a term of the process's amplitude, the sum of all diagrams. Two or more external gluons then have
    transverse polarisations only, `G_{..}(p_1)_T`, and there is no reg_prop: it would break the gauge invariance of
    the sum.
    off_shell: numbers, from 1, of the legs off their mass shell, `e_{..}(p_3)_u_off`.
    """
    legs = external_legs(process, theory, whole, off_shell)
    regulator = {} if any(leg.mark == "T" for leg in legs) else {(("reg_prop", 1),): Fraction(1)}
    factor, phase = Fraction(diagram.sign(), diagram.symmetry_factor()), 0
    denominators, massive = [], {}                           # massive: key of a massive vector's propagator -> its mass
    for propagator in diagram.propagators():
        particle = theory.particles[propagator.particle().name()]
        scale, text = denominator(shortest(propagator.momentum(), legs), particle.mass, legs, regulator)
        factor, phase = factor / scale, phase + (3 if particle.twice_spin == 2 else 1)  # -i g_{mu nu} or i (qslash + m)
        denominators.append(text)
        if particle.twice_spin == 2 and particle.mass:
            massive[_key(propagator)] = particle.mass
    vertices = {
        v.id(): (theory.vertices[int(v.interaction().name())], v.propagators_ordered()) for v in diagram.vertices()
    }
    phase += len(vertices)
    bosons = [(k, *([("mu", (feyngraph.Leg, k))] if leg.particle.twice_spin == 2 else []),
               *([("c", (feyngraph.Leg, k))] if leg.particle.colour > 1 else []))
              for k, leg in enumerate(legs) if leg.particle.twice_spin != 1]
    terms = []
    for chosen in itertools.product((False, True), repeat=len(massive)):
        # g - q q / m^2: the second part is + q q / m^2 when at each of its ends q flows into the vertex
        longitudinal = {key for key, yes in zip(massive, chosen) if yes}
        lines, fields = _lines(vertices, longitudinal, legs, theory)
        masses = (Fraction(1), [(massive[key], -2) for key in longitudinal], [])
        for choice in itertools.product(*lines):
            coefficient, scalars, tensors = Fraction(1), {}, []
            for c, symbols, more in (*choice, masses):
                coefficient *= c
                for symbol, power in symbols:
                    scalars[symbol] = scalars.get(symbol, 0) + power
                tensors += more
            terms.append(_contract(coefficient, scalars, tensors, bosons, fields, legs))
    terms = _collected(terms)
    if not terms:
        return "0"
    symbols = dict.fromkeys(symbol for _, scalars, *_ in terms for symbol in scalars)
    common = common_powers([scalars for _, scalars, *_ in terms])
    common = {symbol: power for symbol, power in common.items() if rank(symbol)[0] == 0}
    number = content(term[0] for term in terms)
    if len(terms) == 1 and terms[0][0] < 0:
        number = -number
    names = _Names()
    texts = []
    for coefficient, scalars, *tensors in terms:
        left = monomial({symbol: scalars.get(symbol, 0) - common.get(symbol, 0) for symbol in symbols})
        texts.append(scaled(coefficient / number, [*(factor_text(*f) for f in left), *names.texts(*tensors, legs)]))
    phase += common.pop("i", 0)
    body = texts[0] if len(texts) == 1 else f"({' + '.join(texts)})"
    i = ["i"] * (phase % 2)
    front = [*i, *(factor_text(*f) for f in monomial(common))]
    return scaled(factor * number * (-1) ** (phase % 4 // 2), [*front, body]) + "".join(
        f"/({text})" for text in denominators
    )


def _lines(vertices, longitudinal, legs, theory):
    """(alternatives of each fermion line and boson vertex, the spinors as (leg, Dirac index, colour index))."""
    fresh = itertools.count(1)
    lines, fields = [], []
    for at, (rule, ends) in vertices.items():
        if theory.particles[rule.particles[0]].twice_spin != 1:
            ends = [_end(end, at, longitudinal, legs, theory) for end in ends]
            lines.append([(r.factor * c, [*r.couplings, *scalars], tensors) for r in rule.rules
                          for c, scalars, tensors in STRUCTURES[r.structure](ends, fresh)])
        elif type(ends[0]) is feyngraph.Leg:                 # a fermion line, from its starred end
            line, spinors = _fermion_line(ends[0], vertices, longitudinal, legs, theory, fresh)
            lines.append(line)
            fields += spinors
    return lines, fields


def _key(end):
    return type(end), end.id()


def _end(end, at, longitudinal, legs, theory):
    key, flow = _key(end), shortest(end.momentum(), legs)
    return End(mu=("mu", (*key, at) if key in longitudinal else key), colour=("c", key), flow=flow,
               vector=theory.particles[end.particle().name()].twice_spin == 2,
               transverse=type(end) is feyngraph.Leg and legs[end.id()].transverse, longitudinal=key in longitudinal)


def _fermion_line(start, vertices, longitudinal, legs, theory, fresh):
    """A fermion line from its starred leg: (its alternatives, the two spinors as (leg, Dirac index, colour index)).

    An alternative is one way to take a rule at each vertex and qslash or m in each propagator, as a term.
    """
    dirac = f"%a_{next(fresh)}"
    spinors = [(start.id(), dirac, ("c", _key(start)))]
    alternatives = [(Fraction(1), [], [], dirac)]  # the last entry: Dirac index that the next matrix continues
    at = start.vertex().id()
    while True:
        vertex, (bar, psi, boson) = vertices[at]
        coloured = theory.particles[vertex.particles[0]].colour > 1
        boson = _end(boson, at, longitudinal, legs, theory)
        outer = [legs[end.id()] for end in (bar, psi) if type(end) is feyngraph.Leg and legs[end.id()].mark != "off"]
        rules = _slashed(vertex.rules, *outer) if boson.longitudinal and len(outer) == 2 else vertex.rules
        column, grown = f"%a_{next(fresh)}", []
        for scale, scalars, tensors, row in alternatives:
            for rule in rules:
                matrices, end = [], row
                for name in rule.structure.split():          # the last matrix ends in the index `column`
                    if name == "gamma":
                        before, end = end, f"%a_{next(fresh)}" if "P_" in rule.structure else column
                        matrices.append(("gamma", boson.mu, before, end))
                    elif name in ("P_L", "P_R"):
                        matrices.append((name, end, column))
                        end = column
                    elif name == "T":
                        matrices.append(("T_C_10", boson.colour, ("c", _key(bar)), ("c", _key(psi))))
                if coloured and "T" not in rule.structure.split():
                    matrices.append(("1", ("c", _key(bar)), ("c", _key(psi))))
                grown.append((scale * rule.factor, [*scalars, *rule.couplings], tensors + matrices, end))
        if boson.longitudinal and len(outer) < 2:
            grown = [(scale * sign, scalars, [*tensors, ("p", leg, boson.mu)], end)
                     for scale, scalars, tensors, end in grown for leg, sign in boson.flow.items()]
        alternatives = grown
        if type(psi) is feyngraph.Leg:
            break
        mass = theory.particles[psi.particle().name()].mass
        rho, after = rf"%\mu_{next(fresh)}", f"%a_{next(fresh)}"
        # the line is walked against the fermion's flow: at this psi the propagator's momentum flows into the vertex
        flow = shortest(psi.momentum(), legs)
        slashed = [(scale * sign, scalars, [*tensors, ("p", k, rho), ("gamma", rho, end, after)], after)
                   for scale, scalars, tensors, end in alternatives for k, sign in flow.items()]
        massive = [(scale, [*scalars, (mass, 1)], *rest) for scale, scalars, *rest in alternatives if mass]
        alternatives = slashed + massive
        at = next(vertex.id() for vertex in psi.vertices() if vertex.id() != at)
    spinors.append((psi.id(), column, ("c", _key(psi))))
    # where a vertex has no Dirac matrix (a scalar's), the two indices around it are one
    alternatives = [(scale, scalars, _last_projector([*tensors, ("1", end, column)] if end != column else tensors))
                    for scale, scalars, tensors, end in alternatives]
    return [term for term in alternatives if term[2]], spinors


def _last_projector(tensors):
    """A fermion line with its P_L and P_R merged into the last one by P_L gamma = gamma P_R; empty if P_L P_R = 0."""
    line, last, odd = [], None, False
    for tensor in reversed(tensors):
        if tensor[0] == "gamma":
            odd = not odd
        elif tensor[0] in ("P_L", "P_R"):
            if last and (tensor[0] == last) == odd:
                return []
            last, odd, tensor = (last, odd, ("1", *tensor[1:])) if last else (tensor[0], False, tensor)
        line.append(tensor)
    return line[::-1]


def _slashed(rules, after, before):
    """Rules of a vertex between two spinors on their mass shells, contracted with the momentum that flows in.

    By the Dirac equation, and likewise for v,

        ubar(k') (k'slash - kslash) P_L u(k) = ubar(k') (m' P_L - m P_R) u(k).
    """
    slashed = []
    for rule in rules:
        first, second = {"P_L": ("P_L", "P_R"), "P_R": ("P_R", "P_L")}.get(rule.structure[6:9], ("unit", "unit"))
        if first == "unit" and after.particle.mass == before.particle.mass:              # a vector current is conserved
            continue
        for mass, sign, matrix in ((after.particle.mass, 1, first), (before.particle.mass, -1, second)):
            if mass:
                structure = " ".join([matrix, *(["T"] if "T" in rule.structure.split() else [])])
                slashed.append(Rule(sign * rule.factor, (*rule.couplings, (mass, 1)), structure))
    return slashed


def _contract(coefficient, scalars, tensors, bosons, fields, legs):
    """Carry out the metrics, unit matrices and products of two momenta in a term; indices of legs are renamed too."""
    renamed = {}

    def final(index):
        while index in renamed:
            index = renamed[index]
        return index

    for name, *indices in tensors:
        if name in ("g", "1"):  # metric of two Lorentz indices, unit matrix of two Dirac indices
            left, right = (final(index) for index in indices)
            renamed[left if name == "1" else right] = right if name == "1" else left
    momenta, rest = {}, []                                   # Lorentz index -> the leg whose momentum has it
    scalars = dict(scalars)
    bosons, fields = (
        [(k, *(final(index) for index in indices)) for k, *indices in external] for external in (bosons, fields)
    )
    vanishing = {(k, indices[0]) for k, *indices in bosons if legs[k].transverse and indices}
    for name, *indices in tensors:
        if name in ("g", "1"):
            continue
        if name == "p":
            leg, index = indices[0], final(indices[1])
            if (leg, index) in vanishing:
                return Fraction(0), {}, [], [], []
            if index not in momenta:
                momenta[index] = leg
                continue
            i, j = sorted((momenta.pop(index), leg))
            squared = legs[i].squared if i == j else (f"s_{i + 1}{j + 1}", 1)
            if not squared:
                return Fraction(0), {}, [], [], []
            symbol, power = squared
            scalars[symbol] = scalars.get(symbol, 0) + power
        else:
            rest.append((name, *(final(index) for index in indices)))
    # i^n of the vertices: the even part is a sign
    power = scalars.pop("i", 0) % 4
    if power % 2:
        scalars["i"] = 1
    for symbol in [symbol for symbol in scalars if ROOT.fullmatch(symbol)]:
        halves, left = divmod(scalars.pop(symbol), 2)        # leave at most one root of a number, in the numerator
        coefficient *= Fraction(symbol.partition("^")[0]) ** halves
        if left:
            scalars[symbol] = 1
    tensors = [("p", leg, index) for index, leg in momenta.items()] + rest
    return coefficient * (-1) ** (power // 2), scalars, tensors, bosons, fields


def _collected(terms):
    """The terms with those of the same tensors and scalars added up."""
    total = {}
    for coefficient, scalars, *rest in terms:
        key = monomial(scalars), *map(tuple, rest)
        total[key] = total.get(key, 0) + coefficient
    return [(coefficient, dict(scalars), *rest) for (scalars, *rest), coefficient in total.items() if coefficient]


class _Names:
    """Index names by first appearance in the text of one amplitude.

    %\\mu_1, ... are Lorentz indices, %a_1, ... Dirac, %C_1, ... quark colours, %g_1, ... gluon colours.
    """

    def __init__(self):
        self.known = {}

    def name(self, index, kind):
        if index not in self.known:
            self.known[index] = f"{kind}{sum(name.startswith(kind) for name in self.known.values()) + 1}"
        return self.known[index]

    def texts(self, tensors, bosons, fields, legs):
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
                texts.append(
                    f"gamma_{{{lorentz(indices[0])},{self.name(indices[1], '%a_')},{self.name(indices[2], '%a_')}}}"
                )
            elif name in ("P_L", "P_R"):
                texts.append(f"{name}_{{{self.name(indices[0], '%a_')},{self.name(indices[1], '%a_')}}}")
            elif name == "T_C_10":
                gluon, *quarks = indices
                names = [self.name(gluon, "%g_"), *(self.name(index, "%C_") for index in quarks)]
                texts.append(f"T_C_10_{{{','.join(names)}}}")
            else:
                texts.append(f"{name}_{{{','.join(self.name(index, '%g_') for index in indices)}}}")
        for k, *indices in bosons:
            suffix = (f"_{legs[k].mark}" if legs[k].mark else "") + ("" if legs[k].incoming else "^(*)")
            if indices:
                mu, *colour = indices
                indices = "_{" + ",".join([f"i_{k + 1}", *(self.name(c, "%g_") for c in colour), lorentz(mu)]) + "}"
            texts.append(f"{legs[k].particle.field}{indices or ''}(p_{k + 1}){suffix}")
        for k, dirac, colour in fields:
            particle, anti = legs[k].particle, legs[k].particle.pdg < 0
            indices = [
                f"i_{k + 1}",
                *([self.name(colour, "%C_")] if particle.colour > 1 else []),
                self.name(dirac, "%a_"),
            ]
            suffix = ("_v" if anti else "_u") + (f"_{legs[k].mark}" if legs[k].mark else "")
            if anti == legs[k].incoming:
                suffix += "^(*)"
            texts.append(f"{particle.field}_{{{','.join(indices)}}}(p_{k + 1}){suffix}")
        return texts


def shortest(momentum, legs):
    """A propagator's momentum as {leg: +-1}, from 0, written with the fewer of the legs on its two sides."""
    flow = {k: c for k, c in enumerate(momentum) if c}
    if 2 * len(flow) <= len(momentum):
        return flow
    # p_1 + ... + p_in - p_out - ... = 0: take it away as often as makes the flow's coefficients vanish
    whole = [1 if leg.incoming else -1 for leg in legs]
    first = next(iter(flow))
    sign = flow[first] * whole[first]
    other = {k: flow.get(k, 0) - sign * whole[k] for k in range(len(momentum))}
    return {k: c for k, c in other.items() if c}


def denominator(momentum, mass, legs, regulator):
    """q^2 - m^2 + regulator for q = sum of momentum[k] p_(k+1), as (leading coefficient, text)."""
    terms = dict(regulator)

    def add(monomial, value):
        terms[monomial] = terms.get(monomial, 0) + value

    for k in momentum:
        if legs[k].squared:
            add((legs[k].squared,), Fraction(1))
    for j, k in itertools.combinations(sorted(momentum), 2):
        add(((f"s_{j + 1}{k + 1}", 1),), Fraction(2 * momentum[j] * momentum[k]))
    if mass:
        add(((mass, 2),), Fraction(-1))
    return denominator_text({term: value for term, value in terms.items() if value})
