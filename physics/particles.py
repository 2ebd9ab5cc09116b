"""Who the legs of an amplitude are: their masses, which of them come in, which outgoing ones are identical.

A particle is known by its name and its kind: `A` is the photon only as a vector without colour, so a pseudoscalar `A` is none.
Any other particle X has the mass m_X where that symbol stands in the row, or the mass that the user says (`--masses="X=m Y=0"`).
What no text says is an InputError with what to say: nothing is guessed.
"""
import collections
import itertools
import math
import re
from fractions import Fraction
from typing import NamedTuple

from physics.theory import THEORIES
from runtime.files import InputError


class Facts(NamedTuple):
    """What a file or the user says about an amplitude beside its text."""
    process: str = ""           # the row's process column: `e e~ -> W W~`, or MARTY's `e_eps_1(X)^(*) AntiPart e_eta_2(X) to W_\\mu_3(X) ...`
    masses: tuple = ()          # of (particle, symbol), None instead of the symbol: massless; see parse_masses


class Roles(NamedTuple):
    masses: tuple               # of each leg its mass symbol, None for a massless one
    incoming: tuple             # of each leg whether it comes in
    identical: int              # product of n! over the groups of n identical outgoing legs


NO_FACTS = Facts()
CONSTANTS = {"i", "theta_W", "reg_prop"}                     # symbols of a square that need not stand in its amplitude
NO_SYMBOLS = {"I": "the imaginary unit is written i"} | dict.fromkeys(
    ("nan", "NaN", "inf", "Inf", "oo", "zoo"), "it is neither a number nor a symbol")

MASSES = {}                     # (name, kind, coloured) -> mass symbol or None, of the particles of our theories, which bear MARTY's names
CHARGES = collections.defaultdict(set)                       # (name, kind) -> its possible charges: `t` is the tau in QED, the top elsewhere
REAL = set()                    # (name, kind, coloured) of the bosons that are their own antiparticles
for _particle in itertools.chain(*(theory.particles.values() for theory in THEORIES.values())):
    _key = _particle.field, ("scalar", "spinor", "vector")[_particle.twice_spin], _particle.colour > 1
    MASSES[_key] = _particle.mass or None
    if _particle.pdg > 0:
        CHARGES[_key[:2]].add(_particle.charge)
    if _particle.antiparticle == _particle.name:
        REAL.add(_key)

MASS = re.compile(r"([A-Za-z]\w*)=(0|[A-Za-z]\w*)", re.ASCII)
PARTICLE = re.compile(r"((?:(?:AntiPart|OffShell)\s+)*)([^\s(]+)(?:\([^()]*\))?(?:\^\(\*\))?")


def parse_masses(text):
    """The tuple of (particle, mass symbol or None) of a text such as "e=m mu=M A_em=0". Raises InputError."""
    masses = {}
    for part in text.replace(",", " ").split():
        match = MASS.fullmatch(part)
        if not match or match[1] in masses:
            raise InputError(f"masses: got {part!r} in {text!r}, expected each particle once with the symbol of its mass, or 0, such as \"e=m A_em=0\"")
        masses[match[1]] = None if match[2] == "0" else match[2]
    return tuple(sorted(masses.items()))


def identity(field):
    """(name, kind, coloured) of a leg's Field: what it is known by."""
    kind = "spinor" if field.kind else "vector" if len(field.indices) > 1 else "scalar"
    return field.name, kind, len(field.indices) > 2


def mass_of(field, names, facts=NO_FACTS):
    """Symbol of the mass of a leg's Field, None if massless. names: all symbols of the row. InputError where the mass is not known."""
    said = dict(facts.masses)
    if field.name in said:
        return said[field.name]
    key = identity(field)
    if key in MASSES:
        return MASSES[key]
    if f"m_{field.name}" in names:
        return f"m_{field.name}"
    raise InputError(f"the mass of {field.name}(p_{field.leg}), a {'coloured ' if key[2] else ''}{key[1]}, is not known: there is no m_{field.name}; "
                     f"say it with --masses=\"{field.name}=m\", or \"{field.name}=0\" if it is massless")


def check_symbols(amp_names, square_names=(), masses=()):
    """InputError if a symbol cannot be what it looks like, or stands in the square for no reason.

    A square holds numbers, the symbols of its amplitude, masses of the legs and products of their momenta.
    """
    for name in sorted({*amp_names, *square_names} & NO_SYMBOLS.keys()):
        raise InputError(f"{name} is no symbol: {NO_SYMBOLS[name]}")
    known = {*amp_names, *CONSTANTS, *masses}
    for name in sorted(square_names):
        if name not in known and name.removesuffix("^(*)") not in known and not re.fullmatch(r"s_\d+|eps\(.*\)", name):
            raise InputError(f"{name} stands in sqamp, but is neither a symbol of amp nor the mass of a leg; "
                             f"if it is a leg's mass, say whose: --masses=\"e={name}\"")


def cannot_decay(mass, products):
    """Whether no real momenta let a particle decay, whatever the sizes of the masses: it is massless, or its own mass is among those
    of the products. A mass is its symbol, none (None or '') where it vanishes; that of a leg off its shell is a symbol of its own."""
    return not mass or mass in products


# ---------------------------------------------------------------------------------------------------------------------
# Incoming and outgoing, particle and antiparticle

def roles_of(fields, names, facts=NO_FACTS):
    """Roles of the legs, given as Fields in the order of their momenta. names: all symbols of the row. Raises InputError.

    A fermion's u, v and star tell both its direction and its charge, and a boson that is its own antiparticle comes in unless starred.
    A star on another boson is an outgoing particle or antiparticle (MARTY writes W+ and W- alike), or an incoming antiparticle.
    There the process decides; else the order, since incoming legs come first and are one or two, and the charges where they are known.
    In our own texts W is the W+ and Wm the W-: there a star is an outgoing leg.
    """
    masses = tuple(mass_of(field, names, facts) for field in fields)
    plain = tuple((field.kind == "v") == field.starred for field in fields)
    ours = any(field.name == "Wm" for field in fields)
    unsure = [k for k, field in enumerate(fields) if field.starred and not field.kind and identity(field) not in REAL
              and not (ours and field.name in ("W", "Wm"))]
    if not unsure:
        outgoing = collections.Counter((field.name, field.kind) for field, comes_in in zip(fields, plain) if not comes_in)
        return Roles(masses, plain, math.prod(math.factorial(n) for n in outgoing.values()))
    readings = _readings_of_process(fields, plain, unsure, facts.process) if facts.process else set()
    readings = readings or _readings(fields, plain, unsure)
    if len({incoming for incoming, _ in readings}) > 1:      # a lone leg that cannot decay is not alone
        possible = {(incoming, n) for incoming, n in readings if sum(incoming) > 1 or not cannot_decay(
            masses[incoming.index(True)], [mass for mass, comes_in in zip(masses, incoming) if not comes_in])}
        readings = possible or readings
    if len(readings) != 1:
        who = " and ".join(f"{fields[k].name}(p_{fields[k].leg})" for k in unsure)
        what = "come in or go out" if len({incoming for incoming, _ in readings}) > 1 else "are particles or antiparticles"
        raise InputError(f"whether {who} {what} is not known: a column `process` such as `e e~ -> W W~` says it")
    (incoming, identical), = readings
    return Roles(masses, incoming, identical)


def _readings(fields, plain, unsure):
    """All {(incoming, identical)} that the order of the legs and the conservation of charge allow."""
    numbers = range(1, len(fields))
    first = [tuple(k < n for k in range(len(fields))) for n in numbers]      # the first n legs come in
    first = [incoming for incoming in first if all(a == b for k, (a, b) in enumerate(zip(incoming, plain)) if k not in unsure)]
    few = [incoming for incoming in first if sum(incoming) <= (1 if len(fields) == 3 else 2)]
    allowed, conserving = set(), set()
    for incoming in few or first[:1] or [plain]:
        for identical, conserved in _charged_readings(fields, incoming, unsure):
            allowed.add((incoming, identical))
            if conserved:
                conserving.add((incoming, identical))
    return conserving or allowed


def _charged_readings(fields, incoming, unsure):
    """Pairs (identical, whether charge is conserved) for every choice of which unsure outgoing legs are antiparticles."""
    flow, certain = collections.Counter(), collections.Counter()
    choices = collections.Counter()                          # of each unsure boson the number of outgoing ones
    for k, (field, comes_in) in enumerate(zip(fields, incoming)):
        key = identity(field)
        if k in unsure and not comes_in:
            choices[key] += 1
            continue
        if not comes_in:
            certain[field.name, field.kind] += 1
        sign = 0 if key in REAL else -1 if field.kind == "v" or field.name == "Wm" or (not field.kind and field.starred and comes_in) else 1
        flow["W" if field.name == "Wm" else field.name, key[1]] += sign if comes_in else -sign
    factor = math.prod(math.factorial(n) for n in certain.values())
    # (particles, antiparticles) that go out; None: the boson is its own antiparticle
    options = [[(n - k, k) for k in range(n + 1)] + [None] * (key[:2] not in CHARGES) for key, n in choices.items()]
    for option in itertools.product(*options):
        total, identical = collections.Counter(flow), factor
        for (key, n), split in zip(choices.items(), option):
            if split:
                total[key[:2]] -= split[0] - split[1]
                identical *= math.factorial(split[0]) * math.factorial(split[1])
            else:
                total[key[:2]] = 0
                identical *= math.factorial(n)
        yield identical, _conserved(total)


def _conserved(flow):
    """Whether the incoming minus the outgoing particles, {(name, kind): number}, can have charge 0."""
    flow = {key: number for key, number in flow.items() if number}
    if any(key not in CHARGES for key in flow):
        return True                                          # a particle of unknown charge may make up for the rest
    return any(sum(charge * number for charge, number in zip(charges, flow.values())) == Fraction(0)
               for charges in itertools.product(*(CHARGES[key] for key in flow)))


def _readings_of_process(fields, plain, unsure, process):
    """{(incoming, identical)} of the legs in a process' text; empty if it is not the process of these legs."""
    sides = re.split(r"\bto\b|->", process.removeprefix("Interaction:").partition(" : ")[0])
    if len(sides) != 2:
        return set()
    known = sorted({"W" if field.name == "Wm" else field.name for field in fields}, key=len, reverse=True)
    counts = []
    for side in sides:
        particles = []
        for prefix, token in PARTICLE.findall(side):
            bare = token.rstrip("~+-")
            name = next((name for name in known if bare == name or bare.startswith(name + "_")), None)
            particles.append((name, "AntiPart" in prefix or token.endswith(("~", "-"))))
        counts.append(particles)
    names = ["W" if field.name == "Wm" else field.name for field in fields]
    wanted = [collections.Counter(name for name, _ in side) for side in counts]
    choices = {tuple(comes_in or k in chosen for k, comes_in in enumerate(plain))
               for n in range(len(unsure) + 1) for chosen in itertools.combinations(unsure, n)}
    fitting = [incoming for incoming in choices if wanted == [
        collections.Counter(name for name, comes_in in zip(names, incoming) if comes_in == side) for side in (True, False)]]
    fitting = [max(fitting)] if fitting else []              # where the same boson comes in and goes out the lower momenta come in
    own = {name for name, kind, coloured in map(identity, fields) if (name, kind, coloured) in REAL}
    kinds = {field.name: bool(field.kind) for field in fields}
    bosons = collections.Counter((name, anti and name not in own) for name, anti in counts[1] if not kinds.get(name))
    fermions = [collections.Counter((field.name, field.kind) for field, comes_in in zip(fields, incoming) if field.kind and not comes_in)
                for incoming in fitting]
    return {(incoming, math.prod(math.factorial(n) for n in [*bosons.values(), *spinors.values()])) for incoming, spinors in zip(fitting, fermions)}
