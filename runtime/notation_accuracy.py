"""Accuracy against notation, over seeds of finished runs: table and figure of evaluate.py --notations --compare."""
from notation import ORDERS
from runtime.files import InputError, atomic_open
from runtime.pictures import pyplot_without_screen
from runtime.seeds import ACCURACIES

NOTATION = {"src_notation", "tgt_notation", "shorten_masses", "glue"}
LENGTHS = {"src_max_len", "tgt_max_len"}  # which depend on it
INK = "#333333"


def in_order(groups):
    """The groups, infix first. InputError unless they are of two notations or more and differ in nothing else."""
    if len(groups) < 2:
        raise InputError("compare: with --notations, wanted runs of two notations or more, several seeds of each; "
                         "where a report has no settings, evaluate again")
    if others := sorted(groups[0]["settings"].keys() - NOTATION - LENGTHS):
        raise InputError(f"compare: the runs differ in {', '.join(others)} too; wanted runs that differ in notation "
                         "and seed alone")
    if not groups[0]["settings"].keys() & NOTATION:
        raise InputError("compare: the runs have one notation; wanted runs of two or more")

    def place(group):
        orders = (group["settings"].get(side, "infix") for side in ("src_notation", "tgt_notation"))
        return *map(ORDERS.index, orders), group["settings"].get("shorten_masses", False)

    return sorted(groups, key=place)


def name_of(settings):
    """A notation in words, from the settings in which the groups differ."""
    source, target = settings.get("src_notation"), settings.get("tgt_notation")
    if source and target:
        name = source if source == target else f"{source} amplitudes, {target} squares"
    elif source or target:
        name = f"{source or target} {'amplitudes' if source else 'squares'}"
    else:
        name = ""
    if "shorten_masses" in settings:
        shortened = "masses shortened" if settings["shorten_masses"] else "" if name else "masses not shortened"
        name = ", ".join(filter(None, [name, shortened]))
    if "glue" in settings:
        name = ", ".join(filter(None, [name, f"glue={settings['glue']}"]))
    return name


def table(groups):
    """Markdown table: means over seeds with their intervals, each seed, and what a row and a run cost."""
    head = ["notation", "seeds", "exact, mean (95%)", "each seed", "right physics, mean (95%)", "each seed",
            "tokens of amplitude + square", "tokens/s", "steps", "minutes"]
    lines = [f"| {' | '.join(head)} |", "| --- |" + " --- |" * (len(head) - 1)]
    for group in groups:
        cells = [name_of(group["settings"]), str(len(group["seeds"]))]
        for key in ACCURACIES:
            found = group[key]
            interval = " ({:.1%} to {:.1%})".format(*found["interval"]) if found["interval"] else ""
            cells += [f"{found['mean']:.1%}{interval}", " / ".join(f"{100 * share:.1f}" for share in found["each"])]
        lengths = [number(group[key], ".1f") for key in ("source_tokens", "target_tokens")]
        cells += [" + ".join(lengths), number(group["tokens_per_second"], ",.0f"), number(group["steps"], ",.0f"),
                  number(group["minutes"], ".1f")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value, form):
    return "-" if value is None else format(value, form)


def draw(groups, output):
    """SVG: for each notation the share of each seed, their mean with its interval, and the tokens of a row."""
    pyplot = pyplot_without_screen("svg", "notations")
    size = (9, 1.3 + 0.55 * len(groups))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=size, sharey=True, width_ratios=(3, 2), layout="constrained")
    places = range(len(groups))
    for key, colour, shift, name in (("sequence_accuracy", "C0", -0.14, "exact text"),
                                     ("right_physics", "C2", 0.14, "right physics")):
        for place, group in zip(places, groups):
            found, y = group[key], place + shift
            if found["interval"]:
                left.plot([100 * end for end in found["interval"]], [y, y], color=colour, linewidth=1.2)
            left.plot([100 * share for share in found["each"]], [y] * len(found["each"]), "o", color=colour,
                      markersize=4, alpha=0.5, label=f"{name}: each seed" if place == 0 else None)
            left.plot(100 * found["mean"], y, "|", color=colour, markersize=13, markeredgewidth=2.5,
                      label=f"{name}: mean, 95% interval" if place == 0 else None)
    left.set_yticks(places, [name_of(group["settings"]) for group in groups])
    left.invert_yaxis()
    left.set_xlabel("test rows that are right, %")
    left.grid(axis="x", alpha=0.3)
    for place, group in zip(places, groups):
        lengths = [group["source_tokens"] or 0, group["target_tokens"] or 0]
        right.barh(place, lengths[0], color="C0", alpha=0.75, height=0.5, label="amplitude" if place == 0 else None)
        right.barh(place, lengths[1], left=lengths[0], color="C1", alpha=0.75, height=0.5,
                   label="square" if place == 0 else None)
        right.text(sum(lengths), place, f" {sum(lengths):.0f}", va="center", color=INK, fontsize=8)
    right.set_xlabel("tokens of a row, mean")
    right.margins(x=0.12)
    right.tick_params(left=False)
    handles, names = left.get_legend_handles_labels()
    more, others = right.get_legend_handles_labels()
    figure.legend(handles + more, names + others, fontsize=7, ncols=6, loc="outside upper center", frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_open(output, "w") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)
