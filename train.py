"""
Train the transformer on a data set that prepare.py made.

    python train.py config/quickstart.py [--key=value ...]
    python train.py config/quickstart.py --resume    go on after a crash or Ctrl-C; a new run if there is none
    torchrun --standalone --nproc-per-node=4 train.py config/qed.py --resume    four GPUs, or four CPU processes
    python train.py --list                           all runs: step, best validation, age
    python train.py --plot="out/qed out/qed/lr3"     their curves, drawn into out/qed/plot.png

Reads train.csv and valid.csv of data_dir. Writes into out_dir: config.py (the settings), log.jsonl (a JSON object a
line), best.pt (best exact match on the validation split), last.pt and ckpt_STEP.pt (the whole state of the loop, for
--resume). Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint first. On CPUs a resumed run is bit for bit the run that was
not interrupted, unless max_minutes ties its schedule to the clock. On GPUs the state it resumes from is, but kernels
there, such as the backward pass of attention, may add in another order each time: the runs agree up to rounding.

Every batch is a fair sample of the data: rows of all lengths and kinds, packed end to end. A step that goes wrong is
skipped (see loss_spike in config/default.py); its rows come back at once in other batches, and no row is skipped as a
spike twice in a row.
"""
import os

PARENT = os.getppid()  # before torch, whose import takes seconds in which torchrun may be killed

import contextlib
import math
import signal
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path

# Before torch loads OpenMP: its threads spin for milliseconds at each barrier, and when another program wants a core, a
# step takes 10 times as long as it should. Spinning for microseconds costs nothing on an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils._triton import has_triton
from tqdm import tqdm

from attention import packs_rows
from batches import (
    choose_rows,
    collate,
    cut,
    deal_anew,
    lengths,
    load_split,
    longest_batch,
    mixed_batches,
    pad,
    padded_batches,
    room_for,
    samples_of,
    to_device,
)
from configurator import check_least, load_settings
from dataset.reader import file_names
from dataset.vocabulary import SETTINGS as VOCABULARY
from dataset.vocabulary import build_vocabulary, draw_index_names, index_tokens, join_vocabulary
from generate import greedy
from model import ARCHITECTURE, ModelConfig, Transformer, compile_model, config_of
from runtime import checkpoint, runs
from runtime.distributed import catch_signals, first_alone, gather, join, leave, quiet
from runtime.files import InputError, digest, main_guard
from runtime.hardware import find_dtype, peak_flops, peak_memory, read_later, training_flops
from runtime.report import never_learned, power_of_two_bin, report
from tokenizer import PAD, SCHEME, Tokenizer, scheme_of

SETTINGS = [
    "data_dir", "out_dir", "run_id", "seed", "device", "dtype", "compile", "src_max_len", "tgt_max_len",
    *VOCABULARY, *ARCHITECTURE, "dropout", "attention", "checkpoint_layers", "batch_tokens", "accumulate",
    "batch_ramp", "optimizer", "learning_rate", "schedule", "warmup_steps", "weight_decay", "beta1", "beta2",
    "grad_clip", "label_smoothing", "ema", "loss_spike", "bad_steps", "max_rollbacks", "max_steps", "max_minutes",
    "draw_indices", "eval_every", "eval_rows", "eval_train_rows", "eval_batch_tokens", "log_every", "save_every",
    "save_limit", "resume", "resume_best", "new_data", "init_from", "wandb_mode", "wandb_project", "list", "plot",
    "output",
]
LEAST = {
    "batch_tokens": 1, "accumulate": 1, "learning_rate": 0, "warmup_steps": 0, "weight_decay": 0,
    "grad_clip": 0, "label_smoothing": 0, "ema": 0, "batch_ramp": 0, "loss_spike": 0, "bad_steps": 0,
    "max_rollbacks": 0, "max_steps": 1, "max_minutes": 0, "eval_every": 1, "eval_rows": 0, "eval_train_rows": 0,
    "eval_batch_tokens": 1, "log_every": 1, "save_every": 1, "save_limit": 0, "legs": 0,
}
MOST_LEGS = 9  # an invariant such as s_12 has a digit for each leg
FLOOR = 0.1  # nats a token: the expected loss of a step counts as this much at least, so that one hard row is no spike
MEMORY = 0.9  # of a kind's expected loss, each time the kind comes
LONG_RUN = 1000, 3  # steps, minutes: from there on compiling pays
SAMPLES = 2  # validation rows whose answers are logged


def main(argv=None):
    rank = int(os.environ.get("RANK", 0))
    looking = any(word.startswith(("--list", "--plot")) for word in (sys.argv[1:] if argv is None else argv))
    with quiet(rank > 0 or looking):
        settings = load_settings(__doc__, SETTINGS, argv)
    if settings.list:
        return runs.list_runs("out" if settings.out_dir == "out/default" else settings.out_dir)
    if settings.plot.strip():
        output = settings.output or f"{file_names(settings.plot)[0]}/plot.png"
        runs.plot(file_names(settings.plot), output)
        print(output)
        return 0
    check_least(settings, LEAST)
    for name in ("label_smoothing", "ema", "batch_ramp"):
        if getattr(settings, name) >= 1:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted less than 1")
    if settings.legs > MOST_LEGS:
        raise InputError(f"legs: got {settings.legs}, wanted at most {MOST_LEGS}")
    with join(settings.device) as world, runs.held(settings.out_dir) if rank == 0 else contextlib.nullcontext():
        code = train(settings, world)
    leave(world, code)
    return code


def train(settings, world):
    """The run of one rank, from its settings to the exit code."""
    device, chief = world.device, world.rank == 0  # only the chief writes files and lines
    dtype = find_dtype(settings.dtype, device)
    out_dir = Path(settings.out_dir)
    train_csv = Path(settings.data_dir) / "train.csv"
    torch.manual_seed(settings.seed + world.rank)  # dropout differs between ranks; all start from the weights of rank 0
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    # ---- where to start: a checkpoint of this run, the weights of another run, or random weights
    with first_alone(world):  # rank 0 holds the run by now
        if settings.resume_best:
            state = checkpoint.load(out_dir / "best.pt")
        else:
            state = checkpoint.to_resume(out_dir, settings.resume)
        resumed = state is not None
        if not resumed and settings.init_from:
            state = checkpoint.load(settings.init_from)
    begin = state["step"] if resumed else -1
    if (gather(world, torch.tensor(begin)) != begin).any():
        raise InputError(f"{out_dir}: the ranks see different checkpoints there; "
                         "it must be one folder for all machines")
    if resumed:
        checkpoint.check_resumable(state, out_dir)
        same_data = state["train_sha256"] == digest(train_csv)
        if progress(settings, state["step"], state["seconds"]) >= 1:
            if chief:
                print(f"{out_dir}: complete at step {state['step']}, after {state['seconds'] / 60:.1f} min; "
                      "a larger limit would go on")
                report(out_dir, state["best"], train_csv, state["skipped"], state["skipped_lines"] if same_data else {})
            return 0
        if not same_data and not settings.new_data:
            raise InputError(f"{train_csv}: has changed since {out_dir} began; --resume --new_data goes on with the "
                             f"new rows, --init_from={out_dir}/best.pt --out_dir=FOLDER starts a new run from its "
                             "weights")

    # ---- data
    if not train_csv.exists():
        raise InputError(f"{train_csv}: no such file; python prepare.py with the same config or --data_dir makes it")
    if state:
        theirs = vars(config_of(state)) | scheme_of(state["vocabulary"])
        theirs |= {name: state["settings"].get(name, getattr(settings, name)) for name in ("legs", "closed_vocabulary")}
        tables = ["src_max_len", "tgt_max_len"] if settings.positions == "learned" else []
        for name in [*SCHEME, "legs", "closed_vocabulary", *ARCHITECTURE, *tables]:
            if getattr(settings, name) != theirs[name]:
                raise InputError(f"{name}: {getattr(settings, name)} in the settings, {theirs[name]} in the checkpoint "
                                 "to go on from; these must agree")
    with first_alone(world):  # rank 0 caches for the others
        if state:
            vocabulary = state["vocabulary"]
        else:
            vocabulary = build_vocabulary(train_csv, **{name: getattr(settings, name) for name in VOCABULARY})
            if settings.embeddings == "shared":
                vocabulary = join_vocabulary(vocabulary)
        tokenizer = Tokenizer(vocabulary)
        limits = settings.src_max_len, settings.tgt_max_len
        train_rows = load_split(settings.data_dir, "train", tokenizer, *limits)
        valid_rows = load_split(settings.data_dir, "valid", tokenizer, *limits)
    kinds = len(train_rows.kinds)
    indices = index_tokens(tokenizer.vocabulary["src"]) if settings.draw_indices else None
    valid_sample = choose_rows(valid_rows, settings.eval_rows, settings.seed)
    train_sample = None
    if settings.eval_train_rows:
        train_sample = choose_rows(train_rows, settings.eval_train_rows, settings.seed)

    # ---- model and optimizer
    sizes = {name: getattr(settings, name) for name in [*ARCHITECTURE, "dropout", "src_max_len", "tgt_max_len"]}
    config = ModelConfig(len(tokenizer.vocabulary["src"]), len(tokenizer.vocabulary["tgt"]), **sizes)
    # `model` has the raw weights, for checkpoints; `net`, below, is the same model in the wrappers of training
    model = Transformer(config, settings.attention, settings.checkpoint_layers).to(device)
    if state:
        model.load_state_dict(state["model"] if resumed else checkpoint.weights(state))
    optimizers, views = make_optimizers(model, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    average = {name: weight.clone() for name, weight in model.state_dict().items()} if settings.ema else None

    # One shape for every batch: what is compiled is compiled once, and bf16 kernels on a CPU are set up once. Kernels
    # that pad rows themselves would pad the padding.
    widths = [config.width(side) // config.heads for side in ("encoder", "decoder")]
    packs = config.encoder != "wave" and all(packs_rows(settings.attention, device, dtype, width) for width in widths)
    compiles, why = decide_compile(settings.compile, device, packs, settings.max_steps, settings.max_minutes)
    one_shape = packs and (compiles or device.type == "cuda" or dtype == torch.bfloat16)
    room = [room_for(train_rows, settings.batch_tokens)] if one_shape else []
    net = compile_model(model) if compiles else model
    if world.size > 1:
        on_gpu = device.type == "cuda"
        net = DistributedDataParallel(net, device_ids=[device] if on_gpu else None, gradient_as_bucket_view=True)

    def losses_by_kind(samples, seed=0):
        """
        Loss of these training samples, summed over the target tokens of each kind of process. (kinds,)

        seed: of the index names that are drawn, if they are.
        """
        batch = collate(train_rows, samples, *room)
        if settings.draw_indices:
            rng = np.random.default_rng(seed)
            src = draw_index_names(batch.src.numpy(), batch.sources.row.numpy(), indices, rng)
            batch = batch._replace(src=torch.from_numpy(src))
        batch = to_device(batch, device)
        kind = np.zeros(len(batch.targets.start) - 1, np.int64)  # (B,), of padding any: its losses are 0
        kind[:len(samples)] = train_rows.kind[train_rows.row[samples]]
        with autocast:
            logits = net(batch.src, batch.sources, batch.tgt, batch.targets)  # (M, V)
            losses = token_losses(logits, batch.truth, settings.label_smoothing)  # (M,)
        return losses.new_zeros(kinds).index_add(0, to_device(kind, device)[batch.targets.row], losses)

    # ---- state of the loop: loop_state and restore list the same things
    step, epoch, batch, skipped, bad, rollbacks, best, earlier = 0, 0, 0, 0, 0, 0, None, 0.0
    losses, wandb_id = [], ""  # losses of the good steps since the last line of the log
    dealt = []  # micro-batches to come before the epoch's own: rows of a skipped step and the rows after it, mixed
    skipped_lines = {}  # line of train.csv -> how often its row was in a skipped step
    # expected loss of a target token of each kind, in nats
    kind_loss = torch.full((kinds,), math.log(config.tgt_vocab), dtype=torch.double, device=device)

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
        step, epoch, batch, skipped, bad, rollbacks, best, earlier, wandb_id = (state[name] for name in (
            "step", "epoch", "batch", "skipped", "bad", "rollbacks", "best", "seconds", "wandb_id"))
        losses[:] = state["losses"]
        if state["train_sha256"] == train_sha256:  # else these rows and kinds are others
            kind_loss.copy_(torch.tensor(state["kind_loss"], dtype=torch.double))
            dealt[:] = map(np.array, state["dealt"])
            if dealt and state["settings"]["batch_tokens"] != settings.batch_tokens:  # they may not fit any more
                dealt[:] = cut(train_rows, np.concatenate(dealt), room_for(train_rows, settings.batch_tokens))
            skipped_lines.clear()
            skipped_lines.update(state["skipped_lines"])

    def loop_state():
        """All ranks must call it together: it asks each for its random state."""
        rng = {"cpu": gather(world, torch.get_rng_state())}  # (ranks, bytes)
        if device.type == "cuda":
            rng["cuda"] = gather(world, torch.cuda.get_rng_state(device))
        return {
            "model": model.state_dict(), "ema": average, "model_config": asdict(config),
            "vocabulary": tokenizer.vocabulary, "settings": vars(settings),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "scaler": scaler.state_dict(), "rng": rng, "step": step, "epoch": epoch, "batch": batch,
            "dealt": [samples.tolist() for samples in dealt],
            "losses": losses, "kind_loss": kind_loss.tolist(), "skipped": skipped, "skipped_lines": skipped_lines,
            "bad": bad, "rollbacks": rollbacks, "train_sha256": train_sha256, "best": best, "seconds": seconds,
            "wandb_id": wandb_id,
        }

    def save():
        """last.pt and ckpt_STEP.pt, of all ranks together."""
        state = loop_state()
        if chief:
            checkpoint.save_limited(out_dir, state, settings.save_limit)

    def next_micro_batches(count):
        nonlocal epoch, batch, batches
        micro_batches = dealt[:count]
        del dealt[:count]
        while len(micro_batches) < count:
            if batch >= len(batches):
                epoch, batch = epoch + 1, 0
                batches = mixed_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
            micro_batches.append(batches[batch])
            batch += 1
        return micro_batches

    train_sha256 = digest(train_csv)
    if world.size > 1:
        # Dummy step: makes DDP rebuild its buckets now, so that a resumed run reduces in the same order as the run
        # before. With the longest rows: if the memory does not suffice, the run ends here.
        (losses_by_kind(longest_batch(train_rows, settings.batch_tokens)).sum() * 0).backward()
        model.zero_grad()
    if resumed:
        restore(state)
    state = None  # as large as the model and its optimizer
    seconds, started = earlier, time.monotonic() - earlier  # of training, earlier processes of the run included

    # ---- the run's folder
    if chief:
        wandb_run = runs.start_wandb(settings, wandb_id)
        wandb_id = wandb_run.id if wandb_run else wandb_id
    if settings.resume_best:
        save()  # drops the later checkpoints now, so that no --resume goes back to them
    if chief:
        record = runs.open_log(settings, step, wandb_run)
        parameters = sum(weight.numel() for weight in model.parameters())
        where = f"{device} on each of {world.size} ranks" if world.size > 1 else f"{device}"
        print(f"{len(train_rows.line)} training rows, {len(valid_rows.line)} validation rows, "
              f"{parameters / 1e6:.2f} M parameters, {where}, {str(dtype).removeprefix('torch.')}, "
              f"from step {step}; {'' if compiles else 'not '}compiled: {why}",
              file=sys.stderr)

    # ---- the loop
    batches = mixed_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
    bar = tqdm(total=1, initial=progress(settings, step, seconds),
               disable=None if chief else True,  # None: off where stderr is no terminal
               bar_format="{percentage:3.0f}% {bar} {elapsed}, {remaining} left{postfix}")
    tokens, flops, clock = 0, 0.0, time.monotonic()  # since this process wrote a line of the log
    validating, began = 0.0, clock  # seconds that validation took, of all since this process began the loop
    asked_to_stop = catch_signals(PARENT)
    done = last_step = diverged = False
    given = []  # steps that the device was given and whose outcome the host has not read yet, at most two
    model.train()

    def milestone(number):
        """Is anything logged, validated or saved after so many steps?"""
        every = settings.log_every, settings.eval_every, settings.save_every
        return number >= settings.max_steps or any(number % steps == 0 for steps in every)

    while given or not last_step:
        if not given or not last_step and not milestone(step + len(given)):
            # ---- gradients of the loss of all target tokens of this step, whatever their rank and micro-batch
            number = step + len(given)
            second_try = bool(dealt)  # rows of this step were skipped at their last turn
            count = world.size * micro_batches_of(settings, progress(settings, number, seconds))
            micro_batches = next_micro_batches(count)  # of all ranks, sample numbers each
            samples = np.concatenate(micro_batches)
            src_lengths, tgt_lengths = lengths(train_rows, samples)  # (samples,) each
            targets = int(tgt_lengths.sum())
            rate = 0.5 ** rollbacks * learning_rate(settings, number, progress(settings, number, seconds))
            model.zero_grad()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            by_kind = torch.zeros(kinds, device=device)
            mine = micro_batches[world.rank::world.size]
            for micro, rows in enumerate(mine, 1):
                wait = world.size > 1 and micro < len(mine)  # the ranks exchange gradients once, with the last one
                with net.no_sync() if wait else contextlib.nullcontext():
                    losses_here = losses_by_kind(rows, [settings.seed, number, world.rank, micro])
                    scaler.scale(losses_here.sum() * (world.size / targets)).backward()  # DDP will divide by world.size
                by_kind += losses_here.detach()
            for view, weight, part in views:  # Muon's views of fused matrices
                view.grad = weight.grad[part]
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
            grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip or math.inf)

            # ---- every rank knows the same now, and decides the same
            clocks = torch.tensor([asked_to_stop(), time.monotonic() - started], dtype=torch.double)
            facts = torch.cat([to_device(clocks, device), grad_norm[None], by_kind])
            facts = gather(world, facts)  # (ranks, 3 + kinds)
            kind = train_rows.kind[train_rows.row[samples]]
            kind_tokens = to_device(np.bincount(kind, weights=tgt_lengths, minlength=kinds), device)
            good, figures = judge(facts[:, 2:], kind_tokens, kind_loss, settings.loss_spike, second_try)
            for optimizer in optimizers:
                step_if(good, optimizer)
            if average is not None:
                update_average(average, model, settings.ema, number, good)
            scale = scaler.get_scale()  # of fp16, for which it asks the device; else 1
            scaler.update()
            outcome = read_later(torch.cat([facts[:, 0].max()[None], facts[:1, 1], figures]))
            given.append((micro_batches, samples, src_lengths, tgt_lengths, second_try, rate, scale, outcome))
            # a GPU works on this step while the host reads the outcome of the one before and prepares the next
            if device.type == "cuda" and len(given) < 2 and not milestone(number + 1):
                continue

        # ---- the outcome of the oldest step that the host does not know
        micro_batches, samples, src_lengths, tgt_lengths, second_try, rate, scale, outcome = given.pop(0)
        stopped_by, seconds, good, finite, spike, loss, grad_norm, expected = outcome().tolist()
        stopped_by = int(stopped_by)
        overflow = math.isfinite(loss) and not finite and scale > 1  # of fp16: a smaller scale will do
        if good:
            losses.append(loss)
        else:
            skipped += 1
            if overflow or not second_try:  # else the fault is in the rows themselves: they wait for the next epoch
                mixture = micro_batches + next_micro_batches(len(micro_batches))
                dealt[:0] = deal_anew(train_rows, mixture, settings.batch_tokens, [settings.seed, step])
            lines = np.unique(train_rows.line[train_rows.row[samples]]).tolist()
            for line in lines:
                skipped_lines[line] = skipped_lines.get(line, 0) + 1
            if chief:
                event = {"event": "skipped", "step_loss": loss, "expected_loss": expected}
                record(step + 1, seconds, event | {"rows": [f"{train_csv}:{line}" for line in lines]})
        bad = bad + (not overflow) if spike or not finite else 0
        step += 1
        tokens += int(src_lengths.sum() + tgt_lengths.sum())
        flops += training_flops(config, src_lengths, tgt_lengths)
        done = progress(settings, step, seconds) >= 1
        last_step = done or stopped_by > 0

        # ---- too many bad steps: keep this state to look into, go back to the last good one, go on from there more
        # slowly
        if settings.bad_steps and bad >= settings.bad_steps:
            emergency = loop_state()
            with first_alone(world):
                earlier_state = checkpoint.load_newest(out_dir) if rollbacks < settings.max_rollbacks else None
                if chief:
                    checkpoint.save(out_dir / f"emergency_{step}.pt", emergency)
                    back_to = earlier_state["step"] if earlier_state else None
                    event = {"event": f"{bad} bad steps in a row", "back_to": back_to}
                    record(step, seconds, event)
            if earlier_state is None:
                raise InputError(
                    f"{out_dir}: {bad} bad steps in a row up to step {step} (loss {loss:.4g}, norm of the gradient "
                    f"{grad_norm:.4g}) after {rollbacks} of {settings.max_rollbacks} returns to an earlier checkpoint; "
                    f"emergency_{step}.pt has the state; a lower learning_rate or a longer warm-up may help")
            kept, lines = (rollbacks + 1, best, skipped, wandb_id), dict(skipped_lines)
            restore(earlier_state)
            rollbacks, best, skipped, wandb_id = kept
            skipped_lines.update(lines)
            bad, done, last_step = 0, False, stopped_by > 0
            given.clear()  # a step from the weights that are given up
            save()  # a process that is killed before its next checkpoint went back all the same
            keep = True
            batches = mixed_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
            if chief:
                bar.write(f"{settings.bad_steps} bad steps in a row: back to step {step}, learning rate times "
                          f"{0.5 ** rollbacks}", file=sys.stderr)
            continue

        if given and last_step:
            continue  # the device has one more step
        trouble = f", {skipped} steps skipped: gradient not finite or loss a spike" if skipped else ""
        if step % settings.log_every == 0 or done:
            interval = time.monotonic() - clock
            peak = peak_flops(device, dtype)
            figures = {"loss": statistics.fmean(losses) if losses else math.nan, "learning_rate": rate,
                       "grad_norm": grad_norm, "tokens_per_second": tokens / interval,
                       "mfu": flops / interval / (world.size * peak) if peak else None,
                       "memory_gb": peak_memory(device), "skipped": skipped}
            if chief:
                record(step, seconds, figures)
            bar.set_postfix_str(f"step {step}, loss {figures['loss']:.4f}, {tokens / interval:,.0f} tokens/s" + trouble,
                                refresh=False)
            losses.clear()
            tokens, flops, clock = 0, 0.0, time.monotonic()
        bar.update(min(1, progress(settings, step, seconds)) - bar.n)

        if step % settings.eval_every == 0 or done:
            before = time.monotonic()
            with weights_of(model, average), autocast:
                figures, answers = validate(model, valid_rows, *valid_sample, settings.eval_batch_tokens, world)
                figures = {f"valid_{name}": value for name, value in figures.items()}
                if train_sample:
                    of_train, _ = validate(model, train_rows, *train_sample, settings.eval_batch_tokens, world)
                    figures |= {f"train_{name}": of_train[name] for name in ("exact", "by_kind", "by_length")}
            model.train()
            validating += time.monotonic() - before
            clock += time.monotonic() - before  # tokens/s is that of training alone
            if chief:
                texts = [{name: tokenizer.decode_sqamp(ids) for name, ids in answer.items()} for answer in answers]
                record(step, seconds, figures | {"samples": texts})
                of_train = f" (training rows {figures['train_exact']:.2%})" if train_sample else ""
                bar.write(f"step {step}: validation loss {figures['valid_loss']:.4f}, exact match "
                          f"{figures['valid_exact']:.2%}{of_train}, {seconds / 60:.1f} min" + trouble, file=sys.stderr)
                for kind in never_learned(figures.get("train_by_kind", {}), "exact"):
                    bar.write(f"warning: '{kind}' is not learned: 0% of its training rows are right, of all rows "
                              f"{figures['train_exact']:.0%} (of those decoded)", file=sys.stderr)
            diverged = not math.isfinite(figures["valid_loss"])
            if not diverged and (best is None or better(figures, best)):
                best = figures | {"step": step}
                state = loop_state()
                if chief:
                    checkpoint.save(out_dir / "best.pt", state)
        # amid bad steps, after which the run may go back, the last good checkpoint stays the last
        keep = done or not bad or not settings.bad_steps
        if keep and (step % settings.save_every == 0 or last_step):
            save()
    bar.close()

    share = validating / (time.monotonic() - began)
    if chief and share > 0.05 and validating > 30:
        print(f"validation took {share:.0%} of the time; a smaller eval_rows or a larger eval_every makes it less",
              file=sys.stderr)
    if chief and wandb_run:
        wandb_run.finish()
    if done and diverged and best is None:
        raise InputError(f"{out_dir}: the loss was not finite at any validation; a lower --learning_rate in another "
                         "--out_dir may help")
    if chief and done:
        report(out_dir, best, train_csv, skipped, skipped_lines)
    elif chief:
        lost = "nothing is lost" if keep else f"the steps since the last checkpoint are lost, the last {bad} were bad"
        print(f"stopped by {signal.Signals(stopped_by).name} at step {step}, {lost}; "
              f"go on with: python train.py {out_dir}/config.py --resume", file=sys.stderr)
    return 0 if done else 128 + stopped_by


# ---------------------------------------------------------------------------------------------------------------------
# Loss and validation

def decide_compile(choice, device, packs, steps, minutes):
    """
    Whether to call torch.compile, and why, for the setting `compile`. packs: whether batches can have one shape, else
    each new length would be compiled anew. steps and minutes: the length of the run.
    """
    if choice == "off":
        return False, "compile=off"
    if not packs:
        why = "these settings pad rows to the longest of a batch, and each length would be compiled anew"
        if choice == "on":
            raise InputError(f"compile: {why}; on a GPU attention=varlen with bf16 or fp16 pads none, encoder=wave "
                             "always does")
        return False, why
    if choice == "on":
        return True, "compile=on"
    if device.type != "cuda":
        return False, "on a CPU compiling takes minutes and gains little"
    if not has_triton():
        return False, "Triton is not there"
    if steps < LONG_RUN[0] or 0 < minutes < LONG_RUN[1]:
        return False, f"the run is shorter than {LONG_RUN[0]} steps or {LONG_RUN[1]} minutes"
    return True, "on a GPU it pays after a minute"


def token_losses(logits, truth, smoothing=0.0):
    """Cross-entropy of each target token, in nats, 0 for PAD. logits: (M, V); truth: (M,) -> (M,)"""
    return F.cross_entropy(logits, truth, ignore_index=PAD, reduction="none", label_smoothing=smoothing)


@torch.inference_mode()
def validate(model, packed, rows, rare, batch_tokens, world):
    """
    How good the model is on some rows of a split: figures, and some answers as [{"sqamp": ids, "prediction": ids}].

    The figures: `loss`, teacher-forced, per target token, and `exact`, the share that greedy decoding gets right,
    both over `rows`, a fair sample; `by_kind` and `by_length`, {name: {"rows": number, "exact": share}}, over `rows`
    and `rare`, more rows of rare kinds. Termwise an answer is one term, and a row is right if all its terms are. The
    ranks share the batches; the figures do not depend on how many ranks there are.
    """
    model.eval()
    samples = samples_of(packed, np.concatenate([rows, rare]))
    batches = padded_batches(packed, batch_tokens, samples)
    table, answered = torch.zeros(len(samples), 2, dtype=torch.double), []  # loss and mistake of each sample
    for number in range(world.rank, len(batches), world.size):
        chosen = batches[number]
        batch = to_device(collate(packed, chosen), world.device)
        losses = token_losses(model(batch.src, batch.sources, batch.tgt, batch.targets), batch.truth)  # (M,)
        losses = losses.new_zeros(len(chosen)).index_add(0, batch.targets.row, losses)
        # an answer longer than the longest target is wrong anyway
        src = pad(batch.src.split(batch.sources.start.diff().tolist()))  # (B, S)
        first = batch.tgt[batch.targets.start[:-1].long()]  # (B,)
        answers = greedy(model, src, batch.targets.longest, first)
        truths = [packed.tgt[packed.tgt_start[sample]:packed.tgt_start[sample + 1]].tolist() for sample in chosen]
        wrong = [truth != answer.ids for truth, answer in zip(truths, answers)]
        here = np.searchsorted(samples, chosen)
        table[here, 0], table[here, 1] = losses.double().cpu(), torch.tensor(wrong, dtype=torch.double)
        new = [{"sqamp": truth, "prediction": answer.ids} for truth, answer in zip(truths, answers)]
        answered += new[:SAMPLES - len(answered)]
    table = gather(world, table).sum(0).numpy()  # each line is one rank's and zero on the others: no rounding
    fair = np.isin(packed.row[samples], rows)
    tokens = lengths(packed, samples)[1]
    wrong = np.bincount(packed.row[samples], weights=table[:, 1], minlength=len(packed.kind)) > 0
    length = np.bincount(packed.row[samples], weights=tokens, minlength=len(packed.kind)).astype(int)

    def shares(name_of):
        groups = {}
        for row in np.concatenate([rows, rare]).tolist():
            groups.setdefault(name_of(row), []).append(not wrong[row])
        return {name: {"rows": len(right), "exact": statistics.fmean(right)} for name, right in sorted(groups.items())}

    figures = {"loss": math.fsum(table[fair, 0]) / int(tokens[fair].sum()), "exact": float(np.mean(~wrong[rows])),
               "by_kind": shares(lambda row: str(packed.kinds[packed.kind[row]])),
               "by_length": shares(lambda row: power_of_two_bin(int(length[row])))}
    return figures, answered


def better(figures, best):
    """More exact matches; among equals the lower loss."""
    return (figures["valid_exact"], -figures["valid_loss"]) > (best["valid_exact"], -best["valid_loss"])


# ---------------------------------------------------------------------------------------------------------------------
# Optimiser, learning rate, moving average

def make_optimizers(model, settings):
    """
    (optimisers that share one learning rate, views of fused matrices). Weight decay is for matrices, not for biases
    and norms.

    "adamw": Loshchilov & Hutter, arXiv 1711.05101. "muon": Jordan et al. 2024 (kellerjordan.github.io/posts/muon) for
    the matrices inside the layers, each step orthogonalised by five Newton-Schulz iterations and scaled to the size
    of AdamW's (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that learning_rate means the same; embeddings, head and
    vectors stay with AdamW.

    A fused matrix (q, k and v; gate and up) is several to Muon: each has a view, (view, weight, its rows of the
    weight), a tensor in the memory of the weight. The caller sets view.grad = weight.grad[rows] before each step.
    """
    optimizers, views, inside = [], [], {}
    if settings.optimizer == "muon":
        for name, weight in model.named_parameters():
            if name.startswith(("encoder.", "decoder.", "latents.cross.", "latents.mlp.")) and weight.dim() == 2:
                inside[name] = weight
                fused = {"qkv": 3, "kv": 2, "up": 1 + (model.config.activation == "swiglu")}.get(name.split(".")[-2], 1)
                rows = len(weight) // fused
                parts = [slice(part * rows, (part + 1) * rows) for part in range(fused)]
                views += [(weight.detach()[part], weight, part) for part in parts]
        optimizers.append(torch.optim.Muon([view for view, _, _ in views], weight_decay=settings.weight_decay,
                                           adjust_lr_fn="match_rms_adamw"))
    others = [weight for name, weight in model.named_parameters() if name not in inside]
    groups = [{"params": [weight for weight in others if weight.dim() >= 2], "weight_decay": settings.weight_decay},
              {"params": [weight for weight in others if weight.dim() < 2], "weight_decay": 0.0}]
    try:
        optimizers.append(torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=True))
    except ValueError as error:
        raise InputError(f"beta1, beta2: {error}") from None
    return optimizers, views


def load_moments(optimizers, states):
    """The moments are those of the checkpoint, the hyper-parameters today's settings."""
    if len(states) != len(optimizers):
        raise InputError("optimizer: the checkpoint to go on from was made by the other one; these must agree")
    for optimizer, state in zip(optimizers, states):
        groups = optimizer.state_dict()["param_groups"]
        if [len(group["params"]) for group in groups] != [len(group["params"]) for group in state["param_groups"]]:
            raise InputError("optimizer: the checkpoint to go on from grouped the weights in another way; "
                             "--init_from= takes its weights")
        optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def progress(settings, step, seconds):
    """How much of the run is done, 0..1: by steps, or by the clock if that is further on."""
    by_clock = seconds / (60 * settings.max_minutes) if settings.max_minutes else 0.0
    return max(step / settings.max_steps, by_clock)


def micro_batches_of(settings, progress):
    """Micro-batches of a step on each rank: over the first batch_ramp of the run they grow from 1 to accumulate."""
    share = progress / settings.batch_ramp if settings.batch_ramp else 1
    return max(1, round(min(1, share) * settings.accumulate))


def learning_rate(settings, step, progress):
    """
    Rate of a step. progress: how much of the run is done, 0..1, by steps or by the clock.

    Linear warm-up, times: half a cosine down to 0 (Loshchilov & Hutter, arXiv 1608.03983); a line down to 0; or 1.
    "one-cycle" (Smith & Topin, arXiv 1708.07120; Smith, arXiv 1803.09820) is its own warm-up: a line from a tenth up
    to the peak at 45%, down again until 90%, and from there to 0.
    """
    p = min(1.0, progress)
    if settings.schedule == "one-cycle":
        if p > 0.9:
            return settings.learning_rate * (1 - p)  # from 0.1 to 0
        return settings.learning_rate * (1 - 0.9 * abs(p - 0.45) / 0.45)
    decay = {"cosine": 0.5 * (1 + math.cos(math.pi * p)), "linear": 1 - p, "constant": 1.0}[settings.schedule]
    return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps)) * decay


@torch.no_grad()
def judge(facts, kind_tokens, kind_loss, loss_spike, second_try):
    """
    Is a step good? Everything stays on the device. Updates kind_loss, the running loss of each kind, if it is.

    A spike is a loss far above what rows of these kinds cost before: loss_spike times. facts: (ranks, 1 + kinds), each
    rank's norm of the gradient and loss by kind, summed over the tokens; kind_tokens: (kinds,), target tokens of the
    step; kind_loss: (kinds,). second_try: no spike is bad. Returns good, () of bool, and the figures good, finite,
    spike, loss, norm of the gradient, expected loss, (6,) of double.
    """
    grad_norm, by_kind, targets = facts[:, 0].max(), facts[:, 1:].sum(0), kind_tokens.sum()
    loss = by_kind.sum() / targets
    expected = (kind_tokens @ kind_loss / targets).clamp(min=FLOOR)
    finite = loss.isfinite() & grad_norm.isfinite()
    spike = loss > (loss_spike or math.inf) * expected
    good = finite if second_try else finite & ~spike
    mean = MEMORY * kind_loss + (1 - MEMORY) * by_kind / kind_tokens
    kind_loss.copy_(torch.where(good & (kind_tokens > 0), mean, kind_loss))
    return good, torch.stack([good, finite, spike, loss, grad_norm, expected])


def step_if(good, optimizer):
    """A step of the optimizer, if `good`, a tensor () of bool: on a GPU AdamW looks at it there, and nobody waits."""
    if isinstance(optimizer, torch.optim.AdamW):
        optimizer.found_inf = 1 - good.float()  # of the fused kernel: 1 leaves weights, moments and their count alone
        optimizer.step()
    elif good:
        optimizer.step()


def update_average(average, model, decay, updates, good=True):
    """
    Exponential moving average of the weights, in place, if `good`: average = d average + (1 - d) weights.

    average: tensors by name, as in model.state_dict(). d grows to `decay` over the first updates, (1 + n) / (10 + n),
    so that the average does not keep the random weights.
    """
    d = min(decay, (1 + updates) / (10 + updates))
    for name, weight in model.state_dict().items():
        average[name].copy_(torch.where(torch.as_tensor(good), average[name].lerp(weight, 1 - d), average[name]))


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
