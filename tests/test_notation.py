r"""Each notation gives each text back; its tree has the text's value; closed vocabularies; index names drawn anew."""
import csv
import gzip
import itertools
import json
import math
import operator
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokenizer import AMPS, COMPTON, GLUON, MOLLER, OURS, SQAMPS, grammar, write_csv
from tiny import make_data, make_run
from tiny import run as train_small

import decode
import evaluate
import scst
from dataset.baseline import canonical_key
from dataset.vocabulary import build_vocabulary, draw_index_names, index_tokens, join_vocabulary
from notation import GLUES, ORDERS, Notation, read, write
from physics.expression import Number, ParseError, Power, Product, Sum, fold, parse
from runtime import checkpoint
from runtime.files import InputError, write_rows
from tokenizer import EOS, SPECIALS, SPELLING, Tokenizer, amp_text, amp_tokens, join_tokens, spell, sqamp_tokens

NOTATIONS = [Notation(*choice) for choice in itertools.product(ORDERS, (False, True), GLUES)]
PREFIX, HYBRID = Notation("prefix"), Notation("hybrid")


def tokens_of(text, notation):
    return " ".join(write(amp_tokens(text)[0], notation))


# ---------------------------------------------------------------------------------------------------------------------
# The scheme

@pytest.mark.parametrize("text, prefix, hybrid", [
    ("a + b + c", "+ a + b c", "plus( a b c )"),
    ("a*b*c", "* a * b c", "times( a b c )"),
    ("(a + b)*c/d + -e", "+ * + a b * c / d -e", "plus( times( plus( a b ) c / d ) -e )"),
    ("m_e/(s_12 + reg_prop)^(-2)", "* m_e / ()^(-2) + s_12 reg_prop", "times( m_e / ()^(-2) plus( s_12 reg_prop ) )"),
    ("(a + b)^2/(2*c)", "* ()^2 + a b / * 2 c", "times( ()^2 plus( a b ) / times( 2 c ) )"),
    ("-(a*b)*c + -(d + e)", "+ * - * a b c - + d e", "plus( times( - times( a b ) c ) - plus( d e ) )"),
    ("((a)) + (b + c)", "+ () () a () + b c", "plus( () () a () plus( b c ) )"),
    ("(-8)*s_12", "* (-8) s_12", "times( (-8) s_12 )"),
])
def test_tokens_of_prefix_and_hybrid(text, prefix, hybrid):
    assert tokens_of(text, PREFIX) == prefix
    assert tokens_of(text, HYBRID) == hybrid


def test_a_subtracted_term_is_marked():
    tokens = write(sqamp_tokens("a - b*c - -d"), HYBRID)
    assert tokens == ["plus(", "a", " - ", "times(", "b", "c", ")", " - ", "-d", ")"]


def test_tokens_of_an_amplitude_in_hybrid():
    assert tokens_of(r"i*gamma_{+%\m,%a,%b}*e_{i_3,%b}(p_1)_u/(m_e^2 + -s_13)", HYBRID) == (
        "times( i gamma_{+%L0 %D0 %D1 e_{ }(p_1)_u %D1 / plus( m_e^2 -s_13 ) )")


def test_glued_and_separate_tokens():
    text = r"p_2_+%\n*gamma_{%\n,%a,%b}*e_{i_3,%b}(p_1)_u^(*)"
    assert tokens_of(text, Notation()) == "p_2_+%L0 gamma_{%L0 %D0 %D1 e_{ }(p_1)_u^(*) %D1"
    assert tokens_of(text, Notation(glue="none")) == "p_2_ +%L0 gamma_{ %L0 %D0 %D1 e_{ }(p_1)_u^(*) %D1"
    assert tokens_of(text, Notation(glue="all")) == "p_2_+%L0 gamma_{%L0 %D0 %D1 e_{}(p_1)_u^(*) %D1"


def test_a_mass_and_a_product_are_one_token():
    short = Notation(shorten_masses=True)
    text = "m_e^2*m_mu^2*s_12*s_34 + -m_e*s_13/m_e^2*s_12 + s_12*m_e + m_e^2*s_12^2"
    assert write(sqamp_tokens(text), short) == (
        "m_e^2|m_mu^2*s_12|s_34|-m_e*s_13|/|m_e^2|s_12| + |s_12|m_e| + |m_e^2|s_12^2".split("|"))
    assert write(sqamp_tokens("m_e^2*s_12*m_e^2*s_13"), short, {"m_e^2*s_13"}) == ["m_e^2", "s_12", "m_e^2*s_13"]


# ---------------------------------------------------------------------------------------------------------------------
# Exactness

@pytest.mark.parametrize("notation", NOTATIONS)
@given(text=grammar())
@settings(max_examples=40)
def test_every_text_comes_back(notation, text):
    tokens, names = amp_tokens(text)
    assert amp_text(read(write(tokens, notation), notation), names) == text


@pytest.mark.parametrize("notation", [PREFIX, HYBRID])
@given(texts=st.lists(grammar(), min_size=2, max_size=2, unique=True))
def test_two_texts_have_different_tokens(notation, texts):
    one, other = (write(amp_tokens(text)[0], notation) for text in texts)
    assert one != other or amp_tokens(texts[0])[0] == amp_tokens(texts[1])[0]


@given(text=grammar(), order=st.sampled_from(["prefix", "hybrid"]))
def test_spelled_tokens_come_back(text, order):
    """All that can be spelled is: the operators and whole tokens must be told from the pieces."""
    notation = Notation(order)
    tokens, names = amp_tokens(text)
    pieces = [piece for token in write(tokens, notation) for piece in spell(token, {})]
    assert amp_text(read(pieces, notation), names) == text


def value_of(tokens):
    """(value of the first formula of prefix tokens with a symbol's name as its value, the tokens after it)."""
    token, rest = tokens[0], tokens[1:]
    if token in ("+", "*"):
        left, rest = value_of(rest)
        right, rest = value_of(rest)
        return (operator.add if token == "+" else operator.mul)(left, right), rest
    if token in ("plus(", "times("):
        values = []
        while rest[0] != ")":
            value, rest = value_of(rest)
            values.append(value)
        total = values[0]
        for value in values[1:]:
            total = (operator.add if token == "plus(" else operator.mul)(total, value)
        return total, rest[1:]
    if token in ("-", " - ", "/") or token.startswith("()"):
        value, rest = value_of(rest)
        if token.startswith("()"):
            return value ** int(token[2:].strip("^()") or 1), rest
        return (1 / value if token == "/" else -value), rest
    number, _, power = token.replace("(", "").replace(")", "").partition("^")
    return (-1 if number[0] == "-" else 1) * Fraction(number.lstrip("-")) ** int(power or 1), rest


def value_of_node(node, values):
    """The same by the parser of physics/expression.py, which shares nothing with the tokenizer."""
    kind = type(node)
    if kind is Number:
        return Fraction(node.value)
    if kind is Sum:
        return sum(-value if minus else value for value, minus in zip(values, node.minus))
    if kind is Product:
        return math.prod(1 / value if inverse else value for value, inverse in zip(values, node.inverse))
    return values[0] ** int(values[1]) if kind is Power else -values[0]


def arithmetic():
    number = st.sampled_from(["2", "3", "(-5)", "7^2", "11", "(13 + 17)^(-2)"])
    sums = st.recursive(number, lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("*/"), inner).map(lambda parts: "({}){}({})".format(*parts)),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: "({})".format("*".join(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "({})".format(" + ".join(parts))),
        st.tuples(inner, inner, inner).map(lambda parts: "({} - {} - {})".format(*parts)),
        st.tuples(inner, inner, inner).map(lambda parts: "({}/({})*{})".format(*parts)),
        inner.map(lambda part: f"(-({part}))")), max_leaves=6)
    return st.lists(sums, min_size=1, max_size=3).map(" + ".join)


@given(text=arithmetic(), order=st.sampled_from(["prefix", "hybrid"]))
def test_the_tree_has_the_value_of_the_text(text, order):
    tokens = write(sqamp_tokens(text), Notation(order))
    try:
        known = fold(parse(text), value_of_node)
    except ZeroDivisionError:
        return
    assert value_of(tokens) == (known, [])


@pytest.mark.parametrize("notation", [PREFIX, HYBRID])
def test_nesting_is_limited_by_memory_alone(notation):
    text = "(a + b*" * 5000 + "c" + ")" * 5000
    assert join_tokens(read(write(sqamp_tokens(text), notation), notation)) == text


@pytest.mark.parametrize("text", ["(a + b", "a)*(b", "a + b)"])
def test_unbalanced_parentheses_are_an_error(text):
    for notation in (PREFIX, HYBRID):
        with pytest.raises(InputError, match="found '[()]' without '[()]'"):
            write(sqamp_tokens(text), notation)


@pytest.mark.parametrize("file, step", [("qed-2to2-offshell", 100), ("qed-2to2", 4), ("qcd-2to2", 8)])
def test_marty_rows_come_back_from_every_notation(marty, file, step):
    with gzip.open(marty / f"{file}.csv.gz", "rt") as lines:
        rows = list(csv.DictReader(lines))[::step]
    for row in rows:
        tokens, names = amp_tokens(row["amp"])
        square = sqamp_tokens(row["sqamp"])
        for notation in NOTATIONS:
            assert amp_text(read(write(tokens, notation), notation), names) == row["amp"]
            assert join_tokens(read(write(square, notation), notation)) == row["sqamp"]


# ---------------------------------------------------------------------------------------------------------------------
# Tokens that a model may write

@pytest.mark.parametrize("notation", [PREFIX, HYBRID])
@given(tokens=st.lists(st.sampled_from(["+", "*", "plus(", "times(", ")", "()", "()^2", "/", "-", " - ", "a", "-2",
                                        " + ", "(", "/(", ")^2", "#", "#)", "#1", "#-", "#^", "%D0", "}(p_1)",
                                        "e_{"]), max_size=9))
@settings(max_examples=300)
def test_tokens_that_are_no_formula_are_refused(notation, tokens):
    """What is read is a formula, and it has these tokens or, where they have parentheses in excess, its own."""
    try:
        infix = read(tokens, notation)
    except ValueError:
        return
    again = read(write(infix, notation), notation)
    assert again == infix


@pytest.mark.parametrize("order, tokens", [
    ("prefix", "+ a"), ("prefix", "+ a b c"), ("prefix", "a b"), ("prefix", "/ a"), ("prefix", ""), ("prefix", "+ - a"),
    ("prefix", "* / a b"), ("prefix", ") #1"), ("prefix", "#"), ("hybrid", "plus( a )"), ("hybrid", "plus( a b"),
    ("hybrid", "a )"), ("hybrid", "plus( a b ) c"), ("hybrid", "()"), ("hybrid", "%D0"), ("hybrid", "("),
])
def test_no_formula(order, tokens):
    with pytest.raises(ValueError):
        read(tokens.split(), Notation(order))


@pytest.mark.parametrize("order, tokens", [("prefix", "+ + a b c"), ("hybrid", "plus( plus( a b ) c )")])
def test_a_sum_inside_a_sum_keeps_its_parentheses(order, tokens):
    assert join_tokens(read(tokens.split(), Notation(order))) == "(a + b) + c"


def build(folder, rows, **scheme):
    return Tokenizer(build_vocabulary(write_csv(folder / "train.csv", rows), **scheme))


ROWS = [(amp, sqamp) for amp in AMPS for sqamp in SQAMPS]


@pytest.mark.parametrize("src, tgt, shorten, glue, closed", [
    ("infix", "hybrid", False, "tensor", False), ("prefix", "infix", False, "none", True),
    ("hybrid", "prefix", True, "all", True), ("infix", "infix", True, "none", False),
])
@pytest.mark.parametrize("rename_particles", [False, True])
def test_ids_come_back(tmp_path, src, tgt, shorten, glue, closed, rename_particles):
    scheme = dict(src_notation=src, tgt_notation=tgt, shorten_masses=shorten, glue=glue, closed_vocabulary=closed)
    tokens = build(tmp_path, ROWS, rename_particles=rename_particles, **scheme)
    tokens = Tokenizer(json.loads(json.dumps(tokens.vocabulary)))  # as from a checkpoint
    for amp, sqamp in ROWS:
        ids, names = tokens.encode_amp(amp)
        fermions = tokens.fermions(amp)
        assert tokens.decode_amp(ids, names, fermions) == amp
        answer = tokens.encode_sqamp(sqamp, fermions)
        assert answer.count(EOS) == 1 and tokens.decode_sqamp(answer, fermions) == sqamp


def test_terms_come_back_in_hybrid(tmp_path):
    tokens = build(tmp_path, ROWS, termwise=True, tgt_notation="hybrid")
    ids = tokens.encode_sqamp(OURS)
    assert ids.count(EOS) == 5 and tokens.decode_sqamp(ids) == OURS


def test_a_rare_mass_token_is_two(tmp_path):
    rows = [(MOLLER, "m_e^2*s_12")] * 9 + [(MOLLER, "3*m_e^2*s_13 + 1")]
    tokens = build(tmp_path, rows, shorten_masses=True, tgt_notation="prefix")
    assert "m_e^2*s_12" in tokens.tgt_ids and "m_e^2*s_13" not in tokens.tgt_ids
    for text in ("m_e^2*s_12", "3*m_e^2*s_13 + 1"):
        assert tokens.decode_sqamp(tokens.encode_sqamp(text)) == text


def test_an_answer_that_is_no_formula_is_a_text_that_is_none(tmp_path):
    tokens = build(tmp_path, ROWS, tgt_notation="prefix")
    ids = [tokens.tgt_ids[token] for token in ("+", "s_12")]
    for some in (ids, ids[1:] * 2, [], [EOS]):
        with pytest.raises(ParseError):
            parse(tokens.decode_sqamp(some))


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answering")
    return [Tokenizer(join_vocabulary(build(folder, ROWS, src_notation="infix", tgt_notation=order, glue="all",
                                            termwise=termwise).vocabulary))
            for order in ("prefix", "hybrid") for termwise in (False, True)]


@given(numbers=st.lists(st.integers(0, 10**6), max_size=12))
def test_whatever_a_model_writes_has_a_text(answering, numbers):
    for tokens in answering:
        ids = [number % len(tokens.vocabulary["tgt"]) for number in numbers]
        assert isinstance(tokens.decode_sqamp(ids), str)


def test_a_vocabulary_without_these_settings_is_infix(tmp_path):
    """Checkpoints from before there were notations load as they were."""
    tokens = build(tmp_path, ROWS)
    old = {name: tokens.vocabulary[name] for name in ("format", "rename_particles", "src", "tgt")}
    assert tokens.vocabulary["src_notation"] == "infix" and tokens.vocabulary["glue"] == "tensor"
    for amp, sqamp in ROWS:
        assert Tokenizer(old).encode_amp(amp) == tokens.encode_amp(amp)
        assert Tokenizer(old).encode_sqamp(sqamp) == tokens.encode_sqamp(sqamp)


@pytest.mark.parametrize("setting", ["src_notation", "tgt_notation", "glue"])
def test_an_unknown_notation_is_named(tmp_path, setting):
    with pytest.raises(InputError, match=f"{setting}: got 'postfix', wanted (infix|tensor), "):
        build(tmp_path, ROWS, **{setting: "postfix"})


# ---------------------------------------------------------------------------------------------------------------------
# Closed vocabularies

@pytest.mark.parametrize("glue", GLUES)
@pytest.mark.parametrize("src", ORDERS)
def test_a_closed_vocabulary_reads_other_particles_legs_and_indices(tmp_path, glue, src):
    """From one row, and the theory that the manifest names."""
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": {"theory": "qed", "input": ""}}))
    rows = [(MOLLER, "2*m_e^2*s_12/(s_12 + 1/2*reg_prop)^(-2)")]
    known = build(tmp_path, rows, glue=glue, src_notation=src)
    closed = build(tmp_path, rows, glue=glue, src_notation=src, closed_vocabulary=True, legs=5)
    other = (r"1/9*i*e^3*p_5_%\m*gamma_{%\m,%a,%b}*gamma_{+%\n,%c,%d}*gamma_{%\o,%e,%f}*gamma_{+%\q,%f,%g}"
             r"*tt_{i,%a}(p_5)_v*c_{i,%b}(p_3)_v^(*)*A_{i,+%\o}(p_4)^(*)/(2*m_tt^2 + -s_45 + -i)")
    square = "-17/4*m_c^8*s_35 + e*i*m_mu/(s_45 - 3)^6"
    with pytest.raises(InputError, match="not in the vocabulary"):
        known.encode_amp(other)
    ids, names = closed.encode_amp(other)
    assert closed.decode_amp(ids, names) == other
    assert closed.decode_sqamp(closed.encode_sqamp(square)) == square
    assert set(known.vocabulary["src"]) < set(closed.vocabulary["src"])
    with pytest.raises(InputError, match="not in the vocabulary"):
        closed.encode_amp(other.replace("p_5", "p_6"))


@pytest.mark.parametrize("glue", GLUES)
def test_a_closed_vocabulary_has_indices_of_every_kind_of_the_theory(tmp_path, glue):
    """From a row without colour, and from one without any index, an amplitude of quarks and gluons is read."""
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": {"theory": "qcd", "input": ""}}))
    for row in MOLLER, "i*e*h(p_1)*h(p_2)*h(p_3)^(*)":
        closed = build(tmp_path, [(row, "2")], glue=glue, closed_vocabulary=True, legs=4)
        ids, names = closed.encode_amp(GLUON)
        assert closed.decode_amp(ids, names) == GLUON


def test_a_closed_vocabulary_without_a_theory_knows_the_particles_of_its_rows(tmp_path):
    rows = [(MOLLER, "2"), (COMPTON, "m_c^2"), (GLUON, "s_12"), (r"i*h(p_3)*f_SU3_{%a,%b,%c}/s_11", "s_13")]
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": {"theory": "qed", "input": "mine.csv"}}))
    src = set(build(tmp_path, rows, closed_vocabulary=True).vocabulary["src"])
    assert {"e_{", "c_{", "s_{", "G_{", "A_{", "h(p_1)", "h(p_4)^(*)", "s_44", "s_24", "gamma_{+%L5", "p_4_%L5",
            "P_R_{%D5", "f_SU3_{%A5", "T_C_10_{%A0", "}(p_2)_v^(*)", "m_c"} <= src
    assert not {"mu_{", "h(p_5)", "s_21", "s_15", "m_mu", "gamma_{%D0", "%L99"} & src


def test_a_closed_vocabulary_with_renamed_particles(tmp_path):
    tokens = build(tmp_path, [(MOLLER, "m_e^2")], closed_vocabulary=True, rename_particles=True)
    amp = MOLLER.replace("e_{k", "mu_{k").replace("e_{l", "u_{l")
    (ids, names), fermions = tokens.encode_amp(amp), tokens.fermions(amp)
    assert tokens.decode_amp(ids, names, fermions) == amp
    assert tokens.decode_sqamp(tokens.encode_sqamp("m_u^2*m_mu", fermions), fermions) == "m_u^2*m_mu"


def test_marks_of_legs_are_kept(tmp_path):
    src = build(tmp_path, [(GLUON.replace("(p_2)", "(p_2)_T"), "2")], closed_vocabulary=True).vocabulary["src"]
    assert "}(p_4)_T" in src and "}(p_4)_off" not in src


# ---------------------------------------------------------------------------------------------------------------------
# Index names drawn anew

@pytest.fixture(params=GLUES)
def named(request, tmp_path):
    """A tokenizer, its IndexTokens, the ids of nine rows end to end, the row of each, and (ids, names) of each row."""
    tokens = build(tmp_path, ROWS, closed_vocabulary=True, glue=request.param, src_notation="hybrid")
    rows = [tokens.encode_amp(amp) for amp in AMPS * 3]
    src = np.concatenate([ids for ids, _ in rows])
    row = np.repeat(np.arange(9), [len(ids) for ids, _ in rows])
    return tokens, index_tokens(tokens.vocabulary["src"]), src, row, rows


def test_drawn_names_leave_the_amplitude_as_it_is(named):
    tokens, indices, src, row, rows = named
    drawn = draw_index_names(src, row, indices, np.random.default_rng(0))
    assert drawn.shape == src.shape and drawn.dtype == src.dtype and (drawn != src).any()
    assert ((drawn != src) <= (indices.group[src] >= 0)).all()
    for k, (amp, (_, names)) in enumerate(zip(AMPS * 3, rows)):
        back = tokens.decode_amp(drawn[row == k].tolist(), names)
        assert canonical_key(back) == canonical_key(amp)
    assert len({tuple(drawn[row == k]) for k in (0, 3, 6)}) == 3  # the rows of one amplitude have different names


def test_drawn_names_depend_on_the_seed_alone(named):
    _, indices, src, row, _ = named
    first, again, other = (draw_index_names(src, row, indices, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_every_number_of_every_kind_is_drawn(named):
    tokens, indices, src, row, _ = named
    drawn = set()
    for seed in range(60):
        drawn |= set(draw_index_names(src, row, indices, np.random.default_rng(seed)).tolist())
    there = {tokens.vocabulary["src"][id] for id in drawn}
    plain = {token for token in tokens.vocabulary["src"] if re.fullmatch(r"%[LDCA]\d+", token)}
    assert {token for token in plain if token[1] in "DC"} <= there
    assert {f"%{kind}{number}" for kind in "LA" for number in range(6)} <= {
        re.search(r"%[LA]\d+", token)[0] for token in there if re.search(r"%[LA]\d+", token)}


def test_rows_without_an_index_stay(tmp_path):
    tokens = build(tmp_path, [("i*h(p_3)", "2")])
    src = np.array(tokens.encode_amp("i*h(p_3)")[0])
    drawn = draw_index_names(src, src * 0, index_tokens(tokens.vocabulary["src"]), np.random.default_rng(0))
    assert (drawn == src).all()


def test_a_shared_vocabulary_has_the_same_indices(tmp_path):
    vocabulary = build(tmp_path, ROWS, closed_vocabulary=True).vocabulary
    both = join_vocabulary(vocabulary)
    assert both["src"][:3] == SPECIALS and set(SPELLING) < set(both["src"])
    assert (index_tokens(both["src"]).has == index_tokens(vocabulary["src"]).has).all()


# ---------------------------------------------------------------------------------------------------------------------
# The scripts

@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """(folder with data/ and run/best.pt, the rows that the model knows by heart)."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, make_run(folder, 200, src_notation="prefix", tgt_notation="hybrid", shorten_masses=True, glue="none",
                            closed_vocabulary=True)


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"samples": 2, "temperature": 0.5}])
def test_a_model_answers_in_its_notation_without_a_flag(learned, options):
    folder, rows = learned
    answers = list(decode.decode(decode.load(folder / "run/best.pt", "cpu"), [row["amp"] for row in rows], check=True,
                                 **options))
    assert [answer.prediction for answer in answers] == [row["sqamp"] for row in rows]
    assert {answer.status for answer in answers} == {"verified"}


def test_evaluation_and_scst_take_the_notation_of_the_checkpoint(learned, tmp_path):
    folder, rows = learned
    ckpt = f"--ckpt={folder}/run/best.pt"
    evaluate.main([ckpt, f"--output={tmp_path}/report.json", "--device=cpu", "--train_rows=0"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rows"] == len(rows) and report["sequence_accuracy"] == report["token_accuracy"] == 1
    for split in ("valid", "test"):  # no row to learn from may be held out
        write_rows(folder / "data" / f"{split}.csv", ["amp", "sqamp"], [{"amp": MOLLER, "sqamp": "m_e^2*s_12"}])
    flags = ["--max_steps=2", "--rows_per_step=4", "--scst_samples=2", "--eval_every=2", "--workers=1", "--device=cpu"]
    assert scst.main([f"--data_dir={folder}/data", ckpt, f"--scst_dir={tmp_path}/scst", *flags]) == 0
    vocabulary = checkpoint.load(tmp_path / "scst/last.pt")["vocabulary"]
    assert vocabulary == checkpoint.load(folder / "run/best.pt")["vocabulary"]


def test_training_stores_the_notation_and_refuses_another_one(data, tmp_path):
    assert train_small(data, tmp_path, "--max_steps=2", "--tgt_notation=hybrid", "--shorten_masses") == 0
    vocabulary = checkpoint.load(tmp_path / "last.pt")["vocabulary"]
    assert vocabulary["tgt_notation"] == "hybrid" and vocabulary["shorten_masses"] and "plus(" in vocabulary["tgt"]
    with pytest.raises(InputError, match="tgt_notation: prefix in the settings, hybrid in the checkpoint"):
        train_small(data, tmp_path, "--max_steps=3", "--tgt_notation=prefix", "--shorten_masses", "--resume")


# ---------------------------------------------------------------------------------------------------------------------
# Lengths of data sets

def test_lengths_of_a_data_set(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    write_csv(tmp_path / "set" / "train.csv", [(MOLLER, OURS)] * 3)
    write_csv(tmp_path / "set" / "test.csv", [(MOLLER, "m_e^2*s_12*s_13")])
    evaluate.main(["--notations", f"--input=set {write_csv(tmp_path / 'other.csv', [(COMPTON, 'm_e + 2')])}"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * 12 + 2 and lines[-1] == "notations.svg"
    of_squares = [line for line in lines if line.startswith("| set, 4 | sqamp")]
    counts = [len(write(sqamp_tokens(OURS), notation)) for notation in (Notation(), PREFIX, HYBRID)]
    assert [f" {count} |" in line for count, line in zip(counts, of_squares)] == [True] * 3
    assert of_squares[0].startswith(f"| set, 4 | sqamp | infix | {(3 * counts[0] + 3) / 4:.1f} |")
    assert f"| infix, masses shortened | {(3 * (counts[0] - 2) + 2) / 4:.1f} |" in of_squares[3]
    assert (tmp_path / "notations.svg").read_text().startswith("<?xml")


def test_lengths_name_what_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no train.csv, valid.csv or test.csv in this folder"):
        evaluate.main(["--notations", f"--input={tmp_path}"])
    path = write_csv(tmp_path / "train.csv", [(MOLLER, "2"), (MOLLER, "2*")])
    with pytest.raises(InputError, match="train.csv:3: column 3"):
        evaluate.main(["--notations", f"--input={path}", f"--output={tmp_path}/x.svg"])


def test_training_may_draw_index_names_and_resumes_all_the_same(tmp_path):
    data = make_data(tmp_path)
    for name, drawn, steps in (("straight", True, 10), ("halves", True, 5), ("plain", False, 10)):
        train_small(data, tmp_path / name, f"--draw_indices={drawn}", f"--max_steps={steps}", "--schedule=constant")
    train_small(data, tmp_path / "halves", "--draw_indices", "--max_steps=10", "--schedule=constant", "--resume")
    straight, halves, plain = (checkpoint.load(tmp_path / name / "last.pt")["model"]["head.weight"]
                               for name in ("straight", "halves", "plain"))
    assert torch.equal(straight, halves) and not torch.equal(straight, plain)
