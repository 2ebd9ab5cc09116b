"""
Train a transformer to multiply; with latent tokens between encoder and decoder (n_latent), or without (n_latent=0).

    python ablations/latent/train.py --n_latent=8 [--key=value ...]         a new run, out/latent/n8-seed1337
    python ablations/latent/train.py --resume [--run_id=ID] [--key=value ...]    go on with the newest run, or with ID
    python ablations/latent/train.py --list [--sort=exact]               all runs: newest, exact, loss, step, name first
    python ablations/latent/train.py --show=ID                           settings and figures of a run

This is train.py of the project, edited: rows of digits instead of amplitudes, padded instead of packed (they are six
tokens long), a share of the decoder's tokens that are its own (tf_schedule), and a second term of the loss
(accuracy_weight). A run is a folder: config.py, log.jsonl, best.pt, last.pt, ckpt_STEP.pt. A resumed run has the
settings of its config.py, and those of the command line over them; where a config file is named, its settings, and a
new run if there is none. On a CPU a resumed run is bit for bit the run that was not interrupted, unless max_minutes
ties its schedule to the clock. A step whose loss or gradient is not finite, or whose
loss is a spike, is skipped; after bad_steps of them in a row the state is kept as emergency_STEP.pt, and the run goes
back to its last checkpoint with half the learning rate.
"""
import os
import sys
from pathlib import Path

HERE, PARENT = Path(__file__).resolve().parent, os.getppid()
if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[0] = str(HERE.parents[1])

import math
import signal
import statistics
import time
from dataclasses import asdict
from functools import partial

import numpy as np
import torch

from ablations.latent.data import KEYS as DATA
from ablations.latent.data import SPLITS, TOKENS, VOCABULARY, Rows, load_splits
from ablations.latent.padded import mixed_inputs, read, validate, write
from configurator import check_least, load_settings, read_config
from model import ARCHITECTURE, ModelConfig, Transformer, config_of
from runtime import checkpoint, runs
from runtime.distributed import catch_signals, quiet
from runtime.files import InputError, main_guard
from runtime.hardware import find_device, find_dtype, peak_memory, training_flops
from tokenizer import PAD
from train import (
    LEAST,
    better,
    judge,
    learning_rate,
    load_moments,
    make_optimizers,
    progress,
    step_if,
    token_losses,
)

SETTINGS = [
    *DATA, "out_dir", "run_id", "device", "dtype", *ARCHITECTURE, "src_max_len", "tgt_max_len", "dropout",
    "checkpoint_layers", "rows_per_step", "optimizer", "learning_rate", "schedule", "warmup_steps", "weight_decay",
    "beta1", "beta2", "label_smoothing", "accuracy_weight", "tf_schedule", "tf_start_step", "tf_end", "grad_clip",
    "clip_rate", "clip_step", "loss_spike", "bad_steps", "max_rollbacks", "max_steps", "max_minutes", "eval_every",
    "eval_rows", "log_every", "save_every", "save_limit", "resume", "wandb_mode", "wandb_project", "list",
    "sort", "show",
]
TF_SCHEDULES = "constant", "linear", "cosine", "step", "exponential"
LOWEST_CLIP = 0.1  # of grad_clip, however low the learning rate is


def main(argv=None):
    argv, base = list(sys.argv[1:] if argv is None else argv), HERE / "config.py"
    with quiet(any(word.startswith(("--list", "--show")) for word in argv)):
        settings = load_settings(__doc__, SETTINGS, argv, base)
    if settings.list:
        return runs.list_runs(settings.out_dir, settings.sort)
    if settings.show:
        return show(Path(settings.out_dir) / settings.show, read_config(base))
    config_named = any(not word.startswith("-") for word in argv)
    if settings.resume and not config_named:
        argv.insert(0, find_run(Path(settings.out_dir), settings.run_id))
        settings = load_settings(__doc__, SETTINGS, argv, base)
    if not settings.run_id:
        settings.run_id = f"n{settings.n_latent}-seed{settings.seed}"
        settings.out_dir += f"/{settings.run_id}"
    check(settings)
    with runs.held(settings.out_dir):
        return train(settings)


def find_run(folder, run_id):
    """config.py of the run in this folder, or of the newest run below it if run_id is empty. InputError without one."""
    logs = sorted(folder.glob("log.jsonl" if run_id else "*/log.jsonl"), key=lambda path: path.stat().st_mtime)
    if not logs:
        raise InputError(f"{folder}: no run to go on with there; --list names the runs")
    return str(logs[-1].with_name("config.py"))


def show(folder, defaults):
    """Print the settings of a run that differ from the defaults, and its last figures."""
    lines = runs.read_log(folder)
    if not lines:
        raise InputError(f"{folder}: no run there; --list names the runs")
    for name, value in read_config(folder / "config.py").items():
        if name in defaults and value != defaults[name]:
            print(f"{name} = {value!r}")
    for figures in [line for line in lines if "valid_loss" in line][-3:] or lines[-1:]:
        print("  ".join(f"{name} {value:.6g}" for name, value in figures.items() if isinstance(value, (int, float))))
    return 0


def check(settings):
    """InputError for a setting that no run can have."""
    check_least(settings, {name: least for name, least in LEAST.items() if name in SETTINGS} | {
        "rows_per_step": 1, "accuracy_weight": 0, "tf_start_step": 0, "clip_rate": 0, "clip_step": 0})
    if settings.tf_schedule not in TF_SCHEDULES:
        raise InputError(f"tf_schedule: got {settings.tf_schedule!r}, wanted {', '.join(TF_SCHEDULES)}")
    if not 0 < settings.tf_end <= 1:
        raise InputError(f"tf_end: got {settings.tf_end}, wanted more than 0 and at most 1")
    for name in ("clip_step", "label_smoothing"):
        if getattr(settings, name) >= 1:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted less than 1")


def train(settings):
    device, out_dir = find_device(settings.device), Path(settings.out_dir)
    dtype = find_dtype(settings.dtype, device)
    autocast = partial(torch.autocast, device.type, dtype, enabled=dtype != torch.float32)
    torch.manual_seed(settings.seed)

    # ---- where to start
    state = checkpoint.to_resume(out_dir, settings.resume, "run_id")
    if state:
        if not {"rows_per_step", "zero_padded"} <= state["settings"].keys():
            raise InputError(f"{out_dir}: holds a run of another script; name another one by --run_id=")
        theirs = vars(config_of(state)) | {name: state["settings"][name] for name in DATA}
        for name in [*ARCHITECTURE, *DATA]:
            if getattr(settings, name) != theirs[name]:
                raise InputError(f"{name}: {getattr(settings, name)} in the settings, {theirs[name]} in the checkpoint "
                                 "to go on from; these must agree")
        if progress(settings, state["step"], state["seconds"]) >= 1:
            print(f"{out_dir}: complete at step {state['step']}; a larger max_steps would go on")
            return 0

    # ---- data: a few megabytes, kept on the device
    splits = {split: rows.to(device) for split, rows in load_splits(settings).items()}
    rows = splits["train"]
    order = np.random.default_rng([settings.seed, 3]).permutation(len(rows.src))  # of the rows to validate with
    sample = torch.from_numpy(order[:settings.eval_rows or len(order)]).to(device)
    train_sample = Rows(*(x[sample] for x in rows))
    src_length, tgt_length = ((x != PAD).sum(1).cpu().numpy() for x in (rows.src, rows.tgt[:, 1:]))

    # ---- model and optimizer
    names = [*ARCHITECTURE, "dropout", "src_max_len", "tgt_max_len"]
    config = ModelConfig(len(TOKENS), len(TOKENS), **{name: getattr(settings, name) for name in names})
    model = Transformer(config, "auto", settings.checkpoint_layers).to(device)
    optimizers, views = make_optimizers(model, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    # ---- state of the loop
    step, skipped, bad, rollbacks, best, earlier, losses, wandb_id = 0, 0, 0, 0, None, 0.0, [], ""
    flops = 0.0  # of training so far, matrix products only
    kind_loss = torch.full((1,), math.log(len(TOKENS)), dtype=torch.double, device=device)  # expected, of a token

    def restore(state):
        nonlocal step, skipped, bad, rollbacks, best, earlier, losses, wandb_id, flops
        model.load_state_dict(state["model"])
        load_moments(optimizers, state["optimizers"])
        if state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"]["cpu"])
        if device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], device)
        step, skipped, bad, rollbacks, best, earlier, losses, wandb_id, flops = (state[name] for name in (
            "step", "skipped", "bad", "rollbacks", "best", "seconds", "losses", "wandb_id", "flops"))
        kind_loss.copy_(torch.tensor(state["kind_loss"], dtype=torch.double))

    def loop_state():
        rng = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(device)
        return {"model": model.state_dict(), "ema": None, "model_config": asdict(config), "vocabulary": VOCABULARY,
                "settings": vars(settings), "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "scaler": scaler.state_dict(), "rng": rng, "step": step, "losses": losses,
                "kind_loss": kind_loss.tolist(), "skipped": skipped, "bad": bad, "rollbacks": rollbacks, "best": best,
                "seconds": seconds, "wandb_id": wandb_id, "flops": flops}

    if state:
        restore(state)
    clock = time.process_time if device.type == "cpu" else time.monotonic  # other programs on the CPU do not count
    seconds, started = earlier, clock() - earlier
    wandb_run = runs.start_wandb(settings, wandb_id)
    wandb_id = wandb_run.id if wandb_run else wandb_id
    record = runs.open_log(settings, step, wandb_run)
    print(f"{', '.join(f'{len(splits[split].src)} {split}' for split in SPLITS)} rows, "
          f"{sum(weight.numel() for weight in model.parameters()):,} parameters, {device}, from step {step}",
          file=sys.stderr)

    # ---- the loop
    asked_to_stop = catch_signals(PARENT)
    steps_an_epoch = max(1, len(rows.src) // settings.rows_per_step)
    done, stopped_by, epoch = False, 0, None
    while not done and not stopped_by:
        # the rows of a step follow from its number: there is no other state of the data
        if epoch != step // steps_an_epoch:
            epoch = step // steps_an_epoch
            order = np.random.default_rng([settings.seed, 4, epoch]).permutation(len(rows.src))
        first = step % steps_an_epoch * settings.rows_per_step
        chosen = order[first:first + settings.rows_per_step]
        on_device = torch.from_numpy(chosen).to(device)
        src, tgt = rows.src[on_device], rows.tgt[on_device]  # (B, S), (B, T + 1)

        model.train()
        part_done = progress(settings, step, seconds)
        share = true_share(settings, part_done)
        rate = 0.5**rollbacks * learning_rate(settings, step, part_done)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        model.zero_grad()
        with autocast():
            source = read(model, src)
            inputs = tgt[:, :-1] if share == 1 else mixed_inputs(model, source, tgt[:, :-1], share)
            logits = write(model, source, inputs)  # (B, T, V)
            loss, token_loss = loss_of(logits, tgt[:, 1:], settings.label_smoothing, settings.accuracy_weight)
        scaler.scale(loss).backward()
        for view, weight, part in views:  # Muon's views of fused matrices
            view.grad = weight.grad[part]
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        limit = clip_limit(settings, part_done, rate)
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit or math.inf)

        tokens = torch.tensor([tgt_length[chosen].sum()], dtype=torch.double, device=device)
        facts = torch.stack([grad_norm.double(), token_loss.detach().double() * tokens[0]])[None]
        good, figures = judge(facts, tokens, kind_loss, settings.loss_spike, False)
        for optimizer in optimizers:
            step_if(good, optimizer)
        scale = scaler.get_scale()
        scaler.update()
        step, seconds, stopped_by = step + 1, clock() - started, asked_to_stop()
        flops += training_flops(config, src_length[chosen], tgt_length[chosen])
        done = progress(settings, step, seconds) >= 1

        # ---- bad steps: skipped; too many of them: back to the last checkpoint, at half the rate
        if good:
            losses.append(float(token_loss.detach()))
            bad = 0
        else:
            skipped += 1
            bad += scale <= 1 or bool(figures[1])  # an overflow of fp16 is none: a smaller scale will do
            record(step, seconds, {"event": "skipped", "step_loss": float(figures[3]), "grad_norm": float(figures[4])})
        if settings.bad_steps and bad >= settings.bad_steps:
            checkpoint.save(out_dir / f"emergency_{step}.pt", loop_state())
            last_good = checkpoint.load_newest(out_dir) if rollbacks < settings.max_rollbacks else None
            record(step, seconds, {"event": f"{bad} bad steps in a row", "back_to": last_good and last_good["step"]})
            if last_good is None:
                raise InputError(f"{out_dir}: {bad} bad steps in a row up to step {step}, after {rollbacks} of "
                                 f"{settings.max_rollbacks} returns; emergency_{step}.pt has the state; a lower "
                                 "learning_rate may help")
            kept = rollbacks + 1, skipped, best, wandb_id, flops
            restore(last_good)
            rollbacks, skipped, best, wandb_id, flops = kept
            bad, done, epoch = 0, False, None
            checkpoint.save_limited(out_dir, loop_state(), settings.save_limit)
            print(f"{settings.bad_steps} bad steps in a row: back to step {step}, learning rate times "
                  f"{0.5**rollbacks}", file=sys.stderr)
            continue

        if step % settings.log_every == 0 or done:
            record(step, seconds, {
                "loss": statistics.fmean(losses) if losses else math.nan, "learning_rate": rate, "true_share": share,
                "grad_norm": float(grad_norm), "clip": limit, "flops": flops, "memory_gb": peak_memory(device),
                "skipped": skipped})
            losses.clear()
        if step % settings.eval_every == 0 or done:
            before = clock()
            with autocast():
                loss, exact = validate(model, splits["valid"])
                _, train_exact = validate(model, train_sample)
            figures = {"valid_loss": loss, "valid_exact": exact, "train_exact": train_exact}
            started += clock() - before  # seconds are those of training alone
            record(step, seconds, figures | {"flops": flops})
            print(f"step {step}: validation loss {loss:.4f}, exact products {exact:.2%} (training rows "
                  f"{train_exact:.2%}), {seconds:.0f} s", file=sys.stderr)
            if best is None or better(figures, best):
                best = figures | {"step": step}
                checkpoint.save(out_dir / "best.pt", loop_state())
        if done or not bad and (step % settings.save_every == 0 or stopped_by):
            checkpoint.save_limited(out_dir, loop_state(), settings.save_limit)

    if wandb_run:
        wandb_run.finish()
    if not done:
        print(f"stopped by {signal.Signals(stopped_by).name} at step {step}; "
              f"--resume --run_id={settings.run_id} goes on", file=sys.stderr)
        return 128 + stopped_by
    print(f"best on the validation rows: exact products {best['valid_exact']:.2%} at step {best['step']}, "
          f"{out_dir}/best.pt; next: python ablations/latent/evaluate.py {out_dir}")
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# Loss and schedules

def loss_of(logits, truth, smoothing, accuracy_weight):
    """
    (loss to minimise, cross-entropy of a token in nats), of logits (B, T, V) and truth (B, T), PAD after EOS.

    The second term of the loss, times accuracy_weight: 1 minus the probability that a sampled product is exactly right,
    the mean over the rows.
    """
    losses = token_losses(logits.flatten(0, 1), truth.flatten(), smoothing).view(truth.shape)  # (B, T)
    token_loss = losses.sum() / (truth != PAD).sum()
    if not accuracy_weight:
        return token_loss, token_loss
    return token_loss + accuracy_weight * (1 - (-losses.sum(1)).exp().mean()), token_loss


def true_share(settings, progress):
    """Share of true tokens that the decoder reads: 1 until tf_start_step, then falling to tf_end. progress: 0..1"""
    step, start = progress * settings.max_steps, settings.tf_start_step
    if settings.tf_schedule == "constant" or step <= start:
        return 1.0
    p = min(1.0, (step - start) / (settings.max_steps - start))
    if settings.tf_schedule == "exponential":
        return settings.tf_end**p
    fallen = {"linear": p, "cosine": (1 - math.cos(math.pi * p)) / 2, "step": min(3, math.floor(4 * p)) / 3}
    return 1 - (1 - settings.tf_end) * fallen[settings.tf_schedule]


def clip_limit(settings, progress, rate):
    """Largest norm of the gradient in a step with this learning rate; 0: no limit. See clip_rate and clip_step."""
    of_peak = rate / settings.learning_rate if settings.learning_rate else 1.0
    follows = max(LOWEST_CLIP, of_peak**settings.clip_rate) if settings.clip_rate else 1.0
    return settings.grad_clip * follows * (1 - settings.clip_step * min(1.0, progress))


if __name__ == "__main__":
    main_guard(main)
