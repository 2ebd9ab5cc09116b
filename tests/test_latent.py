"""The latent experiment: exact counts of the data, what the decoder sees, schedules, runs that resume bit for bit."""
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from repository import ROOT
from tiny import log_of, padded

from ablations.latent import measure, train
from ablations.latent.data import TOKENS, both_orders, encode, load_splits, make_pairs, split_pairs, text_of
from ablations.latent.evaluate import longer_rows, score, verdicts
from ablations.latent.evaluate import main as evaluate
from ablations.latent.padded import mixed_inputs, read, validate, write
from attention import pack_equal, pack_rows
from configurator import load_settings
from generate import greedy
from model import ARCHITECTURE, ModelConfig, Transformer
from runtime import checkpoint
from runtime.files import InputError
from runtime.hardware import training_flops
from tokenizer import BOS, EOS, PAD
from train import make_optimizers

BASE = ROOT / "ablations/latent/config.py"
TINY = ["--d_model=16", "--heads=2", "--d_ff=16", "--encoder_layers=1", "--decoder_layers=1", "--max_digits=1",
        "--max_factor=20", "--rows_per_step=32", "--device=cpu", "--log_every=5", "--eval_every=20", "--save_every=10",
        "--eval_rows=50", "--dropout=0.1"]


def settings_of(*flags):
    return load_settings("", [], list(flags), BASE)


def model_of(n_latent, **sizes):
    """In double precision, with large embeddings, so that the answers vary."""
    torch.manual_seed(0)
    sizes = dict(src_max_len=16, tgt_max_len=16, d_model=16, heads=2, encoder_layers=1, decoder_layers=2, d_ff=24,
                 dropout=0.0) | sizes
    model = Transformer(ModelConfig(len(TOKENS), len(TOKENS), **sizes, n_latent=n_latent)).double().eval()
    for embedding in (model.src_embedding, model.tgt_embedding):
        torch.nn.init.normal_(embedding.weight)
    return model


# ---------------------------------------------------------------------------------------------------------------------
# Data

def test_counts_of_the_split_are_exact_and_a_pair_is_on_one_side():
    parts = split_pairs(make_pairs(1, 99, 0, 0), seed=5)
    assert {split: len(part) for split, part in parts.items()} == {"train": 3970, "valid": 490, "test": 490}
    every = {tuple(pair) for part in parts.values() for pair in part.tolist()}
    assert every == {(a, b) for a in range(1, 100) for b in range(a, 100)}
    rows = {split: {tuple(row) for row in both_orders(part).tolist()} for split, part in parts.items()}
    assert sum(map(len, rows.values())) == 99 * 99
    assert all((b, a) in split for split in rows.values() for a, b in split)


def test_each_bucket_of_products_is_split_80_10_10():
    pairs = make_pairs(1, 99, 0, 0)
    products = pairs.prod(1)
    assert (np.diff(products) >= 0).all()
    parts = split_pairs(pairs, seed=5)
    for bucket in np.array_split(pairs, 10):
        members = {tuple(pair) for pair in bucket.tolist()}
        shares = [len(members & {tuple(pair) for pair in part.tolist()}) for part in parts.values()]
        assert shares == [397, 49, 49]


def test_three_digits_are_a_sample_of_their_pairs_that_the_seed_fixes():
    pairs = make_pairs(100, 999, 2000, seed=3)
    assert len(pairs) == len({tuple(pair) for pair in pairs.tolist()}) == 2000
    assert pairs.min() >= 100 and pairs.max() <= 999 and (pairs[:, 0] <= pairs[:, 1]).all()
    assert (pairs == make_pairs(100, 999, 2000, seed=3)).all() and (pairs != make_pairs(100, 999, 2000, seed=4)).any()


@pytest.mark.parametrize("order, width, source, target", [
    ("none", 0, "7*12", "84"), ("none", 2, "07*12", "0084"), ("product", 2, "07*12", "4800"),
    ("all", 2, "70*21", "4800"),
])
def test_digits_and_special_tokens(order, width, source, target):
    rows = encode([(7, 12), (99, 99)], order, width)
    src, tgt = rows.src[0].tolist(), rows.tgt[0].tolist()
    assert text_of(src) == source and text_of(tgt) == target
    assert [id for id in src if id != PAD][-1] == EOS and tgt[0] == BOS and [id for id in tgt if id != PAD][-1] == EOS
    assert not {PAD, BOS, EOS} & {TOKENS.index(digit) for digit in "0123456789*"}


def test_factors_of_the_settings_and_longer_ones():
    settings = settings_of("--max_digits=2", "--min_factor=10", "--max_factor=40")
    factors = torch.cat([rows.factors for rows in load_splits(settings).values()])
    assert len(factors) == 31 * 31 and (int(factors.min()), int(factors.max())) == (10, 40)
    longer = longer_rows(settings).factors
    assert int(longer.min()) >= 100 and int(longer.max()) <= 999


@pytest.mark.parametrize("flags, message", [
    (["--min_factor=50", "--max_factor=40"], "the smallest factor is 50, the largest 40"),
    (["--max_digits=0"], "max_digits: got 0, wanted at least 1"),
    (["--units_first=some"], "units_first: got 'some', wanted none, product, all"),
    (["--max_digits=1"], "45 pairs of factors; wanted at least 100"),
    (["--max_digits=5"], "99,999 factors make 4,999,950,000 pairs"),
])
def test_factors_that_make_no_data_are_one_clear_line(flags, message):
    with pytest.raises(InputError, match=message) as error:
        load_splits(settings_of(*flags))
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# What the decoder sees

@pytest.mark.parametrize("n_latent, sees_memory", [(0, True), (3, False)])
def test_the_decoder_sees_the_latent_tokens_alone(n_latent, sees_memory):
    """Overwrite the memory once the latent tokens have read it: nothing may change in the decoder."""
    model, rows = model_of(n_latent), encode([(12, 34), (56, 78)], "product", 2)
    before = write(model, read(model, rows.src), rows.tgt[:, :-1])
    memories = []

    def overwrite(module, inputs, output):
        memories[-1].data.zero_()

    model.encoder[-1].register_forward_hook(lambda module, inputs, output: memories.append(output))
    reader = model.latents or model.encoder_norm  # the last module that reads the memory before the decoder
    reader.register_forward_hook(overwrite)
    after = write(model, read(model, rows.src), rows.tgt[:, :-1])
    assert torch.equal(before, after) == (not sees_memory)


@pytest.mark.parametrize("n_latent", [0, 3])
def test_no_logit_depends_on_a_later_token(n_latent):
    model, rows = model_of(n_latent), encode([(12, 34), (56, 78)], "product", 2)
    tgt = rows.tgt[:, :-1]
    source = read(model, rows.src)
    logits = write(model, source, tgt)
    for position in range(1, tgt.shape[1]):
        changed = tgt.clone()
        changed[:, position] = 3 + (changed[:, position] - 2) % 10
        others = write(model, source, changed)
        assert torch.equal(logits[:, :position], others[:, :position])
        assert not torch.allclose(logits[:, position], others[:, position])


@pytest.mark.parametrize("n_latent", [0, 3])
def test_padded_rows_packed_rows_and_greedy_decoding_agree(n_latent):
    """Rows of unequal length: no digit of one row, and no padding, reaches another one's latent tokens."""
    model, rows = model_of(n_latent), encode([(1, 2), (56, 78), (9, 99)], "none", 0)
    tgt = rows.tgt[:, :-1].clone()
    logits = write(model, read(model, rows.src), tgt)
    packed = padded(model, rows.src, rows.tgt)[:, :logits.shape[1]]
    seen = ((rows.tgt == EOS).cumsum(1) == 0)[:, :-1]  # positions up to the last digit
    assert torch.allclose(logits[seen], packed[seen], rtol=0, atol=1e-10)
    for answer, src in zip(greedy(model, rows.src, 5), rows.src):
        alone, = greedy(model, src[None, src != PAD], 5)
        assert answer.ids == alone.ids
        own = torch.tensor([[BOS, *answer.ids]])
        logprob = write(model, read(model, src[None]), own[:, :-1]).log_softmax(-1).gather(-1, own[:, 1:, None]).sum()
        assert logprob.item() == pytest.approx(answer.logprob, abs=1e-9)


def test_latent_tokens_follow_the_formula():
    """Z1 = LN(Z + Attn(Z, M)), Z2 = LN(Z1 + MLP(Z1)), with one head written out."""
    model = model_of(3, heads=1)
    latents, memory = model.latents, torch.randn(1, 5, 16, dtype=torch.double)
    k, v = (memory[0] @ latents.cross.kv.weight.T).split(16, dim=1)
    q = latents.tokens @ latents.cross.q.weight.T
    read_out = (q @ k.T / 4).softmax(-1) @ v @ latents.cross.out.weight.T
    z1 = torch.nn.functional.layer_norm(latents.tokens + read_out, (16,))
    z2 = torch.nn.functional.layer_norm(z1 + latents.mlp(z1), (16,))
    model.encode_tokens = lambda *args: memory
    found, mask = model.encode(torch.full((1, 5), 4))
    assert torch.allclose(found[0], z2, rtol=0, atol=1e-12) and mask.shape == (1, 1, 1, 3) and mask.all()


def test_rows_of_one_length_are_packed_like_any_others():
    for ours, theirs in zip(pack_equal(4, 3, "cpu"), pack_rows(torch.tensor([3, 3, 3, 3]))):
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))


def test_latent_tokens_have_the_weights_of_an_encoder_layer_and_themselves():
    count = lambda model: sum(weight.numel() for weight in model.parameters())  # noqa: E731
    assert count(model_of(3)) == count(model_of(0, encoder_layers=2)) + 3 * 16


def test_muon_gets_the_matrices_of_the_latent_tokens_and_not_the_tokens():
    model = model_of(3)
    _, views = make_optimizers(model, settings_of("--optimizer=muon"))
    of_muon = {id(weight) for _, weight, _ in views}
    latents = dict(model.latents.named_parameters())
    assert {name for name in latents if id(latents[name]) in of_muon} == {
        "cross.q.weight", "cross.kv.weight", "cross.out.weight", "mlp.up.weight", "mlp.down.weight"}


# ---------------------------------------------------------------------------------------------------------------------
# Loss and schedules

def test_the_second_term_is_the_probability_of_the_whole_product():
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 3, 14, dtype=torch.double), torch.tensor([[5, 6, EOS], [7, EOS, PAD]])
    p = logits.softmax(-1)
    exact = (p[0, 0, 5] * p[0, 1, 6] * p[0, 2, EOS] + p[1, 0, 7] * p[1, 1, EOS]) / 2
    plain, token_loss = train.loss_of(logits, truth, 0.0, 0.0)
    loss, _ = train.loss_of(logits, truth, 0.0, 0.5)
    assert torch.allclose(plain, token_loss) and torch.allclose(loss, plain + 0.5 * (1 - exact))


@pytest.mark.parametrize("schedule, shares", [
    ("constant", [1, 1, 1, 1, 1]), ("linear", [1, 1, 0.875, 0.75, 0.5]), ("cosine", [1, 1, 0.926777, 0.75, 0.5]),
    ("step", [1, 1, 5 / 6, 2 / 3, 0.5]), ("exponential", [1, 1, 0.5**0.25, 0.5**0.5, 0.5]),
])
def test_share_of_true_tokens(schedule, shares):
    settings = SimpleNamespace(tf_schedule=schedule, tf_start_step=20, tf_end=0.5, max_steps=100)
    found = [train.true_share(settings, step / 100) for step in (0, 20, 40, 60, 100)]
    assert found == pytest.approx(shares, abs=1e-6)


def test_the_decoder_reads_its_own_tokens_at_share_0_and_the_true_ones_at_share_1():
    model, rows = model_of(2), encode([(12, 34), (5, 6)], "product", 0)
    tgt = rows.tgt[:, :-1]
    source = read(model, rows.src)
    assert torch.equal(mixed_inputs(model, source, tgt, 1.0), tgt)
    own, best = mixed_inputs(model, source, tgt, 0.0), write(model, source, tgt).argmax(-1)
    assert (own[:, 0] == BOS).all() and torch.equal(own[0, 1:], best[0, :-1])
    assert own[1, -1] == tgt[1, -1] == EOS


def test_the_limit_of_the_gradient_follows_learning_rate_and_step():
    settings = SimpleNamespace(grad_clip=2.0, learning_rate=1e-3, clip_rate=0.5, clip_step=0.5, max_steps=100)
    assert train.clip_limit(settings, 0, 1e-3) == 2
    assert train.clip_limit(settings, 0, 2.5e-4) == pytest.approx(1)
    assert train.clip_limit(settings, 1, 1e-3) == pytest.approx(1)
    assert train.clip_limit(settings, 0.5, 0.0) == pytest.approx(0.15)  # never below a tenth for the rate's sake
    settings.clip_rate = settings.clip_step = 0
    assert train.clip_limit(settings, 0.7, 1e-5) == 2


@pytest.mark.parametrize("flag, message", [
    ("--tf_schedule=sine", "tf_schedule: got 'sine', wanted constant, linear"),
    ("--tf_end=0", "tf_end: got 0.0, wanted more than 0"), ("--accuracy_weight=-1", "accuracy_weight: got -1.0"),
    ("--clip_step=1", "clip_step: got 1.0, wanted less than 1"),
    ("--n_latent=-2", "n_latent: got -2, wanted at least 0"),
    ("--n_latents=2", "unknown setting n_latents; did you mean n_latent?"),
    ("--rows_per_step=0", "rows_per_step: got 0"),
])
def test_a_setting_that_no_run_can_have_is_one_clear_line(tmp_path, flag, message):
    with pytest.raises(InputError, match=message) as error:
        train.main([f"--out_dir={tmp_path}", *TINY, flag])
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# Runs

def assert_same(a, b):
    first, second = (checkpoint.load(folder / "last.pt") for folder in (a, b))
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in first["model"])
    for one, other in zip(first["optimizers"], second["optimizers"]):
        assert all(torch.equal(one["state"][n][name], other["state"][n][name])
                   for n in one["state"] for name in one["state"][n])
    assert torch.equal(first["rng"]["cpu"], second["rng"]["cpu"]) and log_of(a) == log_of(b)
    assert all(first[name] == second[name] for name in ("step", "best", "kind_loss", "losses", "flops"))


def type_in(*words):
    command = [sys.executable, str(ROOT / "ablations/latent/train.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr


def test_20_steps_and_20_more_are_40_from_the_command_line(tmp_path, one_thread_and_the_usual_signals):
    """The schedules of the learning rate and of the clipping end with the run, so both are constant here."""
    same = [f"--out_dir={tmp_path}", *TINY, "--n_latent=3", "--schedule=constant", "--clip_step=0"]
    assert train.main([*same, "--run_id=whole", "--max_steps=40"]) == 0
    type_in(*same, "--run_id=parts", "--max_steps=20")
    type_in(f"--out_dir={tmp_path}", "--resume", "--max_steps=40")  # the newest run, its settings, one overridden
    whole = log_of(tmp_path / "whole")
    assert whole[-1]["step"] == 40
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, one_thread_and_the_usual_signals):
    """With every schedule, dropout, the decoder's own tokens, and gradient checkpointing."""
    flags = [f"--out_dir={tmp_path}", *TINY, "--n_latent=2", "--max_steps=30", "--tf_schedule=linear", "--tf_end=0.1",
             "--accuracy_weight=0.3", "--checkpoint_layers", "--warmup_steps=5"]
    assert train.main([*flags, "--run_id=whole"]) == 0
    count = iter(range(1, 100))
    with monkeypatch.context() as patch:
        patch.setattr(train, "catch_signals", lambda parent: lambda: 15 if next(count) == 13 else 0)
        assert train.main([*flags, "--run_id=parts"]) == 128 + 15
    assert checkpoint.load(tmp_path / "parts" / "last.pt")["step"] == 13
    assert train.main([f"--out_dir={tmp_path}", "--resume", "--run_id=parts"]) == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_bad_steps_leave_an_emergency_checkpoint_and_lower_the_rate(tmp_path, monkeypatch,
                                                                    one_thread_and_the_usual_signals):
    calls = iter(range(1, 100))

    def exploding(*args):
        loss, token_loss = ours(*args)
        return (loss * math.nan, token_loss) if 13 <= next(calls) <= 15 else (loss, token_loss)

    ours = train.loss_of
    monkeypatch.setattr(train, "loss_of", exploding)
    flags = [f"--out_dir={tmp_path}", *TINY, "--schedule=constant", "--warmup_steps=0", "--max_steps=20"]
    assert train.main([*flags, "--bad_steps=3", "--run_id=run"]) == 0
    assert checkpoint.load(tmp_path / "run" / "emergency_15.pt")["bad"] == 3
    log = log_of(tmp_path / "run")
    assert [line["back_to"] for line in log if "back_to" in line] == [10]
    rates = [line["learning_rate"] for line in log if "learning_rate" in line]
    assert rates[-1] == rates[0] / 2
    assert all(weight.isfinite().all() for weight in checkpoint.load(tmp_path / "run" / "last.pt")["model"].values())


def test_runs_are_listed_shown_resumed_and_compared(tmp_path, capsys, one_thread_and_the_usual_signals):
    for n in (0, 2):
        assert train.main([f"--out_dir={tmp_path}", *TINY, f"--n_latent={n}", "--max_steps=5"]) == 0
    with pytest.raises(InputError, match="n0-seed1337: holds a run already; go on with it by --resume"):
        train.main([f"--out_dir={tmp_path}", *TINY, "--max_steps=5"])
    with pytest.raises(InputError, match="no-such: no run to go on with there"):
        train.main([f"--out_dir={tmp_path}", "--resume", "--run_id=no-such"])
    with pytest.raises(InputError, match="n_latent: 3 in the settings, 2 in the checkpoint"):
        train.main([f"--out_dir={tmp_path}", "--resume", "--run_id=n2-seed1337", "--n_latent=3"])
    capsys.readouterr()
    for order, first in (("newest", "n2"), ("name", "n0"), ("loss", None)):
        train.main([f"--out_dir={tmp_path}", "--list", f"--sort={order}"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3 and (first is None or f"{first}-seed1337" in lines[1])
    losses = [float(line.split()[4]) for line in lines[1:]]
    assert losses == sorted(losses)
    with pytest.raises(InputError, match="sort: got 'best', wanted newest, exact"):
        train.main([f"--out_dir={tmp_path}", "--list", "--sort=best"])
    train.main([f"--out_dir={tmp_path}", "--show=n2-seed1337"])
    out = capsys.readouterr().out
    assert "n_latent = 2\n" in out and "d_model = 16\n" in out and "weight_decay" not in out and "valid_exact" in out
    assert evaluate([str(tmp_path / f"n{n}-seed1337") for n in (0, 2)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 6 and table[4].startswith("Most exact test products for each million parameters:")
    with pytest.raises(InputError, match="wanted folders of runs"):
        evaluate([])
    scores = json.loads((tmp_path / "n2-seed1337" / "scores.json").read_text())
    assert scores["flops"] == pytest.approx(5 * 32 * scores["flops_a_row"], rel=0.1)


def test_exact_is_what_greedy_decoding_gets_exactly_right():
    rows = encode([(1, 2), (3, 4), (5, 6)], "none", 0)
    model = model_of(2)
    answers = [answer.ids for answer in greedy(model, rows.src, rows.tgt.shape[1] - 1)]
    right = rows._replace(tgt=torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([BOS, *ids[:3]]) for ids in answers], batch_first=True, padding_value=PAD))
    assert validate(model, right)[1] == sum(len(ids) <= 3 for ids in answers) / 3
    loss, _ = validate(model, rows)
    logits = write(model, read(model, rows.src), rows.tgt[:, :-1])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows.tgt[:, 1:].flatten(), ignore_index=PAD)
    assert loss == pytest.approx(expected.item())


def test_the_more_efficient_run_is_named():
    runs = [{"run": "a", "test_exact": 0.5, "parameters": 1_000_000, "flops": 1e15},
            {"run": "b", "test_exact": 0.4, "parameters": 500_000, "flops": 2e15}]
    by_parameters, by_flops = verdicts(runs)
    assert by_parameters == "Most exact test products for each million parameters: b (0.8), then a (0.5)."
    assert by_flops == "Most exact test products for each PFLOP of training: a (0.5), then b (0.2)."


# ---------------------------------------------------------------------------------------------------------------------
# The one command

def test_every_table_has_its_place_and_is_filled_in(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "ablations/latent/README.md").read_text())
    run = {"n_latent": 8, "parameters": 1000, "flops": 1e12, "flops_a_row": 1e6, "seconds": 60.0, "test_rows": 968,
           "train_exact": 0.99, "valid_exact": 0.7, "test_exact": 0.65, "test_loss": 0.1, "longer_exact": 0.0,
           "last_step": 1500, "last_seconds": 60.0, "run": "x"}
    names = "simple-long", "latent-long", "simple", "latent"
    found = {name: [run, run | {"test_exact": 0.61}, run] for name in names}
    measure.fill_in(readme, measure.all_tables(found, True))
    text = readme.read_text()
    assert "63.7 ± 5.7% (65.0 / 61.0 / 65.0)" in text
    assert "The goal of the simple model, 97% of the training rows and 60% of the test rows, is reached" in text
    assert "| parameters and steps | 63.7" in text and "| CPU time | not measured yet |" in text
    measure.fill_in(readme, measure.all_tables(found, True))
    assert readme.read_text() == text
    with pytest.raises(InputError, match="no lines <!-- other -->"):
        measure.fill_in(readme, {"other": []})


def test_the_runs_compare_models_of_equal_parameters_and_equal_flops():
    runs = measure.tries() + measure.all_runs({})
    assert len({run.id for run in runs}) == len(runs)
    by_name = {run.name: run.flags for run in runs}
    parameters, flops = [], []
    for name in ("simple", "latent"):
        settings = vars(load_settings("", [], [f"--{key}={value}" for key, value in by_name[name].items()],
                                      ROOT / "ablations/latent/config.py"))
        names = [*ARCHITECTURE, "dropout", "src_max_len", "tgt_max_len"]
        config = ModelConfig(len(TOKENS), len(TOKENS), **{key: settings[key] for key in names})
        parameters.append(sum(weight.numel() for weight in Transformer(config).parameters()))
        flops.append(training_flops(config, np.array([6]), np.array([5])))  # "12*34" and "8040", with EOS
    assert parameters[1] - parameters[0] == 8 * 64  # the latent tokens themselves
    steps = by_name["simple"]["max_steps"], by_name["latent-flops"]["max_steps"]
    assert abs(steps[0] * flops[0] - steps[1] * flops[1]) < flops[1]
    assert {flags["n_latent"] for name, flags in by_name.items() if not name.startswith("amplitude")} == {
        0, 1, 2, 4, 8, 16, 32}


def test_each_model_takes_the_regularisation_with_the_lowest_validation_loss():
    first, second, *_ = measure.CANDIDATES
    loss = {"simple": [0.7, 0.5, 0.8, 0.9], "latent": [0.6, 0.7, 0.8, 0.9]}
    found = {f"{model}-try{number}": [{"valid_loss": value, "valid_exact": 0.5 - value / 10, "train_exact": 1.0}]
             for model, values in loss.items() for number, value in enumerate(values)}
    chosen = measure.choose(found)
    assert chosen == {"simple": second, "latent": first}
    flags = {run.name: run.flags for run in measure.all_runs(chosen)}
    assert flags["simple-long"]["weight_decay"] == measure.CANDIDATES[second]["weight_decay"]
    assert flags["latent16"]["weight_decay"] == flags["latent"]["weight_decay"] == 0.1
    assert any("**0.500**" in line for line in measure.candidate_table(found))


def test_interval_over_seeds_is_students():
    mean, half = measure.mean_interval([0.1, 0.2, 0.3])
    assert mean == pytest.approx(0.2) and half == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)
    assert math.isnan(measure.mean_interval([0.5])[1]) and math.isnan(measure.mean_interval([0.4, 0.5])[1])
    assert measure.shown([0.4, 0.5]) == "45.0% (40.0 / 50.0)" and measure.shown([0.4]) == "40.0%"


def test_score_refuses_a_checkpoint_of_another_program(tmp_path):
    checkpoint.save(tmp_path / "best.pt", {"model": {}, "model_config": {}, "vocabulary": {}, "settings": {}})
    with pytest.raises(InputError, match="no checkpoint of ablations/latent/train.py"):
        score(tmp_path)
