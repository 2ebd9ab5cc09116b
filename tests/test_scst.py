"""Self-critical training: rewards rise without labels, resumed runs end as others do, held-out rows are refused."""
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from kill import exit_code, torchrun
from tiny import SMALL, make_run, write_csv

import evaluate
import scst
import train
from configurator import load_settings
from decode import decode, load
from runtime import checkpoint
from runtime.files import InputError
from runtime.runs import read_log

SCST = Path(scst.__file__)
FLAGS = ["--device=cpu", "--workers=1", "--scst_samples=4", "--rows_per_step=5", "--batch_rows=2", "--batch_tokens=400",
         "--scst_learning_rate=1e-3", "--warmup_steps=0", "--schedule=constant", "--weight_decay=0", "--log_every=1",
         "--eval_every=5", "--save_every=3", "--max_steps=12", "--dtype=fp32"]

pytestmark = pytest.mark.usefixtures("one_thread_and_the_usual_signals")


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    """A folder with run/best.pt, a model that has half learned the rows of data/train.csv and data/valid.csv."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("learner")
    rows = make_run(folder, steps=32)
    write_csv(folder / "data" / "train.csv", rows[2:])
    write_csv(folder / "data" / "valid.csv", rows[:2])
    (folder / "data" / "test.csv").unlink()
    return folder


def run(learner, out_dir, *flags):
    return scst.main([f"--data_dir={learner}/data", f"--ckpt={learner}/run/best.pt", f"--scst_dir={out_dir}", *FLAGS,
                      *flags])


@pytest.fixture(scope="module")
def straight(learner, tmp_path_factory):
    torch.set_num_threads(1)
    out_dir = tmp_path_factory.mktemp("straight") / "run"
    assert run(learner, out_dir, "--mle_weight=0.1", "--kl_weight=0.1", "--baseline=greedy") == 0
    return out_dir


def log_of(out_dir):
    clock = ("seconds", "tokens_per_second", "memory_gb")
    return [{name: value for name, value in line.items() if name not in clock} for line in read_log(out_dir)]


def assert_same_run(a, b):
    for name in "last.pt", "best.pt":
        first, second = checkpoint.load(a / name), checkpoint.load(b / name)
        for weights in "model", "start":
            assert all(torch.equal(first[weights][key], second[weights][key]) for key in first[weights])
        for one, other in zip(first["optimizers"], second["optimizers"], strict=True):
            for ours, theirs in zip(one["state"].values(), other["state"].values(), strict=True):
                assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert all(first[key] == second[key] for key in ("step", "skipped", "bad", "best", "lines", "recent"))
    assert log_of(a) == log_of(b)


def test_a_run_leaves_its_files_and_says_what_happened(learner, straight, capsys):
    assert sorted(path.name for path in straight.iterdir()) == [
        "best.pt", "ckpt_12.pt", "ckpt_9.pt", "config.py", "last.pt", "log.jsonl"]
    log = log_of(straight)
    steps = [line for line in log if "reward" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert [line["step"] for line in log if "valid_exact" in line] == [0, 5, 10, 12]
    for line in steps:
        assert line["reward"] == pytest.approx(0.5 * line["edit"] + 0.5 * line["truth"])
        assert -1 <= line["edit"] <= 0 <= line["right"] <= 1 and line["right"] >= line["truth"]
        assert 1 <= line["distinct"] <= 4 and 0 <= line["zero_advantage"] < 1
        assert line["kl"] >= -1e-6 and line["mle"] > 0 and line["grad_norm"] > 0 and line["logprob"] < 0
    assert abs(steps[0]["kl"]) < 1e-6 < steps[-1]["kl"]  # the first answers come from the model at the start
    state = checkpoint.load(straight / "best.pt")
    first = checkpoint.load(learner / "run/best.pt")["model"]
    assert all(torch.equal(weight, first[name]) for name, weight in state["start"].items())
    amps = [row["amp"] for row in csv.DictReader(open(learner / "data/train.csv"))]
    assert all(answer.prediction for answer in decode(load(straight / "best.pt", "cpu"), amps))


def test_without_a_label_the_reward_rises(learner, tmp_path, capsys):
    """From a CSV of amplitudes alone the share of right answers rises; there is no file with squares."""
    rows = list(csv.DictReader(open(learner / "data/train.csv")))
    amps = write_csv(tmp_path / "amps.csv", [{"amp": row["amp"]} for row in rows])
    (tmp_path / "nothing").mkdir()
    ckpt = tmp_path / "start.pt"
    state = checkpoint.load(learner / "run/best.pt")
    state["settings"]["data_dir"] = f"{tmp_path}/gone"
    checkpoint.save(ckpt, state)
    flags = [*FLAGS, f"--data_dir={tmp_path}/nothing", f"--ckpt={ckpt}", f"--input={amps}", "--reward=physics",
             "--scst_samples=16", "--rows_per_step=6", "--batch_rows=6", "--max_steps=30", "--eval_every=10",
             "--scst_max_len=40", f"--scst_dir={tmp_path}/run"]
    assert scst.main(flags) == 0
    assert "mean reward" in capsys.readouterr().out
    log = log_of(tmp_path / "run")
    before, after = (np.mean([line["physics"] for line in part]) for part in (log[:5], log[-5:]))
    assert 0 < before < 0.5 and after > before + 0.15
    right = []
    for path in ckpt, tmp_path / "run" / "best.pt":
        answers = decode(load(path, "cpu"), [row["amp"] for row in rows], check=True)
        right.append(sum(answer.status == "verified" for answer in answers))
    assert right[1] >= right[0] > 0


@pytest.mark.parametrize("flags, message", [
    (["--reward=edit"], "amps.csv:1: no column 'sqamp', which the reward or mle_weight compares with"),
    (["--reward=physics", "--mle_weight=0.1"], "amps.csv:1: no column 'sqamp'"),
])
def test_amplitudes_alone_go_with_the_physics_reward_alone(learner, tmp_path, flags, message):
    rows = csv.DictReader(open(learner / "data/train.csv"))
    amps = write_csv(tmp_path / "amps.csv", [{"amp": row["amp"]} for row in rows])
    with pytest.raises(InputError, match=message):
        run(learner, tmp_path / "run", f"--input={amps}", *flags)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Interrupted, and shared by ranks

@pytest.mark.parametrize("number, code, at", [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 7)])
def test_a_stopped_run_resumes_bit_for_bit(learner, straight, tmp_path, monkeypatch, capsys, number, code, at):
    stopped, draw = [], scst.draw_rollouts

    def draw_and_stop(model, sources, numbers, longest, settings, step):
        if step + 1 == at and not stopped:
            stopped.append(step)
            os.kill(os.getpid(), number)
        return draw(model, sources, numbers, longest, settings, step)

    flags = ["--mle_weight=0.1", "--kl_weight=0.1", "--baseline=greedy"]
    with monkeypatch.context() as patch:
        patch.setattr(scst, "draw_rollouts", draw_and_stop)
        assert run(learner, tmp_path / "run", *flags) == code
    assert f"python scst.py {tmp_path}/run/config.py --resume" in capsys.readouterr().err
    assert checkpoint.load(tmp_path / "run/last.pt")["step"] == at
    assert scst.main([f"{tmp_path}/run/config.py", "--resume"]) == 0
    assert_same_run(straight, tmp_path / "run")
    assert scst.main([f"{tmp_path}/run/config.py", "--resume"]) == 0
    assert "complete at step 12" in capsys.readouterr().out


def test_a_run_killed_at_a_random_moment_is_bit_for_bit_the_straight_run(learner, straight, tmp_path):
    command = [sys.executable, str(SCST), f"--data_dir={learner}/data", f"--ckpt={learner}/run/best.pt",
               f"--scst_dir={tmp_path}/run", *FLAGS, "--mle_weight=0.1", "--kl_weight=0.1", "--baseline=greedy",
               "--resume"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    seed = random.randrange(10**6)
    print("seed", seed)  # shown if the test fails
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "from step" in line:  # the loop begins
            break
    time.sleep(random.Random(seed).uniform(0.05, 1))
    process.kill()
    process.stderr.close()
    process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_run(straight, tmp_path / "run")


def test_two_ranks_take_the_step_of_one(learner, tmp_path):
    flags = ["--max_steps=1", "--eval_every=1", "--mle_weight=0.1", "--kl_weight=0.1", "--grad_clip=0",
             "--scst_learning_rate=0"]
    assert run(learner, tmp_path / "1", *flags) == 0
    process, lines = torchrun(2, SCST, f"--data_dir={learner}/data", f"--ckpt={learner}/run/best.pt",
                              f"--scst_dir={tmp_path}/2", *FLAGS, *flags)
    assert exit_code(process, 120) == 0, "".join(lines)
    one, two = (checkpoint.load(tmp_path / ranks / "last.pt") for ranks in "12")
    # AdamW's first mean gradient is 0.1 of the gradient
    moments = (state["optimizers"][0]["state"].values() for state in (one, two))
    for ours, theirs in zip(*moments, strict=True):
        torch.testing.assert_close(ours["exp_avg"], theirs["exp_avg"], rtol=1e-4, atol=1e-7)
    assert any(state["exp_avg"].abs().max() > 1e-4 for state in one["optimizers"][0]["state"].values())
    for ours, theirs in zip(log_of(tmp_path / "1"), log_of(tmp_path / "2"), strict=True):
        for exact in ("samples", "valid_by_kind", "valid_by_length"):
            assert ours.pop(exact, 0) == theirs.pop(exact, 0)
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_a_gradient_that_is_not_finite_is_skipped_and_many_of_them_stop_the_run(learner, tmp_path, monkeypatch):
    def broken(model, start, batch, settings, loss_terms=scst.loss_terms):
        policy_loss, *others = loss_terms(model, start, batch, settings)
        return policy_loss * float("nan"), *others

    monkeypatch.setattr(scst, "loss_terms", broken)
    with pytest.raises(InputError, match="the gradient of 3 steps in a row up to step 3 is not finite"):
        run(learner, tmp_path / "run", "--bad_steps=3")
    log = log_of(tmp_path / "run")
    assert [line["skipped"] for line in log if "skipped" in line] == [1, 2]
    named = [row for line in log if line.get("event") == "skipped" for row in line["rows"]]  # two epochs of six rows
    assert sorted(named[:6]) == [f"{learner}/data/train.csv:{line}" for line in range(2, 8)]
    start, best = (checkpoint.load(path)["model"] for path in (learner / "run/best.pt", tmp_path / "run/best.pt"))
    assert all(torch.equal(start[name], best[name]) for name in start)


def test_half_precision_is_close_to_single(learner, tmp_path):
    """The same answers are sampled in both: the first step's gradient differs by the rounding."""
    norms = []
    for dtype in ("bf16", "fp32"):
        assert run(learner, tmp_path / dtype, f"--dtype={dtype}", "--max_steps=1", "--mle_weight=1") == 0
        norms += [line["grad_norm"] for line in log_of(tmp_path / dtype) if "grad_norm" in line]
    half, single = norms
    assert half != single and half == pytest.approx(single, rel=0.1)


# ---------------------------------------------------------------------------------------------------------------------
# Which rows

def test_no_row_of_the_validation_or_test_split_is_learned_from(learner, tmp_path, capsys):
    shutil.copytree(learner / "data", tmp_path / "data")
    rows = list(csv.DictReader(open(tmp_path / "data/train.csv")))
    held_out = list(csv.DictReader(open(tmp_path / "data/valid.csv")))[0]
    renamed = held_out | {"amp": held_out["amp"].replace("%a_", "%b_")}  # the same up to index names
    assert renamed["amp"] != held_out["amp"]
    mine = write_csv(tmp_path / "mine.csv", [*rows[:3], renamed])
    with pytest.raises(InputError, match=r"mine.csv:5: amp: stands at .*valid.csv:2 too"):
        run(learner, tmp_path / "run", f"--input={mine}")
    write_csv(tmp_path / "data/test.csv", [rows[4]])
    write_csv(mine, [*rows[:2], rows[4]])
    with pytest.raises(InputError, match=r"mine.csv:4: amp: stands at .*test.csv:2 too"):  # of another data_dir
        run(learner, tmp_path / "run", f"--data_dir={tmp_path}/data", f"--input={mine}")
    with pytest.raises(InputError, match=r"valid.csv:2: amp: stands at "):
        run(learner, tmp_path / "run", f"--input={learner}/data/valid.csv")
    write_csv(tmp_path / "data/train.csv", [*rows, renamed])
    # rows of the training split itself are left out, and counted
    assert run(learner, tmp_path / "run", f"--data_dir={tmp_path}/data", "--max_steps=1") == 0
    assert f"{len(rows) - 1} rows of {tmp_path}/data/train.csv (2 more are left out" in capsys.readouterr().err
    # rows held out from the first model are held out from resumed runs and from runs that start from its checkpoint
    for split in "valid", "test":
        (tmp_path / "data" / f"{split}.csv").unlink()
    write_csv(tmp_path / "data/train.csv", [*rows, renamed])
    assert run(learner, tmp_path / "run", f"--data_dir={tmp_path}/data", "--max_steps=2", "--resume") == 0
    flags = [f"--data_dir={tmp_path}/data", "--max_steps=1", f"--ckpt={tmp_path}/run/best.pt"]
    assert run(learner, tmp_path / "next", *flags) == 0
    told = f"{len(rows)} rows of {tmp_path}/data/train.csv (1 more are left out"
    assert capsys.readouterr().err.count(told) == 2


def test_a_run_goes_on_with_what_it_began_with(learner, straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(InputError, match="began with --reward="):
        run(learner, tmp_path / "run", "--resume", "--max_steps=13", "--reward=edit", "--kl_weight=0.1")
    assert run(learner, tmp_path / "no", "--max_steps=1") == 0
    with pytest.raises(InputError, match="began with .* --kl_weight=0.0"):
        run(learner, tmp_path / "no", "--max_steps=2", "--resume", "--kl_weight=1")
    with pytest.raises(InputError, match="holds a run of scst.py"):
        train.main([f"--data_dir={learner}/data", f"--out_dir={tmp_path}/no", *SMALL, "--resume"])


@pytest.mark.parametrize("name", ["optimizers", "lines", "recent", "best", "settings"])
def test_a_checkpoint_without_the_state_of_the_loop_is_not_resumed(straight, tmp_path, name):
    state = checkpoint.load(straight / "last.pt")
    del state[name]
    checkpoint.save(tmp_path / "run" / "last.pt", state)
    with pytest.raises(InputError, match=rf"the checkpoint has no state of the loop \({name} missing\); --ckpt=FILE"):
        scst.main([f"{straight}/config.py", f"--scst_dir={tmp_path}/run", "--resume"])


def test_a_checkpoint_without_settings_does_not_say_which_rows_are_held_out(learner, tmp_path):
    state = checkpoint.load(learner / "run/best.pt")
    del state["settings"]
    checkpoint.save(tmp_path / "bare.pt", state)
    with pytest.raises(InputError, match="bare.pt: has no settings, which name its data"):
        run(learner, tmp_path / "run", f"--ckpt={tmp_path}/bare.pt")


def test_a_run_of_the_version_before_is_resumed(straight, tmp_path):
    """Version 2 had the same state, without figures by kind of process and without zero_advantage."""
    state = checkpoint.load(straight / "ckpt_9.pt")
    for name in "valid_by_kind", "valid_by_length":
        del state["best"][name]
    checkpoint.save(tmp_path / "run" / "last.pt", state | {"version": 2, "lines": [{"reward": 0.5, "right": 0.5}]})
    assert scst.main([f"{straight}/config.py", f"--scst_dir={tmp_path}/run", "--resume"]) == 0
    assert checkpoint.load(tmp_path / "run/last.pt")["step"] == 12


def test_the_settings_of_a_run_are_a_config_file_to_evaluate_it_with(learner, tmp_path):
    rows = list(csv.DictReader(open(learner / "data/train.csv")))
    some = write_csv(tmp_path / "some.csv", rows[:6])
    assert run(learner, tmp_path / "run", f"--input={some}", "--max_steps=1") == 0
    settings = load_settings("", [], [str(tmp_path / "run/config.py")])
    assert str(checkpoint.find(settings)) == f"{tmp_path}/run/best.pt" and settings.input == ""
    assert scst.main([str(tmp_path / "run/config.py"), "--resume", "--max_steps=2"]) == 0
    assert checkpoint.load(tmp_path / "run/last.pt")["settings"]["input"] == str(some)  # it went on with the same rows


def test_a_named_run_is_found_by_its_own_config_file(learner, tmp_path):
    shutil.copytree(learner / "run", tmp_path / "runs" / "a")
    assert scst.main([f"--data_dir={learner}/data", f"--out_dir={tmp_path}/runs", "--run_id=a", *FLAGS,
                      "--max_steps=1"]) == 0
    settings = load_settings("", [], [str(tmp_path / "runs/a/scst/config.py")])
    assert checkpoint.find(settings) == tmp_path / "runs/a/scst/best.pt"


def test_what_is_no_amplitude_is_not_learned_from(learner, tmp_path):
    rows = list(csv.DictReader(open(learner / "data/train.csv")))
    path = write_csv(tmp_path / "odd.csv", [rows[0], rows[1] | {"amp": rows[1]["amp"].replace("(p_4)", "(p_3)")}])
    with pytest.raises(InputError, match="odd.csv:3: amp: the legs carry the momenta"):
        run(learner, tmp_path / "run", f"--input={path}")


@pytest.mark.parametrize("rows_per_step", [4, 5, 100])
def test_an_epoch_has_every_row_once(learner, tmp_path, monkeypatch, rows_per_step):
    """Six rows by at most four or five are two steps of three: none is left over."""
    seen, draw = {}, scst.draw_rollouts

    def draw_and_note(model, sources, numbers, longest, settings, step):
        seen.setdefault(step, []).extend(numbers)
        return draw(model, sources, numbers, longest, settings, step)

    monkeypatch.setattr(scst, "draw_rollouts", draw_and_note)
    steps = 1 if rows_per_step == 100 else 2  # of an epoch
    flags = [f"--rows_per_step={rows_per_step}", f"--max_steps={2 * steps}", "--eval_every=9"]
    assert run(learner, tmp_path / "run", *flags) == 0
    for epoch in 0, 1:
        assert sorted(row for step in range(steps) for row in seen[epoch * steps + step]) == list(range(6))
    assert all(len(rows) == 6 / steps for rows in seen.values())


@pytest.fixture
def wrong_rows(learner, tmp_path):
    """Indices as evaluate.py writes them, of the training split."""
    shutil.copytree(learner / "data", tmp_path / "data")
    shutil.copy(tmp_path / "data/valid.csv", tmp_path / "data/test.csv")
    flags = [f"--data_dir={tmp_path}/data", f"--ckpt={learner}/run/best.pt", f"--input={tmp_path}/data/train.csv",
             "--device=cpu"]
    evaluate.main([*flags, f"--output={tmp_path}/train/report.json"])
    evaluate.main([*flags, f"--output={tmp_path}/train/again.v2.json"])
    return tmp_path


def test_the_rows_that_evaluate_found_wrong_are_those_that_are_learned_from(learner, wrong_rows, monkeypatch):
    folder = wrong_rows / "train"
    indices = np.load(folder / "inc_idx.npy", allow_pickle=False)
    report = json.loads((folder / "report.json").read_text())
    predictions = list(csv.DictReader(open(folder / "predictions.csv")))
    wrong = [number for number, row in enumerate(predictions)
             if row["prediction"] != row["sqamp"] or row["status"] == "unfinished"]
    assert indices.dtype == np.int64 and set(indices.tolist()) <= set(wrong) and 0 < len(indices) < len(predictions)
    assert len(indices) == round(len(predictions) * (1 - report["right_physics"]))
    assert (folder / "again.v2.inc_idx.npy").read_bytes() == (folder / "inc_idx.npy").read_bytes()
    seen, draw = [], scst.draw_rollouts

    def draw_and_note(model, sources, *others):
        seen.extend(sources)
        return draw(model, sources, *others)

    monkeypatch.setattr(scst, "draw_rollouts", draw_and_note)
    for name in "inc_idx.npy", "again.v2.inc_idx.npy":
        seen.clear()
        flags = [f"--data_dir={wrong_rows}/data", f"--indices={folder}/{name}", "--rows_per_step=100", "--max_steps=1"]
        assert run(learner, wrong_rows / name, *flags) == 0
        tokenizer = load(learner / "run/best.pt", "cpu").tokenizer
        assert sorted(seen) == sorted(tokenizer.encode_amp(predictions[number]["amp"])[0] for number in indices)


def test_a_resumed_run_has_the_same_rows_or_says_that_they_have_changed(learner, wrong_rows):
    indices, out_dir = wrong_rows / "train/inc_idx.npy", wrong_rows / "run"
    data = f"--data_dir={wrong_rows}/data"
    assert run(learner, out_dir, data, f"--indices={indices}", "--max_steps=1") == 0
    assert run(learner, out_dir, data, "--resume", "--max_steps=2") == 0
    assert checkpoint.load(out_dir / "last.pt")["settings"]["indices"] == str(indices)
    np.save(indices, np.array([0 if 0 not in np.load(indices) else 1]))
    with pytest.raises(InputError, match="inc_idx.npy: has changed since .* began"):
        run(learner, out_dir, data, "--resume", "--max_steps=3")


def test_indices_of_another_file_are_refused(learner, wrong_rows):
    path, data = wrong_rows / "train" / "inc_idx.npy", wrong_rows / "data"

    def refused(message, *flags):
        with pytest.raises(InputError, match=message):
            run(learner, wrong_rows / "run", f"--data_dir={data}", f"--indices={path}", *flags)

    for array, message in (
            (np.array([0, 10**6]), "row 1000000, but .*train.csv has"),
            (np.array([-1]), "wanted different row numbers"),
            (np.array([1, 1]), "wanted different"), (np.array([0.0]), "float64 of shape"),
            (np.array([[0]]), r"int64 of shape \(1, 1\)"), (np.array([0], np.int32), "int32"),
            (np.array([], np.int64), "every answer was right"), (np.array([{}]), "not an array"),
            (np.array(["0"]), "wanted int64")):
        np.save(path, array)
        refused(message)
    path.write_bytes(b"")
    refused("not an array of NumPy")
    np.save(path, np.array([0]))
    rows = list(csv.DictReader(open(data / "train.csv")))
    refused("indices of .*train.csv, not of .*other.csv", f"--input={write_csv(wrong_rows / 'other.csv', rows[1:])}")
    write_csv(data / "train.csv", rows[::-1])
    refused("indices of .*train.csv, which has changed since")
    (wrong_rows / "train" / "report.json").unlink()
    refused("report.json: no report of evaluate.py")
    path.unlink()
    refused("not readable")


# ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags, message", [
    (["--reward=speed"], "reward: got 'speed'"),
    (["--baseline=mean"], "baseline: got 'mean', wanted leave-one-out or greedy"),
    (["--scst_samples=1"], "scst_samples: got 1, wanted at least 2"),
    (["--temperature=0"], "temperature: got 0.0"),
    (["--top_p=0"], "top_p: got 0"),
    (["--mle_weight=-1"], "mle_weight: got -1.0, wanted at least 0"),
    (["--schedule=no"], "schedule: got 'no'"),
    (["--ckpt=gone.pt"], "gone.pt: no such checkpoint; train.py makes it"),
    (["--input=gone.csv"], "gone.csv: no such file"),
    (["--scst_max_len=9"], r"train.csv:2: sqamp: \d+ tokens, the longest rollout has 9, by scst_max_len"),
])
def test_what_cannot_work_is_one_clear_error(learner, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(learner, tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_folders_that_hold_another_run_and_termwise_models_are_refused(learner, straight, tmp_path):
    with pytest.raises(InputError, match="holds a run already"):
        run(learner, straight)
    with pytest.raises(InputError, match="holds a run of train.py"):
        run(learner, learner / "run", "--resume")
    state = checkpoint.load(learner / "run/best.pt")
    state["vocabulary"]["termwise"] = True
    checkpoint.save(tmp_path / "termwise.pt", state)
    with pytest.raises(InputError, match="termwise.pt: answers term by term"):
        run(learner, tmp_path / "run", f"--ckpt={tmp_path}/termwise.pt")
