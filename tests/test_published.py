"""The published split of MARTY's public rows, in any spelling and order, and its marks of legs off the mass shell."""
import collections
import csv
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from dataset import published
from dataset.published import off_shell_legs, published_split, row_key
from dataset.reader import read_rows
from physics.spelling import canonical
from runtime.files import write_rows

SIZES = {"train": 12441, "valid": 1556, "test": 1555}
ROW = (
    r"-1/2*i*e^2*gamma_{+%\sigma_165,%gam_145,%gam_146}*gamma_{%\sigma_165,%gam_147,%del_137}*e_{i_3,%gam_146}(p_1)_u"
    r"*e_{k_3,%del_137}(p_2)_u*e_{l_3,%gam_145}(p_3)_u^(*)*e_{i_5,%gam_147}(p_4)_u^(*)/(m_e^2 + -s_13 + 1/2*reg_prop)",
    "2*e^4*(m_e^4 + -1/2*m_e^2*s_13 + 1/2*s_14*s_23 + -1/2*m_e^2*s_24 + 1/2*s_12*s_34)"
    "*(m_e^2 + -s_13 + 1/2*reg_prop)^(-2)",
)  # a row of the public set


@pytest.fixture(scope="module")
def rows(marty):
    return [row for _, row in read_rows(marty / "qed-2to2-offshell.csv.gz")]


def keys_of(rows):
    return np.array([row_key(row["amp"], row["sqamp"], off_shell_legs(row)) for row in rows], np.uint64)


def bags(keys, splits):
    """{split: how often it has each key}"""
    return {name: collections.Counter(keys[numbers].tolist()) for name, numbers in splits.items()}


def respelled(amp):
    """The amplitude as other public files spell it: indices without names and %, no spaces, other labels."""
    names = {}
    amp = re.sub(r"%\\?\w+", lambda index: rf"\INDEX_{names.setdefault(index[0], len(names))}", amp)
    return re.sub(r"\{\w+(?=[,}])", "{MOMENTUM_0", amp).replace(" + ", "+")


def run(folder, *flags):
    return subprocess.run([sys.executable, ROOT / "prepare.py", f"--data_dir={folder}", "--workers=1", *flags],
                          capture_output=True, text=True, timeout=300)


def test_the_digest_of_a_public_row_never_changes():
    assert row_key(*ROW, ()) >> published.LEGS in published.read_list()
    assert row_key(canonical(respelled(ROW[0])), ROW[1], ()) == row_key(*ROW, ())
    assert row_key(ROW[0].replace("(p_3)", "(p_4)"), ROW[1], ()) != row_key(*ROW, ()) != row_key(*ROW, (1,))
    assert collections.Counter("".join(published.read_list().values())) == {"0": 12441, "1": 1556, "2": 1555}


def test_the_split_is_the_published_one_in_any_order(marty, rows):
    with open(marty / "published-split.csv", newline="") as file:
        split_of = {int(row["row"]): row["split"] for row in csv.DictReader(file)}
    keys = keys_of(rows)
    truth = {name: [k for k in range(len(rows)) if split_of.get(k, "train") == name] for name in SIZES}
    order = np.random.default_rng(1).permutation(len(keys))
    for some in (keys, keys[order]):
        splits, missing = published_split(some)
        assert {name: len(numbers) for name, numbers in splits.items()} == SIZES and not missing
        assert bags(some, splits) == bags(keys, truth)


def test_the_split_is_the_same_in_another_spelling_without_columns(rows):
    keys = keys_of(rows)
    some = np.flatnonzero((keys >> published.LEGS) % 8 == 0)  # whole groups of equal rows
    splits, _ = published_split(keys[some])
    plain = np.array([row_key(canonical(respelled(rows[k]["amp"])), rows[k]["sqamp"], ()) for k in some], np.uint64)
    others, _ = published_split(plain)
    assert bags(plain >> published.LEGS, others) == bags(keys[some] >> published.LEGS, splits)
    assert sum(map(len, others.values())) == len(some) > 1500


def test_rows_that_are_not_published_or_stand_twice_are_in_no_split():
    key = row_key(*ROW, ())
    splits, missing = published_split(np.array([key, 7 << published.LEGS, *[key] * 7], np.uint64))
    found = sum(map(len, splits.values()))
    assert found == len(published.read_list()[key >> published.LEGS]) < 8 and missing == sum(SIZES.values()) - found
    assert not any(1 in numbers for numbers in splits.values())


@pytest.mark.parametrize(
    "diagram, legs",
    [
        ("Vertex V_0:e(X_3), AntiPart  OffShell e(X_4),  OffShell A(V_0), Vertex V_1:mu(X_1), AntiPart mu(X_2)", {4}),
        ("Vertex V_0:OffShell e(X_2), OffShell AntiPart e(X_3), OffShell A(V_0), Vertex V_1:A(X_1), A(X_4)", {2, 3}),
        ("Vertex V_0:e(X_2), e(X_3), OffShell A(V_0)", set()),
        ("e~(p1-p4) A(p1+p2-p4)", set()),
    ],
)
def test_the_column_diagram_says_which_legs_are_off_shell(diagram, legs):
    assert off_shell_legs({"diagram": diagram}) == legs


def test_marks_are_made_from_the_columns(rows, tmp_path):
    some = [row | {"amp": respelled(row["amp"])} for row in rows[:64:4]]
    write_rows(tmp_path / "rows.csv", ["process", "diagram", "amp", "sqamp"], some)
    flags = f"--input={tmp_path / 'rows.csv'}", "--split=published"
    plain, marked = run(tmp_path / "plain", *flags), run(tmp_path / "marked", *flags, "--off_shell_marks")
    assert plain.returncode == marked.returncode == 0, plain.stderr + marked.stderr
    assert "rows of the published split are missing" in marked.stdout
    for split in SIZES:
        pairs = [[row for _, row in read_rows(tmp_path / made / f"{split}.csv")] for made in ("plain", "marked")]
        for row, with_marks in zip(*pairs, strict=True):
            assert re.sub(r"_off(?!\w)", "", with_marks["amp"]) == row["amp"]
            assert set(map(int, re.findall(r"\(p_(\d)\)_?[uv]?_off", with_marks["amp"]))) == off_shell_legs(row)
    bare = [{name: row[name] for name in ("amp", "sqamp")} for row in some]
    write_rows(tmp_path / "bare.csv", ["amp", "sqamp"], bare)
    bare = run(tmp_path / "bare", f"--input={tmp_path / 'bare.csv'}", "--off_shell_marks")
    assert bare.returncode == 2 and "bare.csv:2: unreadable: no column 'diagram'" in bare.stdout


def test_a_file_without_published_rows_gives_one_line(tmp_path):
    write_rows(tmp_path / "rows.csv", ["amp", "sqamp"], [{"amp": ROW[0], "sqamp": f"{ROW[1]}*1"}])
    done = run(tmp_path / "data", f"--input={tmp_path / 'rows.csv'}", "--split=published")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(
        "error: split: none of the 1 rows is in the published split")
    assert not (tmp_path / "data" / "train.csv").exists()


def test_the_published_split_needs_files(tmp_path):
    done = run(tmp_path, "--split=published")
    assert done.returncode == 2 and "of MARTY's rows in files" in done.stderr
