"""ablations/blotching: problems and their steps, blotching, the models, bootstraps, the training loop."""
import ast
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from repository import ROOT
from tiny import log_of, write_csv

from ablations.blotching import bootstraps, evaluate, measure, train
from ablations.blotching import amplitudes as chains
from ablations.blotching.amplitudes import make, middle_lines
from ablations.blotching.data import (
    BLOTCH,
    EOS,
    EQUALS,
    PAD,
    SYMBOLS,
    blotch_p,
    chain_of,
    collate,
    count_steps,
    decode,
    draw_blotches,
    encode,
    is_answered,
    is_held_out,
    is_right,
    make_batch,
    nearest_level,
    sample_chains,
    sample_problem,
    value,
)
from ablations.blotching.model import (
    batch_positions,
    build_model,
    draw_positions,
    predict,
    solve,
)
from attention import attend
from configurator import evaluate as evaluate_literal
from configurator import load_settings, read_config
from dataset.reader import read_rows
from dataset.vocabulary import build_vocabulary
from physics.amplitude import amplitudes, parse_process
from physics.expression import names_in, parse
from physics.numeric import evaluate as evaluate_formula
from physics.particles import NO_FACTS, Facts
from physics.square import square
from physics.theory import THEORIES
from runtime import checkpoint
from runtime.files import InputError
from tokenizer import Tokenizer

QED = THEORIES["qed"]
DEFAULTS = read_config(ROOT / "config/default.py") | read_config(ROOT / "ablations/blotching/config.py")
SMALL = {"d_model": 16, "heads": 2, "n_layers": 2, "h_mult": 1, "max_num": 9, "max_ents": 3, "seq_len": 64,
         "max_posencs": 128, "init_samples": 40, "val_samples": 4, "val_batch_size": 4, "batch_size": 8,
         "device": "cpu", "seed": 1, "val_mod": 3, "warmup_steps": 2, "n_btokens": 2, "pre_epochs": 0}
CHAINS = ["3+4*2=2*4+3=4+4+3=8+3=11", "13+25=3+5+10+20=8+10+20=18+20=38", "1+2=3", "2+2+2=4+2=6"]


def settings_with(**changes):
    return SimpleNamespace(**DEFAULTS | SMALL | changes)


def small_model(**changes):
    torch.manual_seed(0)
    settings = settings_with(**changes)
    return build_model(settings, settings.n_btokens).eval(), settings


def start(out_dir, *flags, **changes):
    """Train the small model in this process; returns the exit code."""
    return train.main([f"--out_dir={out_dir}", *(f"--{name}={value}" for name, value in (SMALL | changes).items()),
                       *flags])


@pytest.fixture(autouse=True)
def as_before(one_thread_and_the_usual_signals):
    pass


# ---------------------------------------------------------------------------------------------------------------------
# Problems and steps

@pytest.mark.parametrize("chain", [
    "3+4*2=2*4+3=4+4+3=8+3=11",
    "3+4=7",
    "23+48+5=3+8+5+20+40=11+5+20+40=16+20+40=36+40=76",
    "2*3+1+4*2=2*3+2*4+1=3+3+2*4+1=3+3+4+4+1=6+4+4+1=10+4+1=14+1=15",
    "5*0+7=0*5+7=0+7=7",
    "105+20=5+20+100=25+100=125",
    "64+10=74",
    "164+200=364",
    "2*3*2=2*2*3=2*3+2*3=3+3+2*3=3+3+3+3=6+3+3=9+3=12",
    "2*(3+4*2)=2*(2*4+3)=2*(4+4+3)=2*(8+3)=2*11=11+11=1+1+10+10=2+10+10=12+10=22",
    "((1+2)+3)*2=(3+3)*2=6*2=2*6=6+6=12",
])
def test_a_chain_has_these_steps(chain):
    assert chain_of(chain.partition("=")[0], 200) == chain


def test_every_step_of_random_chains_has_the_value_of_the_problem():
    settings = settings_with(max_num=120, max_ents=4, p_paren=0.2, p_mult=0.4, space_mults=False, seq_len=200)
    chains = sample_chains(settings, 300, "any")
    assert all(is_right(chain) for chain in chains)
    assert any("(" in chain for chain in chains) and any(re.search(r"\*\d+\*", chain) for chain in chains)
    for chain in chains:  # and so says Python's parser
        steps = chain.split("=")
        assert len({evaluate_literal(ast.parse(step, mode="eval").body, {}) for step in steps}) == 1
        assert len(set(steps)) == len(steps)


def test_an_expression_has_an_exact_value_or_none():
    known = {"3+4*2": 11, "(3+4)*2": 14, "2*(1+(2+3)*4)": 42, "0": 0, "10": 10, "9*9*9": 729}
    assert {text: value(text) for text in known} == known
    for text in "", "3++4", "3+", "+3", "03", "(3", "3)", "()", "3 4", "3-4", "3=3", "2(3)", "٣":
        assert value(text) is None, text


def test_a_chain_with_a_wrong_step_is_answered_but_not_right():
    assert is_right("3+4+1=7+1=8") and is_answered("3+4+1=7+1=8")
    assert is_answered("3+4+1=6+1=8") and not is_right("3+4+1=6+1=8")
    for chain in "3+4+1=7+1=9", "3+4+1=7+1", "3+4+1", "3+4+1=7+1=08", "3+=3":
        assert not is_answered(chain) and not is_right(chain), chain


def test_the_sampler_obeys_its_settings():
    def draw(count=200, **changes):
        rng = random.Random(1)
        return [sample_problem(settings_with(**changes), rng) for _ in range(count)]

    def entities(problem):
        return re.split(r"[+*]", problem)

    assert {len(entities(p)) for p in draw(max_ents=5, p_ent=1.0, p_paren=0.0)} == {5}
    assert {len(entities(p)) for p in draw(max_ents=5, p_ent=0.0, p_paren=0.0)} == {2}
    counts = Counter(len(entities(p)) for p in draw(2000, max_ents=3, p_ent=0.7, p_paren=0.0))
    assert 0.65 < counts[3] / 2000 < 0.75
    assert not any("*" in p for p in draw(p_mult=0.0))
    assert not any("+" in p for p in draw(p_mult=1.0, space_mults=False, p_paren=0.0))
    spaced = draw(max_ents=6, p_ent=1.0, p_mult=1.0, p_paren=0.0, space_mults=True)
    assert all(re.fullmatch(r"\d+\*\d+\+\d+\*\d+\+\d+\*\d+", p) for p in spaced)
    mixed = draw(max_num=90, max_mult_num=3, max_ents=4, p_mult=0.5, p_paren=0.0, space_mults=False)
    products = [int(n) for p in mixed for part in p.split("+") if "*" in part for n in part.split("*")]
    sums = [int(n) for p in mixed for part in p.split("+") if "*" not in part for n in part.split("+")]
    assert set(products) == {0, 1, 2, 3} and max(sums) > 60
    # one level less inside: 4 entities, then 3, then 2, where a parenthesis would have only one
    nested = draw(max_ents=4, p_ent=0.0, p_paren=1.0, p_mult=0.0)
    assert all(re.fullmatch(r"\(\(\d+\+\d+\)\+\(\d+\+\d+\)\)\+\(\(\d+\+\d+\)\+\(\d+\+\d+\)\)", p) for p in nested)
    numbers = Counter(int(n) for p in draw(3000, max_num=3, zipf_order=1.0, p_mult=0.0, p_paren=0.0)
                      for n in entities(p))
    total = sum(numbers.values())
    for number in range(4):  # 1, 1/2, 1/3, 1/4
        assert abs(numbers[number] / total - (12 / 25) / (number + 1)) < 0.03


def test_problems_of_training_and_of_evaluation_are_never_the_same():
    settings = settings_with()
    train_set, test_set = ({chain.partition("=")[0] for chain in sample_chains(settings, 500, "a", held_out)}
                           for held_out in (False, True))
    assert not train_set & test_set and all(map(is_held_out, test_set))
    assert sample_chains(settings, 20, "a") == sample_chains(settings, 20, "a") != sample_chains(settings, 20, "b")


def test_problems_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="^max_num, max_ents: got 0, 2, too few problems: all of"):
        sample_chains(settings_with(max_num=0, max_mult_num=0, max_ents=2, p_mult=0.0), 1, "a", held_out=True)
    with pytest.raises(InputError, match="^seq_len: got 6, too few tokens"):
        sample_chains(settings_with(seq_len=6, max_num=90, max_ents=2, p_mult=0.0), 10**6, "a")
    assert chain_of("999999999*999999999", 200) is None  # without making so many copies
    assert chain_of("(99999*99999)*(99999+1)", 200) is None


# ---------------------------------------------------------------------------------------------------------------------
# Blotching

def test_blotching_never_deletes_the_problem_or_the_answer():
    rng = np.random.default_rng(0)
    assert not draw_blotches(50, 0.0, True, rng).any() and draw_blotches(50, 1.0, True, rng).all()
    for chain in CHAINS:
        ids, index = encode(chain, 2, [True] * (count_steps(chain) - 1))
        assert decode(ids.tolist()) == "=".join(chain.split("=")[::len(chain.split("=")) - 1])
        assert ids[0] == BLOTCH + 2 and ids[-1] == EOS and index[-1] == len(chain) + 1


def test_blotches_have_their_probability_and_can_be_kept_apart():
    rng = np.random.default_rng(0)
    assert abs(draw_blotches(20000, 0.3, True, rng).mean() - 0.3) < 0.02
    apart = draw_blotches(20000, 0.8, False, rng)
    assert not (apart[1:] & apart[:-1]).any()
    assert abs(apart.mean() - 0.8 / 1.8) < 0.02  # a kept step, then a deleted one with probability p: p / (1 + p)


def test_a_row_is_a_blotch_token_the_kept_text_and_the_end():
    ids, index = encode("2+2+2=4+2=6", 1, [True])
    text = "2+2+2=6"
    assert ids.tolist() == [BLOTCH + 1, *(2 + SYMBOLS.index(symbol) for symbol in text), EOS]
    assert index.tolist() == [0, 1, 2, 3, 4, 5, 6, 11, 12]
    assert decode(ids.tolist()) == text
    assert decode(ids.tolist()[:-1]) == text + "?"  # no end: no answer
    assert not is_answered(text + "?")


def test_levels_state_their_probability():
    settings = settings_with(n_btokens=4, blotch_p_min=0.2, blotch_p_max=0.6)
    assert np.allclose([blotch_p(settings, level) for level in range(5)], [0.2, 0.3, 0.4, 0.5, 0.6])
    assert [nearest_level(settings, p) for p in (0, 0.34, 0.36, 1)] == [0, 1, 2, 4]
    assert blotch_p(settings_with(n_btokens=0, blotch_p=0.7), 0) == 0.7
    # level 0 keeps all steps, the last one none; the token says which
    batch = make_batch(CHAINS * 30, settings_with(n_btokens=1, blotch_p_min=0.0), np.random.default_rng(0))
    rows = [ids.tolist() for ids in batch.tokens.split(batch.rows.start.diff().tolist())]
    assert len(rows) == 120 and {row[0] for row in rows} == {BLOTCH, BLOTCH + 1}
    at_once = {"=".join([chain.split("=")[0], chain.split("=")[-1]]) for chain in CHAINS}
    assert {decode([*row, EOS]) for row in rows if row[0] == BLOTCH} == set(CHAINS)
    assert {decode([*row, EOS]) for row in rows if row[0] == BLOTCH + 1} == at_once
    assert [len(row) for row in rows] == sorted(len(row) for row in rows)


def test_the_problem_has_a_loss_only_if_it_is_asked_for():
    rows = [encode(chain, 0) for chain in CHAINS]
    assert (collate(rows, True).truth != PAD).all()
    batch = collate(rows, False)
    for truth, (ids, _), chain in zip(batch.truth.split(batch.rows.start.diff().tolist()), rows, CHAINS):
        solution = chain.partition("=")[2]
        assert truth[truth != PAD].tolist() == ids[-len(solution) - 1:].tolist()
        assert ids[(truth != PAD).nonzero()[0].item()] == EQUALS  # the first token is predicted from "="


# ---------------------------------------------------------------------------------------------------------------------
# Models

KINDS = [{"posenc_type": "rotary"}, {"posenc_type": "sinusoidal", "norm": "pre"}, {"posenc_type": "random"},
         {"model_type": "lstm"}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_does_not_depend_on_later_ones_nor_on_other_rows(kind):
    model, settings = small_model(**kind)
    batch = collate([encode(chain, 1) for chain in CHAINS], False)
    logits = predict(model, settings, batch, np.random.default_rng(0))
    begin, end = batch.rows.start[1:3].tolist()
    tokens = batch.tokens.clone()
    tokens[begin + 9:end] = 2 + (tokens[begin + 9:end] - 1) % 10  # other digits in the second row
    changed = predict(model, settings, batch._replace(tokens=tokens), np.random.default_rng(0))
    same = (logits == changed).all(1)
    assert same[:begin + 9].all() and same[end:].all() and not same[begin + 9:end].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_with_the_cache_is_the_forward_pass(kind):
    model, settings = small_model(**kind)
    rows = [encode(chain, 1) for chain in CHAINS[:2]]
    batch = collate(rows, False)
    positions = batch_positions(settings, batch, np.random.default_rng(0))
    expected = model(batch.tokens, positions, batch.rows)
    state = model.start(2, settings.seq_len)
    lengths = batch.rows.start.diff().tolist()
    tokens, places, whole = (x.split(lengths) for x in (batch.tokens, positions, expected))
    for time in range(min(lengths)):
        logits, state = model.step(torch.stack([row[time] for row in tokens]),
                                   torch.stack([row[time] for row in places]), time, state)
        assert torch.allclose(logits, torch.stack([row[time] for row in whole]), atol=1e-5)


def test_rows_that_attend_together_are_the_rows_alone():
    model, settings = small_model()
    rows = [encode(chain, 1) for chain in CHAINS * 5]
    together = predict(model, settings, collate(rows, False), np.random.default_rng(0))
    alone = [predict(model, settings, collate([row], False), np.random.default_rng(0)) for row in rows]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("pad_pos_skip", [True, False])
@pytest.mark.parametrize("posenc_type", ["rotary", "sinusoidal"])
def test_deleting_blotched_tokens_is_hiding_them_from_attention(pad_pos_skip, posenc_type):
    """The row without the tokens, against the whole row with a mask on them."""
    model, settings = small_model(pad_pos_skip=pad_pos_skip, posenc_type=posenc_type)
    chain, deleted = CHAINS[0], [True, False, True]
    ids, index = encode(chain, 1, deleted)
    batch = collate([(ids, index)], False)
    short = predict(model, settings, batch, np.random.default_rng(0))  # (T, V)

    whole = torch.from_numpy(encode(chain, 1)[0][:-1])
    kept = torch.zeros(len(whole), dtype=torch.bool)
    kept[index[:-1]] = True
    positions = torch.arange(len(whole))
    if pad_pos_skip:
        positions = (kept.cumsum(0) - 1).clamp(min=0)
    mask = kept[None] & torch.ones(len(whole), len(whole), dtype=torch.bool).tril()
    mask |= torch.eye(len(whole), dtype=torch.bool)  # a hidden token sees itself, as it must see something
    x, rope = model.embed(whole, positions)
    x = x[None]
    for layer in model.layers:
        x = layer(x, rope, lambda q, k, v: attend(q, k, v, mask))
    hidden = model.head(model.norm(x))[0, kept]
    assert torch.allclose(short, hidden, atol=1e-5)


def test_positions_count_what_is_left_or_keep_gaps():
    batch = collate([encode("2+2+2=4+2=6", 1, [True]), encode("1+2=3", 1)], False)
    rng = np.random.default_rng(0)
    assert batch_positions(settings_with(), batch, rng).tolist() == [*range(8), *range(6)]
    gaps = batch_positions(settings_with(pad_pos_skip=False), batch, rng).tolist()
    assert gaps == [0, 1, 2, 3, 4, 5, 6, 11, *range(6)]


def test_random_positions_increase_and_differ_between_rows():
    settings = settings_with(posenc_type="random", max_posencs=80)
    drawn = draw_positions(settings, 40, 64, np.random.default_rng(0))
    assert (drawn.diff(dim=1) > 0).all() and drawn.min() == 0 and drawn.max() == 79
    assert len({tuple(row) for row in drawn.tolist()}) == 40
    batch = collate([encode(chain, 0) for chain in CHAINS], False)
    positions = batch_positions(settings, batch, np.random.default_rng(1))
    for row in positions.split(batch.rows.start.diff().tolist()):
        assert (row.diff() > 0).all() and row.max() < 80


def test_positional_encodings_are_trained_and_dropped_only_if_asked():
    for learnable in (False, True):
        for kind in ("sinusoidal", "random"):
            model, settings = small_model(learnable_posencs=learnable, posenc_type=kind)
            batch = collate([encode(chain, 0) for chain in CHAINS], False)
            predict(model, settings, batch, np.random.default_rng(0)).sum().backward()
            assert (model.positions.grad is not None) == learnable
    tokens, positions = torch.zeros(500, dtype=torch.long), torch.arange(500) % 64
    model, _ = small_model(posenc_drop_p=0.5, posenc_type="sinusoidal")
    model.train()
    dropped = (model.embed(tokens, positions)[0] - 4 * model.embedding(tokens)).abs() < 1e-6
    assert 0.4 < dropped.float().mean() < 0.6
    model.eval()
    assert torch.equal(model.embed(tokens, positions)[0], model.embed(tokens, positions)[0])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.get("posenc_type") != "random"])
def test_greedy_answers_follow_the_largest_logits_of_the_forward_pass(kind):
    """With decoding in a batch whose rows end at different times."""
    model, settings = small_model(**kind | {"seq_len": 24, "max_posencs": 24})
    with torch.no_grad():
        model.head.bias[EOS] += 0.6 if kind.get("posenc_type") == "rotary" else 0.3  # some rows end early, not all
    problems = ["3+4", "1+2+9", "7*2", "5+5*3", "(1+2)*4", "8+6", "13+25", "0*9+1"]
    answers = solve(model, settings, problems, 1, 0, np.random.default_rng(0))
    assert len({len(answer) - len(problem) for answer, problem in zip(answers, problems)}) > 1
    for problem, answer in zip(problems, answers):
        ids = [*encode(problem + "=", 1)[0][:-1]]
        while len(ids) < settings.seq_len and ids[-1] != EOS:
            logits = predict(model, settings, collate([(np.array([*ids, EOS]), np.arange(len(ids) + 1))], True),
                             np.random.default_rng(0))
            ids.append(int(logits[-1].argmax()))
        assert answer == decode(ids)


def test_sampling_has_the_probabilities_of_the_model():
    model, settings = small_model(n_layers=1, seq_len=8, max_posencs=8)
    logits = predict(model, settings, collate([encode("1+2=", 0)], True), np.random.default_rng(0))[-1]
    for temperature in (1.0, 2.0):
        answers = solve(model, settings, ["1+2"] * 3000, 0, temperature, np.random.default_rng(0))
        share = sum(answer.startswith("1+2=7") for answer in answers) / 3000
        wanted = (logits / temperature).softmax(-1)[2 + 7].item()
        assert abs(share - wanted) < 4 * (wanted * (1 - wanted) / 3000) ** 0.5


# ---------------------------------------------------------------------------------------------------------------------
# Bootstraps

def test_answers_are_kept_only_if_they_are_right_and_shorter(monkeypatch):
    answers = {"3+4*2": "3+4*2=8+3=11", "13+25": "13+25=3+5+10+20=8+10+20=18+20=38", "1+2": "1+2=4", "2+2+2": "2+2+2=6"}
    monkeypatch.setattr(bootstraps, "solve", lambda model, settings, problems, *rest: [answers[p] for p in problems])
    found = bootstraps.shorter_answers(None, settings_with(val_batch_size=3), CHAINS, 1, None)
    assert found == ["3+4*2=8+3=11", None, None, "2+2+2=6"]  # the second is no shorter, the third not right
    answers["3+4*2"] = "3+4*2=9+3=11"  # the right answer after a wrong step
    assert bootstraps.shorter_answers(None, settings_with(val_batch_size=3), CHAINS, 1, None)[0] is None


def test_augmentation_replaces_or_appends_and_star_brings_new_problems(monkeypatch):
    def at_once(model, settings, problems, *rest):
        return [f"{problem}={value(problem)}" for problem in problems]

    monkeypatch.setattr(bootstraps, "solve", at_once)
    cache = list(CHAINS)
    assert bootstraps.bootstrap(None, settings_with(aug_loops=-1), cache, 1) == {"aug": {"tried": 4, "kept": 3}}
    assert sorted(cache) == sorted(["3+4*2=11", "13+25=38", "1+2=3", "2+2+2=6"])
    cache = list(CHAINS)
    bootstraps.bootstrap(None, settings_with(aug_loops=-1, in_place=False), cache, 1)
    assert cache[:4] == CHAINS and sorted(cache[4:]) == sorted(["3+4*2=11", "13+25=38", "2+2+2=6"])
    cache = list(CHAINS)
    counts = bootstraps.bootstrap(None, settings_with(star_loops=5), cache, 1)["star"]
    assert counts["tried"] == 20 and len(cache) == 4 + counts["kept"] > 4
    assert not any(is_held_out(chain.partition("=")[0]) for chain in cache[4:])
    newest = cache[-6:]
    capped = list(CHAINS)
    bootstraps.bootstrap(None, settings_with(star_loops=5, max_samples=6), capped, 1)
    assert capped == newest


def fake_predictions(confidence, monkeypatch, wrong_answer=()):
    """A model that predicts every token of row r with logit confidence[r]; the rows in wrong_answer miss the end."""
    def predict(model, settings, batch, rng):
        scale = torch.tensor(confidence)[batch.rows.row]
        logits = F.one_hot(batch.truth, BLOTCH).float() * scale[:, None]
        for row in wrong_answer:
            logits[batch.rows.start[row + 1] - 1] *= -1
        return logits

    monkeypatch.setattr(bootstraps, "predict", predict)
    return SimpleNamespace(training=False, eval=lambda: None, train=lambda mode: None)


def test_axing_deletes_the_step_that_costs_least_within_the_tolerance(monkeypatch):
    chain = CHAINS[0]  # "3+4*2=2*4+3=4+4+3=8+3=11"
    without = ["3+4*2=4+4+3=8+3=11", "3+4*2=2*4+3=8+3=11", "3+4*2=2*4+3=4+4+3=11"]
    model = fake_predictions([5.0, 1.0, 4.0, 2.0], monkeypatch)  # all steps, then without each of the three
    loss = [-float(F.one_hot(torch.tensor(0), BLOTCH).float().mul(c).log_softmax(-1)[0]) for c in (5.0, 1.0, 4.0, 2.0)]

    def axe(chain=chain, **changes):
        return bootstraps.axe(model, settings_with(**changes), chain, 1, np.random.default_rng(0))

    rise = loss[2] - loss[0]
    for steps in (0, 1, 2):
        assert axe(axe_tol=1.01 * rise, axe_comp_steps=steps) == without[1]
        assert axe(axe_tol=0.99 * rise, axe_comp_steps=steps) is None
    assert axe(axe_tol=1.01 * rise / loss[0], abs_axe_tol=False) == without[1]
    assert axe(axe_tol=0.99 * rise / loss[0], abs_axe_tol=False) is None
    assert axe("1+2=3", axe_tol=100.0) is None  # no middle step
    model = fake_predictions([5.0, 1.0, 4.0, 2.0], monkeypatch, wrong_answer=[2])
    assert axe(axe_tol=100.0, axe_comp_steps=1) == without[2]  # the cheapest one has the wrong answer then


def test_axing_compares_only_the_steps_after_the_deleted_one(monkeypatch):
    chain = CHAINS[1]  # "13+25=3+5+10+20=8+10+20=18+20=38"

    def predict(model, settings, batch, rng):
        """Sure of everything, but in the rows without step 1 or 3 not of the last step."""
        logits = F.one_hot(batch.truth, BLOTCH).float() * 9
        for row in (1, 3):
            end = batch.rows.start[row + 1]
            logits[end - 3:end] /= 9
        return logits

    model = fake_predictions([], monkeypatch)
    monkeypatch.setattr(bootstraps, "predict", predict)
    without_first = "13+25=8+10+20=18+20=38"
    rng = np.random.default_rng(0)
    for steps, expected in ((1, without_first), (0, "13+25=3+5+10+20=18+20=38")):
        settings = settings_with(axe_comp_steps=steps, axe_tol=1.0)
        assert bootstraps.axe(model, settings, chain, 1, rng) == expected


# ---------------------------------------------------------------------------------------------------------------------
# Training

def test_gradient_accumulation_is_one_large_batch(tmp_path):
    start(tmp_path / "a", max_steps=2, batch_size=16, n_grad_loops=1)
    start(tmp_path / "b", max_steps=2, batch_size=4, n_grad_loops=4)
    one, four = (checkpoint.load(tmp_path / name / "last.pt")["model"] for name in "ab")
    assert all(torch.allclose(one[name], four[name], atol=1e-5) for name in one)


@pytest.mark.parametrize("kind", [{"dropout": 0.1, "posenc_type": "random"}, {"model_type": "lstm", "n_btokens": 0}])
def test_a_resumed_run_is_the_run_that_was_not_stopped(kind, tmp_path, monkeypatch):
    """Stopped by a signal after 7 steps, amid an epoch, after bootstraps have changed the data."""
    def shorten(model, settings, cache, epoch):
        cache[:] = [f"{chain.partition('=')[0]}={chain.rpartition('=')[2]}" for chain in cache[:-1]]
        return {"aug": {"tried": 1, "kept": 1}}

    monkeypatch.setattr(train, "bootstrap", shorten)
    changes = kind | {"max_steps": 12, "log_every": 2, "save_every": 100}
    assert start(tmp_path / "straight", **changes) == 0
    calls = itertools.count(1)
    with monkeypatch.context() as patch:
        patch.setattr(train, "catch_signals", lambda parent: lambda: signal.SIGTERM * (next(calls) == 7))
        assert start(tmp_path / "stopped", **changes) == 128 + signal.SIGTERM
    assert checkpoint.load(tmp_path / "stopped/last.pt")["step"] == 7
    assert start(tmp_path / "stopped", "--resume", **changes) == 0
    one, other = (checkpoint.load(tmp_path / name / "last.pt") for name in ("straight", "stopped"))
    for name in ("step", "epoch", "done_rows", "cache", "lowest", "last_bootstrap", "losses", "epoch_losses"):
        assert one[name] == other[name], name
    assert len(one["cache"]) < SMALL["init_samples"]
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    assert torch.equal(one["rng"]["cpu"], other["rng"]["cpu"])
    assert log_of(tmp_path / "straight") == log_of(tmp_path / "stopped")


@pytest.mark.parametrize("changes, epochs", [
    ({"pre_epochs": 2, "aug_mod": 3}, [2, 5, 8]),
    ({"pre_epochs": 3, "aug_mod": -1, "min_aug_gap": 1}, [3, 5, 7, 9]),  # a first epoch after each is no plateau yet
    ({"pre_epochs": 2, "aug_mod": -1, "min_aug_gap": 4}, [2, 6])])
def test_bootstraps_come_every_few_epochs_or_at_plateaus(changes, epochs, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "bootstrap", lambda model, settings, cache, epoch: seen.append(epoch) or {})
    # without a learning rate and with no choice of level the loss of every epoch is the same
    start(tmp_path, learning_rate=0.0, n_btokens=0, batch_size=40, max_steps=9, val_mod=99, **changes)
    assert seen == epochs


def test_all_bootstraps_run_in_a_training_and_in_one_that_goes_on(tmp_path):
    changes = dict(star_loops=1, aug_loops=1, axe_loops=1)
    start(tmp_path / "straight", max_steps=12, **changes)
    event = next(line for line in log_of(tmp_path / "straight") if "star" in line)
    assert [event[name]["tried"] for name in ("star", "aug", "axe")] == [4, 4, 4]
    calls = itertools.count(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "catch_signals", lambda parent: lambda: signal.SIGTERM * (next(calls) == 7))
        start(tmp_path / "stopped", max_steps=12, **changes)
    start(tmp_path / "stopped", "--resume", max_steps=12, **changes)
    assert log_of(tmp_path / "straight") == log_of(tmp_path / "stopped")


def test_first_weights_come_from_another_checkpoint(tmp_path):
    start(tmp_path / "a", max_steps=1)
    start(tmp_path / "b", max_steps=1, learning_rate=0.0, seed=2, init_checkpt=tmp_path / "a/last.pt")
    one, other = (checkpoint.load(tmp_path / name / "last.pt")["model"] for name in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(InputError, match="^init_checkpt: .* another shape$"):
        start(tmp_path / "c", max_steps=1, d_model=8, init_checkpt=tmp_path / "a/last.pt")


@pytest.mark.parametrize("changes, message", [
    ({"p_ent": 1.5}, "p_ent: got 1.5, wanted a probability, 0 to 1"),
    ({"max_ents": 1}, "max_ents: got 1, wanted at least 2"),
    ({"blotch_p_min": 0.8, "blotch_p_max": 0.5}, "blotch_p_min: got 0.8, wanted at most blotch_p_max, 0.5"),
    ({"aug_mod": 0}, "aug_mod: got 0, wanted epochs between bootstraps, or -1 for plateaus of the loss"),
    ({"model_type": "rnn"}, "model_type: got 'rnn', wanted transformer, lstm"),
    ({"posenc_type": "learned"}, "posenc_type: got 'learned', wanted rotary, sinusoidal, random"),
    ({"learnable_posencs": True}, "learnable_posencs, posenc_drop_p: rotary positions have neither weights nor "
                                  "dropout"),
    ({"max_posencs": 63}, "max_posencs: got 63, wanted at least 64, with seq_len 64 and rotary positions"),
    ({"max_posencs": 100, "posenc_type": "random"},
     "max_posencs: got 100, wanted at least 128, with seq_len 64 and random positions"),
    ({"beta2": 2.0}, "beta1, beta2: Invalid beta parameter at index 1: 2.0"),
    ({"heads": 3}, "d_model: 16 does not divide into 3 heads of an even width"),
    ({"posenc_drop_p": 1.0, "posenc_type": "random"}, "posenc_drop_p: got 1.0, wanted at least 0 and less than 1"),
    ({"init_samples": 7}, "init_samples: got 7, with max_samples 0, wanted at least the 8 rows of a step in the data "
                          "cache"),
    ({"max_samples": 30}, "init_samples: got 40, wanted at most max_samples, 30"),
    ({"max_nums": 3}, "command line: unknown setting max_nums; did you mean max_num?")])
def test_a_bad_setting_is_one_clear_line(changes, message, tmp_path):
    with pytest.raises(InputError) as error:
        start(tmp_path / "run", **changes)
    assert str(error.value) == message
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_mixed_with_another(tmp_path):
    start(tmp_path, max_steps=1)
    with pytest.raises(InputError, match="holds a run already"):
        start(tmp_path, max_steps=1)
    with pytest.raises(InputError, match="^d_model: 32 in the settings, 16 in the checkpoint"):
        start(tmp_path, "--resume", max_steps=2, d_model=32)
    state = checkpoint.load(tmp_path / "last.pt")
    del state["experiment"]
    checkpoint.save(tmp_path / "last.pt", state)
    with pytest.raises(InputError, match="holds a run of another script"):
        start(tmp_path, "--resume", max_steps=2)
    with pytest.raises(InputError, match="not a checkpoint of ablations/blotching$"):
        evaluate.main([f"--ckpt={tmp_path}/last.pt"])


def test_the_commands_run_from_the_root(tmp_path):
    """Training and evaluation, in processes of their own: the scripts find the project's parts, not each other's."""
    flags = [f"--{name}={value}" for name, value in (SMALL | {"max_steps": 1, "val_samples": 1}).items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "ablations/blotching/train.py", "ablations/blotching/config.py",
                             f"--out_dir={tmp_path}/run", *flags], cwd=ROOT, env=environment, capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stderr
    assert evaluate.main([f"{tmp_path}/run/config.py", f"--out_dir={tmp_path}/run", "--test_samples=6",
                          "--test_sizes=3", "--device=cpu"]) == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert [line["level"] for line in report["by_level"]] == [0, 1, 2]
    assert [(line["size"], line["level"]) for line in report["by_size"]] == [
        *itertools.product([2, 3, 4, 5], [0, 1, 2])]
    assert all(line["problems"] == 6 for line in report["by_level"])


def test_one_problem_is_answered_at_a_level(tmp_path, capsys, monkeypatch):
    start(tmp_path, max_steps=1, val_samples=1)
    ask = [f"--ckpt={tmp_path}/last.pt", "--problem=2+2+2"]
    answers = {0: "2+2+2=4+2=6", 1: "2+2+2=5+2=6", 2: "2+2+2=7"}
    monkeypatch.setattr(evaluate, "solve", lambda model, trained, problems, level, *rest: [answers[level]])
    for level, verdict in ((0, "every step is right"), (1, "the answer is right, a step is not"),
                           (2, "wrong, the answer is 6")):
        capsys.readouterr()
        assert evaluate.main([*ask, f"--level={level}"]) == 0
        assert capsys.readouterr().out == f"{answers[level]}  {verdict}\n"
    with pytest.raises(InputError, match="^level: got 3, wanted 0 to 2$"):
        evaluate.main([*ask, "--level=3"])
    with pytest.raises(InputError, match="^problem: got '2\\+-2', wanted numbers"):
        evaluate.main([*ask, "--problem=2+-2"])


# ---------------------------------------------------------------------------------------------------------------------
# The experiment's settings, and its tables

def test_an_experiment_has_settings_of_its_own(capsys):
    base = ROOT / "ablations/blotching/config.py"
    settings = load_settings("", ["max_ents", "d_model"], ["--max_ents=7"], base=base)
    assert (settings.max_ents, settings.d_model, settings.log_every) == (7, DEFAULTS["d_model"], DEFAULTS["log_every"])
    with pytest.raises(SystemExit):
        load_settings("", ["max_ents", "d_model"], ["--help"], base=base)
    assert "most entities of a problem" in capsys.readouterr().out
    with pytest.raises(InputError, match="unknown setting max_ents"):
        load_settings("", [], ["--max_ents=7"])
    assert set(train.SETTINGS) <= set(DEFAULTS) and set(evaluate.SETTINGS) <= set(DEFAULTS)


def test_help_of_the_measurement_starts_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["measure.py", "--help"])
    measure.main()
    assert "ablations/blotching/measure.py" in capsys.readouterr().out


def test_the_tables_say_what_was_measured(tmp_path, monkeypatch):
    """Made-up reports: goals, means and ranges of the seeds, paired differences; what is finished is not run again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "HERE", tmp_path)
    monkeypatch.setattr(measure.subprocess, "run", lambda *rest, **more: pytest.fail("a finished run was started"))
    monkeypatch.setattr(sys, "argv", ["measure.py", "--workers=1"])
    for name, (settings, seeds, _) in measure.RUNS.items():
        for seed in seeds:
            accuracy = 0.95 + 0.01 * seed - 0.1 * (name == "axe")
            levels = [0] if "n_btokens=0" in settings else range(11)
            line = {"problems": 10, "accuracy": accuracy, "all_steps_right": accuracy, "tokens": 20.0,
                    "steps_of_solution": 6.0}
            report = {"device": "CPU", "temperature": 1.0, "max_ents": 4,
                      "by_level": [line | {"level": k, "blotch_p": k / 10, "steps": 6 - k / 2} for k in levels],
                      "by_size": [line | {"size": size, "level": k, "steps": 6.0} for size in (2, 3) for k in (0, 5)]}
            folder = tmp_path / f"out/blotching/{name}-{seed}"
            folder.mkdir(parents=True)
            (folder / "report.json").write_text(json.dumps(report))
            (folder / "log.jsonl").write_text(json.dumps(
                {"step": 100, "seconds": 240.0, name: {"tried": 10, "kept": 4}}) + "\n")
    assert measure.main() == 0
    text = (tmp_path / "results.md").read_text()
    assert "4.0 minutes of training" in text
    assert "| accuracy at level 0 >= 0.9 | 0.970 | yes |" in text
    assert "| steps at level 5 <= 0.6 of level 0 | 0.583 | yes |" in text
    assert "| 0 | 0.0 | 0.970 (0.960 to 0.980) |" in text
    assert ("| blotching, then axing | blotching, then more of it | -0.100 ± 0.000, less "
            "| +0.000 ± 0.000, no difference seen |") in text
    assert "| 12 of 30 |" in text
    assert all((tmp_path / name).read_text().startswith("<?xml") for name in ("levels.svg", "sizes.svg"))


# -- the project's own task, in chains: ablations/blotching/amplitudes.py

def test_the_lines_between_an_amplitude_and_its_square():
    """
    Traces and product of e e~ -> mu mu~: Peskin & Schroeder, eqs. (5.9) and (5.10) with both masses. Their tensors,
    contracted here over m1 and n1 by hand, give the product.
    """
    lines, = middle_lines([next(iter(amplitudes(parse_process("e e~ -> mu mu~", QED), QED)))], [NO_FACTS])
    assert lines == [
        "(p_1_m1*p_2_n1 + p_1_n1*p_2_m1 + -g_m1_n1*s_12 + -g_m1_n1*m_e^2)*"
        "(p_3_m1*p_4_n1 + p_3_n1*p_4_m1 + -g_m1_n1*s_34 + -g_m1_n1*m_mu^2)",
        "(s_14*s_23 + s_13*s_24 + m_mu^2*s_12 + m_e^2*s_34 + 2*m_e^2*m_mu^2)"]


def test_a_mass_that_only_a_polarisation_sum_brings_in_has_its_name():
    """Polarisation sums of eps_1.eps_2 and of p_3.eps_4: (2 + s_12^2 / m_b^4) (s_34^2 / m_b^2 - m_a^2), times m_b^6."""
    amp = (r"i*k_V*p_3_%\lambda_5*Vb1_{i_2,%\rho_3}(p_1)*Vb1_{k_4,+%\rho_3}(p_2)*Sa1(p_3)^(*)*"
           r"Vb1_{i_1,+%\lambda_5}(p_4)^(*)/(m_b^2 + 2*s_12 + reg_prop)")
    assert middle_lines([amp], [Facts("Vb1 Vb1 -> Sa1 Vb1")]) == [
        ["(s_12^2*s_34^2 + -m_a^2*m_b^2*s_12^2 + 2*m_b^4*s_34^2 + -2*m_a^2*m_b^6)"]]


@pytest.mark.parametrize("name, process", [
    ("qed", "e mu -> e mu"), ("qed", "e A -> e A"), ("qed", "e e~ -> mu mu~ A"), ("qcd", "u d -> u d"),
    ("ew", "e e~ -> Z h")])
def test_the_product_of_the_traces_is_the_square_up_to_a_factor(name, process):
    """Their ratio is the same wherever the propagators are: couplings and masses are all that the line leaves out."""
    rng, theory = random.Random(1), THEORIES[name]
    for amp in amplitudes(parse_process(process, theory), theory):
        lines, = middle_lines([amp], [Facts(process)])
        both = parse(lines[-1]), parse(square(amp, facts=Facts(process)))
        names = sorted(set().union(*map(names_in, both)))
        fixed = {name: rng.uniform(1, 2) for name in names}
        propagators = amp.partition("/(")[2]
        free = [name for name in names if name.startswith("s_") and name not in propagators]
        assert free
        ratios = []
        for _ in range(2):
            values = fixed | {name: rng.uniform(1, 2) for name in free}
            line, truth = (evaluate_formula(tree, values) for tree in both)
            ratios.append(line / truth)
        assert ratios[0] == pytest.approx(ratios[1], rel=1e-9)


def test_the_score_of_a_beam_counts_its_first_candidate_and_any(tmp_path, monkeypatch, capsys):
    rows = [{"process": "e mu -> e mu", "amp": amp, "sqamp": square(amp)}
            for amp in amplitudes(parse_process("e mu -> e mu", QED), QED)]
    write_csv(tmp_path / "test.csv", 3 * rows)
    right = rows[0]["sqamp"]
    beams = [["1*equals*" + right, "1"], ["1", "2*equals*1*" + right], ["1", "("]]
    answers = [SimpleNamespace(prediction=beam[0], candidates=[[text, 0.0, ""] for text in beam]) for beam in beams]
    monkeypatch.setattr(chains, "load", lambda path: SimpleNamespace(tokenizer=SimpleNamespace(vocabulary={"src": []})))
    monkeypatch.setattr(chains, "decode", lambda loaded, amps, beam_size: answers)
    chains.score("best.pt", tmp_path / "test.csv", "3", "2")
    assert capsys.readouterr().out.splitlines()[-1].startswith("| 0 | 33.3% | 33.3% | 66.7% | 0.33 | ")


def test_chains_are_read_and_written_by_the_projects_tokenizer(tmp_path):
    """Every line comes back from its tokens; a chain has as many lines as its level leaves."""
    rows = [{"amp": amp, "sqamp": square(amp)} for amp in amplitudes(parse_process("e A -> e A", QED), QED)]
    rows += [{"amp": amp, "sqamp": square(amp)} for amp in amplitudes(parse_process("e mu -> e mu", QED), QED)]
    for name in ("train", "valid"):
        write_csv(tmp_path / f"{name}.csv", rows)
    make(tmp_path, tmp_path / "chains", "60")
    tokenizer = Tokenizer(build_vocabulary(tmp_path / "chains" / "train.csv"))
    made = [row for _, row in read_rows(tmp_path / "chains" / "train.csv")]
    lines = {(row["amp"][-1], row["sqamp"].count("*equals*")) for row in made}
    assert lines == {("0", 1), ("0", 2), ("1", 0), ("1", 1), ("1", 2), ("2", 0)} and len(made) == 180
    for row in made:
        ids, _ = tokenizer.encode_amp(row["amp"])
        assert tokenizer.decode_sqamp(tokenizer.encode_sqamp(row["sqamp"])) == row["sqamp"] and len(ids) > 9
        assert row["sqamp"].split("*equals*")[-1] in {row["sqamp"] for row in rows}
