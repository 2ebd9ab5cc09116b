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
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

# Before torch loads OpenMP: its threads spin for milliseconds at each barrier, and when another program wants a core, a
# step takes 10 times as long as it should. Spinning for microseconds costs nothing on an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import checkpoint
from batches import collate, length_batches, load_split
from configurator import load_settings, settings_text
from files import InputError, atomic_open, main_guard
from generate import greedy
from model import ModelConfig, Transformer, find_device
from tokenizer import PAD, Tokenizer, build_vocabulary

ARCHITECTURE = ["d_model", "heads", "encoder_layers", "decoder_layers", "d_ff"]
SETTINGS = [
    "data_dir", "out_dir", "seed", "device", "src_max_len", "tgt_max_len", "rename_particles", *ARCHITECTURE, "dropout",
    "attention", "checkpoint_layers", "batch_tokens", "learning_rate", "warmup_steps", "weight_decay", "beta1", "beta2", "grad_clip",
    "max_steps", "max_minutes", "eval_every", "eval_rows", "log_every", "save_every", "save_limit", "resume", "init_from",
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
    torch.manual_seed(settings.seed)

    # ---- where to start: the newest checkpoint of this run, the weights of another run, or random weights
    if not settings.resume and checkpoint.holds_run(out_dir):
        raise InputError(f"{out_dir}: holds a run already; go on with it by --resume, or name another folder by --out_dir=")
    state = checkpoint.load_newest(out_dir) if settings.resume else None
    resumed = state is not None
    if not resumed and settings.init_from:
        state = checkpoint.load(settings.init_from)
    if resumed and progress(settings, state["step"], state["seconds"]) >= 1:
        print(f"{out_dir}: complete at step {state['step']}, after {state['seconds'] / 60:.1f} min; a larger limit would go on")
        report_best(out_dir, state["best"])
        return 0

    # ---- data
    tokenizer = Tokenizer(state["vocabulary"] if state else build_vocabulary(Path(settings.data_dir) / "train.csv", settings.rename_particles))
    limits = settings.src_max_len, settings.tgt_max_len
    train_rows = load_split(settings.data_dir, "train", tokenizer, *limits)
    valid_rows = load_split(settings.data_dir, "valid", tokenizer, *limits)
    valid_batches = validation_batches(valid_rows, settings)

    # ---- model and optimizer
    sizes = {name: getattr(settings, name) for name in [*ARCHITECTURE, "dropout", "src_max_len", "tgt_max_len"]}
    config = ModelConfig(len(tokenizer.vocabulary["src"]), len(tokenizer.vocabulary["tgt"]), **sizes)
    for name in ARCHITECTURE if state else []:
        if sizes[name] != state["model_config"][name]:
            raise InputError(f"{name}: {sizes[name]} in the settings, {state['model_config'][name]} in the checkpoint to go on from; "
                             "these must agree")
    model = Transformer(config, settings.attention, settings.checkpoint_layers).to(device)
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]  # biases and norms: no decay
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    try:
        optimizer = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=True)
    except ValueError as error:
        raise InputError(f"beta1, beta2: {error}") from None

    # ---- state of the loop; loop_state and what is read back here list the same things
    step, epoch, batch, skipped, best, earlier = 0, 0, 0, 0, None, 0.0
    if state:
        model.load_state_dict(state["model"])
    if resumed:
        # the moments are the run's, the hyper-parameters are today's settings
        optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": optimizer.state_dict()["param_groups"]})
        step, epoch, batch, skipped = state["step"], state["epoch"], state["batch"], state["skipped"]
        best, earlier = state["best"], state["seconds"]
        torch.set_rng_state(state["rng"]["cpu"])
        if device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], device)
    started = time.monotonic() - earlier

    def seconds():
        """Training time of the run so far, that of its earlier processes included."""
        return time.monotonic() - started

    def loop_state():
        rng = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(device)
        return {
            "model": model.state_dict(), "model_config": asdict(config), "vocabulary": tokenizer.vocabulary,
            "settings": vars(settings), "optimizer": optimizer.state_dict(), "rng": rng, "step": step, "epoch": epoch,
            "batch": batch, "skipped": skipped, "best": best, "seconds": seconds(),
        }

    # ---- the run's folder
    log = open_run(settings, step)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{len(train_rows.src_start) - 1} training rows, {len(valid_rows.src_start) - 1} validation rows, "
          f"{parameters / 1e6:.2f} M parameters, {device}, from step {step}", file=sys.stderr)

    # ---- the loop
    batches = length_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
    bar = tqdm(total=1, initial=progress(settings, step, seconds()), disable=None,  # None: off where stderr is no terminal
               bar_format="{percentage:3.0f}% {bar} {elapsed}, {remaining} left{postfix}")
    losses, tokens, clock = [], 0, time.monotonic()  # since the last line of the log
    signals = catch_signals()
    done = last_step = False
    model.train()
    while not last_step:
        if batch >= len(batches):
            epoch, batch = epoch + 1, 0
            batches = length_batches(train_rows, settings.batch_tokens, [settings.seed, epoch])
        src, tgt = collate(train_rows, batches[batch])  # (B, S), (B, T)
        batch += 1
        tokens += int((src != PAD).sum() + (tgt != PAD).sum())
        src, tgt = src.to(device), tgt.to(device)

        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, seconds())
        loss = loss_sum(model(src, tgt[:, :-1]), tgt[:, 1:]) / (tgt[:, 1:] != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip or math.inf).item()
        if math.isfinite(grad_norm):  # never where the loss is not finite
            optimizer.step()
        else:
            skipped += 1
        losses.append(loss.detach())
        step += 1
        done = progress(settings, step, seconds()) >= 1
        last_step = done or bool(signals)

        if step % settings.log_every == 0 or last_step:
            figures = {"loss": torch.stack(losses).mean().item(), "learning_rate": optimizer.param_groups[0]["lr"],
                       "grad_norm": grad_norm, "tokens_per_second": tokens / (time.monotonic() - clock), "skipped": skipped}
            write_log(log, step, seconds(), figures)
            bar.set_postfix_str(f"step {step}, loss {figures['loss']:.4f}, {figures['tokens_per_second']:,.0f} tokens/s"
                                + f", {skipped} steps skipped: gradient not finite" * bool(skipped), refresh=False)
            losses, tokens, clock = [], 0, time.monotonic()
        bar.update(min(1, progress(settings, step, seconds())) - bar.n)

        if step % settings.eval_every == 0 or done:
            before = time.monotonic()
            figures = validate(model, valid_rows, valid_batches, device)
            clock += time.monotonic() - before  # tokens/s is that of training alone
            write_log(log, step, seconds(), figures)
            bar.write(f"step {step}: validation loss {figures['valid_loss']:.4f}, exact match {figures['valid_exact']:.2%}, "
                      f"{seconds() / 60:.1f} min" + f", {skipped} steps skipped: gradient not finite" * bool(skipped), file=sys.stderr)
            if best is None or better(figures, best):
                best = figures | {"step": step}
                checkpoint.save(out_dir / "best.pt", loop_state())
        if step % settings.save_every == 0 or last_step:
            checkpoint.save_limited(out_dir, loop_state(), settings.save_limit)
    bar.close()

    if done:
        report_best(out_dir, best)
        return 0
    print(f"stopped by {signal.Signals(signals[0]).name} at step {step}, nothing is lost; "
          f"go on with: python train.py {out_dir}/config.py --resume", file=sys.stderr)
    return 128 + signals[0]


def progress(settings, step, seconds):
    """How much of the run is done, 0..1: by steps, or by the clock if that is further on."""
    by_clock = seconds / (60 * settings.max_minutes) if settings.max_minutes else 0.0
    return max(step / settings.max_steps, by_clock)


def learning_rate(settings, step, seconds):
    """Linear warm-up, times half a cosine over the run: down to 0 however slow the machine is."""
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return settings.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, progress(settings, step, seconds))))


def loss_sum(logits, target):
    """Cross-entropy summed over the target tokens. logits: (B, T, V); target: (B, T), padded with PAD, which counts nothing."""
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="sum")


def validation_batches(packed, settings):
    """The same eval_rows random rows each time (0: all of them), in batches of like length."""
    rows = len(packed.src_start) - 1
    chosen = np.random.default_rng(settings.seed).permutation(rows)[:settings.eval_rows or rows]
    batches = [batch[np.isin(batch, chosen)] for batch in length_batches(packed, settings.batch_tokens, None)]
    return [batch for batch in batches if len(batch)]


@torch.inference_mode()
def validate(model, packed, batches, device):
    """{"valid_loss": teacher-forced loss per target token, "valid_exact": share of the rows that greedy decoding gets right}."""
    model.eval()
    loss, tokens, exact, rows = 0.0, 0, 0, 0
    for batch in batches:
        src, tgt = (side.to(device) for side in collate(packed, batch))
        loss += loss_sum(model(src, tgt[:, :-1]), tgt[:, 1:]).item()
        tokens += (tgt[:, 1:] != PAD).sum().item()
        answers = greedy(model, src, max_len=tgt.shape[1] - 1)  # what is longer than the longest target is wrong anyway
        truths = [packed.tgt[packed.tgt_start[row]:packed.tgt_start[row + 1]].tolist() for row in batch]
        exact += sum(answer.ids == truth for answer, truth in zip(answers, truths))
        rows += len(batch)
    model.train()
    return {"valid_loss": loss / tokens, "valid_exact": exact / rows}


def better(figures, best):
    """More exact matches; among equals the lower loss."""
    return (figures["valid_exact"], -figures["valid_loss"]) > (best["valid_exact"], -best["valid_loss"])


def report_best(out_dir, best):
    if best is None:  # stopped before its first validation, then resumed with a limit that it has passed
        print(f"no validation yet; python train.py {out_dir}/config.py --resume --max_steps=MORE goes on")
    else:
        print(f"best on the validation split: exact match {best['valid_exact']:.2%}, loss {best['valid_loss']:.4f} at step {best['step']}, "
              f"{out_dir}/best.pt; next: python evaluate.py {out_dir}/config.py")


def open_run(settings, step):
    """
    Make out_dir with config.py and log.jsonl; returns the log, open to append.

    The log keeps its lines up to `step`: a resumed run writes the later ones again.
    """
    out_dir = Path(settings.out_dir)
    path = out_dir / "log.jsonl"
    kept = []
    try:
        for leftover in out_dir.glob(".*.pt.*"):  # of a process that was killed while it wrote
            leftover.unlink()
        for line in path.read_text(errors="replace").splitlines() if step and path.exists() else []:
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:
                pass  # the line that a crash cut off
        with atomic_open(path) as file:
            file.writelines(kept)
        with atomic_open(out_dir / "config.py") as file:  # says what the run is, not how it was started
            file.write(settings_text(SimpleNamespace(**vars(settings) | {"resume": False})))
        return open(path, "a", buffering=1)
    except OSError as error:
        raise InputError(f"{out_dir}: no run can be written there ({error.strerror})") from None


def write_log(log, step, seconds, figures):
    """One line of JSON; what is not finite becomes null, as JSON has no NaN."""
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    log.write(json.dumps({"step": step, "seconds": round(seconds, 3)} | finite) + "\n")


def catch_signals():
    """A list that SIGINT or SIGTERM is appended to, so that the loop can end between two steps; a second one kills."""
    caught = []

    def note(number, frame):
        caught.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return caught


if __name__ == "__main__":
    main_guard(main)
