import collections
import csv
import gzip
import importlib.metadata
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
import types

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import ROOT

import prepare
from dataset import rows
from dataset import shards as parts
from dataset.baseline import canonical_key, kinematics_key, lookup_scores, template_key
from dataset.reader import read_rows
from physics.numeric import verify
from physics.theory import THEORIES
from runtime.files import InputError
from tokenizer import amp_tokens

SMALL = "--processes=e e~ -> mu mu~; e mu -> e mu; e A -> e A; mu A -> mu A; u u -> u u; e e~ -> A A; d A -> d A"


def run(folder, *flags, **options):
    return subprocess.run(
        [sys.executable, ROOT / "prepare.py", f"--data_dir={folder}", *flags],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


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
    """By hand: two flavours: 6 choices of legs * 4 directions * 36 pairs; one flavour: ff, f~f~, 2 * 2 orders of ff~;
    one flavour and two photons: 6 * 2; and A A -> A A, which has equal charges but no tree diagram."""
    processes = prepare.list_processes("2->2", THEORIES["qed"])
    assert len(processes) == len(set(processes)) == 864 + 9 * 6 + 9 * 12 + 1
    for before, after in processes:
        flavour = [
            sum((1 if name == f else -1 if name == f + "~" else 0) for name in side)
            for f in "e mu t u c tt d s b".split()
            for side in (before, after)
        ]
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
        assert (
            run(
                tmp_path / str(workers), SMALL, f"--workers={workers}", "--test_fraction=0.2", "--valid_fraction=0.2"
            ).returncode
            == 0
        )
        assert contents(tmp_path / str(workers)) == contents(small[0])


def test_index_names_are_random_and_mean_nothing(small, tmp_path):
    plain = tmp_path / "plain"
    assert (
        run(
            plain, SMALL, "--workers=1", "--test_fraction=0.2", "--valid_fraction=0.2", "--randomise_indices=False"
        ).returncode
        == 0
    )
    ours, theirs = rows_of(plain), rows_of(small[0])
    assert [canonical_key(row["amp"]) for row in ours] == [canonical_key(row["amp"]) for row in theirs]
    assert not any(a["amp"] == b["amp"] for a, b in zip(ours, theirs))
    labels = [tuple(re.findall(r"%\\?\w+", row["amp"])) for row in theirs]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    "split, key, squares, style, processes",
    [
        ("template", template_key, "diagram", "factored", "{f} A -> {f} A; {f} {f} -> {f} {f}; {f} {f}~ -> A A"),
        (
            "kinematics",
            kinematics_key,
            "diagram",
            "factored",
            "{f} A -> {f} A; {f} {f} -> {f} {f}; {f} {f}~ -> A A; {f} {f}~ -> A {f} {f}~; {f} A -> A {f}",
        ),
        (
            "kinematics",
            kinematics_key,
            "process",
            "marty",
            "{f} A -> {f} A; {f} {f} -> {f} {f}; {f} {f}~ -> A A; {f} A -> A {f}; A {f} -> A {f}; A {f} -> {f} A",
        ),
        ("template", template_key, "process", "marty", "{f} A -> {f} A; {f} {f} -> {f} {f}; {f} {f}~ -> A A"),
    ],
)
def test_like_rows_stay_in_one_split(tmp_path, split, key, squares, style, processes):
    flags = (
        f"--squares={squares}",
        f"--style={style}",
        f"--processes={'; '.join(processes.format(f=f) for f in 'e mu t u c tt d s b'.split())}",
        f"--split={split}",
        "--test_fraction=0.2",
        "--valid_fraction=0.2",
    )
    done = run(tmp_path / "t", *flags)
    assert done.returncode == 0, done.stderr
    keys = [{key(row["amp"]) for row in rows_of(tmp_path / "t", name)} for name in ("train", "valid", "test")]
    assert all(keys) and not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    found = json.loads((tmp_path / "t" / "manifest.json").read_text())["lookup_accuracy"]
    assert found["renamed"] == 0 and (found["rescaled"] == 0) == (split == "kinematics")


def test_the_lookup_table_may_be_asked_block_by_block(tmp_path, monkeypatch):
    assert run(tmp_path, "--theory=qcd", "--shard=1/1", "--workers=1").returncode == 0
    (folder,) = tmp_path.glob(".parts/*")
    columns, _ = prepare.collect(folder, len(list(folder.glob("*.part"))))
    splits = prepare.split_rows(columns["random"], types.SimpleNamespace(seed=1, valid_fraction=0.1, test_fraction=0.1))
    train, test = (list(prepare.load_rows(folder, columns, splits[name])) for name in ("train", "test"))
    monkeypatch.setattr(prepare, "BLOCK", 7)
    assert prepare.lookup_accuracy(folder, columns, splits, 1) == pytest.approx(lookup_scores(train, test))


def test_two_programs_in_one_folder_write_one_after_the_other(tmp_path):
    """The second waits for the first, and finds a data set of other processes; no file is of that one."""
    found = [subprocess.Popen([sys.executable, ROOT / "prepare.py", "--workers=1", f"--processes={processes}",
                               f"--data_dir={tmp_path}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
             for processes in ("e e~ -> mu mu~; e A -> e A; mu A -> mu A", "e e~ -> t t~; e A -> e A; t A -> t A")]
    assert sorted(process.wait(100) for process in found) == [0, 2]
    digests = json.loads((tmp_path / "manifest.json").read_text())["sha256"]
    assert digests == {name: hashlib.sha256((tmp_path / f"{name}.csv").read_bytes()).hexdigest() for name in digests}


def test_a_run_killed_at_any_moment_goes_on_and_ends_with_the_same_bytes(tmp_path):
    flavours = "e mu t u c tt d s b".split()
    processes = "; ".join(f"{a} {b} -> {a} {b}" for a in flavours for b in flavours + [f + "~" for f in flavours])
    command = [sys.executable, ROOT / "prepare.py", "--workers=1", f"--processes={processes}", "--data_dir"]

    def start(folder):
        return subprocess.Popen(
            [*command[:-1], f"--data_dir={folder}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    straight, folder = tmp_path / "straight", tmp_path / "killed"
    began = time.monotonic()
    assert start(straight).wait() == 0
    whole, rng, killed = time.monotonic() - began, random.Random(1), 0
    for k in range(30):
        before = len(list(folder.glob(".parts/*/*.part")))
        process = start(folder)
        if k % 2:  # at a random moment
            until = time.monotonic() + rng.uniform(0.2, 1.2) * whole
            while process.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
        else:  # when one more part is there
            while process.poll() is None and len(list(folder.glob(".parts/*/*.part"))) == before:
                time.sleep(0.002)
        if process.poll() is None:
            killed += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (folder / "manifest.json").exists():
            break
    assert start(folder).wait() == 0
    assert killed > 1 and contents(folder) == contents(straight)
    assert (
        sorted(os.listdir(folder))
        == sorted(os.listdir(straight))
        == ["manifest.json", "test.csv", "train.csv", "valid.csv"]
    )


QCD = ("--theory=qcd", "--processes=2->2", "--longest_amp=150", "--split=template", "--workers=1")


def test_shards_are_merged_to_the_same_bytes_and_what_is_wrong_with_one_is_said(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "shards"
    assert run(whole, *QCD).returncode == 0
    assert "no shards made with these settings" in run(folder, *QCD, "--merge").stderr
    for shard in ("3/3", "1/3"):
        done = run(folder, *QCD, f"--shard={shard}", "--workers=2")
        assert done.returncode == 0 and f"shard {shard}: " in done.stdout and not list(folder.glob("*.csv"))
    done = run(folder, *QCD, "--merge")
    assert done.returncode == 2 and "shard 2/3: all its parts missing" in done.stderr and "shard 1/3" not in done.stderr
    assert "is being made in 3 shards, not in 4" in run(folder, *QCD, "--shard=2/4").stderr
    assert "there are some with other settings: seed=1337 (now 2)" in run(folder, *QCD, "--merge", "--seed=2").stderr
    assert run(folder, *QCD, "--shard=2/3").returncode == 0
    parts = sorted(folder.glob(".parts/*/*.part"))
    for at, change, said in (
        (2, lambda text: text.replace(b"m_u", b"m_d", 1), "shard 3/3: part 000002.part damaged"),
        (4, lambda text: b"", "shard 2/3: part 000004.part damaged"),
        (4, lambda text: parts[1].read_bytes(), "shard 2/3: part 000004.part foreign"),
    ):
        text = parts[at].read_bytes()
        parts[at].write_bytes(change(text))
        done = run(folder, *QCD, "--merge")
        assert (
            done.returncode == 2
            and said in done.stderr
            and len(re.findall(r"shard \d+/", done.stderr)) == 1
            and not list(folder.glob("*.csv"))
        )
        parts[at].write_bytes(text)
    done = run(folder, *QCD, "--merge")
    assert done.returncode == 0 and "75 rows were left out: amp has more than longest_amp=150 tokens" in done.stdout
    assert (
        done.stdout.splitlines()[-1].startswith("577 rows: ")
        and contents(folder) == contents(whole)
        and not (folder / ".parts").exists()
    )


def test_every_part_belongs_to_one_shard_whatever_the_workers(tmp_path):
    names = []
    for shard, workers in (("1/2", 1), ("1/2", 3), ("2/2", 2)):
        folder = tmp_path / f"{shard[0]}{workers}"
        assert run(folder, "--theory=qcd", f"--shard={shard}", f"--workers={workers}").returncode == 0
        names.append({path.name: path.read_bytes().split(b"\n", 1)[1] for path in folder.glob(".parts/*/*.part")})
    assert names[0] == names[1] and not names[0].keys() & names[2].keys()
    assert sorted(names[0] | names[2]) == [f"{k:06d}.part" for k in range(len(names[0]) + len(names[2]))]


def test_the_batch_job_makes_the_same_set(tmp_path):
    """slurm/prepare.sbatch with an srun that only runs its arguments, after its own."""
    for name, text in (("srun", 'case $1 in --*) shift;; esac; exec "$@"'), ("python", f'exec {sys.executable} "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    flags = [f"--data_dir={tmp_path / 'data'}", "--theory=qcd"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    base = clean | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_CPUS_PER_TASK": "1",
        "SHARDS": "2",
    }
    for task in ({"SLURM_ARRAY_TASK_ID": "1"}, {"SLURM_ARRAY_TASK_ID": "2"}, {}):
        done = subprocess.run(
            ["bash", ROOT / "slurm" / "prepare.sbatch", *flags, *["--merge"] * (not task)],
            env=base | task,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("652 rows: ")


def test_begun_work_of_other_settings_is_not_gone_on_with(tmp_path):
    assert run(tmp_path, SMALL, "--workers=1", "--shard=1/1").returncode == 0
    (tmp_path / ".train.csv.x7").write_text("what a run leaves that is killed while it writes")
    done = run(tmp_path, SMALL, "--workers=1", "--basis=independent")
    assert (
        "begun with other settings: basis='all' (now 'independent')" in done.stdout
        and "starting anew" in done.stdout
        and done.returncode == 0
    )
    assert sorted(os.listdir(tmp_path)) == ["manifest.json", "test.csv", "train.csv", "valid.csv"]


@hypothesis.given(
    st.lists(st.integers(0, 12), min_size=1, max_size=60), st.floats(0, 0.4), st.floats(0, 0.4), st.integers(0, 5)
)
def test_splits_are_those_of_a_plain_loop_over_groups(groups, valid, test, seed):
    settings = types.SimpleNamespace(seed=seed, valid_fraction=valid, test_fraction=test)
    table = collections.defaultdict(list)
    for row, group in enumerate(groups):
        table[group].append(row)
    order, plain = list(table.values()), {"test": [], "valid": []}
    random.Random(seed).shuffle(order)
    for name, share in (("test", test), ("valid", valid)):
        while len(order) > 1 and len(plain[name]) < round(share * len(groups)):
            plain[name] += order.pop()
    plain["train"] = [row for group in order for row in group]
    assert {
        name: rows.tolist() for name, rows in prepare.split_rows(np.array(groups, np.uint64), settings).items()
    } == plain


def test_rows_are_not_held_in_memory(tmp_path):
    rng = random.Random(1)
    for part in range(40):
        lines = [
            {"amp": "x" * 4000, "keys": [rng.getrandbits(64)] * 5, "tokens": [1, 2], "crossed": 0} for _ in range(50)
        ]
        parts.write_part(tmp_path, part, {}, lines)
    tracemalloc.start()
    columns, _ = prepare.collect(tmp_path, 40)
    prepare.split_rows(columns["random"], types.SimpleNamespace(seed=1, valid_fraction=0.1, test_fraction=0.1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(columns["part"]) == 2000 and peak < 2e6  # of 8 MB: one part of 200 KB and some 100 bytes a row


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--theory=qet"], "wanted one of qed"),
        (["--split=half"], "'random' or 'template' or 'kinematics'"),
        (["--shard=4/3"], "K from 1 to N"),
        (["--shard=1/2", "--merge"], "one after the other"),
        (["--sample=-1"], "wanted 0 or more"),
        (["--longest_amp=3"], "no row is left"),
        (["--squares=none"], "wanted diagram, process"),
        (["--test_fraction=1.5"], "less than 1"),
        (["--processes=e e~ -> x x~"], "no particle 'x'"),
        (["--processes=e e~"], "expected particles"),
        (["--processes=e -> mu A"], "tree diagram"),
        (
            ["--processes=e A -> e A; e -> e A"],
            "process 'e -> e A': no momenta allow it on the mass shells; --off_shell=1",
        ),
        (["--processes=1->2"], "momenta that allow it"),
        (
            ["--theory=qcd", "--processes=u d -> u d; u u~ -> G G", "--squares=process", "--off_shell=1"],
            "is not gauge invariant",
        ),
        (["--input='a.csv"], "in quotes"),
        (["--draw=A A -> A A"], "has no tree diagram in qed"),
        (["--draw=2->3"], "at most 1,000 are drawn"),
        (["--processes= "], "names no process"),
        (["--proceses=2->2"], "did you mean processes"),
        (["--seed=x"], "seed"),
    ],
)
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


@pytest.mark.parametrize(
    "change", [lambda text: text[:-40], lambda text: "[]", lambda text: text.replace('"sha256"', '"sha"')]
)
def test_a_damaged_manifest_is_said_to_be_damaged(tmp_path, small, change):
    (tmp_path / "manifest.json").write_text(change((small[0] / "manifest.json").read_text()))
    done = run(tmp_path, SMALL, "--workers=1", "--test_fraction=0.2", "--valid_fraction=0.2")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith(
        "manifest.json is damaged; delete that folder"
    )


def test_form_may_come_without_its_package(monkeypatch):
    def version(name):
        if name == "form-bin":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert prepare.versions()["form-bin"] is None and prepare.versions()["numpy"] == "1"


def test_a_changed_data_set_is_not_called_complete(tmp_path):
    assert run(tmp_path, SMALL, "--workers=1").returncode == 0
    (tmp_path / "train.csv").write_text("amp,sqamp\nmine,mine\n")
    done = run(tmp_path, SMALL, "--workers=1")
    assert done.returncode == 2 and "train.csv is not what this program wrote" in done.stderr


def test_a_damaged_part_is_made_again(tmp_path, small):
    flags = (SMALL, "--workers=1", "--test_fraction=0.2", "--valid_fraction=0.2")
    assert run(tmp_path, *flags, "--shard=1/1").returncode == 0
    (part,) = tmp_path.glob(".parts/*/*.part")
    body = part.read_bytes().split(b"\n", 1)[1]
    part.write_text('{"rows": [')
    assert run(tmp_path, *flags, "--shard=1/1").returncode == 0 and list(tmp_path.glob(".parts/*/*.part")) == [part]
    assert part.read_bytes().split(b"\n", 1)[1] == body and parts.read_part(part.parent, 0)[0]["rows"] == 12
    assert run(tmp_path, *flags).returncode == 0 and contents(tmp_path) == contents(small[0])


def test_a_row_that_is_not_squared_is_named_and_tried_again(tmp_path, monkeypatch):
    """FORM fails for one of two rows, then no more: the part is not stored before both are right."""
    settings = prepare.load_settings("", [], [f"--data_dir={tmp_path}"])
    task = tmp_path, 0, (2, "2->2", "qed", [(("e", "A"), ("e", "A"))]), settings
    right = rows.physics.square.square_many
    monkeypatch.setattr(
        rows.physics.square,
        "square_many",
        lambda amps, *options, **facts: [InputError("FORM took more than 60 s"), *right(amps[1:], *options)],
    )
    size, (reason,) = prepare.make_part(task)
    assert size == 2 and re.fullmatch(r"e A -> e A \[e\(.*\)\]: not squared: FORM took more than 60 s", reason)
    assert parts.read_part(tmp_path, 0) == (None, "missing")
    monkeypatch.setattr(rows.physics.square, "square_many", right)
    assert prepare.make_part(task) == (2, []) and parts.read_part(tmp_path, 0)[0]["rows"] == 2


def test_a_run_with_a_row_that_is_not_squared_says_so_and_the_next_one_makes_it(tmp_path):
    """The program `form` fails once: the run ends with what and why, and the same command then makes the whole set."""
    failing = (
        "import sys, runpy; sys.path.insert(0, {root!r}); import physics.square as s; right = s.square_many\n"
        "from runtime.files import InputError\n"
        "def failing(amps, *options, **facts):\n"
        "    squares = right(amps, *options, **facts)\n"
        "    return [InputError('FORM failed') if 'A_' in amp else text for amp, text in zip(amps, squares)]\n"
        "s.square_many = failing\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    ).format(root=str(ROOT))
    flags = (f"--data_dir={tmp_path}", "--workers=1", "--processes=e mu -> e mu; e A -> e A")
    done = subprocess.run(
        [sys.executable, "-c", failing, str(ROOT / "prepare.py"), *flags], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "2 of 3 rows are not squared or not verified" in done.stderr.splitlines()[-1]
    assert len(re.findall(r"e A -> e A \[.*\]: not squared: FORM failed", done.stdout)) == 2 and not list(
        tmp_path.glob("*.csv")
    )
    assert run(tmp_path, *flags[1:]).returncode == 0 and len(rows_of(tmp_path)) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process that its parent ended")
def test_workers_end_with_a_killed_parent(tmp_path):
    process = subprocess.Popen(
        [sys.executable, ROOT / "prepare.py", f"--data_dir={tmp_path}", "--workers=2", "--theory=ew"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not list(tmp_path.glob(".parts/*/*.part")) and process.poll() is None:
        time.sleep(0.01)
    children = [
        pathlib.Path(f"/proc/{child}")
        for child in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while (left := [child for child in children if alive(child)]) and time.monotonic() < until:
        time.sleep(0.05)
    for child in left:
        os.kill(int(child.name), signal.SIGKILL)
    assert len(children) == 2 and not left


def alive(process):
    """Whether a process is there and no zombie, whom its new parent has yet to bury."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_worker_ends_the_run_with_one_line(tmp_path):
    process = subprocess.Popen(
        [sys.executable, ROOT / "prepare.py", f"--data_dir={tmp_path}", "--workers=1", "--theory=ew"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
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
    monkeypatch.setattr(rows.physics.square, "square_many", lambda amps, *options, **facts: ["e^4*s_12"] * len(amps))
    done = rows.make_rows([(("e", "e~"), ("mu", "mu~"))], "qed", "diagram", "all", 1)
    assert len(done["wrong"]) == 1 and "the amplitude gives" in done["wrong"][0]


def test_impossible_decays_are_counted(tmp_path):
    """A muon decays; an electron into itself and a pair, and a photon, on their mass shells do not."""
    done = run(tmp_path, "--theory=ew", "--processes=mu -> nu_mu e nu_e~; e -> e mu mu~; mu A -> mu A", "--workers=1")
    kinds = json.loads((tmp_path / "manifest.json").read_text())["kinds"]
    assert (
        kinds["2->2"]["crossed"] == 0 and kinds["1->3"]["rows"] > kinds["1->3"]["crossed"] == kinds["1->3"]["rows"] - 1
    )
    assert (
        f"{kinds['1->3']['rows']} rows ({kinds['1->3']['crossed']} of impossible decays: "
        "verified with a product crossed)"
        in done.stdout
    )


def test_whole_processes_have_one_row_each_with_their_interference():
    for basis in ("all", "independent"):
        done = rows.make_rows([(("e", "e~"), ("e", "e~")), (("e", "A"), ("e", "A"))], "qed", "process", basis, 1)
        assert len(done["rows"]) == 2 and not done["wrong"]
        assert all(row["sqamp"].count("^(-2)") == 2 and row["sqamp"].count("^(-1)") == 2 for row in done["rows"])


def test_legs_off_their_shell_and_plain_sums(tmp_path):
    flags = ("--processes=e mu -> e mu; e A -> e A", "--workers=1", "--split=template")
    done = run(tmp_path / "off", *flags, "--off_shell=2")
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("33 rows: "), (
        done.stderr
    )  # 1 + 4 + 6 choices
    marked = [
        (
            row["diagram"].partition(" off shell: ")[2].split(),
            sorted(set(re.findall(r"\(p_(\d)\)(?:_[uv])?_off", row["amp"]))),
        )
        for row in rows_of(tmp_path / "off")
    ]
    assert all(said == legs for said, legs in marked) and collections.Counter(len(legs) for _, legs in marked) == {
        0: 3,
        1: 12,
        2: 18,
    }
    assert run(tmp_path / "plain", *flags, "--style=marty").returncode == 0
    (scattering,) = (row["sqamp"] for row in rows_of(tmp_path / "plain") if row["process"] == "e mu -> e mu")
    assert scattering.count("(m_e^2 + -s_13 + 1/2*reg_prop)^(-2)") == 5  # one under each term


def test_files_are_checked_deduplicated_and_split(small, tmp_path):
    """Plain, gzipped and raw, with rows twice, one wrong and one unreadable."""
    made = rows_of(small[0])
    plain, packed, raw = tmp_path / "plain rows.csv", tmp_path / "packed.csv.gz", tmp_path / "raw.txt"
    wrong = [row | {"sqamp": row["sqamp"] + " + s_12"} if k == 2 else row for k, row in enumerate(made[:5])]
    prepare.write_rows(plain, ["amp", "sqamp"], ({"amp": row["amp"], "sqamp": row["sqamp"]} for row in wrong))
    again = [
        row | {"amp": re.sub(r"_(\d{3,})", r"_9\1", row["amp"])} for row in made[:2]
    ]  # the same rows under other index names
    prepare.write_rows(
        tmp_path / "all.csv",
        ["process", "amp", "sqamp"],
        ({name: row[name] for name in ("process", "amp", "sqamp")} for row in made[5:9] + again),
    )
    packed.write_bytes(gzip.compress((tmp_path / "all.csv").read_bytes()))
    raw.write_text(
        "".join(f"Interaction: a to b : c : {row['amp']} : {row['sqamp']}\n" for row in made[8:])
        + "Interaction: a to b : c : e*( : e\n"
    )
    done = run(tmp_path / "data", f"--input='{plain}' {packed} {raw}", "--workers=2")
    assert done.returncode == 0, done.stderr
    assert (
        re.search(re.escape(f"{plain}:4: wrong: the amplitude gives ") + r"\S+ .* \S*\d", done.stdout)
        and f"{raw}:{len(made) - 7}: unreadable" in done.stdout
    )
    assert (
        "2 rows are wrong or unreadable and were kept out" in done.stdout
        and "3 rows stand twice and were left out" in done.stdout
    )
    assert done.stdout.splitlines()[-1].startswith("11 rows: ") and done.stdout.strip().endswith("all verified")
    assert {row["sqamp"] for row in rows_of(tmp_path / "data")} == {
        row["sqamp"] for k, row in enumerate(made) if k != 2
    }
    parts_of = [
        run(tmp_path / "shards", f"--input='{plain}' {packed} {raw}", flag)
        for flag in ("--shard=1/2", "--shard=2/2", "--merge")
    ]
    assert parts_of[2].returncode == 0 and contents(tmp_path / "shards") == contents(tmp_path / "data")


def test_a_right_row_without_tokens_and_a_cell_with_a_line_break_stop_nothing(small, tmp_path):
    """e^(2*2) is a power that the numeric check knows and the tokenizer does not."""
    rows = [dict(row) for row in rows_of(small[0])[:6]]
    rows[1]["sqamp"] = rows[1]["sqamp"].replace("e^4", "e^(2*2)", 1)
    assert "e^(2*2)" in rows[1]["sqamp"]
    rows[2]["process"] += "\r"
    path = tmp_path / "rows.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["process", "amp", "sqamp"], extrasaction="ignore", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    done = run(tmp_path / "data", f"--input={path}", "--workers=1")
    assert done.returncode == 0, done.stderr
    named, = (tmp_path / "data" / "wrong.txt").read_text().splitlines()
    assert named.startswith(f"{path}:3: no tokens: ")
    made = rows_of(tmp_path / "data")
    assert len(made) == 5 and all(row["process"].count("->") == 1 for row in made)


def test_one_group_is_left_for_training():
    settings = types.SimpleNamespace(seed=1, valid_fraction=0.1, test_fraction=0.1)
    for few in (False, True):
        for groups in ([0] * 60, [0] * 60 + [1] * 40, [0] * 3 + [1] * 3 + [2] * 3):
            splits = prepare.split_rows(np.array(groups, np.uint64), settings, few)
            assert len(splits["train"]) and sum(map(len, splits.values())) == len(groups)


def test_bad_lines_of_files_are_named_counted_and_left_out(small, tmp_path):
    """Of each kind one, in the first, a middle and the last line, of plain CSV and raw text; with shards too."""
    made = rows_of(small[0])
    lines = [f'"{row["amp"]}","{row["sqamp"]}"' for row in made[:6]]
    plain, raw = tmp_path / "rows.csv", tmp_path / "raw.txt"
    plain.write_text("\n".join(["Error: no model", "amp,sqamp", *lines[:3], lines[3] + ",", *lines[3:], lines[5][:40]]))
    raw.write_text(
        "\n".join(
            [
                "",
                "Error: no model",
                *(f"Interaction: a to b : c : {row['amp']} : {row['sqamp']}" for row in made[6:]),
                "   ",
            ]
        )
    )
    flags = f"--input={plain} {raw}", "--workers=1"
    done = run(tmp_path / "data", *flags)
    assert done.returncode == 0, done.stderr
    bad = [f"{plain}:1", f"{plain}:6", f"{plain}:10", f"{raw}:2", f"{raw}:{len(made) - 6 + 3}"]
    assert [line.partition(": unreadable: ")[0] for line in done.stdout.splitlines() if ": unreadable: " in line] == bad
    assert (
        "5 rows are wrong or unreadable" in done.stdout
        and json.loads((tmp_path / "data" / "manifest.json").read_text())["wrong"] == 5
    )
    assert len(rows_of(tmp_path / "data")) == len(made)
    assert [line.partition(": unreadable: ")[0] for line in (tmp_path / "data" / "wrong.txt").read_text().splitlines()
            ] == bad
    shards = [run(tmp_path / "shards", *flags, flag) for flag in ("--shard=1/2", "--shard=2/2", "--merge")]
    assert [shard.returncode for shard in shards] == [0, 0, 0] and contents(tmp_path / "shards") == contents(
        tmp_path / "data"
    )


@pytest.mark.parametrize(
    "respell",
    [
        lambda text: text.replace(" ", ""),
        lambda text: f"  {text}\n",
        lambda text: text.replace("*", "\n*").replace("(\n*)", "(*)"),
        lambda text: text.replace("%", ""),
        lambda text: re.sub(r"%(\\?)\w+_(\d+)", r"%\1x\2", text),
        lambda text: re.sub(r"\^(?!\()", "**", text),
        lambda text: re.sub(r"s_(\d)(\d)", r"s_\2\1", text),
    ],
    ids=["no spaces", "outer spaces", "line breaks", "no %", "other index names", "**", "s_ji"],
)
def test_rows_in_any_spelling_become_the_same_set(small, tmp_path, respell):
    made = rows_of(small[0])
    prepare.write_rows(
        tmp_path / "rows.csv",
        ["amp", "sqamp"],
        ({name: respell(row[name]) for name in ("amp", "sqamp")} for row in made),
    )
    done = run(tmp_path / "data", f"--input={tmp_path / 'rows.csv'}", "--workers=1")
    assert done.returncode == 0, done.stderr
    found = rows_of(tmp_path / "data")
    assert sorted((canonical_key(row["amp"]), row["sqamp"]) for row in found) == sorted(
        (canonical_key(row["amp"]), row["sqamp"]) for row in made
    )


@pytest.mark.parametrize(
    "names, setting",
    [
        (["my file.csv"], "'my file.csv'"),
        (["my file.csv"], "my file.csv"),
        (["a b.csv", "c d.csv"], "'a b.csv' 'c d.csv'"),
        (["a.csv", "c d.csv"], "a.csv 'c d.csv'"),
    ],
)
def test_names_with_spaces_stand_in_quotes(small, tmp_path, names, setting):
    for name, row in zip(names, rows_of(small[0])):
        prepare.write_rows(tmp_path / name, ["amp", "sqamp"], [row])
    done = run("data", f"--input={setting}", "--workers=1", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith(f"{len(names)} rows: "), done.stderr


def test_masses_are_written_into_the_manifest(small, tmp_path):
    flags = f"--input={small[0] / 'train.csv'}", "--workers=1"
    done = run(tmp_path / "data", *flags, "--masses=mu=m_mu A=0")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["settings"]["masses"] == "mu=m_mu A=0"
    assert "masses='mu=m_mu A=0' (now" in run(tmp_path / "data", *flags, "--masses=A=0").stderr
    assert "masses: got 'mu'" in run(tmp_path / "other", *flags, "--masses=mu").stderr
    assert "masses: of particles in files" in run(tmp_path / "other", "--masses=A=0").stderr


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


def test_spellings_of_earlier_work_become_martys(tmp_path):
    r"""`\INDEX_0`, `MOMENTUM_0`, no spaces: verified as they stand, written so that the tokenizer reads them."""
    from test_expression import NORMALISED

    square = "2*e^4*(m_e^4+-1/2*m_e^2*s_13+1/2*s_14*s_23+-1/2*m_e^2*s_24+1/2*s_12*s_34)*(m_e^2+-s_13+1/2*reg_prop)^(-2)"
    (tmp_path / "old.csv").write_text(f'amp,sqamp\n"{NORMALISED}","{square}"\n"{NORMALISED}","3*{square}"\n')
    done = run(tmp_path / "data", f"--input={tmp_path / 'old.csv'}")
    said = done.stdout + done.stderr
    assert "old.csv:3: wrong: the amplitude gives" in said and "1 rows: 1 train" in said
    with open(tmp_path / "data" / "train.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert amp_tokens(row["amp"])[0]
