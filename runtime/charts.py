"""Line charts as SVG that a page has inside; their colours are those of the page's style (page.css)."""
import html
import math
import re

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 290, 62, 42, 12, 24  # of a chart, and its margins


def ticks(low, high, count=5):
    """Round numbers between low and high, about `count` of them."""
    span = (high - low) or 1
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def powers(low, high):
    """Logarithms of round numbers from 10^low to 10^high: powers of ten; where fewer than two fit also 2, 5, 20, ..."""
    tens = range(math.floor(low), math.floor(high) + 1)
    found = [float(ten) for ten in tens if ten >= low]
    if len(found) < 2:
        found = [at for ten in tens for at in (ten + math.log10(factor) for factor in (1, 2, 5)) if low <= at <= high]
    return found


def chart(title, series, x_name, y_name, x_range=None, y_range=None, log=False, shares=False, extra=""):
    """
    A line chart with a legend, as a figure. series: (name, points (x, y), CSS class); a class with `dots` has dots
    only. log: the y axis is logarithmic. shares: the axes whose numbers are 0..1 say 0% to 100%.
    """
    points = [point for _, line, _ in series for point in line]
    x_low, x_high = x_range or (min(x for x, _ in points), max(x for x, _ in points))
    y_low, y_high = y_range or (min(y for _, y in points), max(y for _, y in points))
    scale = math.log10 if log else float
    y_low, y_high = scale(y_low), scale(y_high)
    if not y_range:
        y_low, y_high = y_low - 0.04 * (y_high - y_low or 1), y_high + 0.04 * (y_high - y_low or 1)

    def place(x, y):
        y = min(max(scale(y), y_low), y_high)
        return (LEFT + (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (HEIGHT - BOTTOM - TOP))

    marks = []
    for x in ticks(x_low, x_high):
        at, _ = place(x, 10**y_low if log else y_low)
        text = f"{x:.0%}" if shares and x_high <= 1 else f"{x:,.10g}"
        marks.append(f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
                     f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{text}</text>')
    for y in ticks(y_low, y_high) if not log else powers(y_low, y_high):
        _, at = place(x_low, 10**y if log else y)
        text = number_text(10.0**y) if log else f"{100 * y:.4g}%" if shares else number_text(y)
        marks.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
                     f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    lines = []
    for name, line, kind in series:
        placed = [place(*point) for point in line]
        if "dots" not in kind:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
            lines.append(f'<path class="line {kind}" d="M{path}"/>')
        if "dots" in kind or len(placed) <= 20:
            lines += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{html.escape(name)}: '
                      f"{value_text(point, shares, x_high <= 1)}</title></circle>"
                      for (x, y), point in zip(placed, line)]
    extra = extra(place) if extra else ""
    across, up = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    names = [f'<text class="axis" x="{across}" y="{HEIGHT - 6}" text-anchor="middle">{x_name}</text>',
             f'<text class="axis" transform="translate(14 {up}) rotate(-90)" text-anchor="middle">{y_name}</text>']
    legend = "".join(f'<li class="{kind}">{html.escape(name)}</li>' for name, _, kind in series if name)
    return (f'<figure><figcaption>{title}</figcaption><svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{html.escape(re.sub("<[^>]*>", "", title))}">{"".join(marks + [extra] + lines + names)}</svg>'
            f'<ul class="legend">{legend}</ul></figure>')


def number_text(value):
    """0.01 or 5e-4."""
    return f"{value:.10g}" if value == 0 or abs(value) >= 0.005 else f"{value:.0e}".replace("e-0", "e−")


def value_text(point, shares, x_is_share):
    x, y = point
    return (f"{x:.1%}, " if shares and x_is_share else f"{x:,.6g}, ") + (f"{y:.1%}" if shares else f"{y:.4g}")
