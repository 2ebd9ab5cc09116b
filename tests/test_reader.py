import bz2
import csv
import gzip
import io
import itertools
import lzma
import pickle
import re
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from test_expression import LEAVES, _grow

from dataset.reader import count_lines, file_names, read_files, read_rows
from physics.expression import parse, to_text
from physics.spelling import canonical
from runtime.files import InputError
from tokenizer import amp_tokens, sqamp_tokens

CASES = ROOT.parent / "shared" / "cases"
AMP = (
    r"-1/2*i*e^2*gamma_{+%\sigma_165,%gam_145,%gam_146}*gamma_{%\sigma_165,%gam_147,%del_137}"
    r"*e_{i_3,%gam_146}(p_1)_u*e_{k_3,%del_137}(p_2)_u"
    r"*e_{l_3,%gam_145}(p_3)_u^(*)*e_{i_5,%gam_147}(p_4)_u^(*)/(m_e^2 + -s_13 + 1/2*reg_prop)"
)
POLYNOMIAL = "m_e^4 + -1/2*m_e^2*s_13 + 1/2*s_14*s_23 + -1/2*m_e^2*s_24 + 1/2*s_12*s_34"
SQAMP = f"2*e^4*({POLYNOMIAL})*(m_e^2 + -s_13 + 1/2*reg_prop)^(-2)"
ROWS = [(f"{k}*{AMP[5:]}", f"{k}*{SQAMP[2:]}") for k in range(2, 9)]


def read(path, required=("amp", "sqamp")):
    """(rows with their line numbers, {line number: reason} of the bad lines)."""
    bad = {}
    return list(read_rows(path, required, lambda path, line, reason: bad.setdefault(line, reason))), bad


def formulas(rows):
    return [(row["amp"], row["sqamp"]) for _, row in rows]


def csv_text(rows=ROWS, header=("amp", "sqamp"), **options):
    file = io.StringIO(newline="")
    csv.writer(file, **{"lineterminator": "\n"} | options).writerows([header, *rows])
    return file.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# One spelling


def test_what_marty_writes_is_not_touched(marty):
    with gzip.open(marty / "qed-2to2-offshell.csv.gz", "rt", newline="") as file:
        for row in itertools.islice(csv.DictReader(file), 0, None, 20):
            assert canonical(row["amp"]) == row["amp"] and canonical(row["sqamp"]) == row["sqamp"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a+b", "a + b"),
        ("a+-2*b", "a + -2*b"),
        ("a-b", "a - b"),
        ("(a-b)*(-c)", "(a - b)*(-c)"),
        ("  a + b\n", "a + b"),
        ("a\n + b", "a + b"),
        ("2 * (a +b)", "2*(a + b)"),
        ("a\xa0+\tb", "a + b"),
        ("- a", "-a"),
        ("( - a)", "(-a)"),
        ("x**2*y", "x^2*y"),
        ("(a + b)**(-2)", "(a + b)^(-2)"),
        ("x**-2", "x^(-2)"),
        ("x^-2*y", "x^(-2)*y"),
        ("s_41*s_32 + m_s_21", "s_14*s_23 + m_s_21"),
        ("eps_41", "eps_41"),
        (r"p_2_\nu_1*p_3_+\mu", r"p_2_%\nu_1*p_3_+%\mu"),
        (r"2*a+p_12_+%\mu", r"2*a + p_12_+%\mu"),
        (r"p_2_nu*p_3_+x*gamma_{nu,a,b}", r"p_2_%nu*p_3_+x*gamma_{%nu,%a,%b}"),
        (r"gamma_{+\mu, a, b}", r"gamma_{+%\mu,%a,%b}"),
        (r"e_{%s_1,c}(p_1)_v^(*)", "e_{s_1,%c}(p_1)_v^(*)"),
        (r"G_{s1,g1,+\mu1}(p_3)_T^(*)", r"G_{s1,%g1,+%\mu1}(p_3)_T^(*)"),
    ],
)
def test_other_spellings_become_martys(text, expected):
    assert canonical(text) == expected == canonical(expected)


@pytest.mark.parametrize("text", ["2 3", "s_1 2", "a * * b", "1 .5", "a b", "x^-2^2", "", "gamma_{%a,}", "p_2_ nu"])
def test_no_spelling_makes_a_formula_of_what_is_none(text):
    with pytest.raises(InputError):
        parse(canonical(text))


def _spelled(node_text, draw):
    """The text with what a spelling may change changed: spaces, %, **, the order of s_ij."""
    if draw(st.booleans()):
        node_text = node_text.replace(" ", "")
    if draw(st.booleans()):
        node_text = re.sub(r"%(?=\\)|(?<=[{,])(\+?)%", r"\1", node_text)
    if draw(st.booleans()):
        node_text = node_text.replace("s_12", "s_21")
    if draw(st.booleans()):
        node_text = node_text.replace("*", "\n*").replace(")", ") ").replace("\n*)", "*)")
    return node_text


@given(st.recursive(LEAVES, _grow, max_leaves=8), st.data())
@settings(max_examples=100)
def test_any_formula_is_the_same_in_any_spelling(tree, data):
    text = to_text(tree)
    assert canonical(text) == text
    respelled = _spelled(text, data.draw)
    assert parse(canonical(respelled)) == tree and canonical(canonical(respelled)) == canonical(respelled)


# ---------------------------------------------------------------------------------------------------------------------
# Formats

PACKED = {".csv": lambda data: data, ".csv.gz": gzip.compress, ".csv.bz2": bz2.compress, ".csv.xz": lzma.compress}


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize(
    "pack", [*PACKED.values(), lambda data: zipped({"set/": b"", "set/rows.csv": data, "__MACOSX/._rows.csv": b"x"})]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("delimiter, newline", [(",", "\n"), (";", "\r\n"), ("\t", "\r")])
def test_packing_encoding_and_delimiter_are_recognised_by_content(tmp_path, pack, encoding, delimiter, newline):
    path = tmp_path / "rows.dat"
    path.write_bytes(
        pack(
            csv_text(
                [(*row, "é") for row in ROWS], ("amp", "sqamp", "note"), delimiter=delimiter, lineterminator=newline
            ).encode(encoding)
        )
    )
    rows, bad = read(path)
    assert (
        formulas(rows) == ROWS
        and not bad
        and [line for line, _ in rows] == [*range(2, 9)]
        and rows[0][1]["note"] == "é"
    )
    assert count_lines(path) == 8


@pytest.mark.parametrize(
    "header",
    [("Amplitude", " Squared_Amplitude "), (" amp", "SQAMP"), ("AMPLITUDE", "squared amplitude"), ("amp ", "sqamp\t")],
)
def test_headers_may_be_spelled_in_other_ways(tmp_path, header):
    (tmp_path / "rows.csv").write_text(csv_text(header=header))
    assert formulas(read(tmp_path / "rows.csv")[0]) == ROWS


def test_a_column_of_that_very_name_is_meant_where_there_is_one(tmp_path):
    (tmp_path / "rows.csv").write_text(
        csv_text([(*row, "picture.png", "2->2", "") for row in ROWS], ("amp", "sqamp", "amplitude", "Process", ""))
    )
    assert [row["amplitude"] for _, row in read(tmp_path / "rows.csv")[0]] == ["picture.png"] * 7
    assert read(tmp_path / "rows.csv")[0][0][1]["process"] == "2->2"


def pickled(protocol):
    return pickle.dumps([{"amp": AMP, "sqamp": SQAMP}], protocol)


def numpy_bytes(save):
    file = io.BytesIO()
    save(file, np.array([[AMP, SQAMP]]))
    return file.getvalue()


@pytest.mark.parametrize(
    "content, said",
    [
        (b'{"amp": "e"}\n', "JSON"),
        (b'\n [{"amp": "e"}]', "JSON"),
        (b"PAR1\x15\x04", "Parquet"),
        *((pickled(protocol), "a pickle") for protocol in range(6)),
        (numpy_bytes(np.save), "NumPy array"),
        (numpy_bytes(np.savez), "NumPy archive"),
        (zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "Excel"),
        (zipped({"run/data.pkl": b"", "run/version": b"3"}), "checkpoint of PyTorch"),
        (zipped({"a.csv": b"", "b.csv": b""}), "a zip archive of 2 files (a.csv, b.csv)"),
        (zipped({}), "of 0 files"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (gzip.compress(b"x" * 257 + b"ustar"), "tar"),
        (gzip.compress(b'{"amp": 1}'), "JSON"),
        (",".join(csv_text().splitlines()[1:]).encode(), "but no header; put the line amp,sqamp before it"),
        (
            csv_text(header=("amp", "sqamp")).replace("amp,sqamp", "amp,sqamp,amp").encode(),
            "'amp' stands there more than once",
        ),
        (csv_text(header=("Amp", " AMP", "sqamp")).encode(), "'amp' stands there more than once"),
        (csv_text(header=("amp", "square")).encode(), ":1: no column 'sqamp' among amp, square"),
        (b"\n\n \nx,y\n", ":4: no column 'amp' in 'x,y'"),
        (b"\x00\x01\x02" * 99, "no column 'amp' in '???"),
        (b"\n \n", "the file is empty"),
        (b"PK\x03\x04 is no archive", "not readable"),
        (b"\x1f\x8b is no gzip", "not readable"),
        (b"BZh9 nor bzip2", "not readable"),
        (b"\xfd7zXZ\x00 xz", "not readable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",  # some contents hold the time they were made at
)
def test_other_formats_are_named_with_what_to_do(tmp_path, content, said):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(str(path)) and said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("pack", [*PACKED.values()][1:])
def test_a_packed_file_that_is_cut_off_is_an_error(tmp_path, pack):
    path = tmp_path / "rows.csv"
    path.write_bytes(pack(csv_text([(row[0] + str(k**9), row[1]) for k in range(900) for row in ROWS]).encode())[:-20])
    with pytest.raises(InputError, match="not readable as CSV"):
        read(path)
    assert count_lines(path) is None


def test_what_is_no_file_is_said(tmp_path):
    for path, said in ((tmp_path / "none.csv", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=said):
            read(path)


# ---------------------------------------------------------------------------------------------------------------------
# Bad lines

BAD_CSV = {
    "blanks": b"   ",
    "a message": b"Error evaluating the amplitude",
    "a message with commas": b"Warning: a, b, c",
    "too few cells": b"%s" % AMP.encode()[:30].replace(b",", b""),
    "a trailing comma": csv_text([(*ROWS[0], "")]).splitlines()[1].encode(),
    "no text": b"\x80\xff,\xfe",
    "an open quote": csv_text().splitlines()[2].encode()[:40],
    "a quote within": b'"a"b,c',
    "only commas": b",",
    "the header again": b"amp,sqamp",
    "an open quote at the end": b'x,"',
}
RAW = [f"Interaction: e_{k} to e_{k} : Vertex V_{k} : {amp} : {sqamp}".encode() for k, (amp, sqamp) in enumerate(ROWS)]
BAD_RAW = {
    "blanks": b"  \t",
    "a message": b"Error evaluating",
    "an interaction without end": RAW[0][:60],
    "no square": RAW[1].rpartition(b" : ")[0],
    "no text": RAW[2][:80] + b"\xff" + RAW[2][80:],
    "another line": b"2 : 3 : 4 : 5",
}


@pytest.mark.parametrize("bad", BAD_CSV.values(), ids=BAD_CSV)
@pytest.mark.parametrize("at", [0, 1, 4, 8])
def test_a_bad_line_of_csv_is_named_and_the_others_go_on(tmp_path, bad, at):
    path = tmp_path / "rows.csv"
    lines = csv_text().encode().splitlines()
    path.write_bytes(b"\n".join([*lines[:at], bad, *lines[at:]]))
    if at == 0 and bad == b"amp,sqamp":
        at = 1  # of two headers the first is one
    rows, reasons = read(path)
    assert formulas(rows) == ROWS and list(reasons) == [at + 1], reasons
    assert [line for line, _ in rows] == [line for line in range(1, 10) if line not in (at + 1, 1 if at else 2)]


@pytest.mark.parametrize("bad", BAD_RAW.values(), ids=BAD_RAW)
@pytest.mark.parametrize("at", [0, 3, 7])
def test_a_bad_line_of_raw_text_is_named_and_the_others_go_on(tmp_path, bad, at):
    path = tmp_path / "rows.txt"
    path.write_bytes(b"\r\n".join([*RAW[:at], bad, b"", *RAW[at:]]))
    rows, reasons = read(path)
    assert formulas(rows) == ROWS and list(reasons) == [at + 1]


ANY_LINE = st.one_of(
    st.sampled_from([*BAD_CSV.values(), *BAD_RAW.values()]),
    st.binary(max_size=40).filter(lambda line: not set(line) & set(b'\r\n"')),
    st.text('ab,;" \t:%{}()\\', max_size=20).filter(lambda line: line.count('"') % 2 == 0).map(str.encode),
)


@given(st.lists(st.tuples(st.integers(0, 7), ANY_LINE), max_size=4))
@example([(3, b'",'), (5, b"a,")])
@settings(max_examples=100)
def test_no_line_hides_a_row(tmp_path_factory, inserted):
    """Whatever lines stand among the rows: every row is read; every other line is named, a row of its own, or empty."""
    assume(sum(line.count(b'"') % 2 for _, line in inserted) < 2)  # two open quotes may be one row of two lines
    path = tmp_path_factory.getbasetemp() / "any.csv"
    header, *lines = csv_text().encode().splitlines()
    for at, line in sorted(inserted, key=lambda pair: -pair[0]):
        lines.insert(at, line)
    path.write_bytes(b"\n".join([header, *lines]))
    rows, bad = read(path)
    found = formulas(rows)
    assert [row for row in found if row in ROWS] == ROWS
    assert {line for line, _ in rows} | bad.keys() >= {number for number, line in enumerate(lines, 2) if line}


def test_by_default_a_bad_line_is_told_on_stderr(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text(csv_text() + "a,b,c\n")
    assert len(list(read_rows(path))) == 7
    assert capsys.readouterr().err == f"{path}:9: 3 cells, the header has 2\n"


def test_bad_lines_may_be_had_in_their_place_among_the_rows(tmp_path):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        path.write_text(csv_text(ROWS[:2]) + "a,b,c\n" + csv_text(ROWS[2:3]).partition("\n")[2] + "d\n")
    found = [(path, line, row if isinstance(row, str) else row["amp"]) for path, line, row in read_files(paths)]
    bad = [f"{count} cells, the header has 2" for count in (3, 1)]
    of_one = [(2, ROWS[0][0]), (3, ROWS[1][0]), (4, bad[0]), (5, ROWS[2][0]), (6, bad[1])]
    assert found == [(path, *pair) for path in paths for pair in of_one]


def test_where_no_line_is_a_row_the_first_one_is_told(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("amp,sqamp\n\na,b,c\nd\n")
    with pytest.raises(InputError, match=r"rows\.csv:3: 3 cells, the header has 2; no line of the file is a row"):
        read(path)
    path.write_text("amp,sqamp\n")
    assert read(path) == ([], {})


def test_the_square_may_be_missing_where_it_is_not_needed(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(f'amp,sqamp\n"{AMP}",\n')
    assert [row["sqamp"] for _, row in read(path, ("amp",))[0]] == [""] == [row["sqamp"] for _, row in read(path)[0]]


@given(
    st.lists(st.integers(0, 400), max_size=8),
    st.binary(max_size=60),
    st.sampled_from(["csv", "raw", "gz", "zip", "none"]),
)
@settings(max_examples=300)
def test_no_bytes_do_more_than_raise_an_input_error(tmp_path_factory, places, noise, kind):
    """Random bytes, and files with bytes changed, cut out and put in."""
    data = b"" if kind == "none" else b"\n".join(RAW) if kind == "raw" else csv_text().encode()
    data = {"gz": gzip.compress, "zip": lambda text: zipped({"a.csv": text})}.get(kind, bytes)(data)
    for k, place in enumerate(places):
        place = place * len(data) // 400
        data = data[:place] + noise[k::4] + data[place + k % 3 :]
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(data or noise)
    try:
        for line, row in read(path)[0]:
            assert line > 0 and {"amp", "sqamp"} <= row.keys()
            for text, read_text in ((row["amp"], parse), (row["amp"], amp_tokens), (row["sqamp"], sqamp_tokens)):
                try:
                    read_text(text)
                except InputError:
                    pass
    except InputError as error:
        assert "\n" not in str(error)


@given(st.text("ip_12{}%\\,+-*/^() \neAuvs.", max_size=60))
@settings(max_examples=300)
def test_any_text_has_one_spelling(text):
    once = canonical(text)
    assert canonical(once) == once


# ---------------------------------------------------------------------------------------------------------------------
# The cases of public files

READ = {
    "leading-blank-line.txt": ([2], []),
    "marty-error-line.txt": ([*range(1, 6), *range(7, 20)], [6]),
    "marty-1to2.csv": ([*range(2, 56)], []),
}
REFUSED = {
    "duplicate-column.csv": "'amp' stands there more than once",
    "headerless.csv": "no header",
    "trailing-comma.csv": ":2: 3 cells, the header has 2",
    "epsilon-i.amp.txt": "no header",
}
TWO_ROWS = {
    "float.csv",
    "no-percent.csv",
    "no-spaces.csv",
    "outer-spaces.csv",
    "public-INDEX-rows.csv",
    "scalar-named-A.csv",
    "semicolon.csv",
    "starstar.csv",
    "sympy-I.csv",
}


def test_public_files_are_read_or_refused():
    if not CASES.is_dir():
        pytest.skip("no cases beside this repository")
    for path in sorted(CASES.iterdir()):
        if path.name in REFUSED:
            with pytest.raises(InputError, match=REFUSED[path.name]):
                read(path)
            continue
        rows, bad = read(path)
        lines, wanted_bad = READ.get(path.name, ([2, 3] if path.name in TWO_ROWS else [2], []))
        assert ([line for line, _ in rows], list(bad)) == (lines, wanted_bad), path.name
        for _, row in rows:
            for column in ("amp", "sqamp"):
                assert canonical(row[column]) == row[column]


@pytest.mark.parametrize(
    "text, names",
    [
        ("a.csv b.csv", ["a.csv", "b.csv"]),
        ("'my file.csv' b.csv", ["my file.csv", "b.csv"]),
        ("my file.csv", ["my file.csv"]),
        ("'my file.csv'", ["my file.csv"]),
        ("", []),
    ],
)
def test_names_with_spaces_stand_in_quotes_or_alone(tmp_path, monkeypatch, text, names):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my file.csv").touch()
    assert file_names(text) == names
    with pytest.raises(InputError, match="in quotes"):
        file_names("'a.csv")
