"""
Several ranks: gradients, validation and skipped steps are those of one rank; an interrupted run under torchrun ends as
an undisturbed one.
"""
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from kill import exit_code, kill_test, torchrun
from tiny import SMALL, assert_same_run, log_of, padded, padded_batch

import train
from batches import load_split, mixed_batches
from model import ModelConfig, Transformer
from runtime import checkpoint
from tokenizer import PAD, Tokenizer

TRAIN = Path(train.__file__)


@pytest.fixture(autouse=True)
def one_thread():
    """Each rank has one thread, too: sums over more threads differ in the last digit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(ranks, script, data, out_dir, *flags):
    """Train on so many gloo ranks; returns what was printed."""
    process, lines = torchrun(ranks, script, f"--data_dir={data}", f"--out_dir={out_dir}", *SMALL, *flags)
    assert exit_code(process, 120) == 0, "".join(lines)
    return "".join(lines)


def test_ranks_times_micro_batches_give_the_gradients_of_one_batch_and_the_same_validation(data, tmp_path):
    """1 x 8 and 2 x 4, against the gradient of the plain mean over all target tokens of the eight micro-batches."""
    flags = ["--max_steps=1", "--eval_every=1", "--eval_rows=0", "--dropout=0", "--grad_clip=0", "--learning_rate=0",
             "--weight_decay=0", "--batch_tokens=400"]
    assert train.main([f"--data_dir={data}", f"--out_dir={tmp_path}/1", *SMALL, "--accumulate=8", *flags]) == 0
    run(2, TRAIN, data, tmp_path / "2", "--accumulate=4", *flags)
    states = {ranks: checkpoint.load(tmp_path / str(ranks) / "last.pt") for ranks in (1, 2)}

    torch.manual_seed(1337)
    model = Transformer(ModelConfig(**states[1]["model_config"]))
    rows = load_split(data, "train", Tokenizer(states[1]["vocabulary"]), 512, 512)
    batches = mixed_batches(rows, 400, [1337, 0])
    first_eight = np.concatenate((batches + mixed_batches(rows, 400, [1337, 1]))[:8])
    src, tgt = padded_batch(rows, first_eight)
    logprob = padded(model, src, tgt[:, :-1]).log_softmax(-1).gather(-1, tgt[:, 1:, None])[..., 0]
    (-logprob[tgt[:, 1:] != PAD].mean()).backward()

    # AdamW's first mean gradient is 0.1 of the gradient; its parameters are numbered matrices first
    weights = [weight for dim in (2, 1) for weight in model.parameters() if weight.dim() == dim]
    for ranks, state in states.items():
        for number, weight in enumerate(weights):
            mean_gradient = state["optimizers"][0]["state"][number]["exp_avg"]
            torch.testing.assert_close(mean_gradient, 0.1 * weight.grad, rtol=1e-4, atol=1e-7)
        assert state["batch"] == states[1]["batch"] and state["epoch"] == states[1]["epoch"]
        assert len(state["rng"]["cpu"]) == ranks
        assert state["best"] == states[1]["best"]  # not even rounding differs
    assert not torch.equal(*states[2]["rng"]["cpu"])
    names = {path.name for path in (tmp_path / "2").iterdir()}
    assert names == {"best.pt", "ckpt_1.pt", "config.py", "last.pt", "log.jsonl"} and len(log_of(tmp_path / "2")) == 2

    for ranks in 1, 2:  # on one rank now; the position in the epoch does not depend on how many there were
        assert train.main([f"{tmp_path}/{ranks}/config.py", "--resume", "--accumulate=8", "--max_steps=2"]) == 0
    one, two = log_of(tmp_path / "1"), log_of(tmp_path / "2")
    assert one[2]["step"] == two[2]["step"] == 2 and one[2]["loss"] == two[2]["loss"] != one[0]["loss"]


def test_a_step_that_is_bad_on_one_rank_is_skipped_on_all(data, tmp_path):
    (tmp_path / "broken.py").write_text(f"""
import os, sys
sys.path.insert(0, {str(TRAIN.parent)!r})
import train
from runtime.files import main_guard
calls, token_losses = 0, train.token_losses
def broken(logits, truth, smoothing=0.0):
    global calls
    calls += 1
    return token_losses(logits, truth, smoothing) * (float("nan") if os.environ["RANK"] == "1" and calls == 4 else 1)
train.token_losses = broken
main_guard(train.main)
""")
    flags = ["--max_steps=6", "--eval_every=100", "--save_every=100", "--ema=0.9"]
    run(2, tmp_path / "broken.py", data, tmp_path / "run", *flags)
    log = [line for line in log_of(tmp_path / "run") if "loss" in line]
    assert [line["skipped"] for line in log] == [0, 0, 1, 1, 1, 1]  # the first call is the dummy step
    assert log[2]["loss"] is None and log[2]["grad_norm"] is None
    assert all(weight.isfinite().all() for weight in checkpoint.load(tmp_path / "run" / "last.pt")["ema"].values())


def test_three_ranks_resume_bit_for_bit(data, tmp_path):
    """The order in which three ranks add depends on DDP's buckets, of which a model of more than a MiB has several."""
    flags = ["--d_model=128", "--d_ff=512", "--max_steps=4", "--save_every=2", "--save_limit=0", "--eval_every=100"]
    (tmp_path / "resumed").mkdir()
    forked = f"""
import os, shutil, socket, sys
sys.path.insert(0, {str(TRAIN.parent)!r})
import train  # once for all ranks: it takes longer than the runs

def run(out_dir, *flags):
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    ranks = []
    for rank in range(3):
        ranks.append(os.fork())
        if ranks[-1] == 0:
            os.environ |= {{"RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}}
            train.main([*sys.argv[1:], "--out_dir=" + out_dir, *flags])  # ends the process
    assert [os.waitpid(rank, 0)[1] for rank in ranks] == [0, 0, 0]

run("straight")
shutil.copy("straight/ckpt_2.pt", "resumed/last.pt")
shutil.copy("straight/log.jsonl", "resumed")
run("resumed", "--resume")
"""
    command = [sys.executable, "-c", forked, f"--data_dir={data}", *SMALL, *flags]
    done = subprocess.run(command, cwd=tmp_path, timeout=120, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and "from step 2" in done.stderr, done.stderr
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_a_run_killed_and_terminated_under_torchrun_is_bit_for_bit_the_straight_run(tmp_path):
    seed = random.randrange(10**6)
    print("seed", seed)  # shown if the test fails
    kill_test(tmp_path, kills=1, terms=1, ranks=2, steps=150, seed=seed)
