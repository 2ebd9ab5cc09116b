"""Feynman diagrams of a process as SVG, under each its amplitude and its square, typeset by matplotlib."""
import re
from xml.sax.saxutils import escape

from physics.amplitude import amplitude, diagrams, process_text
from physics.diagrams import svg_of
from physics.expression import parse
from physics.latex import latex_lines
from physics.particles import Facts, unknown_masses
from physics.square import square_many
from runtime.files import InputError

CELL = re.compile(r'<g transform = "translate\([^)]*\)">\n(.*?)</g>', re.DOTALL)
LEG = re.compile(r">([^<>()]+)\((\d+)\)<")  # feyngraph's label of a leg: particle and number, from 0
SIDE, HEIGHT = 300, 325      # of a diagram in feyngraph's sheet, in pixels
WIDTH = 1200                 # of the sheet, unless one diagram needs more
MARGIN = 20
FONT_SIZE = 14
LINE = 72                    # printed characters of a line of a formula
MOVES = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}          # matplotlib's codes of path segments, and SVG's
POINTS = {"Q": 2, "C": 3}    # so many points belong to one such segment, to the others one


def sheet(process, theory):
    """SVG text of all tree diagrams of a process: each with i M and, averaged and summed, |M|^2 of it alone."""
    drawn = diagrams(process, theory)
    amps = [amplitude(diagram, process, theory) for diagram in drawn]
    glyphs, cells = {}, CELL.findall(LEG.sub(_label, svg_of(drawn, list(range(len(drawn))))))
    boxes = []
    squares = square_many(amps, facts=[Facts(process_text(process), unknown_masses(theory))] * len(amps))
    for cell, amp, sqamp in zip(cells, amps, squares, strict=True):
        formulas = [_typeset(r"i\mathcal{M} = ", latex_lines(parse(amp), LINE), glyphs)]
        sqamp = "0" if amp == "0" else sqamp                 # by chirality
        if isinstance(sqamp, InputError):
            formulas.append((f'<text y="{FONT_SIZE}" font-size="12">not squared: {escape(str(sqamp))}</text>\n', 0, 20))
        else:
            formulas.append(_typeset(r"\overline{|\mathcal{M}|^2} = ", latex_lines(parse(sqamp), LINE), glyphs))
        boxes.append((cell, formulas))
    side = max([SIDE, *(MARGIN + width for _, formulas in boxes for _, width, _ in formulas)])
    columns = min(max(1, int(WIDTH // side)), len(boxes))
    pieces, top = [], 0.0
    for first in range(0, len(boxes), columns):
        row, below = boxes[first:first + columns], 0.0
        for column, (cell, formulas) in enumerate(row):
            pieces.append(f'<g transform="translate({column * side + (side - SIDE) / 2:.0f}, {top:.0f})">\n{cell}</g>')
            y = top + HEIGHT
            for text, _, height in formulas:
                pieces.append(f'<g transform="translate({column * side + MARGIN / 2:.0f}, {y:.0f})">\n{text}</g>')
                y += height
            below = max(below, y)
        top = below + MARGIN
    shapes = "".join(f'<path id="{name}" d="{d}"/>\n' for name, d in glyphs.values())
    size = f'width="{columns * side:.0f}" height="{top:.0f}" viewBox="0 0 {columns * side:.0f} {top:.0f}"'
    return (f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" {size}>\n'
            f"<title>{escape(process_text(process))}</title>\n<defs>\n{shapes}</defs>\n"
            + "\n".join(pieces) + "\n</svg>\n")


def _label(match):
    """`e(0)` becomes e(p_1), as the leg is called in the amplitude."""
    return f'>{match[1]}(p<tspan dy="4" font-size="10">{int(match[2]) + 1}</tspan><tspan dy="-4">)</tspan><'


def _typeset(left, lines, glyphs):
    """(SVG text, width, height) of a formula's lines, the first one after `left`, the others indented.

    glyphs: {matplotlib's name of a glyph: (name in the SVG, path)}, which grows; the text refers to these.
    """
    try:
        import matplotlib
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import text_to_path
    except ImportError:
        raise InputError("draw: matplotlib is not installed; pip install matplotlib") from None
    scale = FONT_SIZE / text_to_path.FONT_SCALE
    pieces, width, top = [], 0.0, 0.0
    for number, line in enumerate(lines):
        text = ("" if number else left) + line.replace(r"\frac", r"\dfrac", 1)
        with matplotlib.rc_context({"mathtext.fontset": "cm"}):
            placed, shapes, bars = text_to_path.get_glyphs_mathtext(FontProperties(), f"${text}$")
        indent = 2 * FONT_SIZE if number else 0
        uses, points = [], []                                # in units of matplotlib's font, y up
        for glyph, x, y, size in placed:
            corners, codes = shapes[glyph]
            if glyph not in glyphs:
                glyphs[glyph] = f"g{len(glyphs)}", _path(corners, codes)
            uses.append(f'<use href="#{glyphs[glyph][0]}" transform="translate({x:.0f},{y:.0f}) scale({size:.3g})"/>')
            points += [(x + size * a, y + size * b) for a, b in corners]
        for corners, codes in bars:
            uses.append(f'<path d="{_path(corners, codes)}"/>')
            points += [tuple(corner) for corner, code in zip(corners, codes) if code != 79]
        highest, lowest = max(y for _, y in points), min(y for _, y in points)
        baseline = top + scale * highest + FONT_SIZE / 3
        pieces.append(f'<g transform="translate({indent},{baseline:.1f}) scale({scale:.3g},-{scale:.3g})">'
                      f"{''.join(uses)}</g>\n")
        width = max(width, indent + scale * max(x for x, _ in points))
        top = baseline - scale * lowest + FONT_SIZE / 3
    return "".join(pieces), width, top


def _path(corners, codes):
    """SVG's text of a path of matplotlib."""
    pieces, k = [], 0
    while k < len(codes):
        move = MOVES[int(codes[k])]
        count = POINTS.get(move, 1)
        pieces.append(move if move == "Z" else move + " ".join(f"{x:.0f} {y:.0f}" for x, y in corners[k:k + count]))
        k += count
    return "".join(pieces)
