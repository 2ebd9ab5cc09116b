"""
When two rows count as the same, and the baseline that a model has to beat: a lookup table of the training rows.

The table answers an amplitude with the square of a training amplitude that is equal
- "exact": up to index names;
- "renamed": up to index and particle names; the masses in the answer are renamed back;
- "rescaled": also up to the number in front, the product of the charges; the answer is multiplied by the squared ratio;
- "relabelled": of the same orbit (see physics/orbits.py): also up to the order of the legs and the sides that they are
  on. Momenta, masses and couplings in the answer are mapped along, and the ratio of the two amplitudes is computed.
The number in front of a sum is that of its first term.
"""
import functools
import re
from fractions import Fraction

from physics import exact, numeric
from physics.expression import UNCOMPUTABLE, names_in, parse
from physics.orbits import orbit_of, relabel
from physics.particles import MASSES, NO_FACTS, Facts
from physics.polynomial import factored_text, scaled
from physics.rational import rational
from runtime.files import InputError
from tokenizer import amp_tokens

KINDS = ("exact", "renamed", "rescaled", "relabelled")
MOST_KEPT = 2**16            # templates whose orbit is remembered
MOST_RELABELLED = 1000       # test rows that "relabelled" is asked about, some 10 ms each
MASS_OR_LEG = re.compile(r"""(?<!\w) m_([A-Za-z]\w*) | (?<!\w) ([A-Za-z]\w*?) (?= (?:_\{[ ]\})? \(p_\d+\)
    (?P<spinor>_[uv])? (?:_T|_off)? (?:\^\(\*\))? (?P<colour>[ ]%[AC]\d+)? (?P<vector>[ ]\+?%L)? )""", re.VERBOSE)
# of a massive boson with a star only the process says whether it comes in
_STARRED = re.compile(r"P\d+(?:_\{ \})?\(p_\d+\)(?:_off)?\^\(\*\)")
# particles whose mass is not called after them: both W have m_W
BORROWED = {name for (name, _, _), mass in MASSES.items() if mass and mass != f"m_{name}"}
_MASS = re.compile(r"(?<!\w)m_(\w+)")
# A sign before an index, a factor or an exponent does not separate terms
_BRACKET_OR_SIGN = re.compile(r"[({)}]|(?<=[A-Za-z0-9)}])\s*[+-]\s*")


def canonical_key(amp):
    """The amplitude up to index names: equal for two rows exactly if only these differ."""
    return " ".join(amp_tokens(amp)[0])


def template(amp, masses=()):
    """
    The amplitude up to index and particle names, and the particles in order of first appearance, as field or in a mass.
    masses: see physics.particles.parse_masses.

    `m_e` becomes `m_P0`, `e_{ }(p_1)_u` becomes `P0_{ }(p_1)_u`, a particle that is known to be massless (see
    physics/particles.py) `N0_{ }(p_1)`. Numbers, and so charges, stay. Particles of another spin or colour have another
    template: a field's indices show both.
    """
    particles = {}

    def rename(match):
        name = match[1] or match[2]
        number = particles.setdefault(name, len(particles))
        if match[1]:
            return f"m_P{number}"
        kind = "spinor" if match["spinor"] else "vector" if match["vector"] else "scalar"
        return f"P{number}" if MASSES.get((name, kind, match["colour"] is not None), f"m_{name}") else f"N{number}"

    return MASS_OR_LEG.sub(rename, canonical_key(_rename(amp, _called_after_particles(masses)))), list(particles)


def template_key(amp, masses=()):
    """The amplitude up to index and particle names: equal for two rows exactly if only these differ."""
    return template(amp, masses)[0]


def kinematics_key(amp, masses=()):
    """The template without the number in front, the product of the charges: equal for rows that "rescaled" looks up."""
    return template_key(_split_number(amp)[1], masses)


def _called_after_particles(masses):
    """{symbol: m_PARTICLE} of the masses that the user says, for each symbol of one particle alone."""
    owners = {}
    for particle, symbol in masses:
        owners.setdefault(symbol, []).append(particle)
    return {symbol: f"m_{names[0]}" for symbol, names in owners.items() if symbol and len(names) == 1}


def _rename(text, names):
    """The text with other names for some symbols."""
    if not names:
        return text
    either = "|".join(map(re.escape, sorted(names)))
    return re.sub(rf"(?<!\w)({either})(?!\w)", lambda match: names[match[1]], text)


def orbit_key(row, masses=()):
    """
    The orbit of a row as 12 hexadecimal digits, "" if it has none: where an amplitude cannot be read, or has too many
    constants or legs that look alike. masses: see physics.particles.parse_masses.

    The row's square is read only for the mass of a particle that nothing else tells. The orbits of amplitudes that
    differ in names and charges are computed once.
    """
    facts = Facts(row.get("process", ""), masses)
    try:
        key, particles = template(_split_number(row["amp"])[1])
    except InputError:
        return ""
    if masses or _STARRED.search(key) or not BORROWED.isdisjoint(particles):           # then names matter
        key = key, tuple(particles), facts
    if key not in _orbits:
        if len(_orbits) >= MOST_KEPT:
            _orbits.clear()
        _orbits[key] = _orbit_key(row, facts)
    return _orbits[key]


_orbits = {}


def _orbit_key(row, facts):
    try:
        try:
            return orbit_of(row["amp"], facts).key
        except InputError:
            return orbit_of(row["amp"], facts, frozenset(names_in(parse(row["sqamp"])))).key
    except (*UNCOMPUTABLE, KeyError):
        return ""


def lookup_table(rows, masses=()):
    """
    {kind: {key: entry}} of rows with `amp` and `sqamp`, and with `process` and `orbit` if they have it.

    The entry is the sqamp; for "renamed" with masses m_P0, m_P1, ...; for "rescaled" a pair: the number in front of the
    square over the squared number in front of the amplitude, and the rest with such masses; for "relabelled" the row.
    masses: see physics.particles.parse_masses.
    """
    table, symbols = {kind: {} for kind in KINDS}, _called_after_particles(masses)
    for row in rows:
        table["exact"][canonical_key(row["amp"])] = row["sqamp"]
        key, particles = template(row["amp"], masses)
        names = {name: f"P{k}" for k, name in enumerate(particles)}
        square = _rename_masses(_rename(row["sqamp"], symbols), names)
        table["renamed"][key] = square
        charges, _ = _split_number(row["amp"])
        number, square = _split_number(square)
        table["rescaled"][kinematics_key(row["amp"], masses)] = number / charges**2, square
        if orbit := row["orbit"] if "orbit" in row else orbit_key(row, masses):
            table["relabelled"][orbit] = row
    return table


def look_up(table, amp, kind, facts=NO_FACTS):
    """The table's answer to an amplitude, or None. facts: what is known about the amplitude beside its text."""
    if kind == "exact":
        return table["exact"].get(canonical_key(amp))
    if kind == "relabelled":
        return _relabelled(table["relabelled"], amp, facts)
    charges, rest = _split_number(amp) if kind == "rescaled" else (1, amp)
    key, particles = template(rest, facts.masses)
    answer = table[kind].get(key)
    if answer and kind == "rescaled":
        number, square = answer
        answer = _times(number * charges**2, square)
    symbols = {own: symbol for symbol, own in _called_after_particles(facts.masses).items()}
    return answer and _rename(_rename_masses(answer, {f"P{k}": name for k, name in enumerate(particles)}), symbols)


def _relabelled(rows, amp, facts):
    try:
        target = orbit_of(amp, facts)
        if target.key not in rows:
            return None
        row = rows[target.key]
        source = _source(row["amp"], row["sqamp"], Facts(row.get("process", ""), facts.masses))
        return relabel(row["sqamp"], source, target)
    except (*UNCOMPUTABLE, KeyError):
        return None


@functools.lru_cache(maxsize=2**12)
def _source(amp, sqamp, facts):
    return orbit_of(amp, facts, frozenset(names_in(parse(sqamp))))


def every_nth(count):
    """Of so many test rows "relabelled" is asked about every n-th, so that they are MOST_RELABELLED at most."""
    return max(-(-count // MOST_RELABELLED), 1)


def lookup_scores(train, test, masses=(), step=1):
    """
    {kind: share} of the test rows that a table of the training rows answers right.

    An answer is right if it is the row's sqamp, or the same polynomial over the same propagators in another order; a
    "relabelled" one if it is the same function of the momenta, by exact arithmetic where that has a proof.
    masses: see physics.particles.parse_masses. step: "relabelled" is asked about every step-th row, see every_nth.
    """
    table = lookup_table(train, masses)
    scores = {}
    for kind in KINDS:
        asked = test[::step] if kind == "relabelled" else test
        right = 0
        for row in asked:
            facts = Facts(row.get("process", ""), masses)
            answer = look_up(table, row["amp"], kind, facts)
            right += answer is not None and (answer == row["sqamp"] or _is_same(row, answer, kind, facts))
        scores[kind] = right / max(len(asked), 1)
    return scores


def _is_same(row, answer, kind, facts):
    if kind != "relabelled":
        return _canonical(answer) == _canonical(row["sqamp"])
    for equal in (exact.equal, numeric.same):
        try:
            return equal(row["amp"], row["sqamp"], answer, facts=facts)
        except UNCOMPUTABLE:                                 # no proof of roots, of huge powers
            pass
    return False


def _split_number(text):
    """(number in front, the rest of the text). For a sum it is that of the first term, which divides all terms."""
    terms = [_split_term(term, minus) for term, minus in _top_terms(text)]
    first, rest = terms[0]
    if not first:
        return Fraction(1), text
    return first, rest if len(terms) == 1 else _sum_text(terms, 1 / first)


def _times(number, text):
    return _sum_text([_split_term(term, minus) for term, minus in _top_terms(text)], number)


def _sum_text(terms, scale):
    return " + ".join(scaled(number * scale, [rest]) for number, rest in terms)


def _split_term(term, minus):
    """The number in front of a product and the rest of its text."""
    match = re.match(r"(?:\((-\d+(?:/\d+)?)\)|(-?\d+(?:/\d+)?))\*|(-)", term)
    number, rest = (Fraction(match[1] or match[2] or -1), term[match.end():]) if match else (Fraction(1), term)
    return -number if minus else number, rest


def _top_terms(text):
    """The terms of a sum as (text, whether it is subtracted); a product is the only one."""
    depth, start, minus = 0, 0, False
    for match in _BRACKET_OR_SIGN.finditer(text):
        if match[0] in "({":
            depth += 1
        elif match[0] in ")}":
            depth -= 1
        elif not depth:
            yield text[start:match.start()], minus
            start, minus = match.end(), "-" in match[0]
    yield text[start:], minus


def _rename_masses(sqamp, names):
    return _MASS.sub(lambda match: f"m_{names.get(match[1], match[1])}", sqamp)


def _canonical(sqamp):
    try:
        return factored_text(rational(parse(sqamp)))
    except (InputError, ZeroDivisionError, RecursionError):
        return sqamp
