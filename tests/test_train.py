"""
Training: a run that is killed, stopped or resumed is the run that was not; broken input is one line; nothing is
overwritten.
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import SMALL, assert_same_run, log_of, made_up_rows, run

import train
import train as optim
from batches import choose_rows, collate, load_split
from configurator import load_settings
from generate import greedy
from model import ModelConfig, Transformer, load_model
from runtime import checkpoint
from runtime.distributed import World
from runtime.files import InputError
from tokenizer import PAD

TRAIN = Path(train.__file__)


pytestmark = pytest.mark.usefixtures("one_thread_and_the_usual_signals")


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """A run of 40 steps that nothing disturbed."""
    torch.set_num_threads(1)
    out_dir = tmp_path_factory.mktemp("straight") / "run"
    assert run(data, out_dir, "--max_steps=40") == 0
    return out_dir


def test_a_run_leaves_its_files_and_learns(straight):
    assert sorted(path.name for path in straight.iterdir()) == [
        "best.pt",
        "ckpt_35.pt",
        "ckpt_40.pt",
        "config.py",
        "last.pt",
        "log.jsonl",
    ]
    log = log_of(straight)
    steps = [line for line in log if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 41))
    assert [line["step"] for line in log if "valid_loss" in line] == [10, 20, 30, 40]
    assert steps[-1]["loss"] < steps[0]["loss"] / 1.5
    assert checkpoint.load(straight / "last.pt")["epoch"] >= 2  # so that the resumes below cross epochs


def test_the_settings_of_a_run_give_the_same_run(straight, tmp_path):
    assert train.main([str(straight / "config.py"), f"--out_dir={tmp_path}"]) == 0
    assert_same_run(straight, tmp_path)


@pytest.mark.parametrize(
    "number, code, at", [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 13), (signal.SIGTERM, 143, 38)]
)
def test_a_stopped_run_says_how_to_go_on_and_resumes_bit_for_bit(
    data, straight, tmp_path, monkeypatch, capsys, number, code, at
):
    batches = 0

    def collate_and_stop(packed, rows):
        nonlocal batches
        training = len(packed.line) == len(list(made_up_rows())) and not torch.is_inference_mode_enabled()
        if training:
            batches += 1
            if batches == at:
                os.kill(os.getpid(), number)
        return collate(packed, rows)

    with monkeypatch.context() as patch:
        patch.setattr(train, "collate", collate_and_stop)
        assert run(data, tmp_path, "--max_steps=40") == code
    error = capsys.readouterr().err
    assert (
        f"stopped by {signal.Signals(number).name} at step " in error
        and f"python train.py {tmp_path}/config.py --resume" in error
    )
    assert checkpoint.load(tmp_path / "last.pt")["step"] == at
    assert train.main([str(tmp_path / "config.py"), "--resume"]) == 0
    assert_same_run(straight, tmp_path)
    assert "resume = False" in (tmp_path / "config.py").read_text()  # what the run is, not how it was started


def test_a_run_killed_at_a_random_moment_is_bit_for_bit_the_straight_run(data, straight, tmp_path):
    command = [
        sys.executable,
        str(TRAIN),
        f"--data_dir={data}",
        f"--out_dir={tmp_path}",
        *SMALL,
        "--max_steps=40",
        "--resume",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    seed = random.randrange(10**6)
    print("seed", seed)  # shown if the test fails
    moments = random.Random(seed)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "parameters" in line:  # the loop begins
            break
    time.sleep(moments.uniform(0.05, 0.4))
    process.kill()
    process.stderr.close()
    process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_run(straight, tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_rank_whose_torchrun_has_gone_is_asked_to_stop(monkeypatch):
    assert train.catch_signals(os.getppid() + 1)() == 0  # not under torchrun: whose shell has gone may go on
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert train.catch_signals(os.getppid())() == 0 and train.catch_signals(os.getppid() + 1)() == signal.SIGTERM


def test_a_damaged_last_checkpoint_costs_only_the_steps_since_the_one_before(straight, tmp_path, capsys):
    shutil.copytree(straight, tmp_path / "run")
    for name in ("last.pt", "ckpt_40.pt"):
        whole = (straight / name).read_bytes()
        (tmp_path / "run" / name).write_bytes(whole[: len(whole) // 2])
    assert train.main([str(straight / "config.py"), f"--out_dir={tmp_path}/run", "--resume"]) == 0
    error = capsys.readouterr().err
    assert "last.pt: damaged" in error and "ckpt_40.pt: damaged" in error and "from step 35" in error
    assert_same_run(straight, tmp_path / "run")


def test_a_run_with_no_whole_checkpoint_is_left_alone(straight, tmp_path):
    (tmp_path / "last.pt").write_bytes((straight / "last.pt").read_bytes()[:1000])
    (tmp_path / "log.jsonl").write_text("mine")
    with pytest.raises(InputError, match="none of its 1 checkpoints can be read"):
        train.main([str(straight / "config.py"), f"--out_dir={tmp_path}", "--resume"])
    assert (tmp_path / "log.jsonl").read_text() == "mine"


def test_a_folder_that_holds_a_run_is_not_overwritten(data, straight):
    before = {path: path.read_bytes() for path in straight.iterdir()}
    with pytest.raises(InputError, match="holds a run already; go on with it by --resume"):
        run(data, straight, "--max_steps=40")
    assert {path: path.read_bytes() for path in straight.iterdir()} == before


def test_resuming_a_complete_run_says_so_and_touches_nothing(straight, capsys):
    before = {path: path.read_bytes() for path in straight.iterdir()}
    assert train.main([str(straight / "config.py"), "--resume"]) == 0
    output = capsys.readouterr().out
    assert "complete at step 40" in output and f"{straight}/best.pt" in output
    assert {path: path.read_bytes() for path in straight.iterdir()} == before


def test_a_larger_limit_goes_on_and_the_log_keeps_its_past(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    with open(tmp_path / "run" / "log.jsonl", "a") as log:
        log.write('{"step": 41, "loss": 9.9}\n{"step": 4')  # of a process that was killed after its last checkpoint
    leftovers = [tmp_path / "run" / f".{name}.x1y2" for name in ("last.pt", "log.jsonl", "config.py")]
    for path in leftovers:
        path.write_text("half")
    assert train.main([str(straight / "config.py"), f"--out_dir={tmp_path}/run", "--resume", "--max_steps=45"]) == 0
    log = log_of(tmp_path / "run")
    assert log[:44] == log_of(straight)
    assert [line["step"] for line in log[44:]] == [41, 42, 43, 44, 45, 45]
    assert not any(path.exists() for path in leftovers)


def test_a_resumed_run_does_not_overwrite_a_better_best(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    state = checkpoint.load(straight / "last.pt")
    checkpoint.save(tmp_path / "run" / "last.pt", state | {"best": {"valid_exact": 1.0, "valid_loss": 0.0, "step": 30}})
    train.main([str(straight / "config.py"), f"--out_dir={tmp_path}/run", "--resume", "--max_steps=50"])
    assert (tmp_path / "run" / "best.pt").read_bytes() == (straight / "best.pt").read_bytes()


def test_the_last_line_gives_the_best_figures_and_the_next_command(straight, capsys):
    train.main([str(straight / "config.py"), "--resume"])
    last = capsys.readouterr().out.splitlines()[-1]
    best = checkpoint.load(straight / "best.pt")
    assert f"at step {best['step']}, {straight}/best.pt" in last
    assert last.endswith(f"python evaluate.py {straight}/config.py")


def test_init_from_starts_from_the_weights_alone(data, straight, tmp_path, capsys):
    assert (
        run(data, tmp_path, f"--init_from={straight}/last.pt", "--max_steps=1", "--learning_rate=0", "--weight_decay=0")
        == 0
    )
    assert "from step 0" in capsys.readouterr().err
    ours, theirs = checkpoint.load(tmp_path / "last.pt"), checkpoint.load(straight / "last.pt")
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in theirs["model"])
    assert ours["step"] == 1


def test_the_clock_ends_and_anneals_a_run_that_the_steps_would_not(data, tmp_path, capsys, monkeypatch):
    looks = itertools.count()
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: 0.005 * next(looks)))
    assert run(data, tmp_path, "--max_steps=2000", "--max_minutes=0.02", "--save_every=1000", "--eval_every=1000") == 0
    log = [line for line in log_of(tmp_path) if "loss" in line]
    rates = [line["learning_rate"] for line in log]
    assert rates[-1] < max(rates) / 20
    assert log_of(tmp_path)[-1]["valid_loss"] > 0
    assert train.main([str(tmp_path / "config.py"), "--resume"]) == 0
    assert "complete" in capsys.readouterr().out


def test_a_run_whose_loss_is_never_finite_says_so(data, tmp_path):
    with pytest.raises(InputError, match="the loss was not finite at any validation; a lower --learning_rate"):
        run(data, tmp_path / "run", "--learning_rate=1e30", "--max_steps=4", "--eval_every=4", "--bad_steps=0")


def settings(**values):
    given = load_settings("", ["seed"], [])
    vars(given).update(values)
    return given


def rate_at(settings, step, seconds=0):
    return optim.learning_rate(settings, step, optim.progress(settings, step, seconds))


def test_the_schedule_warms_up_and_follows_a_cosine_to_zero():
    by_steps = settings(max_steps=100, warmup_steps=10, learning_rate=2.0)
    rates = [rate_at(by_steps, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0, rel=0.01)
    assert rates[50] == pytest.approx(1.0) and rates[100] == 0
    assert max(rates) == rates[9] or max(rates) == rates[10]
    both = settings(max_steps=100, warmup_steps=0, learning_rate=2.0, max_minutes=1.0)
    assert rate_at(both, 10, seconds=30) == pytest.approx(1.0)  # the clock is further on
    assert rate_at(both, 50, seconds=3) == pytest.approx(1.0)  # the steps are
    assert rate_at(both, 10, seconds=90) == 0


def test_the_loss_counts_target_tokens_only():
    logits, target = torch.randn(2, 3, 5), torch.tensor([[3, 4, PAD], [2, PAD, PAD]])
    by_hand = -sum(logits[row, column].log_softmax(-1)[target[row, column]] for row, column in [(0, 0), (0, 1), (1, 0)])
    real = target != PAD
    assert train.token_losses(logits[real], target[real]).sum().item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_validation_counts_rows_that_greedy_decoding_gets_wholly_right(data, straight):
    model, tokenizer, _ = load_model(straight / "best.pt", torch.device("cpu"))
    rows = load_split(data, "valid", tokenizer, 64, 64)
    count = len(rows.src_start) - 1
    chosen, rare = choose_rows(rows, 0, 1)
    assert sorted(chosen) == list(range(count)) and not len(rare)
    answers = {}
    for row in range(count):  # teach the "truth" of every third row to be what the model says
        ((answer, _, _),) = greedy(model, collate(rows, [row]).src[None], 20)
        answers[row] = answer if row % 3 == 0 else [3, 2]
    flat = [token for row in range(count) for token in answers[row]]
    starts = torch.tensor([0] + [len(answers[row]) for row in range(count)]).cumsum(0).numpy()
    figures, _ = train.validate(
        model,
        rows._replace(tgt=np.array(flat, np.uint16), tgt_start=starts),
        chosen,
        rare,
        300,
        World(0, 1, torch.device("cpu")),
    )
    assert figures["exact"] == len(range(0, count, 3)) / count


def test_best_is_most_exact_and_among_equals_of_lower_loss():
    a, b, c = [{"valid_exact": exact, "valid_loss": loss} for exact, loss in [(0.9, 0.3), (0.9, 0.2), (0.8, 0.1)]]
    assert train.better(b, a) and not train.better(a, b) and not train.better(a, a)
    assert train.better(a, c) and not train.better(c, b)


def test_eval_rows_are_a_fixed_sample_of_the_validation_split(data, straight):
    _, tokenizer, _ = load_model(straight / "best.pt", torch.device("cpu"))
    rows = load_split(data, "train", tokenizer, 64, 64)
    chosen = [sorted(choose_rows(rows, 10, seed)[0].tolist()) for seed in (1, 1, 2)]
    assert len(set(chosen[0])) == 10 and chosen[0] == chosen[1] != chosen[2]


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(data, tmp_path, monkeypatch, capsys):
    calls = 0

    def broken_third(logits, truth, smoothing=0.0, token_losses=train.token_losses):
        nonlocal calls
        calls += 1
        return token_losses(logits, truth) * (torch.nan if calls == 3 else 1)

    monkeypatch.setattr(train, "token_losses", broken_third)
    assert run(data, tmp_path, "--max_steps=6") == 0
    log = [line for line in log_of(tmp_path) if "loss" in line]
    assert [line["skipped"] for line in log] == [0, 0, 1, 1, 1, 1]
    assert log[2]["loss"] is None and all(line["loss"] > 0 for line in log[3:])
    assert all(weight.isfinite().all() for weight in checkpoint.load(tmp_path / "last.pt")["model"].values())
    assert "1 steps skipped" in capsys.readouterr().err


def test_long_gradients_are_clipped_and_zero_clips_none(data, tmp_path):
    moved = {}
    for clip in ("0", "1e-15"):  # so short that AdamW's eps outweighs it
        assert run(data, tmp_path / clip, f"--grad_clip={clip}", "--max_steps=1", "--weight_decay=0") == 0
        weights = checkpoint.load(tmp_path / clip / "last.pt")["model"]
        torch.manual_seed(1337)
        start = Transformer(ModelConfig(**checkpoint.load(tmp_path / clip / "last.pt")["model_config"])).state_dict()
        moved[clip] = max((weights[name] - start[name]).abs().max().item() for name in weights)
    assert moved["1e-15"] < 1e-6 < 1e-4 < moved["0"]


def test_weight_decay_is_for_matrices_only(straight):
    state = checkpoint.load(straight / "last.pt")
    decay = {group["weight_decay"]: len(group["params"]) for group in state["optimizers"][0]["param_groups"]}
    dimensions = [weight.dim() for weight in state["model"].values()]
    assert decay == {0.01: dimensions.count(2), 0.0: dimensions.count(1)}


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--batch_tokens=0"], "batch_tokens: got 0, wanted at least 1"),
        (["--seed=-1"], "seed: got -1"),
        (["--beta1=1.5"], "beta1, beta2: "),
        (["--heads=3"], "d_model: 16 does not divide into 3 heads"),
        (["--device=tpu9"], "device: 'tpu9'"),
        (["--data_dir=gone"], "gone/train.csv"),
        (["--init_from=gone.pt"], "gone.pt: not readable"),
        (["--src_max_len=5"], "train.csv:2: amp: "),
        (["--tgt_max_len=5"], "train.csv:2: sqamp: "),
    ],
)
def test_wrong_settings_are_one_line_and_write_nothing(data, tmp_path, flags, message):
    with pytest.raises(InputError) as error:
        run(data, tmp_path / "run", *flags)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_another_architecture_than_the_checkpoints_is_one_clear_line(data, straight, tmp_path):
    for flags in (["--resume"], [f"--init_from={straight}/best.pt", f"--out_dir={tmp_path}"]):
        with pytest.raises(InputError, match="d_ff: 32 in the settings, 16 in the checkpoint"):
            run(data, straight, "--max_steps=99", "--d_ff=32", *flags)


@pytest.mark.parametrize(
    "text, line, message",
    [
        ("", 1, "empty"),
        ("amp\nx\n", 1, "no column 'sqamp'"),
        ("amp,sqamp\n", 2, "no rows"),
        ("amp,sqamp\ni*e,e^2,9\n", 2, "3 cells"),
        ("amp,sqamp\n?,e^2\n", 2, "amp: "),
    ],
)
def test_broken_data_are_named_by_file_and_line(data, tmp_path, text, line, message):
    for split in ("train", "valid"):
        broken = tmp_path / split
        shutil.copytree(data, broken)
        (broken / f"{split}.csv").write_text(text)
        with pytest.raises(InputError) as error:
            run(broken, tmp_path / "run")
        assert f"{split}.csv:{line}: " in str(error.value) and message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_command_line_ends_in_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run([sys.executable, str(TRAIN), "--data_dir=gone"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: gone/train.csv") and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_little_is_printed_where_there_is_no_terminal(data, tmp_path, capsys):
    assert run(data, tmp_path, "--max_steps=20") == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    after_the_table = captured.err[captured.err.index("training rows") :].splitlines()
    assert len(after_the_table) == 3 and "\r" not in captured.err  # the size of it all, two validations


def test_a_checkpoint_without_the_state_of_the_loop_is_one_clear_line(data, straight, tmp_path):
    state = checkpoint.load(straight / "last.pt")
    for missing in ("optimizers", "rng"):
        folder = tmp_path / missing
        folder.mkdir()
        checkpoint.save(folder / "last.pt", {name: value for name, value in state.items() if name != missing})
        with pytest.raises(
            InputError, match=rf"no state of the loop \({missing} missing\); --init_from= takes its weights"
        ):
            run(data, folder, "--resume", "--max_steps=50")


def test_a_changed_training_file_stops_a_resumed_run_unless_it_is_asked_for(data, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns(".cache"))
    assert run(folder, tmp_path / "run", "--max_steps=10") == 0
    lines = (folder / "train.csv").read_text().splitlines(keepends=True)
    (folder / "train.csv").write_text("".join(lines[:-5]))
    with pytest.raises(InputError, match="train.csv: has changed since .* began; --resume --new_data goes on"):
        run(folder, tmp_path / "run", "--max_steps=20", "--resume")
    assert run(folder, tmp_path / "run", "--max_steps=20", "--resume", "--new_data") == 0
    assert f"{len(lines) - 6} training rows" in capsys.readouterr().err
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 20
    assert run(folder, tmp_path / "run", "--max_steps=25", "--resume") == 0  # the new rows are its own now
