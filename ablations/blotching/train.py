"""
Train a model on arithmetic chains of which middle steps are deleted, and let it shorten its own training data.

    python ablations/blotching/train.py [ablations/blotching/config.py] [--key=value ...]
    python ablations/blotching/train.py --resume    go on after a crash or Ctrl-C; a new run if there is none

config.py explains the settings. Writes into out_dir: config.py (the settings), log.jsonl (a JSON object a line),
last.pt and ckpt_STEP.pt (the whole state of the loop, for --resume). On CPUs a resumed run is bit for bit the run that
was not interrupted, unless max_minutes ties it to the clock. An epoch is n_train_loops steps, or one pass through the
data cache; validation and bootstraps come at the end of epochs.
"""
import math
import os
import signal
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ablations.blotching.bootstraps import bootstrap
from ablations.blotching.data import (
    PAD,
    SAMPLER,
    collate,
    count_steps,
    encode,
    is_answered,
    make_batch,
    sample_chains,
    vocabulary,
)
from ablations.blotching.model import MODEL, build_model, predict, solve
from configurator import check_least, load_settings
from runtime import checkpoint, runs
from runtime.distributed import catch_signals
from runtime.files import InputError, main_guard
from runtime.hardware import find_device
from train import learning_rate, progress

HERE = Path(__file__).resolve().parent
SETTINGS = [
    "out_dir", "run_id", "seed", "device", *SAMPLER, "init_samples", "max_samples", "val_samples", "n_btokens",
    "blotch_p_min", "blotch_p_max", "blotch_p", "contig_blotches", *MODEL, "batch_size", "n_grad_loops",
    "incl_intl_prob", "init_checkpt", "n_train_loops", "learning_rate", "schedule", "warmup_steps", "weight_decay",
    "beta1", "beta2", "grad_clip", "max_steps", "max_minutes", "log_every", "save_every", "save_limit", "val_mod",
    "val_batch_size", "max_val_loops", "val_temp", "pre_epochs", "aug_mod", "min_aug_gap", "bootstrap_blotch_p",
    "aug_temp", "star_loops", "aug_loops", "in_place", "axe_loops", "axe_tol", "abs_axe_tol", "axe_comp_steps",
    "resume", "wandb_mode", "wandb_project",
]
LEAST = {
    "max_num": 0, "max_ents": 2, "max_mult_num": 0, "zipf_order": 0, "init_samples": 0, "max_samples": 0,
    "val_samples": 1, "n_btokens": 0, "d_model": 1, "heads": 1, "n_layers": 1, "h_mult": 1, "seq_len": 4,
    "batch_size": 1, "n_grad_loops": 1, "n_train_loops": 0, "learning_rate": 0, "warmup_steps": 0, "weight_decay": 0,
    "grad_clip": 0, "max_steps": 1, "max_minutes": 0, "log_every": 1, "save_every": 1, "save_limit": 0, "val_mod": 1,
    "val_batch_size": 1, "max_val_loops": 0, "val_temp": 0, "pre_epochs": 0, "aug_mod": -1, "min_aug_gap": 1,
    "aug_temp": 0, "star_loops": 0, "aug_loops": -1, "axe_loops": -1, "axe_tol": 0, "axe_comp_steps": 0,
}
SHARES = "p_ent", "p_mult", "p_paren", "blotch_p_min", "blotch_p_max", "blotch_p", "bootstrap_blotch_p"
PLATEAU = 0.01  # the loss is at a plateau where an epoch lowers it by less than this share
SHOWN = 3  # answers that are logged


def main(argv=None):
    settings = load_settings(__doc__, SETTINGS, argv, base=HERE / "config.py")
    check_settings(settings)
    with runs.held(settings.out_dir):
        return train(settings, find_device(settings.device))


def check_settings(settings):
    """InputError for a setting that makes no sense."""
    check_least(settings, LEAST)
    for name in SHARES:
        if not 0 <= getattr(settings, name) <= 1:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted a probability, 0 to 1")
    if settings.blotch_p_min > settings.blotch_p_max:
        raise InputError(f"blotch_p_min: got {settings.blotch_p_min}, wanted at most blotch_p_max, "
                         f"{settings.blotch_p_max}")
    if settings.aug_mod == 0:
        raise InputError("aug_mod: got 0, wanted epochs between bootstraps, or -1 for plateaus of the loss")
    first, rows = settings.init_samples or settings.max_samples, settings.batch_size * settings.n_grad_loops
    most = settings.max_samples or first
    if min(first, most) < rows:
        raise InputError(f"init_samples: got {settings.init_samples}, with max_samples {settings.max_samples}, wanted "
                         f"at least the {rows} rows of a step in the data cache")
    if first > most:
        raise InputError(f"init_samples: got {first}, wanted at most max_samples, {most}")


def train(settings, device):
    """The run, from its settings to the exit code."""
    out_dir = Path(settings.out_dir)
    torch.manual_seed(settings.seed)

    # ---- where to start
    state = checkpoint.to_resume(out_dir, settings.resume)
    if state and state.get("experiment") != "blotching":
        raise InputError(f"{out_dir}: holds a run of another script; name another folder by --out_dir=")
    if state:
        for name in (*MODEL, *SAMPLER, "n_btokens", "seed"):
            if getattr(settings, name) != state["settings"][name]:
                raise InputError(f"{name}: {getattr(settings, name)} in the settings, {state['settings'][name]} in "
                                 "the checkpoint to go on from; these must agree")
        if progress(settings, state["step"], state["seconds"]) >= 1:
            print(f"{out_dir}: complete at step {state['step']}; a larger limit would go on")
            return 0

    # ---- data: chains, as text
    valid = sample_chains(settings, settings.val_samples, "valid", held_out=True)
    if settings.max_val_loops:
        valid = valid[:settings.max_val_loops * settings.val_batch_size]
    cache = state["cache"] if state else sample_chains(
        settings, settings.init_samples or settings.max_samples, f"{settings.seed} train")

    # ---- model and optimizer
    model = build_model(settings, settings.n_btokens).to(device)
    if settings.init_checkpt and not state:
        try:
            model.load_state_dict(checkpoint.load(settings.init_checkpt)["model"])
        except RuntimeError:
            raise InputError(f"init_checkpt: {settings.init_checkpt} has weights of another shape") from None
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [{"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": settings.weight_decay},
              {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0}]
    try:
        optimizer = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=True)
    except ValueError as error:
        raise InputError(f"beta1, beta2: {error}") from None

    # ---- state of the loop: loop_state lists the same things
    step, epoch, done_rows, earlier, wandb_id = 0, 0, 0, 0.0, ""
    losses, epoch_losses = [], []  # of the steps since the last line of the log, and since the last epoch
    lowest, last_bootstrap = math.inf, -settings.min_aug_gap  # loss of an epoch since the last bootstrap; its epoch
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"]["cpu"].clone())
        if device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"].clone(), device)
        step, epoch, done_rows, earlier, wandb_id, losses, epoch_losses, lowest, last_bootstrap = (state[name] for name
            in ("step", "epoch", "done_rows", "seconds", "wandb_id", "losses", "epoch_losses", "lowest",
                "last_bootstrap"))
    state = None

    def loop_state():
        rng = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(device)
        return {"experiment": "blotching", "model": model.state_dict(), "model_config": {
                    name: getattr(settings, name) for name in MODEL}, "vocabulary": vocabulary(settings.n_btokens),
                "settings": vars(settings), "optimizer": optimizer.state_dict(), "rng": rng, "cache": cache,
                "step": step, "epoch": epoch, "done_rows": done_rows, "seconds": seconds, "wandb_id": wandb_id,
                "losses": losses, "epoch_losses": epoch_losses, "lowest": lowest, "last_bootstrap": last_bootstrap}

    # ---- the run's folder
    wandb_run = runs.start_wandb(settings, wandb_id)
    wandb_id = wandb_run.id if wandb_run else wandb_id
    record = runs.open_log(settings, step, wandb_run)
    parameters = sum(weight.numel() for weight in weights)
    print(f"{len(cache)} chains of {statistics.fmean(map(count_steps, cache)):.2f} steps, {len(valid)} validation "
          f"problems, {parameters:,} parameters, {device}, from step {step}", file=sys.stderr)

    # ---- the loop
    clock = time.process_time if device.type == "cpu" else time.monotonic  # other programs on the CPU do not count
    seconds, started = earlier, clock() - earlier
    asked_to_stop = catch_signals(os.getppid())
    bar = tqdm(total=1, initial=progress(settings, step, seconds), disable=None,
               bar_format="{percentage:3.0f}% {bar} {elapsed}, {remaining} left{postfix}")
    rows = settings.batch_size * settings.n_grad_loops  # of a step
    order, tokens, begun, done, stopped_by = None, 0, time.monotonic(), False, 0
    model.train()
    while not done and not stopped_by:
        # ---- a step
        if order is None:
            order = np.random.default_rng([settings.seed, epoch, 4]).permutation(len(cache))
        rng = np.random.default_rng([settings.seed, step, 0])
        rate = learning_rate(settings, step, progress(settings, step, seconds))
        chosen = order[done_rows:done_rows + rows]
        batches = [make_batch([cache[row] for row in chosen[first:first + settings.batch_size]], settings, rng)
                   for first in range(0, rows, settings.batch_size)]
        targets = sum(int((batch.truth != PAD).sum()) for batch in batches)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = 0.0
        for batch in batches:
            part = summed_loss(model, settings, batch, rng) / targets
            part.backward()
            loss += part.item()
        grad_norm = torch.nn.utils.clip_grad_norm_(weights, settings.grad_clip or math.inf).item()
        if not math.isfinite(loss + grad_norm):
            raise InputError(f"{out_dir}: loss {loss:.4g}, norm of the gradient {grad_norm:.4g} at step {step + 1}; a "
                             "lower learning_rate or a longer warm-up may help")
        optimizer.step()
        losses.append(loss)
        epoch_losses.append(loss)
        step, done_rows = step + 1, done_rows + rows
        tokens += sum(len(batch.tokens) for batch in batches)

        # ---- at the end of an epoch the data may change
        steps = len(epoch_losses)
        end_of_epoch = done_rows + rows > len(order) or steps == settings.n_train_loops
        if end_of_epoch:
            epoch, order, done_rows, mean_loss = epoch + 1, None, 0, statistics.fmean(epoch_losses)
            epoch_losses = []
            at_plateau = mean_loss > (1 - PLATEAU) * lowest and epoch - last_bootstrap >= settings.min_aug_gap
            lowest = min(lowest, mean_loss)
            due = at_plateau if settings.aug_mod == -1 else (epoch - settings.pre_epochs) % settings.aug_mod == 0
            if due and epoch >= settings.pre_epochs:
                counts = bootstrap(model, settings, cache, epoch)
                lowest, last_bootstrap = math.inf, epoch
                if counts:
                    record(step, clock() - started, counts | {"epoch": epoch, "cache": len(cache), "cache_steps":
                                                              statistics.fmean(map(count_steps, cache))})
        seconds, stopped_by = clock() - started, asked_to_stop()
        done = progress(settings, step, seconds) >= 1
        if step % settings.log_every == 0 or done:
            speed = tokens / (time.monotonic() - begun)
            record(step, seconds, {"loss": statistics.fmean(losses), "learning_rate": rate, "grad_norm": grad_norm,
                                   "tokens_per_second": speed, "epoch": epoch})
            bar.set_postfix_str(f"step {step}, loss {statistics.fmean(losses):.4f}, {speed:,.0f} tokens/s",
                                refresh=False)
            losses, tokens, begun = [], 0, time.monotonic()
        bar.update(min(1, progress(settings, step, seconds)) - bar.n)

        if end_of_epoch and epoch % settings.val_mod == 0 or done:
            before, paused = clock(), time.monotonic()
            figures, answers = validate(model, settings, valid)
            record(step, seconds, figures | {"samples": answers})
            bar.write(f"step {step}: accuracy by level {' '.join(f'{x:.2f}' for x in figures['accuracy_by_level'])}, "
                      f"steps {' '.join(f'{x:.1f}' for x in figures['steps_by_level'])}, {seconds / 60:.1f} min",
                      file=sys.stderr)
            started, begun = started + clock() - before, begun + time.monotonic() - paused  # not part of the training
        if step % settings.save_every == 0 or done or stopped_by:
            checkpoint.save_limited(out_dir, loop_state(), settings.save_limit)
    bar.close()

    if wandb_run:
        wandb_run.finish()
    if not done:
        print(f"stopped by {signal.Signals(stopped_by).name} at step {step}, nothing is lost; go on with: "
              f"python {sys.argv[0]} {out_dir}/config.py --resume", file=sys.stderr)
        return 128 + stopped_by
    print(f"accuracy {figures['valid_exact']:.2%} at level 0 with {figures['valid_steps']:.2f} steps, "
          f"{out_dir}/last.pt; next: python ablations/blotching/evaluate.py {out_dir}/config.py")
    return 0


def summed_loss(model, settings, batch, rng):
    """Cross-entropy of a batch in nats, summed over the tokens that have a loss."""
    logits = predict(model, settings, batch, rng)  # (N, V)
    return F.cross_entropy(logits, batch.truth.to(logits.device), ignore_index=PAD, reduction="sum")


@torch.inference_mode()
def validate(model, settings, chains):
    """
    How good the model is on the problems of these chains: figures, and some answers.

    The figures: `valid_loss`, of the whole chains at level 0, per token with a loss; `accuracy_by_level`, the share of
    the problems with the right answer, and `steps_by_level`, the mean number of steps of all answers, a number for each
    level of blotching; `valid_exact` and `valid_steps`, those of level 0.
    """
    model.eval()
    batches = [chains[first:first + settings.val_batch_size]
               for first in range(0, len(chains), settings.val_batch_size)]
    rng, loss, targets = np.random.default_rng(0), 0.0, 0
    for part in batches:
        batch = collate([encode(chain, level=0) for chain in part], settings.incl_intl_prob)
        loss += summed_loss(model, settings, batch, rng).item()
        targets += int((batch.truth != PAD).sum())
    accuracy, steps, shown = [], [], []
    for level in range(settings.n_btokens + 1):
        answers = []
        for part in batches:
            problems = [chain.partition("=")[0] for chain in part]
            answers += solve(model, settings, problems, level, settings.val_temp, rng)
        accuracy.append(statistics.fmean(map(is_answered, answers)))
        steps.append(statistics.fmean(map(count_steps, answers)))
        shown += [{"level": level, "truth": truth, "answer": answer} for truth, answer in zip(chains, answers[:SHOWN])]
    model.train()
    return {"valid_loss": loss / targets, "valid_exact": accuracy[0], "valid_steps": steps[0],
            "accuracy_by_level": accuracy, "steps_by_level": steps}, shown


if __name__ == "__main__":
    main_guard(main)
