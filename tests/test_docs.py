"""The scripts in docs/ that make the data sets of the tables: who is held out, who is in training."""
import csv
import json
import re
import subprocess
import sys

import pytest
from test_physics import process_amplitudes

from dataset.reader import read_rows
from physics.orbits import orbit_of
from physics.particles import Facts
from physics.square import square
from physics.verdict import doubt_of
from repository import ROOT
from runtime.compare import rows_digest
from runtime.files import write_rows

ORBITS = [f"{number:012x}" for number in range(6)]
COLUMNS = ["process", "amp", "sqamp", "orbit"]


def run(script, *words):
    return subprocess.run([sys.executable, ROOT / "docs" / script, *map(str, words)], capture_output=True, text=True)


def orbits_of(path):
    return [row["orbit"] for _, row in read_rows(path)]


@pytest.fixture
def data(tmp_path):
    """A data set of 6 orbits with 3 rows each in training and in the test split, 2 in validation."""
    for name, count in (("train", 3), ("valid", 2), ("test", 3)):
        rows = [{"process": "e e -> e e", "amp": f"e*{orbit}", "sqamp": f"{copy}", "orbit": orbit}
                for orbit in ORBITS for copy in range(count)]
        write_rows(tmp_path / "data" / f"{name}.csv", COLUMNS, rows)
    (tmp_path / "data" / "manifest.json").write_text("{}")
    return tmp_path / "data"


def test_help_is_the_docstring():
    for script in ("levers.py", "canonical.py"):
        done = run(script, "--help")
        assert done.returncode == 0 and f"python docs/{script}" in done.stdout and not done.stderr


def test_variety_takes_whole_orbits_and_the_smaller_set_is_in_the_larger(data, tmp_path):
    assert run("variety.py", data, tmp_path / "made", 2, 4).returncode == 0
    two, four = (orbits_of(tmp_path / "made" / number / "train.csv") for number in ("2", "4"))
    assert len(two) == 3 * 2 and len(four) == 3 * 4
    assert len(set(two)) == 2 and set(two) < set(four)


def test_variety_asks_about_each_orbit_once(data, tmp_path):
    assert run("variety.py", data, tmp_path / "made", 2, 4).returncode == 0
    for name in ("valid", "test"):
        asked = orbits_of(tmp_path / "made" / "2" / f"{name}.csv")
        assert sorted(asked) == ORBITS
        assert asked == orbits_of(tmp_path / "made" / "4" / f"{name}.csv")
    assert run("variety.py", data, tmp_path / "made", 7).stderr.count("\n") == 1
    write_rows(data / "train.csv", COLUMNS[:3], [])
    assert "no column 'orbit'" in run("variety.py", data, tmp_path / "made", 2).stderr


def test_held_out_orbit_is_in_the_test_split_alone(data, tmp_path):
    assert run("held_out.py", data, tmp_path / "made").returncode == 0
    for orbit in ORBITS:
        made = tmp_path / "made" / orbit
        assert orbits_of(made / "test.csv") == [orbit] * 8
        for name in ("train", "valid"):
            assert set(orbits_of(made / f"{name}.csv")) == set(ORBITS) - {orbit}


def test_emergence_reports_the_mean_over_seeds_and_each_seed(tmp_path):
    for name, right in (("100-1", 0.25), ("100-2", 0.75), ("100x8-1", 0.5), ("1000-1", 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "greedy.json").write_text(json.dumps(
            {"rows": 200, "right_physics": right, "train": {"rows": 50, "right_physics": 1.0}}))
    done = run("emergence.py", tmp_path, tmp_path / "figure.svg")
    assert done.returncode == 0, done.stderr
    lines = [[cell.strip() for cell in line[1:-1]] for line in csv.reader(done.stdout.splitlines(), delimiter="|")]
    few, relabelled, many = lines[2:5]
    assert len(lines[0]) == len(few) == 7
    assert few[:2] == ["100", "1"] and few[3:5] == ["50.0% (43.1 to 56.9; 25.0 / 75.0)", "-"]
    assert relabelled[:4] == ["100", "8", "100.0% (92.9 to 100.0)", "50.0% (43.1 to 56.9)"]
    assert many[0] == "1,000" and many[3].startswith("100.0%")
    assert (tmp_path / "figure.svg").exists()
    assert "no report" in run("emergence.py", tmp_path / "100-1", tmp_path / "figure.svg").stderr


def test_levers_compares_runs_of_one_seed_row_by_row(tmp_path):
    for name, outcomes in (("base-1", "rrwwwwwwww"), ("base-2", "rwwwwwwwww"), ("deep-1", "rorwwwwwww"),
                           ("deep-2", "rrrrwwwwww"), ("wide-2", "rwwwwwwwww")):
        (tmp_path / name).mkdir()
        report = {"input": "test.csv", "rows_sha256": "0", "outcomes": outcomes, "training": {"steps": 1000}}
        (tmp_path / name / "greedy.json").write_text(json.dumps(report))
    lines = run("levers.py", tmp_path, "base").stdout.splitlines()
    assert lines[2] == "| base | 1,000 / 1,000 | 15.0% (20.0 / 10.0) |  | - |  |"
    assert lines[3].startswith("| deep | 1,000 / 1,000 | 35.0% (30.0 / 40.0) | +20.0 (") and len(lines) == 5
    assert lines[4] == "| wide | 1,000 | 10.0% (10.0) | +0.0 (0.0 to 0.0) | - | - |"  # against base-2 alone
    assert "no report" in run("levers.py", tmp_path, "other").stderr
    (tmp_path / "wide-2" / "greedy.json").write_text(json.dumps(report | {"rows_sha256": "1"}))
    assert "other rows" in run("levers.py", tmp_path, "base").stderr


def test_relabelled_rows_are_right_and_stay_in_their_orbit(tmp_path):
    words = ["--theory=random:0-3", "--processes=2->2; 2->3", "--sample=4", "--longest_amp=300", "--longest_sqamp=300"]
    made = subprocess.run([sys.executable, ROOT / "prepare.py", *words, f"--data_dir={tmp_path}/data"],
                          capture_output=True)
    assert made.returncode == 0, made.stderr
    assert run("relabelled.py", tmp_path / "data", tmp_path / "made", 4).returncode == 0
    assert "name another folder" in run("relabelled.py", tmp_path / "data", tmp_path / "data", 4).stderr
    before, rows = ([row for _, row in read_rows(tmp_path / name / "train.csv")] for name in ("data", "made"))
    assert [row["amp"] for row in rows[::4]] == [row["amp"] for row in before]
    assert len(rows) == 4 * len(before) and len({row["amp"] for row in rows}) > 0.8 * len(rows)
    assert run("relabelled.py", tmp_path / "data", tmp_path / "orders", 4, "orders").returncode == 0
    shuffled = [row for _, row in read_rows(tmp_path / "orders" / "train.csv")]
    assert shuffled[::4] == rows[::4]
    assert len({row["amp"] for row in shuffled} - {row["amp"] for row in rows}) > len(before)
    assert {len(row["amp"]) for row in shuffled} == {len(row["amp"]) for row in before}
    for row in rows + shuffled:
        assert orbit_of(row["amp"], Facts(row["process"])).key == row["orbit"]
        assert doubt_of(row["amp"], row["sqamp"], Facts(row["process"])) == ""


def test_distances_says_how_near_to_training_what_is_right_and_wrong_is(tmp_path):
    rows = [{"process": process, "amp": process_amplitudes(process)[0], "sqamp": "1"} for process in
            ("e mu -> e mu", "u s~ -> u s~", "e e -> e e", "A c -> A c")]
    for name, some in (("train", rows[:1]), ("test", rows[1:])):
        write_rows(tmp_path / f"{name}.csv", COLUMNS[:3], some)
    numbered = [row | {"number": number} for number, row in enumerate(rows[1:])]
    report = {"input": "test.csv", "outcomes": "rwo", "rows_sha256": rows_digest(numbered)}
    (tmp_path / "beam.json").write_text(json.dumps(report))
    lines = run("distances.py", tmp_path, tmp_path / "beam.json").stdout.splitlines()
    assert [line.split("(")[0] for line in lines[2:]] == [
        "| same legs | 1 | 100.0% ", "| other masses | 1 | 0.0% ", "| new legs | 1 | 100.0% "]
    (tmp_path / "beam.json").write_text(json.dumps(report | {"rows_sha256": "x"}))
    assert "is no report on the rows of" in run("distances.py", tmp_path, tmp_path / "beam.json").stderr


def test_own_answers_takes_the_verified_ones_of_orbits_without_labels(data, tmp_path):
    assert run("variety.py", data, tmp_path / "made", 2, 4).returncode == 0
    few, many = tmp_path / "made" / "2", tmp_path / "made" / "4"
    assert run("own_answers.py", few, many, tmp_path / "own").returncode == 0
    with open(tmp_path / "own" / "amplitudes.csv", newline="") as file:
        asked = list(csv.DictReader(file))
    without = set(orbits_of(many / "train.csv")) - set(orbits_of(few / "train.csv"))
    assert sorted(row["orbit"] for row in asked) == sorted(without)
    assert asked[0].keys() == {"process", "orbit", "amp"}
    answers = [{"amp": asked[0]["amp"], "prediction": "1", "status": "unverified"},
               {"amp": asked[1]["amp"], "prediction": "s_12*e^2 + e^2*s_12", "status": "verified"}]
    write_rows(tmp_path / "own" / "answers.csv", ["amp", "prediction", "status"], answers)
    assert run("own_answers.py", few, tmp_path / "own").returncode == 0
    labelled, rows = ([row for _, row in read_rows(folder / "train.csv")] for folder in (few, tmp_path / "own"))
    assert [row["amp"] for row in rows] == [row["amp"] for row in labelled] + [asked[1]["amp"]]
    assert rows[-1]["sqamp"] == "2*e^2*s_12" and rows[-1]["orbit"] == asked[1]["orbit"]
    assert orbits_of(tmp_path / "own" / "test.csv") == orbits_of(few / "test.csv")
    write_rows(tmp_path / "own" / "answers.csv", ["amp", "prediction", "status"], [answers[1] | {"amp": "e*g"}])
    assert "answers other amplitudes" in run("own_answers.py", few, tmp_path / "own").stderr


def test_respelled_squares_are_the_same(data, tmp_path):
    square = "2*e^2*(m_e^2 + -s_12)"
    for name in ("train", "valid", "test"):
        write_rows(data / f"{name}.csv", COLUMNS, [{name: "x" for name in COLUMNS} | {"sqamp": square}])
    assert run("respelled.py", data, tmp_path / "made", "inside").returncode == 0
    assert [row["sqamp"] for _, row in read_rows(tmp_path / "made" / "test.csv")] == ["e^2*(2*m_e^2 + (-2)*s_12)"]
    assert run("respelled.py", tmp_path / "made", tmp_path / "back", "factored").returncode == 0
    assert (tmp_path / "back" / "test.csv").read_text().endswith(f",x,x,{square}\n")
    assert "name another folder" in run("respelled.py", data, data, "inside").stderr


def test_canonical_squares_are_those_of_the_program_and_proven(data, tmp_path):
    amp, = process_amplitudes("e e~ -> mu mu~")
    ours = square(amp)
    other = "1/2*(" + ours.replace("2*", "4*", 1) + ")"
    for name in ("train", "valid", "test"):
        write_rows(data / f"{name}.csv", COLUMNS, [dict(process="e e~ -> mu mu~", amp=amp, sqamp=other, orbit="x")])
    assert other != ours and run("canonical.py", data, tmp_path / "made").returncode == 0
    assert [row["sqamp"] for _, row in read_rows(tmp_path / "made" / "test.csv")] == [ours]
    assert (tmp_path / "made" / "manifest.json").exists()
    assert "name another folder" in run("canonical.py", data, data).stderr


def test_crossing_holds_out_a_kind_of_process_and_gives_half_of_it_without_squares(tmp_path):
    """In two halves by process; the file to adapt with has amplitudes alone, and no row of the other half."""
    texts = ["e e~ -> mu mu~", "e~ mu~ -> e~ mu~", "e~ u~ -> e~ u~", "mu~ u~ -> mu~ u~", "e~ t~ -> e~ t~"]
    rows = [dict(process=text, diagram="x", amp=amp, sqamp=text) for text in texts for amp in process_amplitudes(text)]
    for name, some in (("train", rows[:2]), ("valid", rows[2:4]), ("test", rows[4:])):
        write_rows(tmp_path / "data" / f"{name}.csv", list(rows[0]), some)
    assert run("crossing.py", tmp_path / "data", tmp_path / "made").returncode == 0
    base, adapt, adapted, unseen = ([row for _, row in read_rows(tmp_path / "made" / f"{name}.csv", ["amp"])]
                                    for name in ("base", "adapt", "adapted", "unseen"))
    assert [row["process"] for row in base] == texts[:1] and len(adapted) == len(unseen) == 2
    assert [row["amp"] for row in adapt] == [row["amp"] for row in adapted] and list(adapt[0]) == ["amp"]
    assert {row["process"] for row in adapted + unseen} == set(texts[1:])


def test_overlap_counts_amplitudes_as_spelled_and_in_normal_form(tmp_path):
    ours, other = process_amplitudes("e e~ -> mu mu~") + process_amplitudes("e mu -> e mu")
    fields = re.findall(r"\*(\w+_\{[^{}]*\}\(p_\d\)\w*(?:\^\(\*\))?)", ours)
    turned = ours.replace("*".join(fields), "*".join(fields[::-1]))
    write_rows(tmp_path / "train.csv", ["amp"], [{"amp": ours}])
    write_rows(tmp_path / "asked.csv", ["amp"], [{"amp": amp} for amp in (ours, turned, other)])
    done = run("overlap.py", tmp_path / "train.csv", tmp_path / "asked.csv")
    assert turned != ours and "3 rows, 1 of them" in done.stdout and "are spelled, 2 in normal form" in done.stdout


def test_first_wrong_token_is_named_by_what_should_stand_there(tmp_path):
    truth = "2*e^2*(m_e^2 + -s_12)"
    answers = [truth, "4*e^2*(m_e^2 + -s_12)", "2*e^2*(m_mu^2 + -s_12)", "2*e^2*(m_e^2 + -s_13)",
               "2*e^2*(m_e^2 + -s_12", ""]
    write_rows(tmp_path / "predictions.csv", ["prediction", "sqamp"],
               [{"prediction": answer, "sqamp": truth} for answer in answers])
    assert run("first_wrong.py", tmp_path / "predictions.csv").stdout.splitlines() == [
        "5 of 6 answers differ from the truth", "| first wrong token should be | answers |", "| --- | --- |",
        "| a number | 2 |", "| a mass | 1 |", "| a product of two momenta | 1 |", "| an operator or a bracket | 1 |",
        "2 answers are wrong from the first token on"]
