"""Optimisers, schedules, precision, averaged weights, and what happens when training goes wrong."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from tiny import assert_same_run, log_of, run

import train
import train as optim
from batches import choose_rows, collate, load_split
from configurator import load_settings
from model import ModelConfig, Transformer, load_model
from runtime import checkpoint
from runtime.distributed import World
from runtime.files import InputError
from tokenizer import PAD

CPU = World(0, 1, torch.device("cpu"))


pytestmark = pytest.mark.usefixtures("one_thread_and_the_usual_signals")


def settings(**values):
    given = load_settings("", ["seed"], [])
    vars(given).update(values)
    return given


@pytest.mark.parametrize(
    "schedule, rates",
    [  # at 0, 45, 50, 90, 95, 100% of the run
        ("cosine", [2, 1.156, 1, 0.0489, 0.0123, 0]),
        ("linear", [2, 1.1, 1, 0.2, 0.1, 0]),
        ("constant", [2, 2, 2, 2, 2, 2]),
        ("one-cycle", [0.2, 2, 1.8, 0.2, 0.1, 0]),
    ],
)
def test_schedules_after_warm_up(schedule, rates):
    given = settings(schedule=schedule, learning_rate=2.0, warmup_steps=10)
    assert [optim.learning_rate(given, 100, p) for p in (0, 0.45, 0.5, 0.9, 0.95, 1)] == pytest.approx(rates, abs=1e-3)
    warm = optim.learning_rate(given, 4, 0.0)
    assert warm == pytest.approx(rates[0] if schedule == "one-cycle" else rates[0] / 2)


def test_muon_turns_matrices_by_the_same_amount_in_every_direction_and_leaves_the_rest_to_adamw(data, tmp_path):
    """
    A step of Muon is a multiple of an orthogonal matrix up to the accuracy of five Newton-Schulz iterations: 0.7 to
    1.2 (Jordan 2024).
    """
    run(
        data,
        tmp_path,
        "--optimizer=muon",
        "--max_steps=1",
        "--weight_decay=0",
        "--warmup_steps=0",
        "--learning_rate=0.01",
        "--d_model=128",
        "--d_ff=256",
        "--norm=pre",
    )  # with post-norm the first layer sees embeddings of 0.02: a gradient of fewer directions
    state = checkpoint.load(tmp_path / "last.pt")
    torch.manual_seed(1337)
    start = Transformer(ModelConfig(**state["model_config"])).state_dict()
    matrices = parts = 0
    for name, weight in start.items():
        moved = state["model"][name] - weight
        if name.startswith(("encoder.", "decoder.")) and weight.dim() == 2:
            matrices += 1
            fused = {"qkv": 3, "kv": 2}.get(name.split(".")[-2], 1)  # each of q, k and v is a matrix of its own
            parts += fused
            for part in moved.chunk(fused):
                sizes = torch.linalg.svdvals(part) / (0.01 * 0.2 * max(part.shape) ** 0.5)
                assert 0.65 < sizes[12] and sizes[0] < 1.3, (
                    name
                )  # in descending order; a gradient of few rows has few directions
        elif moved.any():  # AdamW's first step is the learning rate in every weight that has a gradient
            assert moved.abs().max() == pytest.approx(0.01, rel=1e-3), name
    assert len(state["optimizers"][0]["state"]) == parts == 16 and matrices == 11 and len(state["optimizers"]) == 2
    with pytest.raises(InputError, match="optimizer: the checkpoint to go on from was made by the other one"):
        run(data, tmp_path, "--resume", "--max_steps=2", "--d_model=128", "--d_ff=256", "--norm=pre")


def test_the_loss_is_smoothed_in_training_only(data, tmp_path):
    logits, target = torch.randn(2, 3, 5), torch.tensor([[3, 4, PAD], [2, PAD, PAD]])
    logprob = logits.log_softmax(-1)
    by_hand = -sum(0.9 * logprob[r, c, target[r, c]] + 0.1 * logprob[r, c].mean() for r, c in [(0, 0), (0, 1), (1, 0)])
    real = target != PAD
    assert train.token_losses(logits[real], target[real], 0.1).sum().item() == pytest.approx(by_hand.item(), rel=1e-5)
    for smoothing in ("0", "0.5"):
        run(
            data,
            tmp_path / smoothing,
            f"--label_smoothing={smoothing}",
            "--max_steps=1",
            "--learning_rate=0",
            "--weight_decay=0",
            "--eval_every=1",
        )
    (plain, valid), (smooth, valid_too) = log_of(tmp_path / "0"), log_of(tmp_path / "0.5")
    assert plain["loss"] != smooth["loss"] and valid == valid_too


def test_averaged_weights_follow_their_formula_and_are_those_validated_and_decoded_with(data, tmp_path):
    run(data, tmp_path, "--ema=0.5", "--max_steps=12", "--save_every=1", "--save_limit=0", "--eval_every=12")
    torch.manual_seed(1337)
    name = "head.weight"
    by_hand = Transformer(ModelConfig(**checkpoint.load(tmp_path / "last.pt")["model_config"])).state_dict()[name]
    for step in range(1, 13):
        state = checkpoint.load(tmp_path / f"ckpt_{step}.pt")
        d = min(0.5, step / (9 + step))
        by_hand = d * by_hand + (1 - d) * state["model"][name]
        torch.testing.assert_close(state["ema"][name], by_hand)
    model, tokenizer, best = load_model(tmp_path / "best.pt", CPU.device)
    assert torch.equal(model.state_dict()[name], best["ema"][name]) and not torch.equal(
        best["ema"][name], best["model"][name]
    )
    valid = load_split(data, "valid", tokenizer, 512, 512)
    figures, _ = train.validate(model, valid, *choose_rows(valid, 8, 1337), 256, CPU)
    assert figures["loss"] == log_of(tmp_path)[-1]["valid_loss"]
    assert (
        run(
            data,
            tmp_path / "next",
            f"--init_from={tmp_path}/best.pt",
            "--max_steps=1",
            "--learning_rate=0",
            "--weight_decay=0",
        )
        == 0
    )
    assert torch.equal(checkpoint.load(tmp_path / "next" / "last.pt")["model"][name], best["ema"][name])


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_is_close_to_single_and_keeps_single_precision_weights(data, tmp_path, capsys, dtype):
    for name in (dtype, "auto"):
        run(data, tmp_path / name, f"--dtype={name}", "--max_steps=30", "--eval_every=10", "--dropout=0")
    assert {"bf16": "bfloat16", "fp16": "float16"}[dtype] + ", from step 0" in (
        printed := capsys.readouterr().err
    ) and ", float32, from" in printed
    half, single = (checkpoint.load(tmp_path / name / "last.pt") for name in (dtype, "auto"))
    assert all(weight.dtype == torch.float32 for weight in half["model"].values())
    assert half["best"]["valid_loss"] != single["best"]["valid_loss"]
    assert half["best"]["valid_loss"] == pytest.approx(single["best"]["valid_loss"], rel=0.02)
    assert ("scale" in half["scaler"]) == (dtype == "fp16") and not single["scaler"]


def test_batches_grow_over_the_ramp():
    settings = SimpleNamespace(accumulate=4, batch_ramp=0.5)
    counts = [train.micro_batches_of(settings, step / 16) for step in range(17)]
    assert counts == [1, 1, 1, 2, 2, 2, 3, 4] + [4] * 9
    settings.batch_ramp = 0.0
    assert {train.micro_batches_of(settings, step / 16) for step in range(17)} == {4}


def test_everything_at_once_resumes_bit_for_bit(data, tmp_path, monkeypatch):
    flags = [
        "--max_steps=24",
        "--dtype=fp16",
        "--optimizer=muon",
        "--ema=0.9",
        "--accumulate=3",
        "--batch_ramp=0.5",
        "--schedule=one-cycle",
        "--label_smoothing=0.1",
    ]
    run(data, tmp_path / "straight", *flags)
    calls = 0

    def collate_and_stop(packed, rows):
        nonlocal calls
        calls += 1
        if calls == 29:
            os.kill(os.getpid(), signal.SIGUSR1)
        return collate(packed, rows)

    with monkeypatch.context() as patch:
        patch.setattr(train, "collate", collate_and_stop)
        assert run(data, tmp_path / "stopped", *flags) == 128 + signal.SIGUSR1
    assert checkpoint.load(tmp_path / "stopped" / "last.pt")["step"] < 24
    assert run(data, tmp_path / "stopped", *flags, "--resume") == 0
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


def break_steps(monkeypatch, broken, factor):
    """Multiply the training loss in those calls (counted from 1) of its function."""
    calls = 0

    def token_losses(logits, truth, smoothing=0.0, whole=train.token_losses):
        nonlocal calls
        if torch.is_inference_mode_enabled():
            return whole(logits, truth, smoothing)
        calls += 1
        return whole(logits, truth, smoothing) * (factor if calls in broken else 1)

    monkeypatch.setattr(train, "token_losses", token_losses)


def test_a_spike_of_the_loss_is_skipped_and_an_ordinary_one_is_not(data, tmp_path, monkeypatch):
    flags = ["--max_steps=32", "--save_every=1", "--save_limit=0", "--eval_every=100"]
    break_steps(monkeypatch, {25}, 100)
    run(data, tmp_path / "a", *flags)
    assert [line["skipped"] for line in log_of(tmp_path / "a") if "loss" in line] == [0] * 24 + [1] * 8
    before, after = (checkpoint.load(tmp_path / "a" / f"ckpt_{step}.pt") for step in (24, 26))
    assert not (tmp_path / "a" / "ckpt_25.pt").exists()  # amid bad steps the last good one stays the last
    assert after["skipped"] == 1 and after["bad"] == 0
    assert before["kind_loss"] != after["kind_loss"] and max(after["kind_loss"]) < max(
        before["kind_loss"]
    )  # the spike is not in it
    break_steps(monkeypatch, {25}, 100)
    run(data, tmp_path / "b", *flags, "--loss_spike=0")
    assert checkpoint.load(tmp_path / "b" / "last.pt")["skipped"] == 0


def test_after_bad_steps_in_a_row_the_run_goes_back_and_on_with_half_the_learning_rate(
    data, tmp_path, monkeypatch, capsys
):
    break_steps(monkeypatch, range(13, 18), torch.nan)
    assert run(data, tmp_path, "--bad_steps=5", "--schedule=constant", "--max_steps=20") == 0
    assert "5 bad steps in a row: back to step 10, learning rate times 0.5" in capsys.readouterr().err
    log = log_of(tmp_path)
    (event,) = [line for line in log if "back_to" in line]
    assert event == {"step": 17, "event": "5 bad steps in a row", "back_to": 10}
    rates = [(line["step"], line["learning_rate"]) for line in log if "loss" in line]
    assert rates[9:12] + rates[16:18] == [(10, 0.01), (11, 0.01), (12, 0.01), (11, 0.005), (12, 0.005)]
    state = checkpoint.load(tmp_path / "last.pt")
    assert (state["step"], state["rollbacks"], state["skipped"], state["bad"]) == (20, 1, 5, 0)
    emergency = checkpoint.load(tmp_path / "emergency_17.pt")
    assert emergency["step"] == 17 and emergency["bad"] == 5
    assert checkpoint.step_files(tmp_path)[0].name == "ckpt_20.pt"


@pytest.mark.parametrize("killed_at", [20, 24])
def test_a_run_killed_after_it_went_back_keeps_its_log_and_its_lower_rate(data, tmp_path, monkeypatch, killed_at):
    """Killed at step 13 and at step 17, from the checkpoint of the return (10) and a later one (15)."""
    flags = ["--bad_steps=5", "--max_steps=20", "--log_every=7"]
    break_steps(monkeypatch, range(13, 18), torch.nan)
    run(data, tmp_path / "straight", *flags)
    calls = 0

    def collate_until_killed(packed, rows):
        nonlocal calls
        if not torch.is_inference_mode_enabled():
            calls += 1
            if calls == killed_at:
                raise InputError("killed")
        return collate(packed, rows)

    break_steps(monkeypatch, range(13, 18), torch.nan)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="killed"):
        patch.setattr(train, "collate", collate_until_killed)
        run(data, tmp_path / "killed", *flags)
    break_steps(monkeypatch, [], 1)
    run(data, tmp_path / "killed", *flags, "--resume")
    assert_same_run(tmp_path / "straight", tmp_path / "killed")
    assert [line["step"] for line in log_of(tmp_path / "killed") if "loss" in line or "back_to" in line] == [
        7,
        14,
        17,
        14,
        20,
    ]


def test_the_logged_loss_is_the_mean_of_the_good_steps_since_the_line_before(data, tmp_path, monkeypatch):
    for log_every in 1, 4:
        break_steps(monkeypatch, [3, 5, 6, 7, 8], torch.nan)
        run(
            data,
            tmp_path / str(log_every),
            f"--log_every={log_every}",
            "--max_steps=9",
            "--save_every=100",
            "--bad_steps=0",
        )
    each, line = ({line["step"]: line["loss"] for line in log_of(tmp_path / every) if "loss" in line} for every in "14")
    assert line == {4: pytest.approx((each[1] + each[2] + each[4]) / 3), 8: None, 9: each[9]}


def test_a_run_that_does_not_recover_stops_and_leaves_its_last_good_checkpoint(data, tmp_path, monkeypatch):
    run(data, tmp_path / "good", "--max_steps=10")
    break_steps(monkeypatch, range(13, 1000), torch.inf)
    with pytest.raises(
        InputError, match="3 bad steps in a row up to step 13 .* after 2 of 2 returns .* a lower learning_rate"
    ) as error:
        run(data, tmp_path / "bad", "--max_steps=20", "--bad_steps=3", "--max_rollbacks=2")
    assert "\n" not in str(error.value)
    good, last = (checkpoint.load(tmp_path / name / "ckpt_10.pt") for name in ("good", "bad"))
    assert checkpoint.load_newest(tmp_path / "bad")["step"] == 10 and last["step"] == 10
    assert last["model"].keys() == good["model"].keys() and all(
        weight.isfinite().all() for weight in last["model"].values()
    )
    break_steps(monkeypatch, range(1, 1000), torch.nan)
    with pytest.raises(InputError, match="after 0 of 3 returns"):  # there is nothing to go back to
        run(data, tmp_path / "never", "--max_steps=50")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dtype=int8"], "dtype: got 'int8', wanted auto, bf16, fp16, fp32"),
        (["--optimizer=sgd"], "optimizer: got 'sgd', wanted adamw, muon"),
        (["--schedule=step"], "schedule: got 'step', wanted cosine, linear, constant, one-cycle"),
        (["--attention=flash"], "attention: got 'flash', wanted auto, varlen, sdpa, reference"),
        (["--compile=yes"], "compile: got 'yes', wanted auto, on, off"),
        (["--legs=10"], "legs: got 10, wanted at most 9"),
        (["--accumulate=0"], "accumulate: got 0, wanted at least 1"),
        (["--ema=1"], "ema: got 1.0, wanted less than 1"),
        (["--batch_ramp=1"], "batch_ramp: got 1.0, wanted less than 1"),
        (["--label_smoothing=-0.1"], "label_smoothing: got -0.1"),
    ],
)
def test_wrong_settings_are_one_line(data, tmp_path, flags, message):
    with pytest.raises(InputError) as error:
        run(data, tmp_path / "run", *flags)
    assert message in str(error.value) and not (tmp_path / "run").exists()
