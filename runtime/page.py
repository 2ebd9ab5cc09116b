"""
The page of a run: what report.json holds, as one HTML file that opens without a network.

`page_of` and `comparison_page` are pure functions from the content of report.json, or of compare.json, to text. Charts
are SVG, formulas MathML. page.css is its style, page.js its script, which only filters, sorts and moves the focus:
without it all is there.
"""
import difflib
import html
import math
import re
from pathlib import Path

from dataset.card import LOOKUP
from physics import mathml
from physics.diagrams import picture, process_of
from runtime.charts import chart
from runtime.files import InputError
from runtime.intervals import wilson

LARGEST = 2_600_000  # bytes of the rows on a page: those that do not fit are left out
VERDICTS = {"right": "right", "right but spelled otherwise": "otherwise", "wrong": "wrong", "unfinished": "unfinished",
            "unreadable": "unreadable"}  # and the CSS class of each
FIGURES = {"logprob": "probability of the whole answer", "token_mean": "mean probability of a token",
           "token_min": "least probable token", "margin": "margin to the next candidate",
           "agreement": "agreement of the candidates"}
STYLE, SCRIPT = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))


def page_of(report):
    """The page of one run as text. report: the content of report.json."""
    name = report.get("checkpoint") or report["input"]
    sections = [
        ("scores", "Scores", scores(report)),
        ("groups", "Where it is right", groups(report)),
        ("certainty", "Does it know when it is wrong?", certainty(report)),
        ("training", "Training", training(report)),
        ("rows", "Rows", rows(report)),
    ]
    sections = [section for section in sections if section[2]]
    return document(f"Report: {name}", header(report, name), sections)


def comparison_page(comparison):
    """The page of several runs on the same rows as text. comparison: the content of compare.json."""
    count = comparison["rows"]
    about = f"<h1>Runs compared</h1><p>The same {count:,} rows of <code>{escape(comparison['input'])}</code>.</p>"
    sections = [("seeds", "Means over seeds", over_seeds(comparison)),
                ("comparison", "Run by run", compared(comparison))]
    return document("Runs compared", about, [section for section in sections if section[2]])


def document(title, about, sections):
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{name}</h2>{content}</section>' for key, name, content in sections)
    navigation = f"<nav aria-label='Sections'>{links}</nav>" if len(sections) > 1 else ""
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark"><meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">"
            f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>\n<body><header>{about}{navigation}</header>'
            f"<main>{body}</main><script>{SCRIPT}</script></body></html>\n")


def escape(text):
    return html.escape(str(text))


def percent(share, digits=1):
    return f"{share:.{digits}%}"


def interval_text(interval):
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}%"


def with_interval(share, interval):
    """A share with its interval in grey, on a narrow screen below it."""
    return f'{percent(share)} <span class="dim under">{interval_text(interval) if interval else ""}</span>'


def table(head, lines, classes=""):
    """An HTML table; the first cell of a line is its heading. The cells are markup."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f'<tr><th scope="row">{line[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in line[1:]) + "</tr>"
                   for line in lines)
    table = f'<table class="{classes}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide" tabindex="0" role="region" aria-label="Table">{table}</div>'


# ---------------------------------------------------------------------------------------------------------------------
# Scores

def header(report, name):
    facts = [f"{report['rows']:,} rows of <code>{escape(report['input'])}</code>"]
    if report.get("split"):
        facts.append(f"split “{escape(report['split'])}”")
    if "step" in report:
        facts.append(f"step {report['step']:,}, seed {report['seed']}")
        facts.append(search_text(report["search"]))
    return f"<p class='dim'>Squares of scattering amplitudes</p><h1>{escape(name)}</h1><p>{' · '.join(facts)}</p>"


def search_text(search):
    """How answers were found, in words; search: of report.json."""
    if search.get("samples"):
        text = f"{search['samples']} samples"
    else:
        text = f"beam of {search['beam_size']}" if search.get("beam_size", 1) > 1 else "greedy decoding"
    return f"{text}, verified" if search.get("check") else text


def scores(report):
    """Each headline figure with its interval, the lookup table and the ceiling."""
    shown = [("sequence_accuracy", "Sequence accuracy", "the exact text of the square"),
             ("right_physics", "Right physics", "the exact text, or proven to be the square"),
             ("token_accuracy", "Token accuracy", "positions with the right token")]
    if report["coverage"]:
        shown.append(("coverage", "Verified", "proven right before anyone sees the truth"))
    tiles = "".join(tile(report, *figure) for figure in shown)
    lookup = "".join(f"<li><b>{percent(share)}</b> {escape(LOOKUP.get(kind, kind))}</li>"
                     for kind, share in report["lookup"].items())
    known = report["rows_in_training_set"]
    notes = [f"{known:,} of the rows stand in the training set up to index names." if known else
             "No row stands in the training set, up to index names."]
    if known and (unseen := report["unseen"]):
        notes.append(f"Of the {unseen['rows']:,} others {percent(unseen['sequence_accuracy'])} are exact, "
                     f"{percent(unseen['right_physics'])} are right physics.")
    if report["ceiling"] < 1:
        notes.append(f"{report['rows_with_several_texts']:,} rows have an amplitude that stands with several right "
                     f"texts, so exact match can reach {percent(report['ceiling'], 2)}.")
    if report["mistakes"]:
        kinds = ", ".join(f"{count:,} {escape(kind)}" for kind, count in report["mistakes"].items())
        notes.append(f"What is wrong with wrong answers: {kinds}.")
    if report["rows_unproven"]:
        notes.append(f"{report['rows_unproven']:,} answers counted as wrong are equal to the square in floating point, "
                     "but have no proof.")
    if report.get("rows_unreadable"):
        notes.append(f"{report['rows_unreadable']:,} more rows cannot be read or judged and count nowhere.")
    counts = " ".join(f'<span class="badge {VERDICTS[verdict]}">{count:,} {escape(verdict)}</span>'
                      for verdict, count in report["verdicts"].items() if count)
    return (f'<div class="tiles">{tiles}</div><p>{counts}</p><div class="notes"><div><h3>What a lookup table of the '
            f"training rows scores</h3><ul>{lookup}</ul></div><div><h3>To read with it</h3><ul>"
            + "".join(f"<li>{note}</li>" for note in notes) + "</ul></div></div>")


def tile(report, key, name, meaning):
    value, interval = report[key], report["intervals"][key]
    marks = beside = ""
    if key in ("sequence_accuracy", "right_physics"):
        known, highest = report["lookup_accuracy"], report["ceiling"] if key == "sequence_accuracy" else 1
        marks = position("lookup", known, "lookup table") + position("ceiling", highest, "ceiling")
        beside = (f'<span><i class="key lookup"></i>lookup table {percent(known)}</span> '
                  f'<span><i class="key ceiling"></i>ceiling {percent(highest)}</span>')
    band = f'<i class="band" style="left:{100 * interval[0]:.2f}%;width:{100 * (interval[1] - interval[0]):.2f}%"></i>'
    return (f'<div class="tile"><h3>{name}</h3><p class="big">{percent(value, 2)}</p><p class="dim">95% interval '
            f'{interval_text(interval)}</p><div class="scale" aria-hidden="true"><i class="fill" '
            f'style="width:{100 * value:.2f}%"></i>{band}{marks}</div><p class="dim">{beside or meaning}</p>'
            + (f'<p class="dim">{meaning}</p>' if beside else "") + "</div>")


def position(kind, share, title):
    return f'<i class="{kind}" style="left:{100 * share:.2f}%" title="{title} {percent(share)}"></i>'


# ---------------------------------------------------------------------------------------------------------------------
# Groups of rows

def groups(report):
    trained = report.get("train", {})
    blocks = []
    for key, title in (("by_process", "Kind of process"), ("by_diagram", "Diagram type"),
                       ("by_length", "Tokens of the square"), ("by_terms", "Terms of the polynomial")):
        lines = []
        for name, group in report[key].items():
            line = [channels(name) if key == "by_diagram" else formatted(name), f"{group['rows']:,}",
                    bar(group["sequence_accuracy"], group["rows"]), percent(group["right_physics"])]
            if key in trained:
                seen = trained[key].get(name)
                line.append(f'{percent(seen["sequence_accuracy"])} <span class="dim under">of {seen["rows"]}</span>'
                            if seen else "–")
            lines.append(line)
        head = [title, "rows", "exact", "physics"] + ["training rows"] * (key in trained)
        blocks.append(f"<div>{table(head, lines, 'bars')}</div>")
    return ('<p class="dim">The bar is the share of exact texts, the line its 95% interval. f is a fermion, f̄ an '
            f'antifermion, A the photon, G the gluon.</p><div class="columns">{"".join(blocks)}</div>')


def formatted(name):
    """e mu~ -> A A with Greek letters, bars and an arrow; 4-7 with a dash."""
    if numbers := re.fullmatch(r"(\d+)-(\d+)", name):
        return numbers[1] if numbers[1] == numbers[2] else f"{numbers[1]}–{numbers[2]}"
    name = re.sub(r"\b(?:mu|tau|nu)(?![^\W_])", lambda match: mathml.GREEK[match[0]], escape(name))
    name = re.sub(r"([^\W_]+)(_\w+)?~",
                  lambda match: "".join(f"{letter}\u0304" for letter in match[1]) + (match[2] or ""), name)
    return name.replace("-&gt;", "→")


def channels(name):
    """What `diagram_type` says, "s, t", in words."""
    if re.fullmatch(r"[stu](, [stu])*", name):
        return f"{name} channel{'s' * (len(name) > 1)}"
    return f"{name} diagrams" if name.startswith("sum") else escape(name)


def bar(share, count):
    low, high = (100 * end for end in wilson(round(share * count), count))
    line = f'<i class="band" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
    return (f'<span class="number">{percent(share)}</span><span class="bar" aria-hidden="true"><i class="fill" '
            f'style="width:{100 * share:.1f}%"></i>{line}</span>')


# ---------------------------------------------------------------------------------------------------------------------
# Certainty and training

def certainty(report):
    curves, bins = report["accuracy_at_coverage"], report["reliability"]
    if not curves:
        return ""
    series = [(FIGURES[figure], points, f"c{k}") for k, (figure, points) in enumerate(curves.items())]
    lowest = min(accuracy for _, points, _ in series for _, accuracy in points)
    if report["coverage"]:
        series.append(("verified answers", [(report["coverage"], 1.0)], "dots verified"))
    figures = [chart("Right physics among the most certain answers", series, "share of the rows that is answered",
                     "right physics", (0, 1), (max(0.0, min(lowest - 0.02, 0.9)), 1), shares=True)]
    order = list(curves)
    for figure, found in bins.items():
        kind = f"c{order.index(figure)}"
        points = [(group["predicted"], group["right"]) for group in found["bins"]]

        def bars(place, groups=found["bins"], kind=kind):
            (x1, y1), (x2, y2) = place(0, 0), place(1, 1)
            lines = f'<path class="ideal" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'
            for group in groups:
                x, low = place(group["predicted"], group["interval"][0])
                _, high = place(group["predicted"], group["interval"][1])
                lines += f'<path class="line thin {kind}" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
            return lines

        title = (f"Reliability: {FIGURES[figure]} <span class='dim'>expected calibration error "
                 f"{percent(found['error'])}</span>")
        figures.append(chart(title, [("", points, f"dots {kind}")], "probability that the model gives", "right physics",
                             (0, 1), (0, 1), shares=True, extra=bars))
    shares, intervals = list(next(iter(report["certainty"].values()))), report["certainty_intervals"]
    lines = [[FIGURES[figure], *(with_interval(right, intervals[figure][share]) for share, right in found.items())]
             for figure, found in report["certainty"].items()]
    verified = ""
    if report["coverage"]:
        verified = (f"<p>Verification, beside these: {percent(report['coverage'])} of the rows have an answer that is "
                    "proven right.</p>")
    return (f'<div class="figures">{"".join(figures)}</div><h3>Right physics among the most certain answers</h3>'
            + table(["share of the rows, ordered by", *shares], lines) + verified
            + '<p class="dim">Intervals are of 95%, over the rows. A dot of a reliability diagram is a tenth of the '
              "rows, or one of fewer than ten; the line is its interval. On the diagonal a probability is what it "
              "says. A verified answer need not be the most probable one.</p>")


def training(report):
    curves = report.get("curves") or {}
    figures = []

    def add(title, y_name, keys, **options):
        log = options.get("log")  # a loss of 0 has no place on a logarithmic axis
        series = [(name, [point for point in curves.get(key, ()) if point[1] > 0 or not log], kind)
                  for key, name, kind in keys]
        series = [line for line in series if line[1]]
        if series:
            figures.append(chart(title, series, "step", y_name, **options))

    add("Loss", "loss of a token", [("loss", "training", "c0"), ("valid_loss", "validation", "dots c1")], log=True)
    add("Rows exactly right", "exact match", [("valid_exact", "validation", "c1"), ("train_exact", "training", "c0")],
        y_range=(0, 1), shares=True)
    add("Learning rate", "learning rate", [("learning_rate", "learning rate", "c2")])
    return f'<div class="figures">{"".join(figures)}</div>' if figures else ""


# ---------------------------------------------------------------------------------------------------------------------
# Rows

def rows(report):
    """The rows that report.json shows, each as an article, and the controls that filter and sort them."""
    articles, shown, size = [], [], 0
    for example in report["examples"]:
        article = row_article(example)
        if size + len(article.encode()) <= LARGEST:
            size += len(article.encode())
            articles.append(article)
            shown.append(example)
    if not articles:
        return ""
    left_out = len(report["examples"]) - len(shown)
    verdicts = dict.fromkeys(example["verdict"] for example in shown)
    kinds = sorted({example["kind"] for example in shown})
    types = sorted({example["diagram_type"] for example in shown})
    controls = (
        select("set", "Rows", [("", "all of them"), ("worst", "worst errors"), ("random", "random sample")])
        + select("verdict", "Verdict", [("", "any"), *((VERDICTS[verdict], verdict) for verdict in verdicts)])
        + select("kind", "Process", [("", "any"), *((kind, formatted(kind)) for kind in kinds)])
        + select("type", "Diagram", [("", "any"), *((kind, channels(kind)) for kind in types)])
        + select("sort", "Sort by", [("", "worst, then random"), ("-p", "most certain first"),
                                     ("p", "least certain first"), ("-n", "longest first"), ("n", "shortest first"),
                                     ("number", "row number")])
        + '<label>Search <input id="search" type="search" placeholder="m_mu, s_13, ..." autocomplete="off"></label>'
    )
    return (
        "<p>The worst errors are the wrong answers of which the model is most certain; the random sample is of all "
        "rows. A token is the redder the less probable the model found it. <mark>Marked</mark> tokens, factors and "
        "terms stand in only one of answer and truth. <i>s<sub>ij</sub></i> = <i>p<sub>i</sub></i>·"
        "<i>p<sub>j</sub></i>, <i>ϵ</i> "
        "regulates the propagators, <i>ε</i>(<i>p</i>) is the polarisation of a boson.</p>"
        f'<form class="controls">{controls}</form>'
        f'<p id="count" role="status">{len(articles)} rows</p>'
        + (f'<p class="dim">{left_out} more are too long for this page; report.json has them.</p>' if left_out else "")
        + '<p class="dim keys">Keys: <kbd>j</kbd> and <kbd>k</kbd> '
        'go to the next and the previous row, <kbd>/</kbd> to the search.</p>'
        f'<div id="list">{"".join(articles)}</div>')


def select(key, name, options):
    options = "".join(f'<option value="{escape(value)}">{text}</option>' for value, text in options)
    return f'<label>{name} <select id="{key}">{options}</select></label>'


def row_article(example):
    verdict, probability = example["verdict"], example["logprob"]
    known = probability is not None
    data = {"set": example["set"], "verdict": VERDICTS[verdict], "kind": example["kind"],
            "type": example["diagram_type"], "p": f"{probability:.6g}" if known else "-1e9",
            "n": example["tokens"], "number": example["row"]}
    attributes = " ".join(f'data-{key}="{escape(value)}"' for key, value in data.items())
    facts = [f"row {example['row']:,}", channels(example["diagram_type"]), f"{example['tokens']} tokens"]
    if known:
        facts.append(f"probability {probability_text(math.exp(probability))}")
    if example["status"] in ("verified", "unverified", "computed"):
        facts.append(example["status"])
    truth, answer = example["truth_tokens"], [token for token, _ in example["answer_tokens"]]
    same = example["prediction"] == example["sqamp"]
    only_answer, only_truth = differing(answer, truth)
    parts = [("amplitude", formula(mathml.amplitude, example["amp"])),
             ("answer", formula(mathml.square, example["prediction"], example["sqamp"])
              + strip(example["answer_tokens"], only_answer))]
    if not same:
        parts.append(("truth", formula(mathml.square, example["sqamp"], example["prediction"])
                      + strip([(token, None) for token in truth], only_truth)))
    if example.get("reason"):
        parts.append(("check", escape(example["reason"])))
    body = "".join(f"<dt>{name}</dt><dd>{content}</dd>" for name, content in parts)
    texts = [("amp", example["amp"]), ("answer", example["prediction"]), ("truth", example["sqamp"])]
    texts = "".join(f"<dt>{name}</dt><dd><code>{escape(text)}</code></dd>" for name, text in texts[:2 if same else 3])
    drawn = picture(example)
    title = formatted(process_of(example) or example["kind"])
    return (f'<article tabindex="0" {attributes}><h3>{title} <span class="badge {VERDICTS[verdict]}">{escape(verdict)}'
            f'</span></h3><p class="dim">{" · ".join(facts)}</p><div class="row">{drawn}<dl>{body}</dl></div>'
            f"<details><summary>as text</summary><dl>{texts}</dl></details></article>\n")


def probability_text(probability):
    return f"{probability:.1%}" if probability >= 0.001 else f"{probability:.0e}"


def formula(write, *texts):
    try:
        return f'<div class="formula">{write(*texts)}</div>'
    except InputError as error:
        return f'<p class="dim">no formula: {escape(error)}</p>' if texts[0] else '<p class="dim">nothing</p>'


def differing(first, second):
    """(numbers of the tokens of `first` that are not matched in `second`, and the other way round)."""
    only_first, only_second = set(), set()
    for kind, a, b, c, d in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind != "equal":
            only_first.update(range(a, b))
            only_second.update(range(c, d))
    return only_first, only_second


def strip(tokens, marked):
    """Tokens in a row. tokens: (text, probability or None); marked: numbers of those that differ."""
    pieces = []
    for k, (token, probability) in enumerate(tokens):
        text, attribute = token_text(token), ""
        if probability is not None:
            attribute = f' title="{probability_text(probability)}"' if probability < 0.995 else ""
            if probability < 0.995:
                attribute += f' style="--u:{100 * (1 - probability):.0f}%"'
        tag = "mark" if k in marked else "b"
        pieces.append(f"<{tag}{attribute}>{text}</{tag}>")
    return f'<p class="strip">{" ".join(pieces)}</p>' if pieces else ""


def token_text(token):
    """m_e^2 with an index and a power."""
    token = escape(token.lstrip("#") if len(token) > 1 and token[0] == "#" else token)
    token = re.sub(r"\^\(?(-?\w+(?:/\w+)?)\)?", r"<sup>\1</sup>", token)
    token = re.sub(r"(?<=\w)_(\w+)", lambda match: f"<sub>{mathml.GREEK.get(match[1], match[1])}</sub>", token)
    return token.replace("reg<sub>prop</sub>", "ϵ").replace("-", "−")


# ---------------------------------------------------------------------------------------------------------------------
# Runs compared

def compared(comparison):
    head = ["run", "exact", "95% interval", "right physics", "95% interval"]
    lines = [[f"<code>{escape(run['run'])}</code>", percent(run["sequence_accuracy"]["share"], 2),
              interval_text(run["sequence_accuracy"]["interval"]), percent(run["right_physics"]["share"], 2),
              interval_text(run["right_physics"]["interval"])] for run in comparison["runs"]]
    content = table(head, lines)
    for key, name in (("sequence_accuracy", "Sequence accuracy"), ("right_physics", "Right physics")):
        pairs = [[f"<code>{escape(pair['run'])}</code>", f"{100 * pair[key]['difference']:+.2f}",
                  f"{100 * pair[key]['interval'][0]:+.2f} to {100 * pair[key]['interval'][1]:+.2f}",
                  f"{pair[key]['only_this']:,} / {pair[key]['only_first']:,}", f"{pair[key]['p']:.3g}"]
                 for pair in comparison["differences"]]
        first = escape(comparison["runs"][0]["run"])
        content += (f"<h3>{name}: difference from <code>{first}</code></h3>"
                    + table(["run", "points", "95% interval", "right here only / there only", "McNemar p"], pairs))
    return content + ('<p class="dim">Differences are in percentage points, over the same rows; their intervals are '
                      "bootstrap percentiles over rows. They say nothing of other seeds: a run is one draw of its "
                      "seed.</p>")


def over_seeds(comparison):
    """Means of the groups of runs that differ in their seed; "" where there is none."""
    groups = comparison["groups"]
    if not groups:
        return ""
    content = ""
    for key, name in (("sequence_accuracy", "Sequence accuracy"), ("right_physics", "Right physics")):
        differences = {pair["name"]: pair[key] for pair in comparison["group_differences"]}
        lines = []
        for group in groups:
            found, pair = group[key], differences.get(group["name"])
            points = ""
            if pair:
                points = f"{100 * pair['difference']:+.2f}"
                if pair["interval"]:
                    low, high = pair["interval"]
                    points += f' <span class="dim under">{100 * low:+.2f} to {100 * high:+.2f}</span>'
            lines.append([f"<code>{escape(group['name'])}</code>", with_interval(found["mean"], found["interval"]),
                          " / ".join(percent(share) for share in found["each"]), points])
        content += f"<h3>{name}</h3>" + table(["settings", "mean", "each seed", "points more than the first"], lines)
    for group in groups:
        if group["certainty"]:
            shares = list(next(iter(group["certainty"].values())))
            lines = [[FIGURES[figure], *(with_interval(value["mean"], value["interval"]) for value in found.values())]
                     for figure, found in group["certainty"].items()]
            content += (f"<h3>Right physics among the most certain answers, <code>{escape(group['name'])}</code></h3>"
                        + table(["share of the rows, ordered by", *shares], lines))
            if group["coverage"] and group["coverage"]["mean"]:
                share = with_interval(group["coverage"]["mean"], group["coverage"]["interval"])
                content += f"<p>Verification, beside these: rows with an answer that is proven right: {share}</p>"
    return content + ('<p class="dim">Runs of one line have the same settings but for the seed. Intervals are of 95%, '
                      "over seeds: Student's t of the mean, Welch's t of a difference.</p>")
