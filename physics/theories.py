"""The theories that a setting names: those of theory.py, random ones, and a user's file.

    qed                 a theory of theory.py
    random:7            a random theory, the same for a seed everywhere (random_theory.py)
    random:0-199        200 of them
    my_theory.py        a file, see read_theory

A file is Python text that is read and never run. Its values are numbers, texts and tuples, and it assigns two names:

    particles = (  # name, antiparticle, spin, mass, dimension of the SU(3) representation (1 if it is left out)
        ("chi", "chi~", "1/2", "m_chi"),
        ("Ap", "Ap", 1, "m_Ap"),
    )
    vertices = (  # the fields that flow in, then for each rule its number and couplings and its structure
        (("chi~", "chi", "Ap"), ("g_L", "gamma P_L"), ("-1/2*g_R", "gamma P_R")),
    )

What they mean stands in theory.py, the structures in its structures_of.
"""
import ast
import contextlib
import functools
import re
from fractions import Fraction
from pathlib import Path

from physics.expression import FUNCTIONS, INVARIANT, NO_SYMBOLS, parse
from physics.random_theory import random_theory
from physics.rational import rational
from physics.theory import CONJUGATE, THEORIES, Particle, Rule, Vertex, is_symmetric, make_theory, structures_of
from runtime.files import InputError

RANDOM = re.compile(r"random:(\d{1,9})(?:-(\d{1,9}))?")
MOST = 100_000               # random theories of one data set
NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
RESERVED = {"i", "p", "eps", "reg_prop", *FUNCTIONS, *NO_SYMBOLS}
SPINS = {"0": 0, "1/2": 1, "0.5": 1, "1": 2}


def theory_names(setting):
    """
    The names of the theories that the setting `theory` stands for, as find_theory takes them: those of its words, or
    the one file that it names. Raises InputError.
    """
    names = []
    for word in [setting] if setting.endswith(".py") else setting.split() or [""]:
        if match := RANDOM.fullmatch(word):
            first, last = int(match[1]), int(match[2] or match[1])
            if not first <= last < first + MOST:
                raise InputError(f"theory: got '{word}', wanted a range of at most {MOST:,} seeds such as random:0-199")
            names += [f"random:{seed}" for seed in range(first, last + 1)]
        elif word in THEORIES or setting.endswith(".py"):
            names.append(word)
        else:
            raise InputError(f"theory: got '{word}', wanted one of {', '.join(THEORIES)}, random:0-199 "
                             "or a file such as my_theory.py")
    return names


@functools.lru_cache(maxsize=16)
def find_theory(name):
    """The Theory of one of theory_names. InputError for a file that cannot be read, with its line."""
    if name in THEORIES:
        return THEORIES[name]
    if match := RANDOM.fullmatch(name):
        return random_theory(int(match[1]))
    return read_theory(name)


def read_theory(path):
    """The Theory of a user's file, named like the file. InputError with FILE:LINE for whatever is wrong in it."""
    lines = _read_tables(path)
    particles = {}
    for line, value in lines["particles"]:
        with _at(path, line):
            particle = _particle(value, len(particles) + 1)
            for name in dict.fromkeys((particle.name, particle.antiparticle)):
                if name in particles:
                    raise InputError(f"the particle {name} stands twice")
                particles[name] = particle
    everything = make_theory(Path(path).stem, dict.fromkeys(particles.values()), ()).particles
    vertices, known = [], {}
    for line, value in lines["vertices"]:
        with _at(path, line):
            vertex = _vertex(value, everything)
            fields = tuple(sorted(vertex.particles))
            if fields in known:
                raise InputError(f"the vertex of {' '.join(fields)} stands in line {known[fields]} too")
            known[fields] = line
            vertices.append(vertex)
    for fields, line in known.items():
        conjugate = tuple(sorted(everything[name].antiparticle for name in fields))
        if conjugate not in known:
            raise InputError(f"{path}:{line}: the vertex of {' '.join(fields)} needs that of their antiparticles, "
                             f"{' '.join(conjugate)}")
    if Path(path).stem in THEORIES:
        raise InputError(f"{path}: {Path(path).stem} is a theory of this program; give the file another name")
    return make_theory(Path(path).stem, dict.fromkeys(particles.values()), vertices)


@contextlib.contextmanager
def _at(path, line):
    """Puts FILE:LINE in front of an InputError that is raised in the block."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}:{line}: {error}") from None


def _read_tables(path):
    """{"particles": [(line, value), ...], "vertices": ...}: what the file assigns, as plain values."""
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}:{getattr(error, 'lineno', None) or 1}: not valid Python: "
                         f"{getattr(error, 'msg', None) or error}") from None
    tables = {}
    for node in tree.body:
        if type(node) is ast.Expr and type(node.value) is ast.Constant and type(node.value.value) is str:
            continue                                         # a docstring
        name = node.targets[0].id if _is_assignment(node) else None
        if name not in ("particles", "vertices") or name in tables or type(node.value) not in (ast.Tuple, ast.List):
            raise InputError(f"{path}:{node.lineno}: expected only `particles = (..)` and `vertices = (..)`, each once")
        tables[name] = []
        for item in node.value.elts:
            try:
                tables[name].append((item.lineno, ast.literal_eval(item)))
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                raise InputError(f"{path}:{item.lineno}: expected a tuple of texts, numbers and tuples") from None
    for name in ("particles", "vertices"):
        if not tables.get(name):
            raise InputError(f"{path}: no {name}: expected `{name} = (..)`")
    return tables


def _is_assignment(node):
    return type(node) is ast.Assign and len(node.targets) == 1 and type(node.targets[0]) is ast.Name


def _particle(value, number):
    if type(value) is not tuple or not 4 <= len(value) <= 5 or any(type(text) is not str for text in value[:2]):
        raise InputError(f'got {value!r}, expected (name, antiparticle, spin, mass[, colour]) such as '
                         '("chi", "chi~", "1/2", "m_chi")')
    name, antiparticle, spin, mass, colour = (*value, 1)[:5]
    _check_name("the particle", name)
    if name.endswith(CONJUGATE):
        raise InputError(f"the particle {name}: {CONJUGATE} ends the names of antiparticles in an amplitude")
    if antiparticle not in (name, name + "~"):
        raise InputError(f"the antiparticle of {name}: got '{antiparticle}', expected '{name}~', or '{name}' for a "
                         "particle that is its own")
    if str(spin) not in SPINS:
        raise InputError(f'the spin of {name}: got {spin!r}, expected 0, "1/2" or 1')
    twice_spin = SPINS[str(spin)]
    if mass != "":
        _check_name(f"the mass of {name}", mass)
        if not mass.startswith("m_"):
            raise InputError(f"the mass of {name}: got '{mass}', expected a symbol m_.., or an empty text if it is "
                             "massless")
    if twice_spin == 1 and antiparticle == name:
        raise InputError(f"{name} has spin 1/2 and is its own antiparticle: Majorana fermions are not supported")
    allowed = {1: (1, 3), 2: (1, 8) if antiparticle == name else (1,)}.get(twice_spin, (1,))
    if colour not in allowed:
        raise InputError(f"the colour of {name}: got {colour!r}, expected {' or '.join(map(str, allowed))}; triplets "
                         "are fermions, octets are vectors that are their own antiparticles")
    if twice_spin == 2 and antiparticle != name and not mass:
        raise InputError(f"{name} is a massless vector and not its own antiparticle: it needs a mass")
    return Particle(name, antiparticle, twice_spin, mass, Fraction(0), colour, number, name)


def _check_name(what, name):
    if type(name) is not str or not NAME.fullmatch(name) or name in RESERVED or INVARIANT.fullmatch(name):
        raise InputError(f"{what}: got {name!r}, expected a name of letters, digits and _ that begins with a letter "
                         "and has no other meaning in amplitudes")


def _vertex(value, particles):
    if type(value) is not tuple or len(value) < 2 or any(type(part) is not tuple for part in value):
        raise InputError(f'got {value!r}, expected (particles, rule, ...) such as '
                         '(("chi~", "chi", "Ap"), ("g_D", "gamma"))')
    names, *rules = value
    for name in names:
        if type(name) is not str or name not in particles:
            raise InputError(f"no particle {name!r}; there are {' '.join(particles)}")
    structures = structures_of([particles[name] for name in names]) if 3 <= len(names) <= 4 else ()
    if not structures:
        raise InputError(f"{' '.join(names)}: no renormalisable vertex joins these particles in this order; fermions "
                         "stand first, an antiparticle and a particle, and colours must cancel")
    if structures[0] in ("unit", "gamma", "gamma T") and not (names[0].endswith("~") and not names[1].endswith("~")):
        raise InputError(f"{' '.join(names)}: expected psibar and psi first, such as {names[0].rstrip('~')}~ "
                         f"{names[1].rstrip('~')}")
    if not is_symmetric(names, structures[0]):
        raise InputError(f"{' '.join(names)}: identical particles cannot be exchanged in {structures[0]}: there are "
                         "none in SSV and VVV, and in VVVV they stand first and second or third and fourth")
    return Vertex(names, tuple(_rule(rule, structures) for rule in rules))


def _rule(rule, structures):
    if len(rule) != 2 or any(type(text) is not str for text in rule):
        raise InputError(f'the rule {rule!r}: expected (couplings, structure) such as ("-1/2*g_R", "gamma P_R")')
    couplings, structure = rule
    if structure not in structures:
        raise InputError(f"the structure '{structure}': expected {' or '.join(map(repr, structures))}")
    try:
        polynomial = rational(parse(couplings))
    except (InputError, ZeroDivisionError) as error:
        raise InputError(f"the couplings '{couplings}': {error}") from None
    if len(polynomial) != 1:
        raise InputError(f"the couplings '{couplings}': expected a product of a number and symbols; a sum is several "
                         "rules")
    ((symbols, factor),) = polynomial.items()
    for symbol, _ in symbols:
        if INVARIANT.fullmatch(symbol) or symbol in RESERVED - {"i"} or symbol[0] == "(" or symbol.startswith("eps("):
            raise InputError(f"the couplings '{couplings}': {symbol} is no coupling")
    return Rule(factor, symbols, structure)
