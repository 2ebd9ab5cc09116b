"""The diagram of a row: what kind it is, and a picture of it, from the row's columns or from its amplitude alone."""
import math
import re

from physics.amplitude import diagrams, parse_process, process_text, propagators_text
from physics.expression import (
    INVARIANT,
    Negative,
    Power,
    Product,
    Sum,
    expand,
    fields_of,
    legs_of,
    names_in,
    parse,
)
from physics.particles import KINDS, identity
from physics.processes import count_diagrams
from physics.theory import THEORIES
from runtime.files import InputError

MOST = 10_000  # diagrams of a process of which one is drawn
MARGIN, LABEL = 16, 60  # above and below a picture, and beside it for the names of the legs
BAR = "\u0304"  # combining
AWAY = 18  # from the middle of a propagator to its name
GREEK = {"mu": "μ", "nu_e": "νₑ", "nu_mu": "ν_μ", "nu_tau": "ν_τ", "tau": "τ"}
DECIMAL = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
POINT = re.compile(r'(-?[\d.]+(?:e-?\d+)?)(?:" y\d="| )(-?[\d.]+(?:e-?\d+)?)(?=[ ,"])')
STYLE = re.compile(r' stroke="black"| stroke-width="2"| fill="(?:transparent|black)"')
TEXT = re.compile(r'<text x="([^"]*)" y="([^"]*)" font-size="15">([^<(]*)\((\d+)\)</text>')


def diagram_type(amp):
    """
    The channels of the propagators: "s", "t" or "u" of two particles that become two, else "s, t" and the like;
    "contact" without one. A propagator is in the s channel if the legs on one side of it all come in or all go out.
    """
    tree = parse(amp)
    if type(tree) is Sum:
        return f"sum of {len(tree.terms)}"
    legs = legs_of(expand(tree))
    incoming = {leg.number for leg in legs if leg.incoming}
    crossed = ({1, 4}, {2, 3}) if incoming == {1, 2} and len(legs) == 4 else ()
    channels = ["s" if flow <= incoming or not flow & incoming else "u" if flow in crossed else "t"
                for flow in propagator_legs(tree)]
    return ", ".join(sorted(channels)) or "contact"


def propagator_legs(tree):
    """Of each denominator of an amplitude's product the numbers of the legs whose momenta flow through it."""
    found = []
    while type(tree) is Negative:
        tree = tree.operand
    for factor, divides in zip(tree.factors, tree.inverse) if type(tree) is Product else ():
        if type(factor) is Power and type(factor.exponent) is Negative:
            factor, divides = factor.base, not divides
        if divides:
            names = filter(INVARIANT.fullmatch, names_in(factor))
            legs = {int(number) for name in names for number in name[2:]}
            found += [legs] if legs else []
    return found


# ---------------------------------------------------------------------------------------------------------------------

def picture(row):
    """
    SVG of a row's diagram, "" where nobody knows which one it is. Lines and text have the colour of the text around.

    row: with amp; where it has the columns of prepare.py, process, diagram and theory, these say which diagram it is.
    Otherwise it is the only diagram in one of our theories with the amplitude's legs and the same propagators.
    """
    found = _named(row) or _only_one(row["amp"])
    if found is None:
        return ""
    drawn, number = found
    return redrawn(svg_of(drawn, [number]), [p.particle().name() for p in drawn[number].propagators()])


def svg_of(drawn, numbers):
    """
    SVG of some diagrams of one process, as feyngraph draws them, but with right arrows.

    An arrow shows the flow of fermion number. feyngraph (0.1.0b4) turns those of outgoing legs round.
    """
    outgoing = {leg.id() for leg in drawn[numbers[0]].outgoing()}
    lines, leg, ends = drawn.draw(numbers).splitlines(), None, []
    for k, line in enumerate(lines):
        if text := TEXT.match(line):
            leg = int(text[4])
        elif line.startswith("<polygon") and leg in outgoing:
            (x1, y1), (x2, y2) = ends
            points = [f"{x1 + x2 - float(x)} {y1 + y2 - float(y)}" for x, y in POINT.findall(line)]
            lines[k] = f'<polygon points="{", ".join(points)}" fill="black"/>'
            leg = None
        elif line.startswith("<line"):
            ends = [(float(x), float(y)) for x, y in POINT.findall(line)]
        if not line.startswith(("<text", "<line")):
            leg = None
    return "\n".join(lines)


def process_of(row):
    """"e e~ -> mu mu~" from the columns of prepare.py, or else from the amplitude; "" where nobody knows it."""
    if row.get("theory") in THEORIES and row.get("process"):
        return row["process"]
    found = _read(row["amp"])
    processes = [_process(found[1], theory) for theory in THEORIES.values()] if found else []
    return next((process_text(process) for process in processes if process), "")


def _named(row):
    """(diagrams of the process, number of the row's one) from the columns; None where they do not say it."""
    if row.get("theory") not in THEORIES or not row.get("process") or not row.get("diagram"):
        return None
    theory = THEORIES[row["theory"]]
    try:
        process = parse_process(row["process"], theory)
    except InputError:  # another program's text
        return None
    if count_diagrams(process, theory) > MOST:
        return None
    drawn = diagrams(process, theory)
    label = row["diagram"].partition(" off shell:")[0].strip()
    numbers = [k for k, diagram in enumerate(drawn) if propagators_text(diagram) == label]
    return (drawn, numbers[0]) if len(numbers) == 1 else None


def _read(amp):
    """(tree, the Fields of the legs in their order) of an amplitude that is one diagram, else None."""
    try:
        tree = parse(amp)
        terms = expand(tree)
        legs_of(terms)
    except InputError:
        return None
    return None if type(tree) is Sum else (tree, fields_of(terms))


def _only_one(amp):
    """(diagrams, number) of the only diagram with an amplitude's legs and propagators, None if there is not one."""
    found = _read(amp)
    if not found:
        return None
    tree, fields = found
    every = set(range(1, len(fields) + 1))

    def sides(flows):
        """Of each propagator the legs on its two sides, in an order of their own."""
        return sorted(sorted((sorted(legs), sorted(every - legs))) for legs in flows)

    wanted = sides(propagator_legs(tree))
    for theory in THEORIES.values():
        process = _process(fields, theory)
        if process is None or count_diagrams(process, theory) > MOST:
            continue
        drawn = diagrams(process, theory)
        flows = [[{leg for leg, factor in enumerate(p.momentum(), 1) if factor} for p in diagram.propagators()]
                 for diagram in drawn]
        numbers = [k for k in range(len(drawn)) if sides(flows[k]) == wanted]
        if len(numbers) == 1:
            return drawn, numbers[0]
    return None


def _process(fields, theory):
    """
    The process of an amplitude's fields in a theory. None if it has no such particles, if a boson may be a particle or
    an antiparticle, and if the incoming legs are not the first.
    """
    names, incoming = [], []
    for field in fields:
        anti = field.kind == "v"
        found = [particle for particle in theory.particles.values()
                 if (particle.field, KINDS[particle.twice_spin], particle.colour > 1) == identity(field)
                 and (particle.pdg < 0) == anti]
        if len(found) != 1 or not field.kind and found[0].antiparticle != found[0].name:
            return None
        names.append(found[0].name)
        incoming.append(field.starred == anti)
    count = sum(incoming)
    ordered = all(incoming[:count]) and 0 < count < len(names)
    return (tuple(names[:count]), tuple(names[count:])) if ordered else None


def redrawn(svg, propagators):
    """
    feyngraph's picture of one diagram as an inline SVG: small, in the colour of the text, with names at its lines.

    propagators: names of the inner particles. feyngraph draws each leg after a text, then these, in their order.
    """
    lines = [line for line in svg.splitlines() if line.startswith(("<text", "<line", "<path", "<polygon"))]
    points = [(float(x), float(y)) for line in lines for x, y in POINT.findall(line)]
    left, top, right, bottom = (choose(point[k] for point in points) for choose in (min, max) for k in (0, 1))
    shapes, names, leg = [], iter(propagators), None
    for line in lines:
        if line.startswith("<text"):
            leg = TEXT.match(line)
            if leg:
                x, y, name, number = float(leg[1]), float(leg[2]), leg[3], int(leg[4]) + 1
                outside, anchor = (7, "start") if x > (left + right) / 2 else (-7, "end")
                shapes.append(f'<text x="{x + outside:.0f}" y="{y + 5:.0f}" text-anchor="{anchor}">{printed(name)} '
                              f'<tspan class="leg">p<tspan class="number">{number}</tspan></tspan></text>')
            continue
        if not leg and not line.startswith("<polygon"):
            (x1, y1), *_, (x2, y2) = ((float(x), float(y)) for x, y in POINT.findall(line))
            across, along = (x2 - x1, y2 - y1) if x2 > x1 else (x1 - x2, y1 - y2)
            length = math.hypot(across, along)  # the name stands above the line, or to its right
            x, y = (x1 + x2) / 2 + AWAY * along / length, (y1 + y2) / 2 - AWAY * across / length
            name = printed(next(names).removesuffix("~"))  # the arrow tells it from its antiparticle
            shapes.append(f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{name}</text>')
        if not line.startswith("<polygon"):
            leg = None
        line = DECIMAL.sub(lambda match: f"{float(match[0]):.1f}", line)
        shapes.append(STYLE.sub("", line))
    x, y, width, height = left - LABEL, top - MARGIN, right - left + 2 * LABEL, bottom - top + 2 * MARGIN
    return f'<svg class="feynman" viewBox="{x:.0f} {y:.0f} {width:.0f} {height:.0f}">{"".join(shapes)}</svg>'


def printed(name):
    """A particle's name in a picture: an antiparticle has a bar above."""
    plain = name.removesuffix("~")
    text = GREEK.get(plain, plain)
    return "".join(letter + BAR for letter in text) if name != plain else text
