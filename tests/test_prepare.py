import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

import prepare
import rows
from conftest import ROOT
from files import read_rows
from lookup import canonical_key, template_key
from physics.theory import THEORIES
from verify import verify

SMALL = "--processes=e e~ -> mu mu~; e mu -> e mu; e A -> e A; mu A -> mu A; u u -> u u; e e~ -> A A; d A -> d A"


def run(folder, *flags, **options):
    return subprocess.run([sys.executable, ROOT / "prepare.py", f"--data_dir={folder}", *flags], capture_output=True, text=True, timeout=300, **options)


def contents(folder):
    return {name: (folder / f"{name}.csv").read_bytes() for name in ("train", "valid", "test")}


def rows_of(folder, *splits):
    return [row for split in splits or ("train", "valid", "test") for _, row in read_rows(folder / f"{split}.csv")]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "small"
    done = run(folder, SMALL, "--workers=1", "--test_fraction=0.2", "--valid_fraction=0.2")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_every_crossing_and_order_of_qed_is_enumerated():
    """By hand: two flavours: which legs (6) * direction of each line (2 * 2) * 36 pairs; one flavour: ff, f~f~ and 2 * 2 orders of ff~;
    one flavour and two photons: 6 * 2; and A A -> A A, which has equal charges but no tree diagram."""
    processes = prepare.list_processes("2->2", THEORIES["qed"])
    assert len(processes) == len(set(processes)) == 864 + 9 * 6 + 9 * 12 + 1
    for before, after in processes:
        flavour = [sum((1 if name == f else -1 if name == f + "~" else 0) for name in side) for f in "e mu t u c tt d s b".split() for side in (before, after)]
        assert flavour[::2] == flavour[1::2]


def test_data_set_is_complete_verified_and_summed_up(small):
    folder, done = small
    manifest, rows = json.loads((folder / "manifest.json").read_text()), rows_of(folder)
    assert len(rows) == 1 + 1 + 2 + 2 + 2 + 2 + 2
    assert done.stdout.splitlines()[-1] == manifest["summary"] == "12 rows: 8 train, 2 valid, 2 test, all verified"
    assert all(verify(row["amp"], row["sqamp"], seed=99) for row in rows)
    assert manifest["lookup_accuracy"]["exact"] == 0 and manifest["verified"] == 12
    assert not (folder / ".parts").exists()


def test_no_row_stands_twice_up_to_index_names(small):
    keys = [canonical_key(row["amp"]) for row in rows_of(small[0])]
    assert len(keys) == len(set(keys))


def test_same_settings_same_bytes_with_any_number_of_workers(small, tmp_path):
    for workers in (2, 3):
        assert run(tmp_path / str(workers), SMALL, f"--workers={workers}", "--test_fraction=0.2", "--valid_fraction=0.2").returncode == 0
        assert contents(tmp_path / str(workers)) == contents(small[0])


def test_index_names_are_random_and_mean_nothing(small, tmp_path):
    plain = tmp_path / "plain"
    assert run(plain, SMALL, "--workers=1", "--test_fraction=0.2", "--valid_fraction=0.2", "--randomise_indices=False").returncode == 0
    ours, theirs = rows_of(plain), rows_of(small[0])
    assert [canonical_key(row["amp"]) for row in ours] == [canonical_key(row["amp"]) for row in theirs]
    assert not any(a["amp"] == b["amp"] for a, b in zip(ours, theirs))
    labels = [tuple(re.findall(r"%\\?\w+", row["amp"])) for row in theirs]
    assert len(set(labels)) == len(labels)


def test_split_by_template_keeps_like_rows_together(tmp_path):
    flavours = "e mu t u c tt d s b".split()
    processes = "; ".join(f"{f} A -> {f} A; {f} {f} -> {f} {f}; {f} {f}~ -> A A" for f in flavours)
    assert run(tmp_path / "t", f"--processes={processes}", "--split=template", "--test_fraction=0.2", "--valid_fraction=0.2").returncode == 0
    templates = [{template_key(row["amp"]) for row in rows_of(tmp_path / "t", name)} for name in ("train", "valid", "test")]
    assert all(templates) and not templates[0] & templates[1] and not templates[0] & templates[2] and not templates[1] & templates[2]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, small):
    def full(folder):
        return [sys.executable, ROOT / "prepare.py", f"--data_dir={folder}", "--workers=1", SMALL.replace("e A -> e A", "e A -> e A; " + "; ".join(
            f"{a} {b} -> {a} {b}" for a in "e mu t u c tt d s b".split() for b in "e mu t u c tt d s b e~ mu~ t~ u~ c~ tt~ d~ s~ b~".split()))]

    straight = tmp_path / "straight"
    subprocess.run(full(straight), check=True, capture_output=True, timeout=300)
    folder, killed = tmp_path / "killed", 0
    for _ in range(20):
        before = len(list(folder.glob(".parts/*/*.part")))
        process = subprocess.Popen(full(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and len(list(folder.glob(".parts/*/*.part"))) == before:
            time.sleep(0.002)
        if process.poll() is None:
            killed += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (folder / "manifest.json").exists():
            break
    assert killed and contents(folder) == contents(straight)


@pytest.mark.parametrize("flags, reason", [
    (["--theory=qet"], "wanted one of qed"), (["--split=half"], "'random' or 'template'"), (["--squares=none"], "'diagram' or 'process'"), (["--test_fraction=1.5"], "less than 1"),
    (["--processes=e e~ -> x x~"], "no particle 'x'"), (["--processes=e e~"], "expected particles"), (["--processes=e -> mu A"], "tree diagram"),
    (["--processes= "], "names no process"), (["--proceses=2->2"], "did you mean processes"), (["--seed=x"], "seed"),
])
def test_broken_settings_give_one_line_and_write_nothing(tmp_path, flags, reason):
    done = run(tmp_path / "data", "--workers=1", *flags)
    assert done.returncode == 2 and reason in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("data/*.csv"))


def test_other_settings_do_not_overwrite_a_data_set(small):
    before = contents(small[0])
    done = run(small[0], SMALL, "--workers=1", "--seed=2")
    assert done.returncode == 2 and "other settings" in done.stderr
    done = run(small[0], SMALL, "--workers=1", "--test_fraction=0.2", "--valid_fraction=0.2")
    assert done.returncode == 0 and "complete already" in done.stdout
    assert contents(small[0]) == before


def test_a_changed_data_set_is_not_called_complete(tmp_path):
    assert run(tmp_path, SMALL, "--workers=1").returncode == 0
    (tmp_path / "train.csv").write_text("amp,sqamp\nmine,mine\n")
    done = run(tmp_path, SMALL, "--workers=1")
    assert done.returncode == 2 and "train.csv is not what this program wrote" in done.stderr


def test_a_damaged_part_is_made_again(tmp_path, small):
    flags = (SMALL, "--workers=1", "--test_fraction=0.2", "--valid_fraction=0.2")
    settings = prepare.load_settings("", [], [f"--data_dir={tmp_path}", *flags])
    parts = tmp_path / ".parts" / prepare.fingerprint(prepare.facts_of(settings) | {"code": prepare.code_version()})
    parts.mkdir(parents=True)
    (parts / "000000.part").write_text('{"rows": [')
    assert run(tmp_path, *flags).returncode == 0 and contents(tmp_path) == contents(small[0])


def test_a_killed_worker_ends_the_run_with_one_line(tmp_path):
    process = subprocess.Popen([sys.executable, ROOT / "prepare.py", f"--data_dir={tmp_path}", "--workers=1", "--theory=ew"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not list(tmp_path.glob(".parts/*/*.part")) and process.poll() is None:
        time.sleep(0.01)
    for child in children.read_text().split():
        os.kill(int(child), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "a worker process was killed" in said and "Traceback" not in said


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "train.csv").write_text("amp,sqamp\nmine,mine\n")
    done = run(tmp_path, SMALL, "--workers=1")
    assert done.returncode == 2 and "did not finish" in done.stderr
    assert (tmp_path / "train.csv").read_text() == "amp,sqamp\nmine,mine\n"


def test_a_wrong_square_is_never_written(tmp_path, monkeypatch):
    monkeypatch.setattr(rows.physics.square, "square_many", lambda amps, basis: ["e^4*s_12"] * len(amps))
    done = rows.make_rows([(("e", "e~"), ("mu", "mu~"))], "qed", "diagram", "all", 1)
    assert len(done["wrong"]) == 1 and "the amplitude gives" in done["wrong"][0]


def test_whole_processes_have_one_row_each_with_their_interference():
    for basis in ("all", "independent"):
        done = rows.make_rows([(("e", "e~"), ("e", "e~")), (("e", "A"), ("e", "A"))], "qed", "process", basis, 1)
        assert len(done["rows"]) == 2 and not done["wrong"]
        assert all(row["sqamp"].count("^(-2)") == 2 and row["sqamp"].count("^(-1)") == 2 for row in done["rows"])


def test_files_are_checked_deduplicated_and_split(small, tmp_path):
    rows = rows_of(small[0])
    rows.append(rows[0] | {"amp": re.sub(r"_(\d{3,})", r"_9\1", rows[0]["amp"])})         # the same row under other index names
    rows[2] = rows[2] | {"sqamp": rows[2]["sqamp"] + " + s_12"}
    source = tmp_path / "source.csv"
    prepare.write_rows(source, ["amp", "sqamp"], ({"amp": row["amp"], "sqamp": row["sqamp"]} for row in rows))
    done = run(tmp_path / "data", f"--input={source}", "--workers=2")
    assert done.returncode == 0, done.stderr
    assert f"{source}:4: wrong: the amplitude gives" in done.stdout and "1 rows are wrong" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("11 rows: ") and done.stdout.strip().endswith("all verified")
    assert {row["amp"] for row in rows_of(tmp_path / "data")} <= {row["amp"] for row in rows}


def test_raw_marty_text_is_read(marty, tmp_path):
    done = run(tmp_path / "data", f"--input={marty / 'raw-example.txt'}")
    assert done.returncode == 0 and re.match(r"\d+ rows: .* all verified", done.stdout.splitlines()[-1])
    assert all(" to " in row["process"] and row["diagram"] for row in rows_of(tmp_path / "data"))


def test_diagrams_are_drawn(tmp_path):
    done = run(tmp_path, "--draw=e A -> e A; e e~ -> mu mu~ A")
    assert done.returncode == 0 and "2 diagrams" in done.stdout and "4 diagrams" in done.stdout
    assert (tmp_path / "diagrams" / "e_A_to_e_A.svg").read_text().count("<svg") >= 1
    done = run(tmp_path, "--draw=A A -> A A; e e -> e e")
    assert "A A -> A A: no tree diagram" in done.stdout and "2 diagrams" in done.stdout


def test_csv_files_are_read_by_the_standard_library(small):
    with open(small[0] / "train.csv", newline="") as file:
        assert csv.DictReader(file).fieldnames == prepare.COLUMNS
