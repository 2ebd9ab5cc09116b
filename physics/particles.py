"""Who the legs of an amplitude are: their masses, which of them come in, which outgoing ones are identical.

A particle is known by its name and its kind: `A` is the photon only as a vector without colour, not as a pseudoscalar.
Any other particle X has the mass m_X where that symbol stands in the row, or the mass that the user says
(`--masses="X=m Y=0"`). Where neither says it, an InputError tells what to say: nothing is guessed.
A boson named X_c is the antiparticle of X and has its mass.
"""

import collections
import itertools
import math
import re
from typing import NamedTuple

from physics.expression import INVARIANT, conjugate, epsilon_legs
from physics.theory import CAST, CONJUGATE, THEORIES
from runtime.files import InputError


class Facts(NamedTuple):
    """What a file or the user says about an amplitude beside its text."""

    process: str = ""  # the row's process: `e e~ -> W W~`, or MARTY's `e_eps_1(X)^(*) AntiPart e_eta_2(X) to ...`
    masses: tuple = ()  # of (particle, symbol), None instead of the symbol: massless; see parse_masses


class Roles(NamedTuple):
    masses: tuple  # of each leg its mass symbol, None for a massless one
    incoming: tuple  # of each leg whether it comes in
    identical: int  # product of n! over the groups of n identical outgoing legs


NO_FACTS = Facts()
MOST_UNSURE = 10  # bosons of which every choice of directions and charges is looked at
CONSTANTS = {"i", "theta_W", "reg_prop"}  # symbols of a square that need not stand in its amplitude

KINDS = "scalar", "spinor", "vector"  # by twice the spin
MASSES = {}  # (name, kind, coloured) -> mass symbol or None, of the particles of our theories, which bear MARTY's names
CHARGES = collections.defaultdict(set)  # (name, kind) -> its possible charges: `t` is the tau in QED, the top elsewhere
REAL = set()  # (name, kind, coloured) of the bosons that are their own antiparticles
for _particle in itertools.chain(CAST.values(), *(theory.particles.values() for theory in THEORIES.values())):
    _key = _particle.field, KINDS[_particle.twice_spin], _particle.colour > 1
    MASSES[_key] = _particle.mass or None
    if _particle.pdg > 0:
        CHARGES[_key[:2]].add(_particle.charge)
    if _particle.antiparticle == _particle.name:
        REAL.add(_key)

# Bosons that no other program knows: where one stands, the text is ours
OURS = {"Wm"} | {particle.field for particle in CAST.values() if particle.twice_spin != 1 and particle.colour == 1}

MASS = re.compile(r"([A-Za-z]\w*)=(0|[A-Za-z]\w*)", re.ASCII)
PARTICLE = re.compile(r"((?:(?:AntiPart|OffShell)\s+)*)([^\s(]+)(?:\([^()]*\))?(?:\^\(\*\))?")


def parse_masses(text):
    """The tuple of (particle, mass symbol or None) of a text such as "e=m mu=M A_em=0". Raises InputError."""
    masses = {}
    for part in text.replace(",", " ").split():
        match = MASS.fullmatch(part)
        if not match or match[1] in masses or match[2] in ("i", "eps", "reg_prop") or INVARIANT.fullmatch(match[2]):
            raise InputError(f"masses: got {part!r} in {text!r}, expected each particle once with the symbol of its "
                             'mass, or 0, such as "e=m A_em=0"')
        masses[match[1]] = None if match[2] == "0" else match[2]
    return tuple(sorted(masses.items()))


def masses_text(masses):
    """The text that parse_masses reads."""
    return " ".join(f"{particle}={symbol or 0}" for particle, symbol in masses)


def unknown_masses(theory):
    """The masses of a theory's particles that are not in our table, as Facts has them."""
    masses = {}
    for particle in theory.particles.values():
        key = particle.field, KINDS[particle.twice_spin], particle.colour > 1
        if particle.pdg > 0 and MASSES.get(key, "") != (particle.mass or None):
            masses[particle.field] = particle.mass or None
    return tuple(sorted(masses.items()))


def identity(field):
    """(name, kind, coloured) of a leg's Field: what it is known by."""
    kind = "spinor" if field.kind else "vector" if len(field.indices) > 1 else "scalar"
    return field.name, kind, len(field.indices) > 2


def mass_of(field, names, facts=NO_FACTS):
    """Symbol of the mass of a leg's Field, None if massless. names: all symbols of the row. InputError if not known."""
    said = dict(facts.masses)
    _, *kind = identity(field)
    name = field.name.removesuffix(CONJUGATE) if kind[0] != "spinor" else field.name
    if name in said:
        return said[name]
    key = name, *kind
    if key in MASSES and not MASSES[key] and f"m_{name}" in names:
        raise InputError(f"{name}(p_{field.leg}) is massless as far as is known, but m_{name} stands in "
                         f'the row; say which with --masses="{name}=m_{name}" or "{name}=0"')
    if key in MASSES:
        return MASSES[key]
    if f"m_{name}" in names:
        return f"m_{name}"
    kind = f"coloured {key[1]}" if key[2] else key[1]
    raise InputError(f"the mass of {name}(p_{field.leg}), a {kind}, is not known: there is no m_{name}; "
                     f'say it with --masses="{name}=m", or "{name}=0" if it is massless')


def unexplained(fields, masses, amp_names, square_names):
    """What to say of a symbol for which a square has no reason, '' if there is none.

    A square holds numbers, the symbols of its amplitude and their conjugates, the legs' masses and products of the
    legs' momenta.
    """
    known = {*amp_names, *map(conjugate, amp_names), *CONSTANTS, *masses}
    for name in sorted(square_names):
        if name not in known and not INVARIANT.fullmatch(name) and not epsilon_legs(name):
            used = amp_names | square_names
            unused = {field.name for field, mass in zip(fields, masses) if mass and mass not in used}
            said = " or ".join(f'--masses="{particle}={name}"' for particle in sorted(unused or {fields[0].name}))
            return (f"{name} stands in sqamp, but is neither a symbol of amp nor the mass of a leg; "
                    f"if it is a leg's mass, say whose, such as {said}")
    return ""


def cannot_decay(mass, products):
    """Whether no real momenta let a particle decay, whatever the sizes of the masses.

    It is massless, or its own mass is among those of the products. A mass is its symbol, None or '' where it vanishes;
    the mass of a leg off its shell is a symbol of its own.
    """
    return not mass or mass in products


# ---------------------------------------------------------------------------------------------------------------------
# Incoming and outgoing, particle and antiparticle


class _Leg(NamedTuple):
    """A leg as the rules below see it."""

    name: str  # of the particle; that of Wm is W
    kind: str  # 'spinor', 'vector' or 'scalar'
    comes_in: bool  # unless `unsure`
    unsure: bool  # a boson with a star that is not its own antiparticle, as far as is known
    sign: int  # 1 for a particle, -1 for an antiparticle, 0 where they are the same; of an unsure leg that comes in


def roles_of(fields, names, facts=NO_FACTS):
    """Roles of the legs. fields: in the order of their momenta; names: all symbols of the row. Raises InputError.

    A fermion's u, v and star tell its direction and its charge. A boson that is its own antiparticle comes in if it has
    no star. A star on another boson is an outgoing particle or antiparticle (MARTY writes W+ and W- alike), or an
    incoming antiparticle. There the process decides. Without it the order of the legs does, since incoming legs come
    first and are one or two, and so do the charges where they are known.
    In our own texts W is the W+ and Wm the W-, X_c the antiparticle of X: there a star is an outgoing leg.
    """
    masses = tuple(mass_of(field, names, facts) for field in fields)
    ours = any(field.name in OURS or not field.kind and field.name.endswith(CONJUGATE) for field in fields)
    legs = [_leg(field, mass, ours) for field, mass in zip(fields, masses)]
    if not any(leg.unsure for leg in legs):
        outgoing = collections.Counter((leg.name, leg.kind, leg.sign) for leg in legs if not leg.comes_in)
        return Roles(masses, tuple(leg.comes_in for leg in legs), _permutations(outgoing.values()))
    if sum(leg.unsure for leg in legs) > MOST_UNSURE:
        raise InputError(f"more than {MOST_UNSURE} bosons that may be particles or antiparticles")
    readings = _readings_of_process(legs, facts.process) or _readings(legs)
    if len({incoming for incoming, _ in readings}) > 1:  # a lone leg that cannot decay is not alone
        possible = {reading for reading in readings if sum(reading[0]) > 1 or _can_decay(masses, reading[0])}
        readings = possible or readings
    if len(readings) != 1:
        who = " and ".join(f"{field.name}(p_{field.leg})" for field, leg in zip(fields, legs) if leg.unsure)
        same = len({incoming for incoming, _ in readings}) == 1
        what = "are particles or antiparticles" if same else "come in or go out"
        raise InputError(f"whether {who} {what} is not known: a column `process` such as `e e~ -> W W~` says it")
    ((incoming, identical),) = readings
    return Roles(masses, incoming, identical)


def _can_decay(masses, incoming):
    products = [mass for mass, comes_in in zip(masses, incoming) if not comes_in]
    return not cannot_decay(masses[incoming.index(True)], products)


def _leg(field, mass, ours):
    name, kind, coloured = identity(field)
    if kind == "spinor":
        return _Leg(name, kind, (field.kind == "v") == field.starred, False, 1 if field.kind == "u" else -1)
    # a vector that the user says is massless is a photon or a gluon
    if (name, kind, coloured) in REAL or kind == "vector" and not mass:
        return _Leg(name, kind, not field.starred, False, 0)
    if ours:
        anti = name == "Wm" or name.endswith(CONJUGATE)
        name = "W" if name == "Wm" else name.removesuffix(CONJUGATE)
        return _Leg(name, kind, not field.starred, False, -1 if anti else 1)
    return _Leg(name, kind, not field.starred, field.starred, -1 if field.starred else 1)


def _permutations(counts):
    return math.prod(math.factorial(count) for count in counts)


def _readings(legs):
    """All {(incoming, identical)} that the order of the legs and the conservation of charge allow."""
    orders = [tuple(k < n for k in range(len(legs))) for n in range(1, len(legs))]  # the first n legs come in
    orders = [incoming for incoming in orders
              if all(leg.unsure or leg.comes_in == comes_in for leg, comes_in in zip(legs, incoming))]
    few = [incoming for incoming in orders if sum(incoming) <= (1 if len(legs) == 3 else 2)]
    allowed, conserving = set(), set()
    for incoming in few or orders[:1] or [tuple(leg.comes_in for leg in legs)]:
        for identical, conserved in _charged_readings(legs, incoming):
            allowed.add((incoming, identical))
            if conserved:
                conserving.add((incoming, identical))
    return conserving or allowed


def _charged_readings(legs, incoming):
    """Pairs (identical, whether charge is conserved), one for each choice of the outgoing antiparticles."""
    flow, certain, unsure = collections.Counter(), collections.Counter(), collections.Counter()
    for leg, comes_in in zip(legs, incoming):
        key = leg.name, leg.kind
        if leg.unsure and not comes_in:
            unsure[key] += 1
            continue
        flow[key] += leg.sign if comes_in else -leg.sign
        if not comes_in:
            certain[leg.name, leg.kind, leg.sign] += 1
    # (particles, antiparticles) that go out; None: the boson is its own antiparticle, if it is not in the table
    options = [[(n - k, k) for k in range(n + 1)] + ([] if key in CHARGES else [None]) for key, n in unsure.items()]
    for option in itertools.product(*options):
        total, counts = collections.Counter(flow), list(certain.values())
        for (key, n), split in zip(unsure.items(), option):
            total[key] = total[key] - split[0] + split[1] if split else 0
            counts += split or [n]
        yield _permutations(counts), _conserved(total)


def _conserved(flow):
    """Whether the incoming minus the outgoing particles, {(name, kind): number}, can have charge 0."""
    flow = {key: number for key, number in flow.items() if number}
    if any(key not in CHARGES for key in flow):
        return True  # a particle of unknown charge may make up for the rest
    return any(sum(charge * number for charge, number in zip(charges, flow.values())) == 0
               for charges in itertools.product(*(CHARGES[key] for key in flow)))


def _readings_of_process(legs, process):
    """{(incoming, identical)} of the legs by a process's text; empty if it is not a process of these legs."""
    sides = re.split(r"\bto\b|->", process.removeprefix("Interaction:").partition(" : ")[0])
    if len(sides) != 2:
        return set()
    names = sorted({leg.name for leg in legs}, key=len, reverse=True)
    sides = [[_named(prefix, token, names) for prefix, token in PARTICLE.findall(side)] for side in sides]
    wanted = [collections.Counter(name for name, _ in side) for side in sides]

    def fits(incoming):
        return wanted == [collections.Counter(leg.name for leg, comes_in in zip(legs, incoming) if comes_in == side)
                          for side in (True, False)]

    choices = itertools.product(*((True, False) if leg.unsure else (leg.comes_in,) for leg in legs))
    incoming = next(filter(fits, choices), None)  # the first choice: of legs of one name the lower momenta come in
    if incoming is None:
        return set()
    unsure = {leg.name for leg in legs if leg.unsure}
    outgoing = collections.Counter((leg.name, leg.kind, leg.sign) for leg, comes_in in zip(legs, incoming)
                                   if not comes_in and leg.name not in unsure)
    said = collections.Counter(particle for particle in sides[1] if particle[0] in unsure)
    return {(incoming, _permutations([*outgoing.values(), *said.values()]))}


def _named(prefix, token, names):
    """(name, whether an antiparticle) of a particle in a process: `W~`, `W-`, or MARTY's `AntiPart W_\\mu_3(X)`."""
    bare = token.rstrip("~+-")
    name = next((name for name in names if bare == name or bare.startswith(name + "_")), None)
    return name, "AntiPart" in prefix or token.endswith(("~", "-"))
