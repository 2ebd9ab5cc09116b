"""The page of a run: what is on it, and what headless Chromium makes of it."""
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from test_evaluate import answered, judged, reordered
from tiny import make_run, qed_rows, write_csv

from decode import decode, load
from evaluate import details_of, main, report_of, scored_tokens, token_probabilities
from runtime.certainty import accuracy_at_coverage, certainty, certainty_intervals, reliability
from runtime.charts import chart, ticks
from runtime.compare import compare, comparison_table
from runtime.files import InputError
from runtime.intervals import student, wilson
from runtime.notation_accuracy import name_of
from runtime.page import comparison_page, differing, formatted, page_of, strip, token_text, training
from runtime.scores import intervals, terms_of
from tokenizer import EOS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
NARROW, WIDE = 390, 1280


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, report, page) of a model that errs, by beam search with verification."""
    folder = tmp_path_factory.mktemp("tiny")
    rows = make_run(folder, steps=20)
    for name in ("train", "valid", "test"):
        write_csv(folder / "data" / f"{name}.csv", rows)
    (folder / "run" / "log.jsonl").write_text("".join(json.dumps(
        {"step": step, "loss": 3 / step, "learning_rate": 1e-3}
        | ({"valid_loss": 4 / step, "valid_exact": 0.5} if step % 20 == 0 else {})) + "\n" for step in range(1, 61)))
    main([f"--ckpt={folder / 'run' / 'best.pt'}", "--device=cpu", "--beam", "--verify", "--agree"])
    report = json.loads((folder / "run" / "report.json").read_text())
    return folder, report, (folder / "run" / "report.html").read_text()


def test_the_page_is_a_function_of_report_json(run):
    _, report, page = run
    assert page == page_of(report)
    assert len(page.encode()) < 3_000_000


def test_the_page_asks_for_nothing(run):
    page = run[2]
    assert not re.findall(r'(?:src|href|action)="(?!#|data:)[^"]*"', page) and "http://" not in page
    assert "https://" not in page and "@import" not in page and "url(" not in page


def test_the_page_shows_the_scores_with_what_they_must_be_read_with(run):
    _, report, page = run
    for share in (report["sequence_accuracy"], report["right_physics"], report["token_accuracy"]):
        assert f"{share:.2%}" in page
    low, high = report["intervals"]["right_physics"]
    assert f"{100 * low:.1f}–{100 * high:.1f}%" in page
    assert f"lookup table {report['lookup_accuracy']:.1%}" in page and f"ceiling {report['ceiling']:.1%}" in page
    assert page.count("<article") == len(report["examples"]) == page.count('class="feynman"')
    assert "Loss" in page and "Rows exactly right" in page and "expected calibration error" in page


def test_a_text_of_a_file_is_no_markup(run):
    report = json.loads(json.dumps(run[1]))
    for example in report["examples"]:
        texts = ("amp", "sqamp", "prediction", "reason", "process", "kind", "diagram_type")
        example |= dict.fromkeys(texts, "<script>")
        example |= {"truth_tokens": ["<b>"], "answer_tokens": [["<b>", 0.5]]}
    report["by_process"] = {"<i>": report["by_process"].popitem()[1]}
    page = page_of(report | {"input": "<x>", "checkpoint": "<y>"})
    assert page.count("<script>") == 1 and "<x>" not in page and "<y>" not in page and "<b></b>" not in page


def test_too_many_rows_are_left_out(run, monkeypatch):
    monkeypatch.setattr("runtime.page.LARGEST", 20_000)
    page = page_of(run[1])
    shown = page.count("<article")
    assert 0 < shown < len(run[1]["examples"]) and f"{len(run[1]['examples']) - shown} more are too long" in page
    report = run[1] | {"examples": [run[1]["examples"][0] | {"reason": "x" * 30_000}, *run[1]["examples"][1:]]}
    assert page_of(report).count("<article") > 0  # one long row does not hide the others


def test_charts_have_marks_and_numbers_in_their_units():
    points = [(500, 0.25), (1000, 0.5)]
    steps = chart("Rows", [("validation", points, "c1")], "step", "exact", y_range=(0, 1), shares=True)
    assert "validation: 1,000, 50.0%" in steps
    loss = chart("Loss", [("training", [(1, 0.9), (2, 0.2)], "c0")], "step", "loss", log=True)
    assert ">0.2<" in loss and ">0.5<" in loss
    assert ">0.1<" in chart("Loss", [("training", [(1, 9), (2, 0.02)], "c0")], "step", "loss", log=True)
    assert formatted("nu_e e~ -> a_b~ tt~") == "ν_e e\u0304 → a\u0304_b t\u0304t\u0304"


# ---------------------------------------------------------------------------------------------------------------------
# In the browser

def browse(page, folder, script="", *flags):
    """(DOM after the script, messages on the console) of a page."""
    path = folder / "page.html"
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    done = subprocess.run([CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, f"file://{path}"],
                          capture_output=True, text=True, timeout=60)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; apt-get install chromium")

TYPED = """
const result = [];
function seen() {
  const shown = [...document.querySelectorAll('article')].filter(article => !article.hidden);
  return shown.map(article => [article.dataset.verdict, +article.dataset.p, article.textContent.includes('mu')]);
}
function type(id, value) {
  const control = document.getElementById(id);
  control.value = value;
  control.dispatchEvent(new Event('input'));
  result.push({rows: seen(), count: document.getElementById('count').textContent});
}
type('verdict', 'wrong'); type('verdict', ''); type('sort', 'p'); type('search', 'm_mu'); type('search', '');
document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'j', bubbles: true}));
const first = [...document.querySelectorAll('article')].indexOf(document.activeElement);
document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '/', bubbles: true, cancelable: true}));
result.push({first, focus: document.activeElement.id});
document.title = 'RESULT' + JSON.stringify(result);
"""


@needs_chromium
def test_filters_sorting_and_keys_work_without_an_error(run, tmp_path):
    _, report, page = run
    dom, errors = browse(page, tmp_path, TYPED, "--dump-dom")
    assert errors == []
    wrong, all_rows, sorted_rows, found, _, keys = json.loads(re.search(r"<title>RESULT(.*)</title>", dom)[1])
    verdicts = [example["verdict"] for example in report["examples"]]
    assert 0 < verdicts.count("wrong") < len(verdicts)
    assert [row[0] for row in wrong["rows"]] == ["wrong"] * verdicts.count("wrong")
    assert wrong["count"] == f"{verdicts.count('wrong')} rows"
    assert len(all_rows["rows"]) == len(sorted_rows["rows"]) == len(verdicts)
    certain = [row[1] for row in sorted_rows["rows"]]
    assert certain == sorted(certain) != [row[1] for row in all_rows["rows"]]
    with_muons = sum("m_mu" in example["sqamp"] + example["prediction"] for example in report["examples"])
    assert 0 < len(found["rows"]) == with_muons < len(verdicts) and all(row[2] for row in found["rows"])
    assert keys == {"first": 0, "focus": "search"}


@needs_chromium
def test_an_error_of_the_script_is_seen(run, tmp_path):
    assert browse(run[2], tmp_path, "nothing.at.all", "--dump-dom")[1]


@needs_chromium
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_the_page_fits_and_is_not_blank(run, width, tmp_path):
    """The page is no wider than its window, and in the light and in the dark there is something to see."""
    image = pytest.importorskip("PIL.Image")
    measure = """
        const wide = [...document.querySelectorAll('article, figure, .tile')].filter(element => {
          element.style.contentVisibility = 'visible';
          return element.scrollWidth > element.clientWidth + 1;
        });
        document.title = document.documentElement.scrollWidth + ',' + wide.length"""
    framed = f'<iframe style="border:0;width:{width}px;height:900px" src="inner.html"></iframe>'
    (tmp_path / "inner.html").write_text(run[2].replace(
        "</body>", f"<script>{measure}; parent.postMessage(document.title, '*')</script></body>"))
    outer = (f"<!DOCTYPE html><body style='margin:0'>{framed}"
             "<script>onmessage = event => document.title = event.data</script></body>")
    dom, errors = browse(outer, tmp_path, "", "--dump-dom", "--virtual-time-budget=2000")
    found, too_wide = map(int, re.search(r"<title>([\d,]+)</title>", dom)[1].split(","))
    assert found <= width and too_wide == 0 and not errors
    shots = {}
    for scheme in ("light", "dark"):
        flags = [f"--window-size={max(width, 500)},900", f"--screenshot={tmp_path / scheme}.png"]
        flags += ["--blink-settings=preferredColorScheme=0"] * (scheme == "dark")
        browse(outer, tmp_path, "", *flags)
        shots[scheme] = np.asarray(image.open(f"{tmp_path / scheme}.png").convert("L"))[:, :width].astype(float)
        bands = np.array_split(shots[scheme], 4)
        assert all(band.std() > 5 for band in bands)
    assert shots["light"].mean() > 200 and shots["dark"].mean() < 60


# ---------------------------------------------------------------------------------------------------------------------
# What the report says beside the first figures

@pytest.mark.parametrize("termwise", [False, True])
def test_token_probabilities_make_the_probability_of_the_answer(termwise, tmp_path):
    rows = make_run(tmp_path, steps=30, termwise=termwise)
    loaded = load(tmp_path / "run" / "best.pt", "cpu")
    amps = [row["amp"] for row in rows]
    checked = 0
    for amp, answer in zip(amps, decode(loaded, amps)):
        tokens = scored_tokens(amp, answer.prediction, loaded)
        if answer.status == "unfinished" or tokens[0][1] is None:
            continue
        ids = loaded.tokenizer.encode_sqamp(answer.prediction, loaded.tokenizer.fermions(amp))
        probabilities = token_probabilities(loaded, amp, ids)                 # with those of the ends
        assert sum(map(math.log, probabilities)) == pytest.approx(answer.logprob, abs=1e-3)
        assert [p for p, id in zip(probabilities, ids) if id != EOS] == [p for _, p in tokens]
        checked += 1
    assert checked >= len(rows) / 2


def test_tokens_without_a_model_are_those_of_the_readable_beginning():
    assert scored_tokens("", "2*e^4*(m_e + ", None) == [("2", None), ("e^4", None), ("(", None), ("m_e", None)]


def test_outcomes_intervals_and_examples(tmp_path):
    truth = qed_rows()
    rows = judged(answered(truth[0]), answered(truth[1], reordered(truth[1]["sqamp"]), logprob=-1.5),
                  answered(truth[2], "7", logprob=-3), answered(truth[4], "8", logprob=-0.1),
                  answered(truth[3], "9", "unfinished", logprob=-5))
    for number, row in zip((0, 1, 2, 4, 5), rows):
        row |= {"number": number} | dict.fromkeys(("token_mean", "token_min", "margin", "agreement"), math.nan)
    details = details_of(rows, None, seed=1)
    assert details["outcomes"] == "row-wf"
    assert [(e["row"], e["set"]) for e in details["examples"]] == [
        (5, "worst"), (3, "worst"), (6, "worst"), *((row, "random") for row in (1, 2, 3, 5, 6))]
    low, high = details["intervals"]["sequence_accuracy"]
    assert 0 < low < 1 / 5 < high < 1 and details["intervals"] == intervals(rows, 1)
    assert details["by_terms"] == {"4-7": {"rows": 5, "sequence_accuracy": 1 / 5, "right_physics": 2 / 5}}
    assert list(details["by_diagram"]) == ["s", "t"]
    page = page_of(report_of(rows, truth[:1], []) | details | {"input": "x.csv"})
    assert page.count("<article") == 8 and "lookup table" in page
    json.dumps(details, allow_nan=False)


def test_terms_are_those_of_the_polynomial():
    squares = {"2*e^4*(m_e^2 + s_12)*(m_e + s_13 + 1/2*reg_prop)^(-2)": "2-3", "e^4": "1-1",
               "-(m_e + s_12 + s_13 + s_14)": "4-7", "s_12/(s_13 + m_e)": "1-1", "s_12 + 2*s_13": "2-3"}
    assert {square: terms_of({"sqamp": square}) for square in squares} == squares


def test_curves_of_certainty_by_hand():
    rows = [{"logprob": math.log(p), "margin": math.nan, "verdict": verdict}
            for p, verdict in ((0.9, "right"), (0.5, "wrong"), (0.8, "right"), (0.4, "right"))]
    assert accuracy_at_coverage(rows) == {"logprob": [(1 / 4, 1), (2 / 4, 1), (3 / 4, 2 / 3), (1, 3 / 4)]}
    found = reliability(rows)["logprob"]
    assert [(group["rows"], group["right"]) for group in found["bins"]] == [(1, 1), (1, 1), (1, 0), (1, 1)]
    assert [group["predicted"] for group in found["bins"]] == pytest.approx([0.9, 0.8, 0.5, 0.4])
    assert found["error"] == pytest.approx((0.1 + 0.2 + 0.5 + 0.6) / 4)


def test_intervals_of_the_most_certain_are_over_rows():
    """Where certainty says nothing, half of the rows have the interval of a share of half the rows, nearly."""
    rng = np.random.default_rng(0)
    rows = [{"logprob": -rng.random(), "margin": math.nan, "verdict": "right" if rng.random() < 0.7 else "wrong"}
            for _ in range(400)]
    found = certainty_intervals(rows, seed=1)
    assert list(found) == ["logprob"] and list(found["logprob"]) == ["50%", "80%", "90%", "95%"]
    for share, count in (("50%", 200), ("95%", 380)):
        right = certainty(rows)["logprob"][share]
        assert found["logprob"][share] == pytest.approx(wilson(round(right * count), count), abs=0.03)
    assert found == certainty_intervals(rows, seed=1) != certainty_intervals(rows, seed=2)
    sure = [row | {"logprob": 0.0 if row["verdict"] == "right" else -9.0} for row in rows]
    assert certainty_intervals(sure, seed=1)["logprob"]["50%"] == [1, 1]      # the wrong ones are the least certain


# ---------------------------------------------------------------------------------------------------------------------
# Runs compared

def report_file(path, outcomes, rows_sha256="x", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{\n  "rows": 1, ' + json.dumps({"outcomes": outcomes, "rows_sha256": rows_sha256,
                                                     "input": "test.csv"} | more)[1:])
    return str(path.parent)


def seed_reports(folder, **settings):
    """Reports of two notations with three seeds each: 5, 6, 7 and 8, 8, 8 of ten rows are exact, one more is right."""
    names = []
    for notation, counts in (("infix", (5, 6, 7)), ("hybrid", (8, 8, 8))):
        for seed, count in enumerate(counts):
            names.append(report_file(
                folder / f"{notation}-{seed}" / "report.json", "r" * count + "o" + "w" * (9 - count),
                settings={"seed": seed, "out_dir": f"out/{notation}-{seed}", "src_notation": notation,
                          "tgt_notation": notation, "d_model": 64} | settings.get(notation, {}),
                certainty={"logprob": {"50%": count / 10, "80%": 0.5}, "margin": {"50%": 0.5, "80%": 0.5}},
                coverage=0.9, tokens_per_row={"source": 40.0, "target": 20.0 if notation == "infix" else 25.5},
                training={"steps": 100 + seed, "minutes": 2.0, "tokens_per_second": 1000.0 + seed}))
    return names


def test_means_over_seeds_of_runs_with_the_same_settings(tmp_path, capsys):
    names = seed_reports(tmp_path)
    comparison = compare(names)
    infix, hybrid = comparison["groups"]
    assert infix["name"] == "src_notation=infix tgt_notation=infix" and infix["seeds"] == [0, 1, 2]
    assert infix["sequence_accuracy"]["mean"] == pytest.approx(0.6)
    assert infix["sequence_accuracy"]["interval"] == pytest.approx(student([0.5, 0.6, 0.7]))
    assert infix["right_physics"]["each"] == pytest.approx([0.6, 0.7, 0.8])
    assert hybrid["sequence_accuracy"]["interval"] == pytest.approx([0.8, 0.8])
    assert (hybrid["source_tokens"], hybrid["target_tokens"], hybrid["tokens_per_second"]) == (40, 25.5, 1001)
    assert infix["certainty"]["logprob"]["50%"]["each"] == [0.5, 0.6, 0.7]
    difference, = comparison["group_differences"]
    assert difference["name"] == hybrid["name"]
    assert difference["sequence_accuracy"]["difference"] == pytest.approx(0.2)
    low, high = difference["sequence_accuracy"]["interval"]                   # the spread of three seeds is too large
    assert low < 0 < 0.2 < high
    main([f"--compare={tmp_path}/*-*", f"--output={tmp_path}/all.json"])
    assert len(json.loads((tmp_path / "all.json").read_text())["runs"]) == 6
    page, said = (tmp_path / "all.html").read_text(), capsys.readouterr().out
    assert "Means over seeds" in page and "60.0%" in page and "60.00%" in said
    assert "verification: 90.0% (90.0% to 90.0%)" in said and "Verification, beside these" in page
    assert "-44.84 to +4.84" in said and "-44.84 to +4.84" in page            # infix against hybrid, the first by name


def test_runs_of_one_seed_each_have_no_means(tmp_path):
    names = seed_reports(tmp_path)
    assert compare([names[0], names[3]])["groups"] == []
    assert "Means over seeds" not in comparison_page(compare([names[0], names[3]]))
    one, several = compare([names[0], *names[3:]])["groups"]
    assert one["sequence_accuracy"]["interval"] is None and len(several["seeds"]) == 3
    assert "one seed" in comparison_table(compare([names[0], *names[3:]]))
    assert compare(names[:2])["groups"][0]["name"] == "the same settings"


def test_runs_from_checkpoints_of_their_own_seed_are_one_group(tmp_path):
    def groups(start):
        names = [report_file(tmp_path / f"{start}-{seed}" / "report.json", "rw", settings={
            "seed": seed, "init_from": start.format(seed)}, search={"seed": 1337}) for seed in (1, 2)]
        return [(group["seeds"], group["name"]) for group in compare(names)["groups"]]

    assert groups("out/run10-{}/best.pt") == [([1, 2], "the same settings")]
    assert groups("out/qed_2to2/best.pt") == [([1, 2], "the same settings")]  # one checkpoint for both
    assert groups("out/run{}0/best.pt") == []  # out/run10 and out/run20: other runs, not other seeds


def test_answers_of_one_model_are_no_seeds(tmp_path):
    """Twice the same seed: by beam search and greedily, or evaluated again."""
    settings = {"seed": 1, "d_model": 64}
    greedy, beam, again, other = (
        report_file(tmp_path / name / "report.json", "rw", settings=settings | {"seed": seed},
                    search={"beam_size": size})
        for name, seed, size in (("greedy", 1, 1), ("beam", 1, 5), ("again", 1, 1), ("other", 2, 1)))
    assert compare([greedy, again])["groups"] == compare([greedy, beam])["groups"] == []
    assert [group["name"] for group in compare([greedy, other, beam])["groups"]] == ["beam_size=1", "beam_size=5"]


def test_accuracy_against_notation_is_a_table_and_a_figure(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    names = seed_reports(tmp_path)[::-1]
    main(["--notations", f"--compare={' '.join(names)}", f"--output={tmp_path}/n.svg"])
    head, _, infix, hybrid, _, path = capsys.readouterr().out.splitlines()
    assert head.startswith("| notation | seeds | exact, mean (95%) |") and path == f"{tmp_path}/n.svg"
    low, high = student([0.5, 0.6, 0.7])
    assert infix.startswith(f"| infix | 3 | 60.0% ({low:.1%} to {high:.1%}) | 70.0 / 60.0 / 50.0 | 70.0% ")
    assert hybrid == ("| hybrid | 3 | 80.0% (80.0% to 80.0%) | 80.0 / 80.0 / 80.0 | 90.0% (90.0% to 90.0%) "
                      "| 90.0 / 90.0 / 90.0 | 40.0 + 25.5 | 1,001 | 101 | 2.0 |")
    assert (tmp_path / "n.svg").read_text().startswith("<?xml")


def test_runs_that_differ_in_more_than_notation_and_seed_are_refused(tmp_path):
    names = " ".join(seed_reports(tmp_path, hybrid={"d_model": 128, "max_minutes": 4}))
    with pytest.raises(InputError, match="the runs differ in d_model, max_minutes too"):
        main(["--notations", f"--compare={names}", f"--output={tmp_path}/n.svg"])
    first, second, *_ = names.split()
    with pytest.raises(InputError, match="wanted runs of two notations or more"):
        main(["--notations", f"--compare={first} {second}", f"--output={tmp_path}/n.svg"])
    assert not (tmp_path / "n.svg").exists()


def test_notations_in_words():
    assert name_of({"src_notation": "infix", "tgt_notation": "prefix", "shorten_masses": True}) == (
        "infix amplitudes, prefix squares, masses shortened")
    assert name_of({"tgt_notation": "hybrid"}) == "hybrid squares"
    assert name_of({"shorten_masses": False}) == "masses not shortened"
    assert name_of({"src_notation": "hybrid", "tgt_notation": "hybrid", "glue": "none"}) == "hybrid, glue=none"


def test_runs_are_compared_on_the_rows_that_all_have_answered(tmp_path, capsys):
    first = report_file(tmp_path / "A" / "report.json", "rrrrwwfo-r")
    other = report_file(tmp_path / "B" / "report.json", "rwrrrrro-" + "-")
    comparison = compare([first, other])
    assert comparison["rows"] == 8
    assert [run["sequence_accuracy"]["share"] for run in comparison["runs"]] == [4 / 8, 6 / 8]
    assert [run["right_physics"]["share"] for run in comparison["runs"]] == [5 / 8, 7 / 8]
    found = comparison["differences"][0]["sequence_accuracy"]
    assert (found["difference"], found["only_this"], found["only_first"]) == (0.25, 3, 1)
    assert found["p"] == 2 * (1 + 4) / 16 and found["interval"][0] < 0.25 < found["interval"][1]
    main([f"--compare={first} {other}"])
    assert json.loads((tmp_path / "A" / "compare.json").read_text()) == comparison
    assert (tmp_path / "A" / "compare.html").read_text() == comparison_page(comparison)
    assert "+25.00" in (tmp_path / "A" / "compare.html").read_text() and "+25.00" in capsys.readouterr().out


def test_runs_on_different_rows_are_not_compared(tmp_path):
    first = report_file(tmp_path / "A" / "report.json", "rr")
    with pytest.raises(InputError, match="wanted two runs"):
        compare([first])
    with pytest.raises(InputError, match="wanted the same rows"):
        compare([first, report_file(tmp_path / "B" / "report.json", "rr", "y")])
    with pytest.raises(InputError, match="C/report.json|C: not readable"):
        compare([first, str(tmp_path / "C")])
    (tmp_path / "A" / "old.json").write_text('{"rows": 1, "input": "x"}')
    with pytest.raises(InputError, match="has no outcomes and no rows_sha256; evaluate again"):
        compare([first, str(tmp_path / "A" / "old.json")])
    (tmp_path / "A" / "old.json").write_text("[")
    with pytest.raises(InputError, match="no report of evaluate.py"):
        compare([first, str(tmp_path / "A" / "old.json")])


# ---------------------------------------------------------------------------------------------------------------------

def test_differing_tokens():
    assert differing(["2", "e", "("], ["2", "(", "s"]) == ({1}, {2})
    assert differing([], ["a"]) == (set(), {0}) and differing(["a"], ["a"]) == (set(), set())


def test_tokens_are_typeset_and_coloured():
    assert token_text("-m_mu^2") == "−m<sub>μ</sub><sup>2</sup>" and token_text("#3") == "3"
    assert token_text(")^(-2)") == ")<sup>−2</sup>" and token_text("reg_prop") == "ϵ"
    shown = strip([("2", 0.999), ("e", 0.4)], {1})
    assert shown == '<p class="strip"><b>2</b> <mark title="40.0%" style="--u:60%">e</mark></p>'


def test_a_loss_of_zero_is_left_out_of_the_logarithmic_chart():
    figure = training({"curves": {"loss": [(1, 0.5), (2, 0.0)], "valid_loss": [(2, 0.0)]}})
    assert "training" in figure and "validation" not in figure
    assert training({"curves": {"loss": [(1, 0.0)]}}) == ""


def test_ticks_are_round_numbers():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(3, 1187) == pytest.approx([500, 1000])
    assert ticks(5, 5) and all(len(ticks(0, high)) <= 6 for high in (1e-5, 7, 12345))
