"""A square split into terms and joined again is the square; termwise models answer as those that write squares."""

import csv
import gzip
import itertools
import json
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_generate import every_answer, ragged, random_model
from tiny import log_of, make_run, padded, padded_batch, write_csv
from tiny import run as train_small

import decode
import evaluate
import generate
import generate_terms as assemble
from batches import choose_rows, lengths, load_split, mixed_batches, samples_of
from dataset.vocabulary import build_vocabulary
from decode import load
from generate import Hypothesis, greedy, sample
from generate_terms import beam_terms, best_squares, greedy_terms, sample_terms
from model import load_model
from physics.amplitude import amplitudes, parse_process
from physics.expression import Function, Negative, Number, Power, Product, Sum, Symbol, fold, parse, to_text
from physics.square import square_many
from physics.theory import THEORIES
from runtime import checkpoint
from runtime.distributed import World
from runtime.files import InputError
from termwise import join, split
from tokenizer import BOS, EOS, MORE, PAD, Tokenizer
from train import validate

OURS = "2*e^4*(2*m_e^2*m_t^2 + -m_t^2*s_12 + (-8)*s_14*s_23)*(m_e^2 + s_12 + 1/2*reg_prop)^(-2)"
NESTED = (
    "1/16*i*g^2*(i*g^2*s_14*(s_12 + 2)/(m_u^2 + s_12) + -32/9*i*g^2*(s_13 + s_24)/(m_u^2 + s_12))/(s_12 + -reg_prop)"
)
AMP = (
    r"-1/2*i*e^2*gamma_{+%\s_1,%a,%b}*gamma_{%\s_1,%c,%d}*e_{i_3,%b}(p_1)_u*e_{k_3,%d}(p_2)_u"
    r"*e_{l_3,%a}(p_3)_u^(*)*e_{i_5,%c}(p_4)_u^(*)/s_13"
)


# ---------------------------------------------------------------------------------------------------------------------
# Text

def value(text):
    """Of a text without tensors, exact: each symbol is some fixed number."""
    def visit(node, values):
        if type(node) is Number:
            return Fraction(node.value)
        if type(node) is Symbol:
            return Fraction(sum(map(ord, node.name)), 97)
        if type(node) is Function:
            return values[0] ** 2 + Fraction(1, 3)
        if type(node) is Negative:
            return -values[0]
        if type(node) is Power:
            return values[0] ** values[1]
        total = Fraction(type(node) is Product)
        for x, other in zip(values, node.minus if type(node) is Sum else node.inverse):
            total = (total - x if other else total + x) if type(node) is Sum else total / x if other else total * x
        return total
    return fold(parse(text), visit)


def test_our_squares_are_split_at_the_terms_of_the_polynomial():
    terms = split(OURS)
    tail = "*(m_e^2 + s_12 + 1/2*reg_prop)^(-2)"
    assert terms == [f"2*e^4*({term}){tail}" for term in ("2*m_e^2*m_t^2", "-m_t^2*s_12", "(-8)*s_14*s_23")]
    assert join(terms) == OURS


@pytest.mark.parametrize("text, terms", [
    ("0", ["0"]),
    ("-8*s_14", ["-8*s_14"]),
    ("a + -b*c + (-2)*d", ["a", "-b*c", "(-2)*d"]),
    ("(-8)*(a + b)", ["(-8)*(a)", "(-8)*(b)"]),  # a number is no factor to cut
    ("-(a + b)/(c + d)", ["-(a)/(c + d)", "-(b)/(c + d)"]),
    ("x/(c + d)*(a + b)", ["x/(c + d)*(a)", "x/(c + d)*(b)"]),                              # nor is a denominator
    ("(c + d)^2*(a + b)", ["(c + d)^2*(a)", "(c + d)^2*(b)"]),                              # nor a power
    ("cos(a + b)*(c + d)", ["cos(a + b)*(c)", "cos(a + b)*(d)"]),                           # nor what a function is of
    ("e*(a + b)*c + e*(a + b)*d", ["e*(a)*c", "e*(b)*c", "e*(a)*d", "e*(b)*d"]),
    ("e*(a + b) + e*(c + d) + f", ["e*(a + b) + e*(c + d)", "f"]),  # in pieces it would be e*(a + b + c + d)
    ("e*(-8 + a)", ["e*(-8 + a)"]),  # e*(-8) would be a number times e
    ("a - b + c", ["a - b", "c"]),
    ("e*(a - b + c) - d", ["e*(a - b + c) - d"])])
def test_what_is_split_where(text, terms):
    assert split(text) == terms and join(terms) == text


def test_nested_squares_of_marty_are_split_at_their_outer_sums():
    head, tail = "1/16*i*g^2*(", ")/(s_12 + -reg_prop)"
    assert split(f"e^4/s_12 + {NESTED}") == ["e^4/s_12", f"{head}i*g^2*s_14*(s_12 + 2)/(m_u^2 + s_12){tail}",
                                             f"{head}-32/9*i*g^2*(s_13 + s_24)/(m_u^2 + s_12){tail}"]


@pytest.mark.parametrize(
    "file, most, mean", [("qed-2to2-offshell", 10, 5.29), ("qed-2to2", 5, 4.26), ("qcd-2to2", 31, 9.17)]
)
def test_every_square_of_marty_is_the_sum_of_its_terms(marty, file, most, mean):
    with gzip.open(marty / f"{file}.csv.gz", "rt") as lines:
        squares = [row["sqamp"] for row in csv.DictReader(lines)]
    counts = []
    for number, square in enumerate(squares):
        terms = split(square)
        assert join(terms) == square
        if number % 10 == 0:                                                                # slow
            assert sum(map(value, terms)) == value(square)
        counts.append(len(terms))
    assert max(counts) == most and np.mean(counts) == pytest.approx(mean, abs=0.05)


@pytest.mark.parametrize(
    "theory, process",
    [
        ("qed", "e mu -> e mu"),
        ("qcd", "u d -> u d"),
        ("qcd", "u G -> u G"),
        ("ew", "e nu_e~ -> mu nu_mu~"),
        ("ew", "e e~ -> u u~"),
        ("qed", "e e~ -> mu mu~ A"),
    ],
)
def test_our_squares_have_a_term_for_each_of_the_polynomials(theory, process):
    theory = THEORIES[theory]
    for square in square_many(list(amplitudes(parse_process(process, theory), theory))):
        terms = split(square)
        assert join(terms) == square and sum(map(value, terms)) == value(square)
        square = re.sub(r"\((-\d+|theta_W)\)", r"\1", square)
        assert len(terms) == 1 + re.sub(r"\([^()]*\)\^-\d+", "", square).count(
            " + "
        )  # what is left without the propagators


NAMES = st.sampled_from(["i", "e", "m_e", "s_12", "reg_prop"])


def _grow(children):
    several = st.lists(children, min_size=2, max_size=4)
    signs = st.lists(st.sampled_from([False, False, False, True]), min_size=3, max_size=3)
    return st.one_of(
        st.builds(lambda terms, minus: Sum(tuple(terms), (False, *minus)[:len(terms)]), several, signs),
        st.builds(lambda factors, inverse: Product(tuple(factors), (False, *inverse)[:len(factors)]), several, signs),
        st.builds(Power, children, st.sampled_from([Number(2), Negative(Number(1))])), st.builds(Negative, children),
        st.builds(Function, st.just("cos"), children))


TEXTS = st.recursive(
    st.one_of(st.builds(Number, st.integers(0, 9)), st.builds(Symbol, NAMES)), _grow, max_leaves=12
).map(to_text)


@given(TEXTS)
@settings(max_examples=300)
def test_any_square_is_its_terms_joined_and_their_sum(text):
    terms = split(text)
    assert join(terms) == text
    try:
        expected = value(text)
    except ZeroDivisionError:
        assume(False)
    assert sum(map(value, terms)) == expected


@given(st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from(["{}", "e*({})*s_12^2", "-({})/(e + 1)"]))
@settings(max_examples=300)
def test_any_terms_joined_have_the_value_of_their_sum(texts, form):
    texts = [form.format(text) for text in texts]
    try:
        expected = sum(map(value, texts))
    except ZeroDivisionError:
        assume(False)
    assert value(join(texts)) == expected


@given(st.text(alphabet="ab12()*/^+- ", max_size=30))
@settings(max_examples=500)
def test_whatever_a_model_writes_is_split_and_joined_without_loss(text):
    assert join(split(text)) == text


# ---------------------------------------------------------------------------------------------------------------------
# Tokens and samples

@pytest.fixture
def rows():
    return [(AMP, square) for square in (OURS, "s_12", "s_12 + " + NESTED, "e^2*(s_12 + s_13 + s_14 + s_23)/s_12")]


@pytest.fixture
def tokens(tmp_path, rows):
    write_csv(tmp_path / "train.csv", [{"amp": amp, "sqamp": sqamp} for amp, sqamp in rows])
    return Tokenizer(build_vocabulary(tmp_path / "train.csv", termwise=True))


def test_a_term_says_whether_another_follows(tokens):
    terms = [tokens.vocabulary["tgt"][id] for id in tokens.encode_sqamp("s_12 + s_13")]
    assert terms == ["s_12", MORE, "<eos>", "s_13", "<eos>"]


def test_the_vocabulary_has_the_terms_of_the_longest_row(tokens, rows, tmp_path):
    plain = build_vocabulary(tmp_path / "train.csv")
    assert tokens.vocabulary == plain | {
        "termwise": True,
        "tgt": plain["tgt"] + [MORE, "<term 0>", "<term 1>", "<term 2>", "<term 3>"],
    }
    whole = Tokenizer(plain)
    assert (
        whole.more is None
        and whole.first == [BOS]
        and whole.decode_sqamp([whole.tgt_ids["s_12"], EOS, PAD, EOS]) == "s_12"
    )
    assert [tokens.vocabulary["tgt"][id] for id in tokens.first] == [f"<term {k}>" for k in range(4)]


def test_tokens_of_terms_are_the_square(tokens, rows):
    for _, square in [*rows, (AMP, " + ".join(["s_12", "s_13"] * 5))]:
        assert tokens.decode_sqamp(tokens.encode_sqamp(square)) == square


def test_more_terms_than_any_training_row_has_are_in_the_last(tokens):
    ids = tokens.encode_sqamp("s_12 + s_13 + s_14 + s_23 + e^2*(s_12 + s_13)/s_12")
    assert ids.count(EOS) == 4 and ids.count(tokens.more) == 3
    last = ids[len(ids) - ids[-2::-1].index(EOS) - 1:]
    assert tokens.decode_sqamp(last) == "s_23 + e^2*(s_12 + s_13)/s_12"


def test_what_is_no_square_is_read_without_an_error(tokens):
    first, more = tokens.first, tokens.more
    a = tokens.tgt_ids["s_12"]
    for ids in ([], [EOS], [more, EOS], [a, more, a, EOS, a], [first[0], EOS, more], [a, EOS, EOS, PAD]):
        assert isinstance(tokens.decode_sqamp(ids), str)
    assert tokens.decode_sqamp([a, more, EOS, a]) == "s_12 + s_12" and tokens.decode_sqamp([a, more]) == "s_12"


@pytest.mark.parametrize("file", ["qed-2to2", "qcd-2to2"])
def test_tokens_of_every_marty_row_are_the_row(marty, file):
    path = marty / f"{file}.csv.gz"
    tokens = Tokenizer(build_vocabulary(path, termwise=True))
    with gzip.open(path, "rt") as lines:
        for row in csv.DictReader(lines):
            assert tokens.decode_sqamp(tokens.encode_sqamp(row["sqamp"])) == row["sqamp"]


def test_a_row_is_packed_as_one_source_and_a_sample_for_each_term(tokens, rows, tmp_path):
    packed = load_split(tmp_path, "train", tokens, 64, 64)
    assert len(packed.src_start) == 1 + len(rows) and packed.row.tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 3, 3, 3]
    everything = np.arange(11)
    src, tgt = padded_batch(packed, everything)
    for row, (amp, square) in enumerate(rows):
        of_row = everything[packed.row == row]
        assert (src[of_row] == torch.tensor(tokens.encode_amp(amp)[0])).all()
        assert tgt[of_row, 0].tolist() == tokens.first[:len(of_row)]
        assert [id for sample in tgt[of_row, 1:].tolist() for id in sample if id != PAD] == tokens.encode_sqamp(square)
    assert (lengths(packed, everything) == torch.stack([(src != PAD).sum(1), (tgt[:, 1:] != PAD).sum(1)]).numpy()).all()
    batches = mixed_batches(packed, 100, 0)
    assert len(batches) > 1 and sorted(np.concatenate(batches)) == list(everything)
    chosen = samples_of(packed, choose_rows(packed, 2, 0)[0])
    assert len(set(packed.row[chosen])) == 2 and sorted(chosen) == sorted(
        everything[np.isin(packed.row, packed.row[chosen])]
    )


def test_the_limit_is_that_of_a_term(tokens, tmp_path):
    whole = Tokenizer(build_vocabulary(tmp_path / "train.csv"))
    longest = int(np.diff(load_split(tmp_path, "train", tokens, 64, 64).tgt_start).max()) + 1
    load_split(tmp_path, "train", tokens, 64, longest)
    for tokenizer, limit, message in (
        (tokens, longest - 1, rf"train.csv:\d+: sqamp: {longest} tokens in a term, tgt_max_len is {longest - 1}"),
        (whole, longest, "sqamp: .* tokens, tgt_max_len"),
    ):
        with pytest.raises(InputError, match=message):
            load_split(tmp_path, "train", tokenizer, 64, limit)


@pytest.mark.parametrize("name", ["row", "first"])
@pytest.mark.parametrize(
    "damage", [lambda x: x[:-1], lambda x: x * 0 + 60_000, lambda x: x * 0.5, lambda x: x[::-1] - 1]
)
def test_a_damaged_cache_of_samples_is_made_anew(tokens, tmp_path, name, damage):
    good = [values.tolist() for values in load_split(tmp_path, "train", tokens, 64, 64)]
    (path,) = tmp_path.glob(f".cache/*.{name}.npy")
    np.save(path, damage(np.load(path).astype(np.int64)))
    assert [values.tolist() for values in load_split(tmp_path, "train", tokens, 64, 64)] == good


# ---------------------------------------------------------------------------------------------------------------------
# Decoding

TERMS = [11, 12, 13, 14]        # of random_model's 15 tokens


def ending_model(seed):
    """(a random model, the token that most of its answers have before their end: it is `more` here)."""
    model = random_model(seed)
    with torch.no_grad():
        model.head.weight[EOS] = torch.randn(32, generator=torch.Generator().manual_seed(seed)) * 0.4
    src = ragged(LENGTHS, seed)
    ends = [
        answer.ids[-2]
        for first in TERMS
        for answer in greedy(model, src, 30, torch.full((len(src),), first))
        if answer.finished and len(answer.ids) > 1
    ]
    return model, src, max(ends, key=ends.count, default=3)


LENGTHS = [7, 2, 5, 7, 1, 6, 3, 4]


def slow_term(model, src, first, max_len):
    """Greedy, uncached, one term of one row: (ids, log-probabilities)."""
    ids, logprobs = [first], []
    while len(ids) <= max_len and ids[-1] != EOS:
        scores = padded(model, src[None], torch.tensor([ids]))[0, -1].log_softmax(-1)
        ids.append(scores.argmax().item())
        logprobs.append(scores.max().item())
    return ids[1:], logprobs


@pytest.mark.parametrize("together", [1, 3, 8])
@torch.no_grad()
def test_terms_written_side_by_side_are_those_written_alone_without_a_cache(monkeypatch, together):
    monkeypatch.setattr(assemble, "TERMS", together)
    counts = set()
    for seed in (0, 4, 6):
        model, src, more = ending_model(seed)
        for row, length, square in zip(src, LENGTHS, greedy_terms(model, src, 30, TERMS, more)):
            ids, logprobs = [], []
            for first in TERMS:
                term = slow_term(model, row[:length], first, 30)
                ids, logprobs = ids + term[0], logprobs + term[1]
                if term[0][-2:] != [more, EOS]:
                    break
            else:
                ids = ids[:-1]  # it would go on: not finished
            counts.add((ids.count(EOS), square.finished))
            assert (
                square.ids == ids
                and square.logprob == pytest.approx(sum(logprobs))
                and square.lowest == pytest.approx(min(logprobs))
            )
    assert {(1, True), (2, True), (3, True), (0, False), (3, False)} <= counts  # all of this has happened


def test_terms_after_the_last_are_given_up(monkeypatch):
    """Of eight terms side by side the first is the last, and the others would never end: two steps and no more."""
    positions = itertools.count()

    def step(model, token, cache):
        following = torch.full((*token.shape, 15), -50.0)
        following[:, :, 5] = 0
        if next(positions):
            following[:, 0, EOS] = 1
        return following

    monkeypatch.setattr(generate, "decode_step", step)
    squares = greedy_terms(random_model(), ragged([3, 5]), 30, TERMS, 4)
    assert [square.ids for square in squares] == [[5, EOS]] * 2 and next(positions) == 2


@torch.no_grad()
def test_a_beam_that_holds_all_terms_finds_the_best_squares():
    model = random_model(5, tgt_vocab=7, d_model=16, heads=2, encoder_layers=1, decoder_layers=2)
    more, first, src, max_len = 3, [5, 6], ragged([5, 3]), 3
    for row, length, squares in zip(src, [5, 3], beam_terms(model, src, max_len, 60, 0.0, first, more)):
        one, two = (
            [Hypothesis(ids, p, 0) for p, ids in every_answer(model, row[:length], max_len, token)] for token in first
        )
        exhaustive = [(square.logprob, square.ids) for square in one if square.ids[-2:] != [more, EOS]]
        exhaustive += [
            (a.logprob + b.logprob, a.ids + b.ids)
            for a in one
            if a.ids[-2:] == [more, EOS]
            for b in two
            if b.ids[-2:] != [more, EOS]
        ]
        exhaustive.sort(reverse=True)
        finished = [square for square in squares if square.finished]
        assert len(finished) > 10 and len({square.ids.count(EOS) for square in finished}) == 2
        for square, (logprob, ids) in zip(finished, exhaustive):
            assert square.ids == ids and square.logprob == pytest.approx(logprob, abs=1e-10)


TERM = st.tuples(
    st.floats(-9, -1e-3), st.sampled_from([[4, EOS], [5, EOS], [3, EOS], [4, 3, EOS], [5, 3, EOS], [4, 4, 4]])
)


@given(
    st.lists(
        st.lists(TERM, min_size=1, max_size=4, unique_by=lambda term: (term[0], tuple(term[1]))), min_size=1, max_size=4
    ),
    st.integers(1, 5),
)
@settings(max_examples=300)
def test_best_squares_are_the_best_of_all_squares(written, count):
    written = [[Hypothesis(ids, p, p) for p, ids in sorted(terms, reverse=True)] for terms in written]
    more, every = 3, []
    for number in range(1, len(written) + 1):
        for chosen in itertools.product(*written[:number]):
            if all(term.ids[-2:] == [more, EOS] for term in chosen[:-1]) and (
                number == len(written) or chosen[-1].ids[-2:] != [more, EOS]
            ):
                every.append(sum(term.logprob for term in chosen))
    squares, unsettled = best_squares(written, count, more)
    assert [square.logprob for square in squares] == pytest.approx(sorted(every, reverse=True)[:count])
    assert all(square.lowest >= square.logprob for square in squares)
    longer, _ = best_squares([*written, [Hypothesis([4, EOS], -1e-9, 0)]], count, more)
    assert (longer != squares) == unsettled


@pytest.mark.parametrize("together", [1, 8])
@torch.no_grad()
def test_a_row_has_the_same_squares_alone_and_among_others(monkeypatch, together):
    monkeypatch.setattr(assemble, "TERMS", together)
    numbers = torch.rand(8, 4, 3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    for seed in range(4):
        model, src, more = ending_model(seed)
        def searches(src, rows):
            drawn = sample_terms(
                model, src, 12, lambda row, number: numbers[rows[row], number], 1.0, 0, 1.0, TERMS, more
            )
            return zip(drawn, beam_terms(model, src, 12, 3, 0.0, TERMS, more))
        for row, kinds in enumerate(searches(src, list(range(8)))):
            (alone,) = searches(src[row:row + 1, :LENGTHS[row]], [row])
            for squares, others in zip(kinds, alone):
                assert [square.ids for square in squares] == [square.ids for square in others]
                assert [square.logprob for square in squares] == pytest.approx([square.logprob for square in others])


@torch.no_grad()
def test_a_sampled_square_is_made_of_the_terms_sampled_with_its_numbers():
    numbers, lengths = torch.rand(8, 4, 3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.double), set()
    for seed in range(4):
        model, src, more = ending_model(seed)
        drawn = sample_terms(model, src, 12, lambda row, number: numbers[row, number], 1.0, 0, 1.0, TERMS, more)
        for row, k in itertools.product(range(8), range(3)):
            ids = []
            for number, first in enumerate(TERMS):
                ((term,),) = sample(
                    model, src[row : row + 1], 12, numbers[row, number, k][None, None], first=torch.tensor([[first]])
                )
                ids += term.ids
                if term.ids[-2:] != [more, EOS]:
                    break
            else:
                ids = ids[:-1]
            assert drawn[row][k].ids == ids
            lengths.add(ids.count(EOS))
    assert {1, 2} <= lengths


# ---------------------------------------------------------------------------------------------------------------------
# The scripts

@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """(folder with data/ and run/best.pt, the rows that the termwise model knows by heart)."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, make_run(folder, termwise=True)


@pytest.mark.parametrize("options", [{}, {"beam_size": 4}, {"samples": 3, "temperature": 0.5}])
def test_a_learned_row_is_answered_and_verified(learned, options):
    folder, rows = learned
    loaded = load(folder / "run" / "best.pt", "cpu")
    answers = list(decode.decode(loaded, [row["amp"] for row in rows], check=True, agree=True, **options))
    assert [answer.prediction for answer in answers] == [row["sqamp"] for row in rows]
    assert {answer.status for answer in answers} == {"verified"} and all(-1 < answer.logprob < 0 for answer in answers)
    assert max(len(split(answer.prediction)) for answer in answers) > 3
    assert all(answer.agreement > 0.9 for answer in answers)
    if "beam_size" in options:
        assert all(len(answer.candidates) > 1 and answer.margin > 0 for answer in answers)


def test_what_does_not_end_is_unfinished(learned):
    folder, rows = learned
    loaded = load(folder / "run" / "best.pt", "cpu")
    short = loaded._replace(state=loaded.state | {"model_config": loaded.state["model_config"] | {"tgt_max_len": 5}})
    for beam_size in (1, 3):
        assert {
            answer.status for answer in decode.decode(short, [row["amp"] for row in rows], beam_size=beam_size)
        } == {"unfinished"}


def test_evaluation_scores_whole_squares(learned, tmp_path, capsys):
    folder, rows = learned
    evaluate.main(
        [f"--ckpt={folder / 'run' / 'best.pt'}", f"--output={tmp_path / 'report.json'}", "--device=cpu", "--beam"]
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert (
        report["rows"] == len(rows)
        and report["sequence_accuracy"] == report["right_physics"] == report["token_accuracy"] == 1
    )
    with open(tmp_path / "predictions.csv", newline="") as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == [row["sqamp"] for row in rows]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("run")
    assert train_small(data, out_dir, "--max_steps=20", "--termwise") == 0
    return out_dir


def test_a_termwise_run_is_trained_and_says_so_in_its_vocabulary(trained):
    state = checkpoint.load(trained / "best.pt")
    assert state["vocabulary"]["termwise"] is True and state["vocabulary"]["tgt"][-3:] == [
        "<term 0>",
        "<term 1>",
        "<term 2>",
    ]
    log = log_of(trained)
    assert all(MORE not in sample[side] for line in log for sample in line.get("samples", []) for side in sample)


@pytest.mark.parametrize("flags", [["--resume", "--max_steps=30"], ["--init_from={}/best.pt", "--out_dir={}/other"]])
def test_a_run_does_not_go_on_from_a_model_of_the_other_kind(data, trained, flags):
    with pytest.raises(InputError, match="termwise: False in the settings, True in the checkpoint"):
        train_small(data, trained, *(flag.format(trained) for flag in flags))


def test_validation_counts_rows_of_which_every_term_is_right(data, trained):
    model, tokenizer, _ = load_model(trained / "best.pt", torch.device("cpu"))
    packed = load_split(data, "valid", tokenizer, 64, 64)
    src, tgt = padded_batch(packed, np.arange(len(packed.row)))
    answers = [answer.ids for answer in greedy(model, src, 20, tgt[:, 0])]
    wrong = {
        int(np.flatnonzero(packed.row == row)[-1]) for row in set(packed.row) if row % 3
    }  # the last term of two rows out of three
    answers = [[3, 2] if sample in wrong else answer for sample, answer in enumerate(answers)]
    taught = packed._replace(
        tgt=np.concatenate(answers).astype(np.uint16), tgt_start=np.cumsum([0, *map(len, answers)])
    )
    rows = len(packed.src_start) - 1
    figures, _ = validate(model, taught, *choose_rows(taught, 0, 0), 300, World(0, 1, torch.device("cpu")))
    assert figures["exact"] == len(range(0, rows, 3)) / rows < 1
