"""
Self-critical sequence training: the model learns from rewards for answers that it samples itself.

    python scst.py config/quickstart.py [--key=value ...]        from best.pt of out_dir, or from --ckpt=FILE
    python scst.py config/quickstart.py --resume                 go on after a crash, Ctrl-C or preemption
    python scst.py config/quickstart.py --input=FILE.csv --reward=physics         amplitudes without their squares
    python scst.py config/quickstart.py --indices=out/quickstart/train/inc_idx.npy     rows that evaluate.py found wrong
    torchrun --standalone --nproc-per-node=4 scst.py config/qed.py --resume       four processes, a GPU each

A step draws k rollouts y_1 ... y_k for each of its n rows, computes their rewards r (rewards.py), and minimises

    loss = -1 / (n k)  sum over rows and i of  A_i log p(y_i),        advantage A_i = r(y_i) - b_i

with log p(y) summed over the tokens of y, EOS included (Rennie et al. 2016, arXiv 1612.00563, eq. 7). The baseline b_i
is the reward of the greedy answer, as there, or the mean reward of the row's other rollouts (Kool et al. 2019, "Buy 4
REINFORCE samples, get a baseline for free!"). It does not depend on y_i, so the gradient is that of the expected
reward, with less variance. p is the distribution that y was drawn from, with temperature, top_k and top_p. There is no
dropout, neither in sampling nor in the gradients.

A row whose advantages are all 0 has no gradient, with leave-one-out a row whose rollouts all have the same reward;
zero_advantage in the log is the share of such rows. So `truth` or `physics` alone teaches nothing about a row that is
never answered right: `edit` in the reward, mle_weight, more scst_samples or a higher temperature help.

Rows whose amplitude is in valid.csv or test.csv are never learned from: those of train.csv are left out, in another
file they are an error. Writes the same files as train.py, into out_dir/scst (or scst_dir). best.pt is the best on the
validation split; where that has no squares, or --input is learned by a reward that needs none and mle_weight=0, it is
the one with the best mean reward. Settings that train.py has too, such as
max_steps and eval_every, come from the same config.
"""
import os

PARENT = os.getppid()  # before torch, whose import takes seconds in which torchrun may be killed

import contextlib
import math
import signal
import statistics
import sys
import time
from collections import Counter, deque
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see train.py

import numpy as np
import torch
from tqdm import tqdm

from attention import pack_rows
from batches import Batch, choose_rows, join_ids, load_split, pad, to_device
from configurator import check_least, check_sampling, load_settings
from dataset.held_out import has_column, held_out_keys, load_indices, load_rows
from generate import sample, truncate
from model import Transformer, config_of
from physics.particles import parse_masses
from rewards import NEED_TRUTH, RewardWorkers, parse_reward, question_of
from runtime import checkpoint, runs
from runtime.distributed import catch_signals, first_alone, gather, join, leave, quiet, sum_gradients
from runtime.files import InputError, digest, is_same_file, main_guard
from runtime.hardware import find_dtype, peak_memory
from runtime.workers import cores, start_workers
from tokenizer import BOS, Tokenizer
from train import better, learning_rate, load_moments, make_optimizers, progress, validate

SETTINGS = [
    "data_dir", "out_dir", "run_id", "scst_dir", "ckpt", "input", "masses", "indices", "seed", "device", "dtype",
    "workers", "attention", "reward", "baseline", "normalise_advantage", "scst_samples", "scst_max_len",
    "temperature", "top_k", "top_p", "rows_per_step", "batch_rows", "batch_tokens", "mle_weight", "kl_weight",
    "optimizer", "scst_learning_rate", "schedule", "warmup_steps", "weight_decay", "beta1", "beta2", "grad_clip",
    "bad_steps", "max_steps", "max_minutes", "eval_every", "eval_rows", "eval_batch_tokens", "log_every", "save_every",
    "save_limit", "resume", "wandb_mode", "wandb_project",
]
LEAST = {
    "scst_samples": 1, "scst_max_len": 0, "rows_per_step": 1, "batch_rows": 1, "batch_tokens": 1,
    "mle_weight": 0, "kl_weight": 0, "scst_learning_rate": 0, "warmup_steps": 0, "weight_decay": 0, "grad_clip": 0,
    "bad_steps": 0, "max_steps": 1, "max_minutes": 0, "eval_every": 1, "eval_rows": 0, "eval_batch_tokens": 1,
    "log_every": 1, "save_every": 1, "save_limit": 0,
}
BASELINES = "leave-one-out", "greedy"
LOOP_STATE = ("settings", "model", "start", "optimizers", "scaler", "step", "skipped", "bad", "best", "seconds",
              "wandb_id", "lines", "recent")  # what --resume needs


def main(argv=None):
    rank = int(os.environ.get("RANK", 0))
    with quiet(rank > 0):
        settings = load_settings(__doc__, SETTINGS, argv)
    check_least(settings, LEAST)
    check_sampling(settings)
    if settings.baseline not in BASELINES:
        raise InputError(f"baseline: got {settings.baseline!r}, wanted {' or '.join(BASELINES)}")
    if settings.baseline == "leave-one-out" and settings.scst_samples < 2:
        raise InputError("scst_samples: got 1, wanted at least 2: baseline=leave-one-out is the mean of the others")
    weights = parse_reward(settings.reward)
    # from here on out_dir and learning_rate are those of this run
    settings.ckpt = settings.ckpt or f"{settings.out_dir}/best.pt"
    settings.out_dir = settings.scst_dir = settings.scst_dir or f"{settings.out_dir}/scst"
    settings.learning_rate = settings.scst_learning_rate
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    with start_workers(settings.workers or max(1, cores() // ranks_here)) as workers:
        hold = runs.held(settings.out_dir, "scst_dir") if rank == 0 else contextlib.nullcontext()
        with join(settings.device) as world, hold:
            code = train(settings, weights, RewardWorkers(workers, weights), world)
    leave(world, code)
    return code


def train(settings, weights, reward_workers, world):
    """The run of one rank, from its settings to the exit code. weights: {name of a reward: its weight}."""
    device, chief = world.device, world.rank == 0  # only the chief writes files and lines
    dtype = find_dtype(settings.dtype, device)
    out_dir = Path(settings.out_dir)
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    # ---- where to start: a checkpoint of this run, or the weights of another run
    with first_alone(world):  # rank 0 holds the run by now
        state = checkpoint.to_resume(out_dir, settings.resume, "scst_dir")
        resumed = state is not None
        if resumed:
            check_resumable(state, settings)
            theirs = state["settings"]
            settings.ckpt, settings.masses = theirs["ckpt"], settings.masses or theirs.get("masses", "")
            if settings.input in ("", theirs["input"]):  # the rows are those of the run, unless others are named
                settings.input, settings.indices = theirs["input"], settings.indices or theirs.get("indices", "")
        elif not Path(settings.ckpt).exists():
            raise InputError(f"{settings.ckpt}: no such checkpoint; train.py makes it, --ckpt=FILE names another")
        else:
            state = checkpoint.load(settings.ckpt)
            if "settings" not in state:
                raise InputError(f"{settings.ckpt}: has no settings, which name its data and so the rows to hold out")
    begin = state["step"] if resumed else -1
    if (gather(world, torch.tensor(begin)) != begin).any():
        raise InputError(f"{out_dir}: the ranks see different checkpoints; it must be one folder for all machines")
    if resumed and progress(settings, state["step"], state["seconds"]) >= 1:
        if chief:
            print(f"{out_dir}: complete at step {state['step']}, after {state['seconds'] / 60:.1f} min; "
                  "a larger limit would go on")
            report_best(out_dir, state["best"], state["skipped"])
        return 0
    if state["vocabulary"].get("termwise"):
        raise InputError(f"{settings.ckpt}: answers term by term (termwise=True), expected a model that answers with "
                         "the whole square")

    # ---- data
    tokenizer, config = Tokenizer(state["vocabulary"]), config_of(state)
    longest = min(settings.scst_max_len or config.tgt_max_len, config.tgt_max_len - 1)  # rollout, in tokens
    data_dir = Path(settings.data_dir)
    path = Path(settings.input or data_dir / "train.csv")
    labelled = not NEED_TRUTH.isdisjoint(weights) or settings.mle_weight > 0
    indices = load_indices(settings.indices, path) if settings.indices else None
    # the held-out rows of this data set, and of every run that this model comes from
    folders = sorted({settings.data_dir, *state.get("held_out", [state["settings"]["data_dir"]])})
    held_out, skip = held_out_keys(folders), is_same_file(path, data_dir / "train.csv")
    limits = config.src_max_len, longest
    masses = parse_masses(settings.masses)
    rows, left_out = load_rows(path, tokenizer, limits, labelled, indices, held_out, skip, masses)
    files = {str(name): digest(name) for name in filter(None, (path, settings.indices))}
    for name, before in (state.get("files", {}) if resumed else {}).items():
        if files.get(name, before) != before:
            raise InputError(f"{name}: has changed since {out_dir} began; --ckpt={out_dir}/best.pt --scst_dir=FOLDER "
                             "goes on from its weights")
    if labelled and not settings.scst_max_len:
        longest = max(len(row.tgt) for row in rows)
    valid_rows = valid_sample = None
    if has_column(data_dir / "valid.csv", "sqamp"):
        with first_alone(world):  # rank 0 caches for the others
            valid_rows = load_split(data_dir, "valid", tokenizer, config.src_max_len, config.tgt_max_len)
        valid_sample = choose_rows(valid_rows, settings.eval_rows, settings.seed)
    by_reward = not valid_rows or bool(settings.input) and not labelled  # without squares: best.pt has the best reward

    # ---- model and optimizer
    model = Transformer(config, settings.attention).to(device).eval()  # eval: without dropout
    model.load_state_dict(checkpoint.weights(state))
    optimizers, views = make_optimizers(model, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    scaler.scale(torch.zeros((), device=device))  # makes the scale: the first step may have no loss
    reference = None  # the model at the start, which the KL term compares with
    if settings.kl_weight:
        reference = Transformer(config, settings.attention).to(device).eval().requires_grad_(False)
        reference.load_state_dict(state["start"] if resumed else checkpoint.weights(state))

    # ---- state of the loop. There is no random state: random numbers depend on the seed, the step and the row
    step, skipped, bad, best, earlier, wandb_id = 0, 0, 0, None, 0.0, ""
    lines = []  # figures of the steps since the last line of the log
    recent = deque(maxlen=settings.eval_every)  # mean rewards of the last steps
    if resumed:
        load_moments(optimizers, state["optimizers"])
        if state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        step, skipped, bad, best, earlier, wandb_id, lines = (
            state[name] for name in ("step", "skipped", "bad", "best", "seconds", "wandb_id", "lines"))
        recent.extend(state["recent"])
    state = None  # as large as the model and its optimizer
    seconds, started = earlier, time.monotonic() - earlier  # training time, with earlier processes

    def loop_state():
        return {
            "model": model.state_dict(), "ema": None, "start": reference.state_dict() if reference else {},
            "model_config": vars(config), "vocabulary": tokenizer.vocabulary, "settings": vars(settings),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers], "scaler": scaler.state_dict(),
            "step": step, "skipped": skipped, "bad": bad, "best": best, "seconds": seconds, "wandb_id": wandb_id,
            "lines": lines, "recent": list(recent), "held_out": folders, "files": files,
        }

    def evaluate():
        """Log how good the model is now; keep it as best.pt if it is the best so far."""
        nonlocal best
        reward, figures = statistics.fmean(recent) if recent else -math.inf, {}
        message = f"mean reward {reward:.4f}" if recent else "first model"
        if valid_rows:
            with autocast:
                figures, answers = validate(model, valid_rows, *valid_sample, settings.eval_batch_tokens, world)
            figures = {f"valid_{name}": value for name, value in figures.items()}
            message += f", validation loss {figures['valid_loss']:.4f}, exact match {figures['valid_exact']:.2%}"
            if chief:
                texts = [{name: tokenizer.decode_sqamp(ids) for name, ids in answer.items()} for answer in answers]
                record(step, seconds, figures | {"samples": texts})
        if chief:
            bar.write(f"step {step}: {message}, {seconds / 60:.1f} min", file=sys.stderr)
        figures |= {"step": step, "reward": reward, "by_reward": by_reward}
        is_first = best is None or best["by_reward"] != by_reward
        if is_first or (reward > best["reward"] if by_reward else better(figures, best)):
            best = figures
            if chief:
                checkpoint.save(out_dir / "best.pt", loop_state())

    # ---- the run's folder
    if chief:
        wandb_run = runs.start_wandb(settings, wandb_id)
        wandb_id = wandb_run.id if wandb_run else wandb_id
        # config.py is for decoding and evaluating: with this run's own checkpoint, on the test split
        own = SimpleNamespace(**vars(settings) | {"ckpt": "", "input": "", "run_id": ""})
        record = runs.open_log(own, step, wandb_run)
        more = f" ({left_out} more are left out: they are in valid.csv or test.csv)" if left_out else ""
        where = f"{device} on each of {world.size} ranks" if world.size > 1 else f"{device}"
        print(f"{len(rows)} rows of {path}{more}, {settings.rows_per_step} x {settings.scst_samples} rollouts a "
              f"step of at most {longest} tokens, {where}, {str(dtype).removeprefix('torch.')}, from step {step}",
              file=sys.stderr)

    # ---- the loop
    bar = tqdm(total=1, initial=progress(settings, step, seconds), disable=None if chief else True,
               bar_format="{percentage:3.0f}% {bar} {elapsed}, {remaining} left{postfix}")
    asked_to_stop = catch_signals(PARENT)
    done = last_step = False
    clock = time.monotonic()
    if step == 0:
        evaluate()
        started += time.monotonic() - clock  # validating the first model is no training time
    clock, drawn_tokens = time.monotonic(), 0  # since this process wrote a line of the log
    k = settings.scst_samples
    while not last_step:
        # ---- rows of this step: an epoch has every row once, in steps of equal size
        steps_per_epoch = -(-len(rows) // settings.rows_per_step)
        epoch, number = divmod(step, steps_per_epoch)
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(rows)).tolist()
        chosen = order[len(rows) * number // steps_per_epoch:len(rows) * (number + 1) // steps_per_epoch]
        # this rank's rows by length, in groups that are sampled together
        mine = sorted(chosen, key=lambda row: (len(rows[row].src), row))[world.rank::world.size]
        size = max(1, min(settings.batch_rows, -(-len(mine) // 2)))  # two groups at least: one is judged, one sampled
        groups = [mine[first:first + size] for first in range(0, len(mine), size)]

        # ---- rollouts: the workers judge those of a group while those of the next group are drawn
        reward_workers.limit_cache()
        drawn = []  # (rows, rollouts of each row, pending rewards) of each group
        with autocast:
            for group in groups:
                rollouts = draw_rollouts(model, [rows[row].src for row in group], group, longest, settings, step)
                questions = {row: question_of(rows[row], some, tokenizer) for row, some in zip(group, rollouts)}
                drawn.append((group, rollouts, reward_workers.submit(questions)))

        # ---- what the losses are divided by, of all ranks together
        count = len(chosen) * k
        tokens = sum(len(rollout.ids) for _, rollouts, _ in drawn for some in rollouts for rollout in some[:k])
        tokens = int(gather(world, torch.tensor(tokens)).sum())
        truth_tokens = sum(len(rows[row].tgt) for row in chosen) if settings.mle_weight else 1

        # ---- rewards -> advantages -> loss -> gradients, group after group
        rate = learning_rate(settings, step, progress(settings, step, seconds))
        model.zero_grad()
        for optimizer in optimizers:
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
        totals = Counter(dict.fromkeys(["reward", "baseline", *weights, "right", "unfinished", "distinct",
                                        "zero_advantage", "logprob", "kl", "mle"], 0.0))
        for group, rollouts, pending in drawn:
            reward_workers.collect(pending)
            examples = []  # (src, targets) of each row
            for row, some in zip(group, rollouts):
                parts = [reward_workers.rewards_of(row, y.ids[:-1] if y.finished else None) for y in some]
                rewards = np.array([sum(weight * part[name] for name, weight in weights.items()) for part in parts])
                advantage, baseline = advantages(rewards, k, settings.normalise_advantage)  # (k,) each
                some, parts = some[:k], parts[:k]  # without the greedy answer
                targets = merge_rollouts(some, advantage, keep_all=reference is not None)
                if settings.mle_weight:
                    targets.append(Target(rows[row].tgt, is_truth=True))
                if targets:
                    examples.append((rows[row].src, targets))
                right = [y.ids == rows[row].tgt or 1.0 in (part.get("truth"), part.get("physics"))
                         for y, part in zip(some, parts)]
                totals.update({name: sum(part[name] for part in parts) for name in weights})
                totals.update(reward=rewards[:k].sum(), baseline=baseline.sum(), right=sum(right),
                              unfinished=sum(not y.finished for y in some), logprob=sum(y.logprob for y in some),
                              distinct=k * len({tuple(y.ids) for y in some}), zero_advantage=k * (not advantage.any()))
            for batch in micro_batches(examples, settings.batch_tokens):
                with autocast:
                    policy, divergence, cross_entropy = loss_terms(model, reference, batch, settings)
                loss = policy / count
                if reference:
                    loss = loss + divergence * (settings.kl_weight / tokens)
                if settings.mle_weight:
                    loss = loss + cross_entropy * (settings.mle_weight / truth_tokens)
                scaler.scale(loss).backward()
                totals.update(kl=divergence.item(), mle=cross_entropy.item())
        sum_gradients(world, model)
        for view, weight, part in views:  # Muon's views of fused matrices
            view.grad = weight.grad[part]
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip or math.inf).item()

        # ---- every rank knows the same now, and decides the same
        facts = torch.tensor([asked_to_stop(), time.monotonic() - started, *totals.values()], dtype=torch.double)
        facts = gather(world, facts)  # (ranks, ...)
        stopped_by, seconds = int(facts[:, 0].max()), facts[0, 1].item()
        divisors = {"logprob": tokens, "kl": tokens, "mle": truth_tokens}  # the other figures are means over rollouts
        figures = {name: total / divisors.get(name, count) for name, total in zip(totals, facts[:, 2:].sum(0).tolist())}
        if math.isfinite(grad_norm):  # the same on every rank
            for optimizer in optimizers:
                scaler.step(optimizer)
            bad = 0
        else:
            skipped += 1
            bad += scaler.get_scale() <= 1  # above 1 a smaller scale will do
            if chief:
                lines_of_rows = [f"{path}:{line}" for line in sorted(rows[row].line for row in chosen)]
                record(step + 1, seconds, {"event": "skipped", "rows": lines_of_rows})
        scaler.update()
        step += 1
        lines.append(figures | {"grad_norm": grad_norm})
        recent.append(figures["reward"])
        drawn_tokens += tokens
        done = progress(settings, step, seconds) >= 1
        last_step = done or stopped_by > 0
        if settings.bad_steps and bad >= settings.bad_steps:
            raise InputError(f"{out_dir}: the gradient of {bad} steps in a row up to step {step} is not finite; from "
                             "an earlier checkpoint, --ckpt=FILE --scst_dir=FOLDER, a lower learning rate may help")
        trouble = f", {skipped} steps skipped: gradient not finite" if skipped else ""
        if step % settings.log_every == 0 or done:
            interval = time.monotonic() - clock
            means = {name: statistics.fmean(line[name] for line in lines) for name in lines[0]}
            if chief:
                record(step, seconds, means | {
                    "learning_rate": rate, "tokens_per_second": drawn_tokens / interval,
                    "memory_gb": peak_memory(device), "skipped": skipped})
            bar.set_postfix_str(f"step {step}, reward {means['reward']:.4f}, right {means['right']:.1%}{trouble}",
                                refresh=False)
            lines.clear()
            clock, drawn_tokens = time.monotonic(), 0
        bar.update(min(1, progress(settings, step, seconds)) - bar.n)

        if step % settings.eval_every == 0 or done:
            before = time.monotonic()
            evaluate()
            clock += time.monotonic() - before  # tokens/s is that of training alone
        if (step % settings.save_every == 0 or last_step) and chief:
            checkpoint.save_limited(out_dir, loop_state(), settings.save_limit)
    bar.close()

    if chief and wandb_run:
        wandb_run.finish()
    if chief and done:
        report_best(out_dir, best, skipped)
    elif chief:
        print(f"stopped by {signal.Signals(stopped_by).name} at step {step}, nothing is lost; "
              f"go on with: python scst.py {out_dir}/config.py --resume", file=sys.stderr)
    return 0 if done else 128 + stopped_by


# ---------------------------------------------------------------------------------------------------------------------
# Rollouts, advantages, loss

class Target(NamedTuple):
    """A token sequence to learn from, and its weights in the loss: see `loss_terms`."""
    ids: list  # with EOS where it ends
    advantage: float = 0.0  # sum over the rollouts that are this sequence
    count: int = 0  # how many are
    is_truth: bool = False  # the row's own square


def draw_rollouts(model, sources, numbers, longest, settings, step):
    """
    For each source (a list of ids) a list of k Hypothesis, with baseline="greedy" followed by the greedy answer.

    Random numbers depend on the seed, the step and the row's number alone, not on ranks, batches or resumed runs.
    """
    src = pad(sources).to(model.tgt_embedding.weight.device)  # (B, S)
    k = settings.scst_samples
    uniform = np.zeros((len(numbers), k + (settings.baseline == "greedy"), longest))  # 0 draws the most probable token
    for of_row, number in zip(uniform, numbers):
        of_row[:k] = np.random.default_rng([settings.seed, step, number]).random((k, longest))
    uniform = torch.from_numpy(uniform).to(src.device)  # (B, K, T)
    return sample(model, src, longest, uniform, settings.temperature, settings.top_k, settings.top_p)


def advantages(rewards, k, normalise=False):
    """
    Advantages and baselines of a row's k rollouts, (k,) each. rewards: (k,), or (k + 1,) with the greedy answer's last.

    The baseline is the greedy answer's reward, or the mean reward of the other rollouts. normalise: the advantages are
    divided by their root mean square; with leave-one-out that is GRPO's (Shao et al. 2024, arXiv 2402.03300).
    """
    if len(rewards) > k:
        baseline, rewards = np.full(k, rewards[k]), rewards[:k]
    elif rewards.min() == rewards.max():
        baseline = rewards  # exactly, without rounding
    else:
        baseline = (rewards.sum() - rewards) / (k - 1)
    advantage = rewards - baseline
    size = math.sqrt((advantage ** 2).mean())
    return (advantage / size if normalise and size else advantage), baseline


def merge_rollouts(rollouts, advantages, keep_all=False):
    """The rollouts of a row -> Targets, equal ones merged. Without `keep_all` those of advantage 0 are left out."""
    targets = {}
    for rollout, advantage in zip(rollouts, advantages):
        ids = tuple(rollout.ids)
        target = targets.get(ids, Target(ids))
        targets[ids] = target._replace(advantage=target.advantage + advantage, count=target.count + 1)
    return [target for target in targets.values() if target.advantage or keep_all]


def micro_batches(examples, batch_tokens):
    """Lists of examples (src, [Target, ...]) of at most batch_tokens tokens; a larger example is alone in its list."""
    batch, total = [], 0
    for src, targets in examples:
        tokens = len(src) + sum(len(target.ids) for target in targets)
        if batch and total + tokens > batch_tokens:
            yield batch
            batch, total = [], 0
        batch.append((src, targets))
        total += tokens
    if batch:
        yield batch


def loss_terms(model, reference, examples, settings):
    """
    Three sums over the targets of some examples (src, [Target, ...]), each a scalar tensor:

    policy          -advantage * log p(ids), p the distribution that was sampled from
    divergence      count * KL(model || reference) of the next token, exact over the vocabulary, summed over the tokens;
                    0 without `reference`
    cross_entropy   -log-probability of the truth under the model itself, at temperature 1
    """
    device = model.tgt_embedding.weight.device
    targets = [target for _, targets in examples for target in targets]
    src, sources = join_ids([src for src, _ in examples])  # (N,)
    truth, packing = join_ids([target.ids for target in targets])  # (M,)
    tgt, _ = join_ids([[BOS, *target.ids[:-1]] for target in targets])  # (M,), the token before each
    batch = to_device(Batch(src, sources, tgt, truth, packing), device)
    by_source = pack_rows(torch.tensor([sum(len(target.ids) for target in targets) for _, targets in examples]))
    by_source = to_device(by_source, device)

    def logprobs_of(net):
        logits = net(batch.src, batch.sources, batch.tgt, batch.targets, by_source)
        return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))  # (M, V)

    own = logprobs_of(model)
    drawn_from = policy_logprobs(own, batch.truth, settings.temperature, settings.top_k, settings.top_p)
    weights = own.new_tensor([(target.advantage, target.count, target.is_truth) for target in targets])
    advantage, count, is_truth = weights[batch.targets.row].unbind(-1)  # (M,) each
    policy = -(advantage * drawn_from.gather(-1, batch.truth[:, None])[:, 0]).sum()
    cross_entropy = -(is_truth * own.gather(-1, batch.truth[:, None])[:, 0]).sum()
    if reference is None:
        return policy, policy.new_zeros(()), cross_entropy
    with torch.no_grad():
        theirs = logprobs_of(reference)
    return policy, (count * (own.exp() * (own - theirs)).sum(-1)).sum(), cross_entropy


def policy_logprobs(logprobs, drawn, temperature, top_k, top_p):
    """
    Log-probabilities (..., V) of the distribution that generate.draw draws from. logprobs: (..., V), of the model.

    drawn (...): the tokens that were drawn. They count as candidates even where rounding says that they are none.
    """
    if not top_k and top_p == 1:
        return logprobs if temperature == 1 else (logprobs / temperature).log_softmax(-1)
    with torch.no_grad():
        p, order = truncate(logprobs, temperature, top_k, top_p)
        candidate = torch.zeros_like(logprobs, dtype=torch.bool).scatter(-1, order, p > 0)
        candidate = candidate.scatter(-1, drawn[..., None], True)
    return (logprobs / temperature).masked_fill(~candidate, -torch.inf).log_softmax(-1)


def check_resumable(state, settings):
    """InputError if the run cannot go on from this checkpoint with these settings."""
    if "start" not in state:
        raise InputError(f"{settings.out_dir}: holds a run of train.py; name another folder by --scst_dir=")
    missing = [name for name in LOOP_STATE if name not in state]
    if missing:
        raise InputError(f"{settings.out_dir}: the checkpoint has no state of the loop ({', '.join(missing)} missing); "
                         "--ckpt=FILE --scst_dir=FOLDER starts a new run from its weights")
    theirs = state["settings"]
    if settings.reward != theirs["reward"] or settings.kl_weight and not state["start"]:
        raise InputError(f"{settings.out_dir}: began with --reward=\"{theirs['reward']}\" --kl_weight="
                         f"{theirs['kl_weight']}; a run with other ones is a new one, --scst_dir=FOLDER")


def report_best(out_dir, best, skipped):
    chosen = f"mean reward {best['reward']:.4f}"
    if not best["by_reward"]:
        chosen = f"exact match {best['valid_exact']:.2%} on the validation split"
    print(f"best: {chosen} at step {best['step']}, {out_dir}/best.pt; "
          f"next: python evaluate.py --ckpt={out_dir}/best.pt")
    if skipped:
        print(f"{skipped} steps were skipped, as the gradient was not finite; {out_dir}/log.jsonl names their rows")


if __name__ == "__main__":
    main_guard(main)
