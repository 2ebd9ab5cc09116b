"""
Self-critical sequence training: a model learns from rewards for the answers that it draws itself.

    python scst.py config/quickstart.py [--key=value ...]            from best.pt of out_dir (or --ckpt=FILE) on, on the training split
    python scst.py config/quickstart.py --resume                     go on after a crash, Ctrl-C or a preempted job
    python scst.py config/quickstart.py --indices=out/quickstart/train/inc_idx.npy    only rows that evaluate.py found wrong
    python scst.py config/quickstart.py --input=FILE.csv --reward=physics             amplitudes alone, without their squares
    torchrun --standalone --nproc-per-node=4 scst.py config/qed.py --resume           the same by four processes, a GPU each

For each row k answers are drawn and judged (rewards.py); the loss of an answer y is -(r(y) - b) log p(y), its end token included
(Rennie et al. 2016, arXiv 1612.00563, eq. 7). The baseline b is the reward of the greedy answer, as there, or the mean reward of the
row's other answers (Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!"); neither depends on y, so that the
gradient is that of the expected reward, just less noisy. p is the distribution that was drawn from, temperature, top_k and top_p
included. There is no dropout, neither while answers are drawn nor for the gradients.

Rows whose amplitude is in valid.csv or test.csv are never learned from: in train.csv they are left out, in another file they are an
error. Writes into out_dir/scst (or scst_dir): config.py, log.jsonl, best.pt, last.pt, ckpt_STEP.pt, as train.py does; best.pt is the best
on the validation split, or, with amplitudes alone or without such a split, that of the best mean reward. What is set for train.py too, such as
max_steps, max_minutes, warmup_steps and eval_every, comes from the same config: a short run wants its own.
"""
import os

PARENT = os.getppid()  # before torch, whose import takes seconds in which torchrun may be killed

import contextlib
import math
import signal
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see train.py

import numpy as np
import torch
from tqdm import tqdm

from attention import pack_rows
from batches import choose_rows, join_ids, load_split, pad, to_device
from configurator import check_least, load_settings
from dataset.held_out import held_out_keys, load_indices, load_rows
from dataset.reader import read_rows
from generate import sample, truncate
from model import Transformer, config_of
from rewards import NEED_TRUTH, Judges, Question, Text, parse_reward
from runtime import checkpoint, runs
from runtime.distributed import catch_signals, first_alone, gather, join, leave, quiet, sum_gradients
from runtime.files import InputError, main_guard
from runtime.hardware import find_dtype, peak_memory
from runtime.workers import start_workers
from tokenizer import BOS, Tokenizer
from train import SCHEDULES, better, learning_rate, load_moments, make_optimizers, progress, validate

SETTINGS = [
    "data_dir", "out_dir", "run_id", "scst_dir", "ckpt", "input", "indices", "seed", "device", "dtype", "workers", "attention", "reward", "baseline",
    "normalise_advantage", "scst_samples", "scst_max_len", "temperature", "top_k", "top_p", "rows_per_step", "batch_rows", "batch_tokens",
    "mle_weight", "kl_weight", "optimizer", "scst_learning_rate", "schedule", "warmup_steps", "weight_decay", "beta1", "beta2", "grad_clip",
    "bad_steps", "max_steps", "max_minutes", "eval_every", "eval_rows", "log_every", "save_every", "save_limit", "resume", "wandb_mode",
    "wandb_project",
]
LEAST = {
    "scst_samples": 1, "scst_max_len": 0, "top_k": 0, "rows_per_step": 1, "batch_rows": 1, "batch_tokens": 1, "mle_weight": 0, "kl_weight": 0,
    "scst_learning_rate": 0, "warmup_steps": 0, "weight_decay": 0, "grad_clip": 0, "bad_steps": 0, "max_steps": 1, "max_minutes": 0,
    "eval_every": 1, "eval_rows": 0, "log_every": 1, "save_every": 1, "save_limit": 0,
}


def main(argv=None):
    rank = int(os.environ.get("RANK", 0))
    with quiet(rank > 0):
        settings = load_settings(__doc__, SETTINGS, argv)
    check_least(settings, LEAST)
    if settings.temperature <= 0:
        raise InputError(f"temperature: got {settings.temperature}, wanted more than 0")
    if not 0 < settings.top_p <= 1:
        raise InputError(f"top_p: got {settings.top_p}, wanted more than 0 and at most 1")
    if settings.baseline not in BASELINES:
        raise InputError(f"baseline: got {settings.baseline!r}, wanted {' or '.join(BASELINES)}")
    if settings.baseline == "leave-one-out" and settings.scst_samples < 2:
        raise InputError("scst_samples: got 1, wanted at least 2: baseline=leave-one-out is the mean of the others")
    if settings.schedule not in SCHEDULES:
        raise InputError(f"schedule: got {settings.schedule!r}, wanted {', '.join(SCHEDULES)}")
    weights = parse_reward(settings.reward)
    # the run's own folder is the out_dir of its settings from here on, and its learning rate the learning_rate
    folder = settings.scst_dir or f"{settings.out_dir}/scst"
    own = {"ckpt": settings.ckpt or f"{settings.out_dir}/best.pt", "out_dir": folder, "scst_dir": folder, "learning_rate": settings.scst_learning_rate}
    settings = SimpleNamespace(**vars(settings) | own)
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    with start_workers(settings.workers or max(1, os.cpu_count() // ranks_here)) as workers:
        with join(settings.device) as world, runs.held(settings.out_dir) if rank == 0 else contextlib.nullcontext():
            code = train(settings, weights, Judges(workers, weights), world)
    leave(world, code)
    return code


def train(settings, weights, judges, world):
    """The run of one rank, from its settings to the exit code. weights: {name of a reward: its weight}."""
    device, chief = world.device, world.rank == 0
    dtype = find_dtype(settings.dtype, device)
    out_dir = Path(settings.out_dir)

    # ---- where to start: a checkpoint of this run, or the weights of another
    with first_alone(world):  # rank 0 holds the run by now
        if not settings.resume and checkpoint.holds_run(out_dir):
            raise InputError(f"{out_dir}: holds a run already; go on with it by --resume, or name another folder by --scst_dir=")
        state = checkpoint.load_newest(out_dir) if settings.resume else None
        resumed = state is not None
        if resumed:
            if "start" not in state:
                raise InputError(f"{out_dir}: holds a run of train.py; name another folder by --scst_dir=")
            settings.ckpt, settings.input = state["settings"]["ckpt"], settings.input or state["settings"]["input"]
            if settings.reward != state["settings"]["reward"] or settings.kl_weight and not state["start"]:
                raise InputError(f"{out_dir}: began with --reward=\"{state['settings']['reward']}\" --kl_weight={state['settings']['kl_weight']}; "
                                 "a run with other ones is a new one, --scst_dir=FOLDER")
        else:
            if not Path(settings.ckpt).exists():
                raise InputError(f"{settings.ckpt}: no such checkpoint; train.py makes it, --ckpt=FILE names another")
            state = checkpoint.load(settings.ckpt)
    begin = state["step"] if resumed else -1
    if (gather(world, torch.tensor(begin)) != begin).any():
        raise InputError(f"{out_dir}: the ranks see different checkpoints there; it must be one folder for all machines")
    if resumed and progress(settings, state["step"], state["seconds"]) >= 1:
        if chief:
            print(f"{out_dir}: complete at step {state['step']}, after {state['seconds'] / 60:.1f} min; a larger limit would go on")
            report_best(out_dir, state["best"], state["best"]["by_reward"])
        return 0
    if state["vocabulary"].get("termwise"):
        raise InputError(f"{settings.ckpt}: answers term by term (termwise=True), expected a model that answers with the whole square")

    # ---- data
    tokenizer, config = Tokenizer(state["vocabulary"]), config_of(state)
    limits = config.src_max_len, config.tgt_max_len
    own_rows = Path(settings.data_dir) / "train.csv"
    path = Path(settings.input or own_rows)
    labelled = not NEED_TRUTH.isdisjoint(weights) or settings.mle_weight > 0
    indices = load_indices(settings.indices, path) if settings.indices else None
    folders = sorted({settings.data_dir, *state.get("held_out", [state["settings"]["data_dir"]])})  # of every run that this model comes from
    held_out = held_out_keys(folders)
    is_split = path.exists() and own_rows.exists() and path.samefile(own_rows)
    rows, left_out = load_rows(path, tokenizer, limits, labelled, indices, held_out, skip=is_split)
    with first_alone(world):  # who caches it for the others
        valid_rows = load_valid(settings.data_dir, tokenizer, limits)
    valid_sample = choose_rows(valid_rows, settings.eval_rows, settings.seed) if valid_rows else None
    by_reward = not valid_rows or bool(settings.input) and not labelled  # amplitudes alone: no square chooses the model either
    rows_per_step = min(settings.rows_per_step, len(rows))
    if rows_per_step < world.size:
        raise InputError(f"rows_per_step: {rows_per_step} rows for {world.size} ranks, wanted at least one each")
    longest = min(settings.scst_max_len or (max(len(row.tgt) for row in rows) if labelled else limits[1]), limits[1] - 1)

    # ---- model and optimizer
    model = Transformer(config, settings.attention).to(device).eval()  # without dropout for good
    model.load_state_dict(checkpoint.weights(state))
    optimizers, views = make_optimizers(model, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    scaler.scale(torch.zeros((), device=device))  # makes the scale: the first step may have no loss
    start = None  # the model at the start, for the KL term
    if settings.kl_weight:
        start = Transformer(config, settings.attention).to(device).eval().requires_grad_(False)
        start.load_state_dict(state["start"] if resumed else checkpoint.weights(state))

    # ---- state of the loop. There is no random state: what is random depends on the seed, the step and the row
    step, skipped, bad, best, earlier, wandb_id = 0, 0, 0, None, 0.0, ""
    lines = []  # figures of the steps since the last line of the log
    recent = deque(maxlen=settings.eval_every)  # mean rewards of the last steps
    speed = []  # (tokens, seconds ...) of the steps since this process wrote a line of the log
    if resumed:
        load_moments(optimizers, state["optimizers"])
        if state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        step, skipped, bad, best, earlier, wandb_id, lines, newest = (
            state[name] for name in ("step", "skipped", "bad", "best", "seconds", "wandb_id", "lines", "recent"))
        recent.extend(newest)
    state = None

    def loop_state():
        return {
            "model": model.state_dict(), "ema": None, "start": start.state_dict() if start else {}, "model_config": vars(config),
            "vocabulary": tokenizer.vocabulary, "settings": vars(settings), "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "scaler": scaler.state_dict(), "step": step, "skipped": skipped, "bad": bad, "best": best, "seconds": seconds, "wandb_id": wandb_id,
            "lines": lines, "recent": list(recent), "held_out": folders,
        }

    def evaluate():
        """Log how good the model is now, and keep it if it is the best so far."""
        nonlocal best
        figures, shown = {}, []
        if valid_rows:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                figures, samples = validate(model, valid_rows, *valid_sample, settings.batch_tokens, world)
            figures = {f"valid_{name}": value for name, value in figures.items()}
            texts = [{name: tokenizer.decode_sqamp(ids) for name, ids in one.items()} for one in samples]
            shown.append(f"validation loss {figures['valid_loss']:.4f}, exact match {figures['valid_exact']:.2%}")
        if recent:
            shown.append(f"mean reward {statistics.fmean(recent):.4f}")
        if chief and figures:
            record(step, seconds, figures | {"samples": texts})
        if chief and shown:
            bar.write(f"step {step}: {', '.join(shown)}, {seconds / 60:.1f} min" + trouble(), file=sys.stderr)
        figures |= {"step": step, "reward": statistics.fmean(recent) if recent else -math.inf, "by_reward": by_reward}
        if best is None or best["by_reward"] != by_reward or (figures["reward"] > best["reward"] if by_reward else better(figures, best)):
            best = figures
            if chief:
                checkpoint.save(out_dir / "best.pt", loop_state())

    def trouble():
        return f", {skipped} steps skipped: gradient not finite" * bool(skipped)

    # ---- the run's folder
    seconds, started = earlier, time.monotonic() - earlier
    if chief:
        wandb_run = runs.start_wandb(settings, wandb_id)
        wandb_id = wandb_run.id if wandb_run else wandb_id
        # its config.py is to decode and evaluate with: with this run's own checkpoint, on the test split
        record = runs.open_log(SimpleNamespace(**vars(settings) | {"ckpt": "", "input": ""}), step, wandb_run)
        print(f"{len(rows)} rows of {path}" + f" ({left_out} more are left out: they are in valid.csv or test.csv)" * (left_out > 0)
              + f", {rows_per_step} x {settings.scst_samples} answers a step of at most {longest} tokens, {device}" + f" on each of {world.size} ranks"
              * (world.size > 1) + f", {str(dtype).removeprefix('torch.')}, from step {step}", file=sys.stderr)

    # ---- the loop
    bar = tqdm(total=1, initial=progress(settings, step, seconds), disable=None if chief else True,
               bar_format="{percentage:3.0f}% {bar} {elapsed}, {remaining} left{postfix}")
    asked_to_stop = catch_signals(PARENT)
    done = last_step = False
    clock = time.monotonic()
    if step == 0:
        evaluate()
        started += time.monotonic() - clock  # to see how good the start is, is none of the run's time
    clock = time.monotonic()
    while not last_step:
        # ---- the rows of this step, those of this rank, in groups whose answers are drawn together
        steps_per_epoch = len(rows) // rows_per_step
        order = np.random.default_rng([settings.seed, step // steps_per_epoch]).permutation(len(rows))
        chosen = order[step % steps_per_epoch * rows_per_step:][:rows_per_step]
        truth_tokens = sum(len(rows[row].tgt) for row in chosen) if settings.mle_weight else 0  # of all ranks
        chosen = sorted(chosen.tolist(), key=lambda row: (len(rows[row].src), row))[world.rank::world.size]
        size = min(settings.batch_rows, -(-len(chosen) // 2))  # two groups at least: one is drawn while the other is judged
        groups = [chosen[first:first + size] for first in range(0, len(chosen), size)]

        # ---- answers, judged by the workers while the next group's are drawn
        watch = time.monotonic()
        judges.forget()
        drawn = []
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            for group in groups:
                answers = draw_answers(model, [rows[row].src for row in group], group, longest, settings, step)
                drawn.append((group, answers, judges.ask({row: question(rows[row], some, tokenizer) for row, some in zip(group, answers)})))
        sampling, waiting = time.monotonic() - watch, 0.0
        k = settings.scst_samples
        tokens = sum(len(answer.ids) for _, lists, _ in drawn for some in lists for answer in some[:k])
        tokens = int(gather(world, torch.tensor(tokens)).sum())  # of the answers of all ranks

        # ---- gradients, group after group as the rewards come
        rate = learning_rate(settings, step, progress(settings, step, seconds))
        model.zero_grad()
        for optimizer in optimizers:
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
        sums = dict.fromkeys(["reward", "baseline", *weights, "right", "unfinished", "distinct", "logprob", "kl", "mle"], 0.0)
        for group, lists, asked in drawn:
            before = time.monotonic()
            judges.wait(asked)
            waiting += time.monotonic() - before
            lessons = []
            for row, answers in zip(group, lists):
                parts = [judges.rewards(row, answer.ids[:-1] if answer.finished else None) for answer in answers]
                rewards = np.array([sum(weight * part[name] for name, weight in weights.items()) for part in parts])  # (k,), or (k + 1,)
                baseline = baselines(rewards, k)  # (k,)
                lesson = lesson_of(answers[:k], advantages(rewards[:k], baseline, settings.normalise_advantage), keep=start is not None)
                if settings.mle_weight:
                    lesson.append(Target(rows[row].tgt, truths=1))
                if lesson:
                    lessons.append((rows[row].src, lesson))
                sums["baseline"] += baseline.sum()
                sums["distinct"] += k * len({tuple(answer.ids) for answer in answers[:k]})
                for answer, part, reward in zip(answers[:k], parts, rewards):
                    sums["reward"] += reward
                    for name in weights:
                        sums[name] += part[name]
                    sums["right"] += answer.ids == rows[row].tgt or 1.0 in (part.get("truth"), part.get("physics"))
                    sums["unfinished"] += not answer.finished
                    sums["logprob"] += answer.logprob
            for batch in batches_of(lessons, settings.batch_tokens):
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    policy, divergence, cross_entropy = losses_of(model, start, batch, settings)
                loss = policy / (rows_per_step * k)
                if start:
                    loss = loss + divergence * (settings.kl_weight / tokens)
                if settings.mle_weight:
                    loss = loss + cross_entropy * (settings.mle_weight / truth_tokens)
                scaler.scale(loss).backward()
                sums["kl"] += divergence.item()
                sums["mle"] += cross_entropy.item()
        sum_gradients(world, model)
        for view, weight, part in views:  # Muon's views of fused matrices
            view.grad = weight.grad[part]
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip or math.inf).item()  # on every rank the same
        gradients = time.monotonic() - watch - sampling - waiting

        # ---- every rank knows the same now, and decides the same
        facts = gather(world, torch.tensor([asked_to_stop(), time.monotonic() - started, *sums.values()], dtype=torch.double))  # (ranks, ...)
        stopped_by, seconds = int(facts[:, 0].max()), facts[0, 1].item()
        answers = rows_per_step * k
        figures = {name: value / answers for name, value in zip(sums, facts[:, 2:].sum(0).tolist())}
        figures["logprob"] *= answers / tokens  # of a token
        figures["kl"] *= answers / tokens
        figures["mle"] *= answers / max(1, truth_tokens)
        if math.isfinite(grad_norm):
            for optimizer in optimizers:
                scaler.step(optimizer)
            bad = 0
        else:
            skipped += 1
            bad += scaler.get_scale() <= 1  # else a smaller scale will do
        scaler.update()
        step += 1
        lines.append(figures | {"grad_norm": grad_norm})
        recent.append(figures["reward"])
        speed.append((tokens, sampling, waiting, gradients))
        done = progress(settings, step, seconds) >= 1
        last_step = done or stopped_by > 0
        if settings.bad_steps and bad >= settings.bad_steps:
            raise InputError(f"{out_dir}: the gradient of {bad} steps in a row up to step {step} is not finite; a lower scst_learning_rate may help, "
                             "from an earlier checkpoint: --ckpt=FILE --scst_dir=FOLDER")

        if step % settings.log_every == 0 or done:
            interval = time.monotonic() - clock
            means = {name: statistics.fmean(line[name] for line in lines) for name in lines[0]}
            count, *times = (sum(column) for column in zip(*speed))
            times = dict(zip(("seconds_sampling", "seconds_waiting", "seconds_gradients"), times))
            if chief:
                record(step, seconds, means | {"learning_rate": rate, "tokens_per_second": count / interval, "memory_gb": peak_memory(device),
                                               "skipped": skipped} | times)
            bar.set_postfix_str(f"step {step}, reward {means['reward']:.4f}, right {means['right']:.1%}" + trouble(), refresh=False)
            lines.clear()
            speed.clear()
            clock = time.monotonic()
        bar.update(min(1, progress(settings, step, seconds)) - bar.n)

        if step % settings.eval_every == 0 or done:
            before = time.monotonic()
            evaluate()
            clock += time.monotonic() - before
        if (step % settings.save_every == 0 or last_step) and chief:
            checkpoint.save_limited(out_dir, loop_state(), settings.save_limit)
    bar.close()

    if chief and wandb_run:
        wandb_run.finish()
    if chief and done:
        report_best(out_dir, best, by_reward)
    elif chief:
        print(f"stopped by {signal.Signals(stopped_by).name} at step {step}, nothing is lost; "
              f"go on with: python scst.py {out_dir}/config.py --resume", file=sys.stderr)
    return 0 if done else 128 + stopped_by


def question(row, answers, tokenizer):
    """What to ask the judges about a row's hypotheses: about those that have an end."""
    texts = [Text(tuple(answer.ids[:-1]), tokenizer.decode_sqamp(answer.ids, row.fermions)) for answer in answers if answer.finished]
    return Question(row.amp, Text(tuple(row.tgt[:-1]), row.sqamp) if row.tgt else None, texts)


def load_valid(data_dir, tokenizer, limits):
    """The packed validation split; None where there is none with squares."""
    path = Path(data_dir) / "valid.csv"
    if not path.exists() or "sqamp" not in next(read_rows(path, ("amp",)), (0, {}))[1]:
        return None
    return load_split(data_dir, "valid", tokenizer, *limits)


def report_best(out_dir, best, by_reward):
    chosen = f"mean reward {best['reward']:.4f}" if by_reward else f"exact match {best['valid_exact']:.2%} on the validation split"
    print(f"best: {chosen} at step {best['step']}, {out_dir}/best.pt; next: python evaluate.py --ckpt={out_dir}/best.pt")


# ---------------------------------------------------------------------------------------------------------------------
# Sampling, advantage, loss

BASELINES = "leave-one-out", "greedy"


class Target(NamedTuple):
    """What the loss of one target is made of, see `losses_of`."""
    ids: list  # with EOS where it ends
    advantage: float = 0.0  # sum over the answers that are this text
    count: int = 0  # answers that are
    truths: int = 0  # 1: the row's truth


def draw_answers(model, sources, numbers, longest, settings, step):
    """For each source (list of ids) k hypotheses drawn at random; with baseline="greedy" one more, of the most probable tokens.

    The random numbers depend on the seed, the step and the row's number alone: not on ranks, on batches, or on how often the run was resumed.
    """
    src = pad(sources).to(model.tgt_embedding.weight.device)
    k = settings.scst_samples
    uniform = np.zeros((len(numbers), k + (settings.baseline == "greedy"), longest))  # at 0 stands the most probable token
    for place, number in enumerate(numbers):
        uniform[place, :k] = np.random.default_rng([settings.seed, step, number]).random((k, longest))
    return sample(model, src, longest, torch.from_numpy(uniform).to(src.device), settings.temperature, settings.top_k, settings.top_p)


def baselines(rewards, k):
    """What each of k rewards is compared with, (k,): the mean of the others, or, if there is a reward more, that one: the greedy answer's."""
    if len(rewards) > k:
        return np.full(k, rewards[k])
    if rewards.min() == rewards.max():
        return rewards  # to the last digit
    return (rewards.sum() - rewards) / (k - 1)


def advantages(rewards, baseline, normalise=False):
    """Rewards minus baselines; `normalise`: over their root mean square, with leave-one-out as in GRPO (Shao et al. 2024, arXiv 2402.03300)."""
    difference = rewards - baseline
    size = math.sqrt((difference ** 2).mean())
    return difference / size if normalise and size else difference


def lesson_of(answers, advantages, keep=False):
    """Hypotheses of one row -> Targets, each text once. Those that the policy's gradient does not need are left out unless `keep`."""
    targets = {}
    for answer, advantage in zip(answers, advantages):
        ids = tuple(answer.ids)
        before = targets.get(ids, Target(ids))
        targets[ids] = before._replace(advantage=before.advantage + advantage, count=before.count + 1)
    return [target for target in targets.values() if target.advantage or keep]


def batches_of(lessons, batch_tokens):
    """Lessons (src, [Target, ...]) in lists of at most batch_tokens tokens with their padding; a larger lesson is a list of its own."""
    batch, longest_src, longest_tgt, targets = [], 0, 0, 0
    for src, lesson in lessons:
        tgt = max(len(target.ids) for target in lesson)
        size = max(longest_src, len(src)) * (len(batch) + 1) + max(longest_tgt, tgt) * (targets + len(lesson))
        if batch and size > batch_tokens:
            yield batch
            batch, longest_src, longest_tgt, targets = [], 0, 0, 0
        batch.append((src, lesson))
        longest_src, longest_tgt, targets = max(longest_src, len(src)), max(longest_tgt, tgt), targets + len(lesson)
    if batch:
        yield batch


def losses_of(model, start, lessons, settings):
    """
    Three sums over the targets of a batch of lessons (src, [Target, ...]), each a tensor:

    policy          -advantage * log p(ids)
    divergence      count * KL(model || start) of the next token, summed over the tokens; exact over the vocabulary; 0 without `start`
    cross_entropy   -truths * log-probability of ids under the model itself, at temperature 1
    """
    device = model.tgt_embedding.weight.device
    targets = [target for _, lesson in lessons for target in lesson]  # those of the first source first
    src, sources = join_ids([src for src, _ in lessons])  # (N,)
    truth, rows = join_ids([target.ids for target in targets])  # (M,), what was drawn
    tgt, _ = join_ids([[BOS, *target.ids[:-1]] for target in targets])  # (M,), the token before
    queries = pack_rows(torch.tensor([sum(len(target.ids) for target in lesson) for _, lesson in lessons]))
    src, tgt, truth = (ids.to(device) for ids in (src, tgt, truth))
    sources, rows, queries = (to_device(packing, device) for packing in (sources, rows, queries))
    logits = widened(model(src, sources, tgt, rows, queries))  # (M, V)
    own = logits.log_softmax(-1)
    drawn_from = policy_logprobs(logits, truth, settings.temperature, settings.top_k, settings.top_p)

    def total(of_tokens, weights):
        """Sum over the tokens (M,), each times the weight of its target."""
        return (of_tokens * of_tokens.new_tensor(weights)[rows.row]).sum()

    def at_targets(logprobs):
        """(M, V) -> (M,)"""
        return logprobs.gather(-1, truth[:, None])[:, 0]

    policy = total(-at_targets(drawn_from), [target.advantage for target in targets])
    cross_entropy = total(-at_targets(own), [target.truths for target in targets])
    if start is None:
        return policy, policy.new_zeros(()), cross_entropy
    with torch.no_grad():
        before = widened(start(src, sources, tgt, rows, queries)).log_softmax(-1)
    return policy, total((own.exp() * (own - before)).sum(-1), [target.count for target in targets]), cross_entropy


def policy_logprobs(logits, drawn, temperature, top_k, top_p):
    """
    Log-probabilities (..., V) of what generate.draw draws from.

    drawn (...): the tokens that were drawn; they count as candidates, though logits that are rounded otherwise may say they are none.
    """
    if not top_k and top_p == 1:
        return (logits / temperature).log_softmax(-1)
    with torch.no_grad():
        p, order = truncate(logits.log_softmax(-1), temperature, top_k, top_p)
        candidate = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, p > 0).scatter(-1, drawn[..., None], True)
    return (logits / temperature).masked_fill(~candidate, -torch.inf).log_softmax(-1)


def widened(logits):
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


if __name__ == "__main__":
    main_guard(main)
