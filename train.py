"""
Train the transformer on a data set that prepare.py made.

    python train.py config/quickstart.py [--key=value ...]
    python train.py config/quickstart.py --resume         go on after a crash, Ctrl-C or a preempted job (a new run where there is none)
    torchrun --standalone --nproc-per-node=4 train.py config/qed.py --resume       the same on four GPUs, or four CPU processes
    python train.py --list                                all runs: step, best validation, age
    python train.py --plot="out/qed out/qed/lr3"          their curves, drawn into out/qed/plot.png

Reads train.csv and valid.csv of data_dir. Writes into out_dir: config.py (the settings), log.jsonl (a JSON object a line),
best.pt (best exact match on the validation split), last.pt and ckpt_STEP.pt (the whole state of the loop, for --resume).
Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint first. On CPUs a resumed run is bit for bit the run that was not interrupted, unless
max_minutes ties its schedule to the clock. On GPUs the state it goes on from is, but kernels there, such as the backward pass of
attention, may add in another order each time: the runs agree up to rounding.
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
from dataclasses import asdict
from pathlib import Path

# Before torch loads OpenMP: its threads spin for milliseconds at each barrier, and when another program wants a core, a
# step takes 10 times as long as it should. Spinning for microseconds costs nothing on an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from batches import collate, length_batches, lengths, load_split, validation_batches
from configurator import check_least, load_settings
from generate import greedy
from model import ARCHITECTURE, ModelConfig, Transformer
from runtime import checkpoint, runs
from runtime.distributed import catch_signals, first_alone, gather, join, leave, quiet
from runtime.files import InputError, main_guard
from runtime.hardware import find_dtype, peak_flops, peak_memory, training_flops
from tokenizer import PAD, Tokenizer, build_vocabulary, join_vocabulary

SETTINGS = [
    "data_dir", "out_dir", "run_id", "seed", "device", "dtype", "compile", "src_max_len", "tgt_max_len", "rename_particles", "termwise",
    *ARCHITECTURE, "dropout", "attention", "checkpoint_layers", "batch_tokens", "accumulate", "optimizer", "learning_rate", "schedule",
    "warmup_steps", "weight_decay", "beta1", "beta2", "grad_clip", "label_smoothing", "ema", "loss_spike", "bad_steps", "max_rollbacks",
    "max_steps", "max_minutes",
    "eval_every", "eval_rows", "log_every", "save_every", "save_limit", "resume", "resume_best", "init_from", "wandb_mode",
    "wandb_project", "list", "plot", "output",
]
LEAST = {
    "seed": 0, "batch_tokens": 1, "accumulate": 1, "learning_rate": 0, "warmup_steps": 0, "weight_decay": 0, "grad_clip": 0,
    "label_smoothing": 0, "ema": 0, "loss_spike": 0, "bad_steps": 0, "max_rollbacks": 0, "max_steps": 1, "max_minutes": 0,
    "eval_every": 1, "eval_rows": 0, "log_every": 1, "save_every": 1, "save_limit": 0,
}
RECENT = 100        # steps whose losses give the running median
LEAST_SPIKE = 0.1   # nats a token: the median counts as this much at least, so that a hard batch late in training is no spike


def main(argv=None):
    rank = int(os.environ.get("RANK", 0))
    looking = any(word.startswith(("--list", "--plot")) for word in (sys.argv[1:] if argv is None else argv))
    with quiet(rank > 0 or looking):
        settings = load_settings(__doc__, SETTINGS, argv)
    if settings.list:
        return runs.list_runs("out" if settings.out_dir == "out/default" else settings.out_dir)
    if settings.plot:
        output = settings.output or f"{settings.plot.split()[0]}/plot.png"
        runs.plot(settings.plot.split(), output)
        print(output)
        return 0
    check_least(settings, LEAST)
    for name in ("label_smoothing", "ema"):
        if getattr(settings, name) >= 1:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted less than 1")
    if settings.schedule not in SCHEDULES:
        raise InputError(f"schedule: got {settings.schedule!r}, wanted {', '.join(SCHEDULES)}")
    with join(settings.device) as world, runs.held(settings.out_dir) if rank == 0 else contextlib.nullcontext():
        code = train(settings, world)
    leave(world, code)
    return code


def train(settings, world):
    """The run of one rank, from its settings to the exit code."""
    device, chief = world.device, world.rank == 0  # the chief writes all there is to write
    dtype = find_dtype(settings.dtype, device)
    out_dir = Path(settings.out_dir)
    torch.manual_seed(settings.seed + world.rank)  # dropout differs between ranks; the first weights are those of rank 0

    # ---- where to start: a checkpoint of this run, the weights of another run, or random weights
    resume = settings.resume or settings.resume_best
    with first_alone(world):  # rank 0 holds the run by now
        if not resume and checkpoint.holds_run(out_dir):
            raise InputError(f"{out_dir}: holds a run already; go on with it by --resume, or name another folder by --out_dir=")
        state = None
        if settings.resume_best:
            state = checkpoint.load(out_dir / "best.pt")
        elif settings.resume:
            state = checkpoint.load_newest(out_dir)
        resumed = state is not None
        if not resumed and settings.init_from:
            state = checkpoint.load(settings.init_from)
    begin = state["step"] if resumed else -1
    if (gather(world, torch.tensor(begin)) != begin).any():
        raise InputError(f"{out_dir}: the ranks see different checkpoints there; it must be one folder for all machines")
    if resumed:
        if "rng" not in state:
            raise InputError(f"{out_dir}: holds a run of scst.py; name another folder by --out_dir=")
        if state["version"] != checkpoint.VERSION:
            raise InputError(f"{out_dir}: checkpoint version {state['version']} cannot be resumed; --init_from= takes its weights")
        if progress(settings, state["step"], state["seconds"]) >= 1:
            if chief:
                print(f"{out_dir}: complete at step {state['step']}, after {state['seconds'] / 60:.1f} min; a larger limit would go on")
                runs.report_best(out_dir, state["best"])
            return 0

    # ---- data
    if state:
        theirs = vars(ModelConfig(**state["model_config"])) | {"termwise": state["vocabulary"].get("termwise", False)}  # older ones lack some
        tables = ["src_max_len", "tgt_max_len"] if settings.positions == "learned" else []
        for name in ["termwise", *ARCHITECTURE, *tables]:
            if getattr(settings, name) != theirs[name]:
                raise InputError(f"{name}: {getattr(settings, name)} in the settings, {theirs[name]} in the checkpoint to go on from; "
                                 "these must agree")
    with first_alone(world):  # who caches it for the others
        train_csv = Path(settings.data_dir) / "train.csv"
        vocabulary = state["vocabulary"] if state else build_vocabulary(train_csv, settings.rename_particles, settings.termwise)
        if settings.embeddings == "shared" and not state:
            vocabulary = join_vocabulary(vocabulary)
        tokenizer = Tokenizer(vocabulary)
        limits = settings.src_max_len, settings.tgt_max_len
        train_rows = load_split(settings.data_dir, "train", tokenizer, *limits)
        valid_rows = load_split(settings.data_dir, "valid", tokenizer, *limits)
    valid_batches = validation_batches(valid_rows, settings)

    # ---- model and optimizer
    sizes = {name: getattr(settings, name) for name in [*ARCHITECTURE, "dropout", "src_max_len", "tgt_max_len"]}
    config = ModelConfig(len(tokenizer.vocabulary["src"]), len(tokenizer.vocabulary["tgt"]), **sizes)
    # what checkpoints hold; `net` is the same weights in the wrappers of training
    model = Transformer(config, settings.attention, settings.checkpoint_layers).to(device)
    if state:
        model.load_state_dict(state["model"] if resumed else checkpoint.weights(state))
    optimizers = make_optimizers(model, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    net = model
    if world.size > 1:
        net = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True)
    if settings.compile:
        net = torch.compile(net, dynamic=True)
    average = {name: weight.clone() for name, weight in model.state_dict().items()} if settings.ema else None

    def loss_of(rows):
        """Loss summed over the target tokens of these training rows, a tensor."""
        src, tgt = (side.to(device) for side in collate(train_rows, rows))  # (B, S), (B, T)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return loss_sum(net(src, tgt[:, :-1]), tgt[:, 1:], settings.label_smoothing)

    # ---- state of the loop: loop_state and restore list the same things
    step, epoch, batch, skipped, bad, rollbacks, best, earlier = 0, 0, 0, 0, 0, 0, None, 0.0
    recent, losses, wandb_id = deque(maxlen=RECENT), [], ""  # losses of the good steps since the last line of the log

    def restore(state):
        nonlocal step, epoch, batch, skipped, bad, rollbacks, best, earlier, wandb_id
        model.load_state_dict(state["model"])
        load_moments(optimizers, state["optimizers"])
        if average is not None:
            for name, weight in (state["ema"] or state["model"]).items():
                average[name].copy_(weight)
        if state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        if world.rank < len(state["rng"]["cpu"]):  # resumed with more ranks: the new ones draw from their own seed
            torch.set_rng_state(state["rng"]["cpu"][world.rank].clone())  # it misreads a view
            if device.type == "cuda" and "cuda" in state["rng"]:
                torch.cuda.set_rng_state(state["rng"]["cuda"][world.rank].clone(), device)
        step, epoch, batch, skipped, bad, rollbacks, best, earlier, wandb_id = (
            state[name] for name in ("step", "epoch", "batch", "skipped", "bad", "rollbacks", "best", "seconds", "wandb_id"))
        recent.clear()
        recent.extend(state["recent"])
        losses[:] = state.get("losses", [])  # older checkpoints lack them

    def loop_state():
        """All ranks must call it together: it asks each for its random state."""
        rng = {"cpu": gather(world, torch.get_rng_state())}  # (ranks, bytes)
        if device.type == "cuda":
            rng["cuda"] = gather(world, torch.cuda.get_rng_state(device))
        return {
            "model": model.state_dict(), "ema": average, "model_config": asdict(config), "vocabulary": tokenizer.vocabulary,
            "settings": vars(settings), "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "scaler": scaler.state_dict(), "rng": rng, "step": step, "epoch": epoch, "batch": batch, "skipped": skipped, "bad": bad,
            "rollbacks": rollbacks, "recent": list(recent), "losses": losses, "best": best, "seconds": seconds, "wandb_id": wandb_id,
        }

    def save():
        """last.pt and ckpt_STEP.pt, of all ranks together."""
        state = loop_state()
        if chief:
            checkpoint.save_limited(out_dir, state, settings.save_limit)

    if world.size > 1:
        # DDP sorts the gradients into buckets anew after its first step, and three or more ranks add a bucket in an order that
        # depends on it. A step for nothing, so that the first step of a resumed run has the buckets of the run before. Taken with
        # the longest rows, it also finds out now whether the memory suffices.
        longest = max(length_batches(train_rows, settings.batch_tokens, None), key=lambda rows: lengths(train_rows, rows).sum(0).max())
        (loss_of(longest) * 0).backward()
        model.zero_grad()
    if resumed:
        restore(state)
    state = None  # as large as the model and its optimizer
    seconds, started = earlier, time.monotonic() - earlier  # training time of the run, that of its earlier processes included

    # ---- the run's folder
    if chief:
        wandb_run = runs.start_wandb(settings, wandb_id)
        wandb_id = wandb_run.id if wandb_run else wandb_id
    if settings.resume_best:
        save()  # the later checkpoints are given up now, so that no --resume goes back to them
    if chief:
        record = runs.open_log(settings, step, wandb_run)
        parameters = sum(weight.numel() for weight in model.parameters())
        print(f"{len(train_rows.src_start) - 1} training rows, {len(valid_rows.src_start) - 1} validation rows, "
              f"{parameters / 1e6:.2f} M parameters, {device}" + f" on each of {world.size} ranks" * (world.size > 1)
              + f", {str(dtype).removeprefix('torch.')}, from step {step}", file=sys.stderr)

    # ---- the loop
    batches = length_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
    bar = tqdm(total=1, initial=progress(settings, step, seconds), disable=None if chief else True,  # None: off where stderr is no terminal
               bar_format="{percentage:3.0f}% {bar} {elapsed}, {remaining} left{postfix}")
    tokens, flops, clock = 0, 0.0, time.monotonic()  # since this process wrote a line of the log
    asked_to_stop = catch_signals(PARENT)
    done = last_step = False
    model.train()
    while not last_step:
        # ---- gradients: of a sum over all target tokens of this step, on whichever rank and in whichever micro-batch they are
        micro_batches = []  # of all ranks, row numbers each
        while len(micro_batches) < world.size * settings.accumulate:
            if batch >= len(batches):
                epoch, batch = epoch + 1, 0
                batches = length_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
            micro_batches.append(batches[batch])
            batch += 1
        src_lengths, tgt_lengths = lengths(train_rows, np.concatenate(micro_batches))  # (rows,) each
        targets = int(tgt_lengths.sum())
        rate = 0.5 ** rollbacks * learning_rate(settings, step, progress(settings, step, seconds))
        for optimizer in optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = torch.zeros((), device=device)
        mine = micro_batches[world.rank::world.size]
        for rows in mine:
            wait = world.size > 1 and rows is not mine[-1]  # the ranks exchange their gradients once, with the last micro-batch
            with net.no_sync() if wait else contextlib.nullcontext():
                part = loss_of(rows)
                scaler.scale(part * (world.size / targets)).backward()  # DDP will divide by world.size
            loss += part.detach() / targets
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip or math.inf)

        # ---- every rank knows the same now, and decides the same
        facts = [loss.item(), grad_norm.item(), asked_to_stop(), time.monotonic() - started]
        facts = gather(world, torch.tensor(facts, dtype=torch.double))  # (ranks, 4)
        loss, grad_norm = facts[:, 0].sum().item(), facts[:, 1].max().item()
        stopped_by, seconds = int(facts[:, 2].max()), facts[0, 3].item()
        usual = max(LEAST_SPIKE, statistics.median(recent)) if len(recent) >= RECENT // 5 else math.inf
        spike = settings.loss_spike and loss > settings.loss_spike * usual
        if math.isfinite(loss) and math.isfinite(grad_norm) and not spike:
            for optimizer in optimizers:
                scaler.step(optimizer)
            if average is not None:
                update_average(average, model, settings.ema, step)
            recent.append(loss)
            losses.append(loss)
            bad = 0
        else:
            skipped += 1
            overflow = math.isfinite(loss) and not math.isfinite(grad_norm) and scaler.get_scale() > 1  # a smaller scale will do
            bad += not overflow
        scaler.update()
        step += 1
        tokens += int(src_lengths.sum()) + targets
        flops += training_flops(config, src_lengths, tgt_lengths)
        done = progress(settings, step, seconds) >= 1
        last_step = done or stopped_by > 0

        # ---- too many bad steps: a checkpoint to look into, back to the last good one, and on from there more slowly
        if settings.bad_steps and bad >= settings.bad_steps:
            emergency = loop_state()
            with first_alone(world):
                good = checkpoint.load_newest(out_dir) if rollbacks < settings.max_rollbacks else None
                if chief:
                    checkpoint.save(out_dir / f"emergency_{step}.pt", emergency)
                    record(step, seconds, {"event": f"{bad} bad steps in a row", "back_to": good["step"] if good else None})
            if good is None:
                raise InputError(f"{out_dir}: {bad} steps in a row skipped up to step {step} (loss {loss:.4g}, norm of the gradient "
                                 f"{grad_norm:.4g}) after {rollbacks} of {settings.max_rollbacks} returns to an earlier checkpoint; "
                                 f"emergency_{step}.pt has the state; a lower learning_rate or a longer warm-up may help")
            kept = rollbacks + 1, best, skipped, wandb_id
            restore(good)
            rollbacks, best, skipped, wandb_id = kept
            bad, done, last_step = 0, False, stopped_by > 0
            save()  # a process that is killed before its next checkpoint went back all the same
            batches = length_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
            if chief:
                bar.write(f"{settings.bad_steps} bad steps in a row: back to step {step}, learning rate times {0.5 ** rollbacks}",
                          file=sys.stderr)
            continue

        trouble = f", {skipped} steps skipped: gradient not finite or loss a spike" * bool(skipped)
        if step % settings.log_every == 0 or done:
            interval = time.monotonic() - clock
            peak = peak_flops(device, dtype)
            figures = {"loss": statistics.fmean(losses) if losses else math.nan, "learning_rate": rate, "grad_norm": grad_norm,
                       "tokens_per_second": tokens / interval, "mfu": flops / interval / (world.size * peak) if peak else None,
                       "memory_gb": peak_memory(device), "skipped": skipped}
            if chief:
                record(step, seconds, figures)
            bar.set_postfix_str(f"step {step}, loss {figures['loss']:.4f}, {tokens / interval:,.0f} tokens/s" + trouble, refresh=False)
            losses.clear()
            tokens, flops, clock = 0, 0.0, time.monotonic()
        bar.update(min(1, progress(settings, step, seconds)) - bar.n)

        if step % settings.eval_every == 0 or done:
            before = time.monotonic()
            with weights_of(model, average), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                figures, samples = validate(model, valid_rows, valid_batches, world)
            clock += time.monotonic() - before  # tokens/s is that of training alone
            if chief:
                texts = [{name: tokenizer.decode_sqamp(ids) for name, ids in sample.items()} for sample in samples]
                record(step, seconds, figures | {"samples": texts})
                bar.write(f"step {step}: validation loss {figures['valid_loss']:.4f}, exact match {figures['valid_exact']:.2%}, "
                          f"{seconds / 60:.1f} min" + trouble, file=sys.stderr)
            if math.isfinite(figures["valid_loss"]) and (best is None or better(figures, best)):
                best = figures | {"step": step}
                state = loop_state()
                if chief:
                    checkpoint.save(out_dir / "best.pt", state)
        if (step % settings.save_every == 0 or last_step) and (done or not bad):  # amid bad steps the last good one stays the last
            save()
    bar.close()

    if chief and wandb_run:
        wandb_run.finish()
    if chief and done:
        runs.report_best(out_dir, best)
    elif chief:
        print(f"stopped by {signal.Signals(stopped_by).name} at step {step}, nothing is lost; "
              f"go on with: python train.py {out_dir}/config.py --resume", file=sys.stderr)
    return 0 if done else 128 + stopped_by


# ---------------------------------------------------------------------------------------------------------------------
# Loss and validation

SAMPLES = 2  # validation rows whose answers are logged


def loss_sum(logits, target, smoothing=0.0):
    """Cross-entropy summed over the target tokens. logits: (B, T, V); target: (B, T), padded with PAD, which counts nothing."""
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="sum", label_smoothing=smoothing)


@torch.inference_mode()
def validate(model, packed, batches, world):
    """
    {"valid_loss": teacher-forced loss per target token, "valid_exact": share of the rows that greedy decoding gets right}, and
    some answers as [{"sqamp": ids, "prediction": ids}]. The ranks share the batches; the figures do not depend on how many they are.
    Termwise an answer is one term, and a row is right if all its terms are. batches: of all samples of the rows to look at.
    """
    model.eval()
    table, answered = torch.zeros(len(batches), 2, dtype=torch.double), []
    wrong = torch.zeros(len(packed.src_start) - 1)  # samples of each row
    for number in range(world.rank, len(batches), world.size):
        batch = batches[number]
        src, tgt = (side.to(world.device) for side in collate(packed, batch))
        loss = loss_sum(model(src, tgt[:, :-1]), tgt[:, 1:]).item()
        # what is longer than the longest target is wrong anyway
        answers = [answer.ids for answer in greedy(model, src, max_len=tgt.shape[1] - 1, first=tgt[:, 0])]
        truths = [packed.tgt[packed.tgt_start[sample]:packed.tgt_start[sample + 1]].tolist() for sample in batch]
        table[number] = torch.tensor([loss, sum(map(len, truths))], dtype=torch.double)
        for row, truth, answer in zip(packed.row[batch], truths, answers):
            wrong[row] += truth != answer
        answered += [{"sqamp": truth, "prediction": answer} for truth, answer in zip(truths, answers)][:SAMPLES - len(answered)]
    model.train()
    table = gather(world, table).sum(0)  # a line is one rank's and zero on the others: no rounding
    loss, tokens = (math.fsum(column) for column in table.T.tolist())
    rows = np.unique(packed.row[np.concatenate(batches)])
    exact = (gather(world, wrong).sum(0)[rows] == 0).double().mean().item()
    return {"valid_loss": loss / tokens, "valid_exact": exact}, answered


def better(figures, best):
    """More exact matches; among equals the lower loss."""
    return (figures["valid_exact"], -figures["valid_loss"]) > (best["valid_exact"], -best["valid_loss"])


# ---------------------------------------------------------------------------------------------------------------------
# Optimiser, learning rate, moving average

SCHEDULES = "cosine", "linear", "constant", "one-cycle"


def make_optimizers(model, settings):
    """
    A list of optimisers that share one learning rate; weight decay is for matrices only, not for biases and norms.

    "adamw": Loshchilov & Hutter, arXiv 1711.05101. "muon": Jordan et al. 2024 (kellerjordan.github.io/posts/muon) for the
    matrices inside the layers, each step orthogonalised by five Newton-Schulz iterations and scaled to the size of AdamW's
    (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that learning_rate means the same; embeddings, head and vectors stay with AdamW.
    """
    if settings.optimizer not in ("adamw", "muon"):
        raise InputError(f"optimizer: got {settings.optimizer!r}, wanted adamw or muon")
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    optimizers = []
    if settings.optimizer == "muon":
        inside = [weight for part in (model.encoder, model.decoder) for weight in part.parameters() if weight.dim() == 2]
        optimizers.append(torch.optim.Muon(inside, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"))
        orthogonalised = set(map(id, inside))
        matrices = [weight for weight in matrices if id(weight) not in orthogonalised]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    try:
        optimizers.append(torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=True))
    except ValueError as error:
        raise InputError(f"beta1, beta2: {error}") from None
    return optimizers


def load_moments(optimizers, states):
    """The moments are those of the checkpoint, the hyper-parameters today's settings."""
    if len(states) != len(optimizers):
        raise InputError("optimizer: the checkpoint to go on from was made by the other one; these must agree")
    for optimizer, state in zip(optimizers, states):
        optimizer.load_state_dict({"state": state["state"], "param_groups": optimizer.state_dict()["param_groups"]})


def progress(settings, step, seconds):
    """How much of the run is done, 0..1: by steps, or by the clock if that is further on."""
    by_clock = seconds / (60 * settings.max_minutes) if settings.max_minutes else 0.0
    return max(step / settings.max_steps, by_clock)


def learning_rate(settings, step, progress):
    """
    Rate of a step. progress: how much of the run is done, 0..1, by steps or by the clock.

    Linear warm-up, times: half a cosine down to 0 (Loshchilov & Hutter, arXiv 1608.03983); a line down to 0; or 1. "one-cycle" (Smith
    & Topin, arXiv 1708.07120; Smith, arXiv 1803.09820) is its own warm-up: a line from a tenth up to the peak at 45%, down again
    until 90%, and from there to 0.
    """
    p = min(1.0, progress)
    if settings.schedule == "one-cycle":
        if p > 0.9:
            return settings.learning_rate * (1 - p)  # from 0.1 to 0
        return settings.learning_rate * (1 - 0.9 * abs(p - 0.45) / 0.45)
    decay = {"cosine": 0.5 * (1 + math.cos(math.pi * p)), "linear": 1 - p, "constant": 1.0}[settings.schedule]
    return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps)) * decay


def update_average(average, model, decay, updates):
    """
    Exponential moving average of the weights, in place: average = d average + (1 - d) weights.

    average: tensors by name, as in model.state_dict(). d grows to `decay` over the first updates, (1 + n) / (10 + n), so that the
    random weights are forgotten.
    """
    d = min(decay, (1 + updates) / (10 + updates))
    weights = model.state_dict()
    torch._foreach_lerp_([average[name] for name in weights], list(weights.values()), 1 - d)


@contextlib.contextmanager
def weights_of(model, average):
    """Within the block the model has the averaged weights; None: its own."""
    if average is None:
        yield
        return
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(average)
    try:
        yield
    finally:
        model.load_state_dict(own)


if __name__ == "__main__":
    main_guard(main)
