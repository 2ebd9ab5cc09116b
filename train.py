"""
Train the transformer on a data set that prepare.py made.

    python train.py config/quickstart.py [--key=value ...]
    python train.py config/quickstart.py --resume       go on after a crash, Ctrl-C or a preempted job

Reads train.csv and valid.csv of data_dir. Writes into out_dir: config.py (the settings), log.jsonl (a JSON object a line),
best.pt (best exact match on the validation split), last.pt and ckpt_STEP.pt (the whole state of the loop, for --resume).
Ctrl-C and SIGTERM save a checkpoint first. A resumed run is bit for bit the run that was not interrupted, unless
max_minutes ties its schedule to the clock.
"""
import json
import math
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import checkpoint
from configurator import load_settings, settings_text
from files import InputError, atomic_open, main_guard
from model import ModelConfig, Transformer, find_device, greedy
from tokenizer import EOS, PAD, Tokenizer, build_vocabulary, collate, length_batches, load_split

ARCHITECTURE = ["d_model", "heads", "encoder_layers", "decoder_layers", "d_ff"]
SETTINGS = [
    "data_dir", "out_dir", "seed", "device", "src_max_len", "tgt_max_len", *ARCHITECTURE, "dropout",
    "batch_tokens", "learning_rate", "warmup_steps", "weight_decay", "beta1", "beta2", "grad_clip", "max_steps", "max_minutes",
    "eval_every", "eval_rows", "log_every", "save_every", "save_limit", "resume", "init_from",
]
LEAST = {
    "seed": 0, "batch_tokens": 1, "learning_rate": 0, "warmup_steps": 0, "weight_decay": 0, "grad_clip": 0, "max_steps": 1,
    "max_minutes": 0, "eval_every": 1, "eval_rows": 0, "log_every": 1, "save_every": 1, "save_limit": 0,
}


def main(argv=None):
    settings = load_settings(__doc__, SETTINGS, argv)
    for name, least in LEAST.items():
        if getattr(settings, name) < least:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted at least {least}")
    device = find_device(settings.device)
    out_dir = Path(settings.out_dir)
    command = f"python train.py {out_dir}/config.py --resume"

    # ---- where to start: the newest checkpoint of this run, the weights of another one, or random weights
    state = None
    if settings.resume:
        state = checkpoint.load_newest(out_dir)
    elif checkpoint.holds_run(out_dir):
        raise InputError(f"{out_dir}: holds a run already; go on with it by --resume, or name another folder by --out_dir=")
    resumed = state is not None
    if state is None and settings.init_from:
        state = checkpoint.load(settings.init_from)
    torch.manual_seed(settings.seed)
    if resumed and progress(settings, state["step"], state["seconds"]) >= 1:
        print(f"{out_dir}: complete at step {state['step']}, nothing to do; a larger --max_steps goes on")
        report_best(out_dir, state["best"])
        return 0

    # ---- data
    tokenizer = Tokenizer(state["vocabulary"] if state else build_vocabulary(Path(settings.data_dir) / "train.csv"))
    limits = settings.src_max_len, settings.tgt_max_len
    train_rows = load_split(settings.data_dir, "train", tokenizer, *limits)
    valid_rows = load_split(settings.data_dir, "valid", tokenizer, *limits)
    valid_batches = validation_batches(valid_rows, settings)

    # ---- model and optimizer
    sizes = {name: getattr(settings, name) for name in ["src_max_len", "tgt_max_len", *ARCHITECTURE, "dropout"]}
    config = ModelConfig(len(tokenizer.vocabulary["src"]), len(tokenizer.vocabulary["tgt"]), **sizes)
    for name in ARCHITECTURE if state else []:
        if getattr(config, name) != state["model_config"][name]:
            raise InputError(f"{name}: {getattr(config, name)} in the settings, {state['model_config'][name]} in the checkpoint "
                             "to start from; leave it as it is there")
    model = Transformer(config).to(device)
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]  # biases and norms: no decay
    try:
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), fused=True)
    except ValueError as error:
        raise InputError(f"optimizer: {error}") from None

    step, epoch, batch, skipped, seconds_before, best = 0, 0, 0, 0, 0.0, None
    if state:
        model.load_state_dict(state["model"])
    if resumed:
        optimizer.load_state_dict(state["optimizer"])
        step, epoch, batch, skipped = state["step"], state["epoch"], state["batch"], state["skipped"]
        seconds_before, best = state["seconds"], state["best"]
        torch.set_rng_state(state["rng"]["cpu"])
        if device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], device)
    del state

    def loop_state():
        rng = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(device)
        return {
            "model": model.state_dict(), "model_config": asdict(config), "vocabulary": tokenizer.vocabulary,
            "settings": vars(settings), "optimizer": optimizer.state_dict(), "rng": rng, "step": step, "epoch": epoch,
            "batch": batch, "skipped": skipped, "seconds": seconds(), "best": best,
        }

    # ---- the run's folder: settings and log; a settings file says what the run is, not how it was started
    with atomic_open(out_dir / "config.py") as file:
        file.write(settings_text(SimpleNamespace(**vars(settings) | {"resume": False})))
    log = open_log(out_dir / "log.jsonl", step)
    print(f"{len(train_rows.src_start) - 1} training rows, {len(valid_rows.src_start) - 1} validation rows, "
          f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.2f} M parameters, {device}"
          + (f", from step {step}" if resumed else ""), file=sys.stderr)

    # ---- the loop
    signals = catch_signals()
    started = time.monotonic() - seconds_before

    def seconds():
        return time.monotonic() - started

    batches = length_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
    bar = tqdm(total=1, initial=progress(settings, step, seconds()), disable=None,  # None: only where stderr is a terminal
               bar_format="{percentage:3.0f}% {bar} {elapsed}, {remaining} left, {postfix}")
    interval = Interval()
    model.train()
    last_step = False
    while not last_step:
        if batch >= len(batches):
            epoch, batch = epoch + 1, 0
            batches = length_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
        src, tgt = (side.to(device, non_blocking=True) for side in collate(train_rows, batches[batch]))  # (B, S), (B, T)
        batch += 1

        learning_rate = settings.learning_rate * schedule(settings, step, seconds())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        loss = token_loss(model(src, tgt[:, :-1]), tgt[:, 1:]) / (tgt[:, 1:] != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip).item()
        if math.isfinite(grad_norm):  # a loss that is not finite has no finite gradient either
            optimizer.step()
        else:
            skipped += 1
        step += 1

        done = progress(settings, step, seconds()) >= 1
        last_step = done or bool(signals)
        ...
