"""Every figure of the report is computed by hand here for a small set of predictions."""
import collections
import csv
import json
import lzma
import math
import re
import shutil

import numpy as np
import pytest
from test_decode import HIGGS_A, HIGGS_A_SQUARE, PAIR, respelled
from tiny import make_run, qed_rows, write_csv

import evaluate as script
from dataset.baseline import canonical_key
from decode import choose, load
from evaluate import main, report_of, sample_rows, sequence_accuracy, verdict_of
from generate import Hypothesis
from physics.particles import Facts, parse_masses
from physics.processes import process_kind
from physics.square import square
from runtime.certainty import CERTAINTY, certainty
from runtime.files import InputError
from runtime.report import never_learned
from runtime.scores import accuracies, by_process_and_length, ceiling, readable_tokens, token_accuracy
from runtime.summary import examples, shorten, table
from tokenizer import sqamp_tokens


@pytest.fixture(scope="module")
def truth():
    """Rows of QED: the processes of tiny.py, e e -> e e twice."""
    return qed_rows()


def answered(row, prediction=None, status="unchecked", logprob=-0.5):
    return row | {
        "prediction": row["sqamp"] if prediction is None else prediction,
        "status": status,
        "logprob": logprob,
    }


def judged(*rows):
    return [row | {"verdict": verdict_of(row)} for row in rows]


def reordered(sqamp):
    """The same polynomial with its first two terms swapped."""
    head, rest = sqamp.split("(", 1)
    first, second, others = rest.split(" + ", 2)
    return f"{head}({second} + {first} + {others}"


@pytest.fixture
def predictions(truth):
    """One answer of each kind: right, spelled otherwise, wrong, right text but unfinished, unreadable."""
    wrong = truth[2]["sqamp"].replace("s_13", "s_14")
    return judged(
        answered(truth[0]),
        answered(truth[1], reordered(truth[1]["sqamp"]), logprob=-1.5),
        answered(truth[2], wrong, logprob=-3),
        answered(truth[3], status="unfinished", logprob=-5),
        answered(truth[4], "", status="unreadable", logprob=math.nan),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Figures

def test_verdicts(predictions):
    assert [row["verdict"] for row in predictions] == [
        "right",
        "right but spelled otherwise",
        "wrong",
        "unfinished",
        "unreadable",
    ]


def test_a_status_that_decode_found_is_not_found_again(truth, monkeypatch):
    monkeypatch.setattr(script, "doubt_of", None)
    other = reordered(truth[0]["sqamp"])
    assert verdict_of(answered(truth[0], other, "verified")) == "right but spelled otherwise"
    assert verdict_of(answered(truth[0], other, "unverified")) == "wrong"


def test_right_physics_is_proven_whoever_asks(truth):
    """By evaluate.py as by --verify. An answer that is right in floating point alone is wrong; without a proof, too."""
    nearly, exotic = f"{truth[0]['sqamp']}*(1 + 1/10^12)", f"{truth[1]['sqamp']}*2^(1/3)*2^(-1/3)"
    rows = judged(
        answered(truth[0], nearly), answered(truth[1], exotic), answered(truth[2], reordered(truth[2]["sqamp"]))
    )
    assert [row["verdict"] for row in rows] == ["wrong", "wrong", "right but spelled otherwise"]
    report = report_of(rows, [], [])
    assert report["right_physics"] == 1 / 3 and report["rows_unproven"] == 1
    assert "1 answers counted as wrong are equal to the square in floating point, but have no proof" in table(report)
    checked = [
        choose(row["amp"], {row["prediction"]: Hypothesis([5, 2], -1.0, -1.0)}, check=True, agree=False) for row in rows
    ]
    again = judged(*(row | answer._asdict() for row, answer in zip(rows, checked)))
    assert [row["verdict"] for row in again] == [row["verdict"] for row in rows] and report_of(again, [], [])[
        "rows_unproven"
    ] == 1


def test_shares_counts_and_logprobs(predictions):
    report = report_of(predictions, [], [])
    assert report["rows"] == 5
    assert report["sequence_accuracy"] == 1 / 5
    assert report["right_physics"] == 2 / 5
    assert report["verdicts"] == {
        "right": 1,
        "right but spelled otherwise": 1,
        "wrong": 1,
        "unfinished": 1,
        "unreadable": 1,
    }
    assert report["mistakes"] == {"other terms": 1} and "wrong answers: 1 other terms" in table(report)
    assert report["mean_logprob"] == {"right": -1.0, "wrong": -4.0}
    assert report["lookup_accuracy"] == 0 and report["rows_in_training_set"] == 0 and report["ceiling"] == 1
    assert list(report)[:6] == [
        "rows",
        "sequence_accuracy",
        "right_physics",
        "token_accuracy",
        "lookup_accuracy",
        "ceiling",
    ]
    json.dumps(report, allow_nan=False)


def test_certainty_is_the_accuracy_of_the_most_certain_rows():
    rows = [
        {"logprob": -k, "margin": k % 4, "token_min": math.nan, "verdict": "right" if k < 6 else "wrong"}
        for k in range(10)
    ]
    rows[9]["margin"] = math.nan                                              # no candidate besides: least certain
    table = certainty(rows)
    assert list(table) == ["logprob", "margin"]  # the better one first, nothing of what is not known
    assert table["logprob"] == {"50%": 1, "80%": 6 / 8, "90%": 6 / 9, "95%": 6 / 10}
    assert table["margin"] == {"50%": 3 / 5, "80%": 6 / 8, "90%": 6 / 9, "95%": 6 / 10}


def test_rows_of_one_certainty_are_not_taken_in_the_order_of_the_file():
    for verdicts in (["right"] * 50 + ["wrong"] * 50, ["wrong"] * 50 + ["right"] * 50):
        table = certainty([{"agreement": 1.0, "verdict": verdict} for verdict in verdicts])["agreement"]
        assert 0.35 < table["50%"] < 0.65 and 0.4 < table["80%"] < 0.6


def test_token_accuracy_is_over_the_longer_length():
    def accuracy(prediction, sqamp):
        return token_accuracy({"prediction": prediction, "sqamp": sqamp})

    assert len(sqamp_tokens("8*s_12 + 4*s_13")) == 4
    assert accuracy("8*s_12 + 4*s_13", "8*s_12 + 4*s_13") == 1
    assert accuracy("8*s_14 + 4*s_13", "8*s_12 + 4*s_13") == 3 / 4
    assert accuracy("8*s_12", "8*s_12 + 4*s_13") == 2 / 4
    assert accuracy("8*s_12 + 4*s_13*m_e", "8*s_12 + 4*s_13") == 4 / 5
    assert accuracy("8*s_12 + 4*", "8*s_12 + 4*s_13") == 3 / 4               # no formula: its readable beginning counts
    assert accuracy("", "8*s_12 + 4*s_13") == accuracy("<bos>", "m_e") == 0


def test_readable_tokens_of_broken_answers():
    assert readable_tokens("2*e^4*(m_e + )") == ["2", "e^4", "(", "m_e"]
    assert readable_tokens("2*e^4)*<pad>*s_12") == ["2", "e^4", ")"]


def test_lookup_counts_rows_known_up_to_names(truth):
    """e mu -> e mu is in the table; three others are the same up to particle names; e e~ -> mu mu~ is not there."""
    rows = judged(answered(truth[0]), answered(truth[3]), answered(truth[4]), answered(truth[5]), answered(truth[2]))
    report = report_of(rows, truth[:1], [])
    assert (report["lookup"]["exact"], report["lookup"]["renamed"]) == (1 / 5, 4 / 5) and report[
        "lookup_accuracy"
    ] == 4 / 5
    assert report["rows_in_training_set"] == 1
    assert report["unseen"] == {"rows": 4, "sequence_accuracy": 1.0, "right_physics": 1.0}
    rows[0] |= {"verdict": "wrong"}                                           # the row that is in the training set
    assert report_of(rows, truth[:1], [])["unseen"]["sequence_accuracy"] == 1
    assert "the 4 rows that are not in the training set" in table(report)


def test_ceiling_is_the_share_of_the_most_frequent_text(truth):
    """One amplitude under five index names: text x three times, y twice. Another has one text, under one name only."""
    amps = [truth[0]["amp"].replace("%a_1", f"%a_{n}") for n in range(10, 15)]
    rows = [{"amp": amp, "sqamp": text} for amp, text in zip(amps, "xxxyy")]
    assert len(set(amps)) == 5
    assert ceiling([rows[4], truth[2]], rows + truth[2:3] * 7) == ((3 / 5 + 1) / 2, 1)
    assert ceiling(rows[:1], rows[:1] * 9 + rows[3:4]) == (1 / 2, 1)           # the same row again is no new evidence


def test_rows_of_a_split_under_other_index_names_are_no_new_evidence(truth):
    """The test split in another spelling: its rows stand in the splits already."""
    amps = [truth[0]["amp"].replace("%a_1", f"%a_{n}") for n in range(10, 15)]
    known = [{"amp": amp, "sqamp": text} for amp, text in zip(amps, "xxxyy")]
    again = [row | {"amp": row["amp"].replace("%a_", "%b_")} for row in known]
    assert ceiling(again[3:], known) == ceiling(known[3:], known) == (3 / 5, 2)
    assert ceiling(again[3:], known[:3]) == (3 / 5, 2)                         # these rows are in no split


def test_ceiling_of_the_benchmark_set(marty):
    """98.26% is the published set's limit (254 ambiguous amplitudes)."""
    import gzip
    with gzip.open(marty / "qed-2to2-offshell.csv.gz", "rt") as lines:
        rows = list(csv.DictReader(lines))
    assert round(ceiling(rows, rows)[0], 4) == 0.9826


def test_by_process_and_length(predictions):
    report = report_of(predictions, [], [])
    assert report["by_process"] == {
        "f f -> f f": {"rows": 3, "sequence_accuracy": 1 / 3, "right_physics": 1 / 3},
        "f f~ -> f f~": {"rows": 2, "sequence_accuracy": 0, "right_physics": 1 / 2}}
    assert list(report["by_length"]) == ["16-31"] and report["by_length"]["16-31"]["rows"] == 5


def test_lengths_come_in_natural_order(truth):
    rows = judged(*(answered(truth[0] | {"sqamp": " + ".join(["s_12"] * n)}, "") for n in (60, 1, 9, 4, 5)))
    assert list(report_of(rows, [], [])["by_length"]) == ["1-1", "4-7", "8-15", "16-31", "64-127"]


@pytest.mark.parametrize("legs, process", [
    ("A_{i,+%a}(p_2)*e_{j,%b}(p_1)_u*e_{k,%c}(p_4)_u^(*)*A_{l,+%d}(p_3)^(*)", "f A -> f A"),
    ("mu_{j,%b}(p_1)_u*e_{k,%c}(p_3)_u^(*)*nu_{j,%b}(p_2)_u^(*)*x_{k,%c}(p_4)_v", "f -> f f f~"),
    ("u_{i,%C,%a}(p_1)_v^(*)*G_{i,%g,+%m}(p_2)*h(p_3)^(*)*u_{i,%C,%a}(p_4)_v", "f~ G -> f~ h"),
    ("e_{j,%b}(p_1)_u_off*A_{i,+%a}(p_2)*e_{k,%c}(p_3)_u_off^(*)*A_{l,+%d}(p_4)_T^(*)", "f A -> f A"),
])
def test_process_kind(legs, process):
    assert process_kind(f"i*e*({legs} + 2*{legs})") == process


def kinds_of(rows):
    return collections.Counter(process_kind(row["amp"]) for row in rows)


def test_the_sample_of_training_rows_has_some_of_every_kind(truth):
    """94 rows of one kind, 4 of another and 2 of a third."""
    photon = "i*(e_{i,%a}(p_1)_u*A_{j,+%m}(p_2)*e_{k,%b}(p_3)_u^(*)*A_{l,+%n}(p_4)^(*))"
    rows = [truth[0]] * 47 + [{"amp": photon, "sqamp": "1"}] * 2 + [truth[0]] * 47 + [truth[2]] * 4
    rows = [row | {"number": number} for number, row in enumerate(rows)]
    assert kinds_of(sample_rows(rows, 20, 7)) == {"f f -> f f": 14, "f f~ -> f f~": 4, "f A -> f A": 2}
    assert kinds_of(sample_rows(rows, 3, 7)) == {
        "f f -> f f": 1,
        "f f~ -> f f~": 1,
        "f A -> f A": 1,
    }  # as far as it goes
    assert sample_rows(rows, 1000, 7) == rows
    numbers = [row["number"] for row in sample_rows(rows, 20, 7)]
    assert numbers == sorted(numbers) == [row["number"] for row in sample_rows(rows, 20, 7)]
    assert numbers != [row["number"] for row in sample_rows(rows, 20, 8)]


@pytest.mark.parametrize("right, wrong, named", [(45, 5, True), (45, 6, False), (0, 5, False)])
def test_a_kind_that_training_never_learned_is_named(truth, predictions, right, wrong, named):
    """If at least five rows of it were looked at, and of the others at least 90% are right."""
    rows = judged(*[answered(truth[0])] * right, *[answered(truth[1], "1")] * 5, *[answered(truth[3], "1")] * wrong)
    report = report_of(predictions, [], []) | {"train": accuracies(rows) | by_process_and_length(rows)}
    assert never_learned(report["train"]["by_process"], "right_physics") == (["f f~ -> f f~"] if named else [])
    lines = [line for line in table(report).splitlines() if line.startswith(("training", "warning"))]
    assert len(lines) == 1 + named and f"{right / len(rows):.2%}" in lines[0]
    assert not named or lines[1].startswith("warning: f f~ -> f f~ was not learned: none of its 5 training rows")


# ---------------------------------------------------------------------------------------------------------------------
# What is shown

def test_examples_show_both_texts_and_the_kind(predictions):
    shown = examples(predictions, 200)
    for row in predictions:
        assert f"{row['verdict']}: {process_kind(row['amp'])}" in shown and f"truth  {row['sqamp']}" in shown
    assert all(len(line) <= 80 for line in examples(predictions, 80).splitlines())


def test_a_long_answer_is_cut_around_the_first_difference():
    text = "".join(map(chr, range(200, 400)))
    assert shorten(text, 300, 5) == text
    for middle in (0, 100, 199):
        piece = shorten(text, 31, middle)
        assert len(piece) == 31 and piece.strip(".") in text and text[middle] in piece
    assert shorten(text, 31, 0) == text[:28] + "..." and shorten(text, 31, 199) == "..." + text[-28:]
    assert shorten(text, 31, 100) == "..." + text[88:113] + "..."


# ---------------------------------------------------------------------------------------------------------------------
# The script

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return folder, make_run(folder)


def test_a_model_that_knows_its_test_rows_by_heart(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # examples are cut to the width of the terminal
    folder, rows = run
    (folder / "data" / "manifest.json").write_text('{"settings": {"split": "template"}}')
    main([f"--ckpt={folder / 'run' / 'best.pt'}", "--device=cpu"])
    report = json.loads((folder / "run" / "report.json").read_text())
    assert report["rows"] == len(rows) and report["rows_in_training_set"] == len(rows)
    assert (
        report["sequence_accuracy"]
        == report["right_physics"]
        == report["token_accuracy"]
        == report["lookup_accuracy"]
        == report["ceiling"]
        == 1
    )
    assert (report["split"], report["step"], report["seed"], report["device"]) == (
        "template",
        150,
        0,
        "cpu",
    ) and report["seconds_per_row"] > 0
    out = capsys.readouterr().out
    assert "sequence accuracy  100.00%" in out and "right: f f -> f f" in out and rows[0]["sqamp"] in out
    with open(folder / "run" / "predictions.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["unchecked"] * len(rows)
    main([f"--ckpt={folder / 'run' / 'best.pt'}", "--device=cpu", "--beam", "--verify", "--agree"])
    report = json.loads((folder / "run" / "report.json").read_text())
    assert report["train"] == accuracies_of_all(rows)
    assert (
        report["coverage"] == 1
        and set(report["certainty"]) == set(CERTAINTY)
        and "by agreement" in capsys.readouterr().out
    )
    with open(folder / "run" / "predictions.csv", newline="") as file:
        assert [(row["status"], row["rank"]) for row in csv.DictReader(file)] == [("verified", "1")] * len(rows)


def test_sequence_accuracy_is_that_of_the_report(run, tmp_path):
    folder, rows = run
    loaded = load(folder / "run" / "best.pt", "cpu")
    assert sequence_accuracy(loaded, folder / "data" / "valid.csv") == 1
    other = [row | {"sqamp": reordered(row["sqamp"])} if k % 4 == 0 else row for k, row in enumerate(rows)]
    path = write_csv(tmp_path / "other.csv", other)
    assert sequence_accuracy(loaded, path, beam_size=2) == 1 - len(rows[::4]) / len(rows)
    assert sequence_accuracy(loaded, str(path), max_rows=1) == 0


def accuracies_of_all(rows):
    rows = judged(*map(answered, rows))
    return accuracies(rows) | by_process_and_length(rows)


def test_training_rows_are_decoded_too_unless_none_are_wanted(run, tmp_path):
    flags = [f"--ckpt={run[0] / 'run' / 'best.pt'}", "--device=cpu", "--max_rows=1", f"--output={tmp_path / 'r.json'}"]
    for count in (3, 0):
        main([*flags, f"--train_rows={count}"])
        report = json.loads((tmp_path / "r.json").read_text())
        assert (
            report["rows"] == 1
            and ("train" in report) == (count > 0)
            and report.get("train", {"rows": 0})["rows"] == count
        )
    with pytest.raises(InputError, match="train_rows: got -1, wanted at least 0"):
        main([*flags, "--train_rows=-1"])


def test_an_unreadable_row_is_named_and_counted_and_stops_no_other(run, tmp_path, capsys):
    """Of the file, and of the training split; the numbers of the others stay those of the file."""
    folder, rows = run
    bad = [rows[0] | {"amp": "m_e*"}, *rows[:2], rows[2] | {"sqamp": "2*&"}, *[rows[0] | {"amp": "e*"}] * 9]
    bad.insert(4, {"amp": rows[3]["amp"].replace("i*e^2", "e^2*e^2", 1), "sqamp": "7"})
    shutil.copytree(folder / "data", tmp_path / "data")
    write_csv(tmp_path / "data" / "train.csv", bad)
    path = write_csv(tmp_path / "my file.csv", bad)
    main(
        [
            f"--ckpt={folder / 'run' / 'best.pt'}",
            f"--input='{path}'",
            f"--data_dir={tmp_path / 'data'}",
            f"--output={tmp_path / 'r.json'}",
        ]
    )
    report, said = json.loads((tmp_path / "r.json").read_text()), capsys.readouterr()
    assert (report["rows"], report["rows_unreadable"], report["sequence_accuracy"], report["train"]["rows"]) == (
        3,
        11,
        2 / 3,
        3,
    )
    assert f"{path}:2: amp: column 5" in said.err and f"{path}:5: sqamp: column 3: found '&'" in said.err
    assert f"{path}: 6 more rows cannot be read" in said.err and "11 more rows cannot be read" in said.out
    assert np.load(tmp_path / "r.inc_idx.npy").tolist() == [4]
    with open(tmp_path / "predictions.csv", newline="") as file:
        statuses = [(row["row"], row["status"]) for row in csv.DictReader(file)]
    assert statuses == [(str(k), "unchecked" if k in (2, 3, 5) else "unreadable") for k in range(1, 15)]
    main(
        [
            f"--input={tmp_path / 'predictions.csv'}",
            f"--data_dir={tmp_path / 'data'}",
            f"--output={tmp_path / 'again.json'}",
        ]
    )
    again = json.loads((tmp_path / "again.json").read_text())
    assert all(again[name] == report[name] for name in ("rows", "rows_unreadable", "sequence_accuracy", "verdicts"))


def test_a_file_of_predictions_is_judged_without_a_model(run, tmp_path, predictions, capsys):
    path = write_csv(
        tmp_path / "answers.csv",
        [{name: row[name] for name in ("amp", "sqamp", "prediction", "status")} for row in predictions],
    )
    main([f"--input={path}", f"--data_dir={run[0] / 'data'}", f"--output={tmp_path / 'sub' / 'r.json'}"])
    report = json.loads((tmp_path / "sub" / "r.json").read_text())
    assert report["sequence_accuracy"] == 1 / 5 and report["right_physics"] == 2 / 5 and report["lookup_accuracy"] == 1
    assert "checkpoint" not in report and report["mean_logprob"] == {"right": None, "wrong": None}
    assert not (tmp_path / "sub" / "predictions.csv").exists()


def test_what_a_file_calls_verified_is_judged_again(run, tmp_path, truth):
    rows = [{"amp": row["amp"], "sqamp": row["sqamp"], "prediction": prediction, "status": status}
            for row, prediction, status in zip(truth, ("17", truth[1]["sqamp"], f"1*{truth[2]['sqamp']}"),
                                               ("verified", "verified", "unverified"))]
    path = write_csv(tmp_path / "answers.csv", rows)
    main([f"--input={path}", f"--data_dir={run[0] / 'data'}", f"--output={tmp_path / 'r.json'}"])
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["right_physics"] == 2 / 3 and report["coverage"] == 1 / 3


@pytest.mark.parametrize("column, value", [("logprob", "800"), ("logprob", "-inf"), ("token_mean", "1.5"),
                                           ("margin", "inf")])
def test_a_certainty_that_no_model_has_is_named(run, tmp_path, capsys, truth, column, value):
    rows = [{"amp": row["amp"], "sqamp": row["sqamp"], "prediction": row["sqamp"], column: number}
            for row, number in zip(truth, (value, "0"))]
    path = write_csv(tmp_path / "answers.csv", rows)
    main([f"--input={path}", f"--data_dir={run[0] / 'data'}", f"--output={tmp_path / 'r.json'}"])
    assert f"{path}:2: {column}: got " in capsys.readouterr().err
    assert json.loads((tmp_path / "r.json").read_text())["rows_unreadable"] == 1


def test_splits_without_rows_are_no_obstacle(run, tmp_path):
    """prepare.py --test_fraction=0 makes one; validation and test rows serve the ceiling alone."""
    rows = (run[0] / "data" / "train.csv").read_text()
    for split, text in (("train", rows), ("valid", rows), ("test", rows.splitlines(keepends=True)[0])):
        (tmp_path / f"{split}.csv").write_text(text)
    main([f"--ckpt={run[0] / 'run' / 'best.pt'}", f"--data_dir={tmp_path}", f"--input={tmp_path / 'valid.csv'}",
          f"--output={tmp_path / 'r.json'}", "--max_rows=2"])
    assert json.loads((tmp_path / "r.json").read_text())["ceiling"] == 1


def test_decode_and_evaluate_agree(run, tmp_path):
    """Judging decode's predictions.csv gives the report that evaluate makes itself."""
    import decode
    flags = [f"--ckpt={run[0] / 'run' / 'best.pt'}", "--device=cpu"]
    decode.main(flags + [f"--output={tmp_path / 'p.csv'}"])
    main([f"--input={tmp_path / 'p.csv'}", f"--data_dir={run[0] / 'data'}", f"--output={tmp_path / 'a.json'}"])
    main(flags + [f"--output={tmp_path / 'b.json'}"])
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    for name in (
        "train",
        "mean_logprob",
        "input",
        "input_sha256",
        "checkpoint",
        "step",
        "seed",
        "device",
        "search",
        "seconds",
        "seconds_per_row",
        "reliability",  # predictions.csv has its figures with 6 digits
        "examples",  # and no probabilities of tokens
        "curves",
        "settings",
        "tokens_per_row",
        "training",
    ):
        a.pop(name, None), b.pop(name, None)
    assert a == b


def report_on(run, path, output, *flags):
    main([f"--input={path}", f"--data_dir={run[0] / 'data'}", f"--output={output}", *flags])
    return json.loads(output.read_text())


def test_bad_lines_are_named_once_and_counted_as_unreadable(run, tmp_path, capsys):
    """Of the file that is evaluated, which is the test split, too."""
    shutil.copytree(run[0] / "data", tmp_path / "data")
    path = tmp_path / "data" / "test.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(["Error\n", *lines[:3], "  \n", "m_e*,2\n", *lines[3:], '"m_e']))
    flags = [f"--ckpt={run[0] / 'run' / 'best.pt'}", "--device=cpu", f"--data_dir={tmp_path / 'data'}"]
    for name in ("", str(path)):
        main([*flags, *([f"--input={name}"] if name else []), f"--output={tmp_path / 'r.json'}"])
        report, said = json.loads((tmp_path / "r.json").read_text()), capsys.readouterr()
        assert (report["rows"], report["rows_unreadable"]) == (len(lines) - 1, 4)
        assert sorted(map(int, re.findall(rf"{path}:(\d+): ", said.err))) == [1, 5, 6, len(lines) + 4]
        assert "4 more rows cannot be read" in said.out
    assert np.load(tmp_path / "r.inc_idx.npy").tolist() == []
    with open(tmp_path / "predictions.csv", newline="") as file:
        statuses = [row["status"] for row in csv.DictReader(file)]
    assert statuses == ["unchecked"] * 2 + ["unreadable"] + ["unchecked"] * (len(lines) - 3)


def test_a_row_that_nobody_can_judge_is_unreadable_and_neither_right_nor_wrong(run, tmp_path, capsys):
    """A mass that is not known, and electrons that are massless only if somebody says so."""
    massless = HIGGS_A_SQUARE.replace("MASS^2*s_12 + ", "")
    electrons = r"e^2*gamma_{%\m,%a,%b}*gamma_{+%\m,%c,%d}*e_{i,%b}(p_1)_u*e_{j,%a}(p_3)_u^(*)*t_{k,%d}(p_2)_u" \
                r"*t_{l,%c}(p_4)_u^(*)/s_13"
    squares = {mass: square(electrons, facts=Facts(masses=parse_masses(mass))) for mass in ("", "e=0")}
    rows = [
        {"process": "", "amp": HIGGS_A, "sqamp": massless, "prediction": massless},
        {"process": "", "amp": HIGGS_A, "sqamp": massless, "prediction": f"{massless}*2"},
        {"process": "", "amp": PAIR, "sqamp": massless, "prediction": f"{massless}*2"},
        {"process": "", "amp": electrons, "sqamp": squares["e=0"], "prediction": f"{squares['e=0']}*2"},
        {"process": "", "amp": electrons, "sqamp": squares["e=0"], "prediction": f"{squares['e=0']}*2/2"},
        {"process": "", "amp": electrons, "sqamp": squares[""], "prediction": f"{squares['']}*2/2"},
        {"process": "", "amp": electrons, "sqamp": squares[""], "prediction": f"{squares['']}*2"},
    ]
    path = write_csv(tmp_path / "in.csv", rows)
    report, said = report_on(run, path, tmp_path / "r.json"), capsys.readouterr()
    assert (report["rows"], report["rows_unreadable"], report["right_physics"]) == (2, 5, 1 / 2)
    hints = {2: "A=m", 3: "A=m", 4: "S=m", 5: "e=0", 6: "e=0"}
    assert all(re.search(rf'{path}:{line}: .*--masses="{hint}"', said.err) for line, hint in hints.items())
    assert "5 more rows cannot be read or judged" in said.out
    report = report_on(run, path, tmp_path / "r.json", "--masses=A=0 e=0")
    assert (report["masses"], report["rows_unreadable"]) == ("A=0 e=0", 3)  # S, and m_e in a row of massless electrons
    assert (report["sequence_accuracy"], report["right_physics"]) == (1 / 4, 2 / 4)


def test_the_process_column_decides_and_goes_on_to_the_predictions(run, tmp_path):
    """Decoded rows of a column `process` are judged from predictions.csv as they were judged at once."""
    facts = [Facts(process, parse_masses("S=m_S")) for process in ("e e~ -> S S~", "e e~ -> S S")]
    rows = [{"process": known.process, "amp": PAIR, "sqamp": square(PAIR, facts=known)} for known in facts]
    answers = [row | {"prediction": f"{row['sqamp']}*2/2"} for row in rows]
    answers.append(rows[0] | {"prediction": rows[1]["sqamp"]})
    report = report_on(run, write_csv(tmp_path / "a.csv", answers), tmp_path / "a.json", "--masses=S=m_S")
    assert (report["rows"], report["right_physics"], report["rows_unreadable"]) == (3, 2 / 3, 0)
    path = write_csv(tmp_path / "b.csv", rows)
    report = report_on(run, path, tmp_path / "b.json", f"--ckpt={run[0] / 'run' / 'best.pt'}", "--masses=S=m_S")
    with open(tmp_path / "predictions.csv", newline="") as file:
        assert [row["process"] for row in csv.DictReader(file)] == [row["process"] for row in rows]
    again = report_on(run, tmp_path / "predictions.csv", tmp_path / "c.json", "--masses=S=m_S")
    assert again["verdicts"] == report["verdicts"] and again["rows_unreadable"] == report["rows_unreadable"] == 0


def test_one_file_in_two_spellings_has_the_same_predictions_and_the_same_report(run, tmp_path):
    """MARTY's spelling; and sequential indices INDEX_0, INDEX_1, ..., without % and spaces, in a packed file."""
    other = [{column: respelled(text) for column, text in row.items()} for row in run[1]]
    assert all(row["amp"] != mine["amp"] and not re.search("[% ]", row["amp"]) for row, mine in zip(other, run[1]))
    paths = write_csv(tmp_path / "marty.csv", run[1]), write_csv(tmp_path / "index.csv", other)
    with open(paths[1], "rb") as plain, lzma.open(tmp_path / "index.csv.xz", "wb") as file:
        file.write(plain.read())
    reports, predictions = [], []
    for path in (paths[0], paths[1], tmp_path / "index.csv.xz"):
        output = tmp_path / path.name.replace(".", "") / "r.json"
        reports.append(report_on(run, path, output, f"--ckpt={run[0] / 'run' / 'best.pt'}", "--verify", "--device=cpu"))
        with open(output.with_name("predictions.csv"), newline="") as file:
            predictions.append([row | {"amp": canonical_key(row["amp"])} for row in csv.DictReader(file)])
        for name in ("input", "input_sha256", "seconds", "seconds_per_row", "examples"):  # which show the amplitudes
            del reports[-1][name]
    assert reports[0] == reports[1] == reports[2] and predictions[0] == predictions[1] == predictions[2]
    assert reports[0]["sequence_accuracy"] == 1 and {row["status"] for row in predictions[0]} == {"verified"}


@pytest.mark.parametrize("text, message", [
    (b"", "in.csv:1: the file is empty"),
    (b"amp,sqamp\n", "in.csv:2: no rows"),
    (b"amp,answer\n1,2\n", "no column 'sqamp'"),
    (b"amp,sqamp\nm_e,2*&\n", "in.csv:2: sqamp: column 3: found '&'"),
    (b"amp,sqamp,prediction\nm_e*,2,3\nm_e,&,3\n", "in.csv:2: amp: column 5"),
    (b"amp,sqamp,prediction,logprob\nm_e,2,3,x\n", "in.csv:2: logprob"),
])
def test_a_bad_file_is_one_line_and_overwrites_nothing(run, tmp_path, text, message):
    (tmp_path / "in.csv").write_bytes(text)
    (tmp_path / "r.json").write_text('{\n  "rows": "kept"')
    flags = [f"--input={tmp_path / 'in.csv'}", f"--data_dir={run[0] / 'data'}", f"--output={tmp_path / 'r.json'}"]
    ckpt = f"--ckpt={run[0] / 'run' / 'best.pt'}"
    with pytest.raises(InputError) as error:
        main(flags if b"prediction" in text else [*flags, ckpt])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "r.json").read_text().endswith("kept\"") and len(list(tmp_path.iterdir())) == 2


def test_answers_of_a_file_and_a_model_are_one_too_many(run, tmp_path):
    (tmp_path / "in.csv").write_text("amp,sqamp,prediction\n1,1,1\n")
    with pytest.raises(InputError, match="^ckpt: .* has a column 'prediction'"):
        main([f"--input={tmp_path / 'in.csv'}", f"--ckpt={run[0] / 'run' / 'best.pt'}"])


def test_without_training_data_there_is_no_lookup_table(run, tmp_path):
    with pytest.raises(InputError, match="train.csv: no such file; the config or --data_dir"):
        main([f"--ckpt={run[0] / 'run' / 'best.pt'}", f"--data_dir={tmp_path}"])
