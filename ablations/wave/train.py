"""
Train a model on a memory task: fit, validate, test and predict in one command.

    python ablations/wave/train.py ablations/wave/config/copy.py [--model=wave] [--length=80] [--key=value ...]
    python ablations/wave/train.py ablations/wave/config/copy.py --resume     go on after a crash or Ctrl-C

Writes into out_dir: config.py (the settings), log.jsonl (a JSON object a line), best.pt (best on the validation split),
last.pt and ckpt_STEP.pt (the whole state of the loop); at the end report.json, predictions.csv and wave.svg of
evaluate.py. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint first. On a CPU a resumed run is bit for bit the run that was
not interrupted, unless max_minutes ties its schedule to the clock.
"""
import math
import os
import signal
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch is imported; the project's train.py says why
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # import from the repository, which has its own train.py

import torch
from tqdm import tqdm

from ablations.wave.data import TASKS, load_splits, to_tensors, training_rows
from ablations.wave.evaluate import (
    BASE,
    MODEL_SETTINGS,
    check_model,
    evaluate,
    load_state,
    losses_of,
    make_network,
    score,
)
from configurator import check_least, load_settings
from runtime import checkpoint, runs
from runtime.distributed import catch_signals
from runtime.files import InputError, main_guard
from runtime.hardware import device_name, find_device, peak_memory
from train import learning_rate, progress

SETTINGS = [*MODEL_SETTINGS, "valid_rows", "batch_rows", "learning_rate", "schedule", "warmup_steps", "weight_decay",
            "beta1", "beta2", "grad_clip", "max_steps", "max_minutes", "log_every", "eval_every", "save_every",
            "save_limit", "resume", "init_from",
            "wandb_mode", "wandb_project", "data_dir", "out_dir", "run_id", "seed", "device"]
LEAST = {"batch_rows": 1, "valid_rows": 1, "learning_rate": 0, "warmup_steps": 0, "weight_decay": 0, "grad_clip": 0,
         "max_steps": 1, "max_minutes": 0, "log_every": 1, "eval_every": 1, "save_every": 1, "save_limit": 0}


def main(argv=None):
    settings = load_settings(__doc__, SETTINGS, argv, BASE)
    check_model(settings)
    check_least(settings, LEAST)
    with runs.held(settings.out_dir):
        return train(settings)


def train(settings):
    device, out_dir, task = find_device(settings.device), Path(settings.out_dir), TASKS[settings.task]
    torch.manual_seed(settings.seed)
    state = checkpoint.to_resume(out_dir, settings.resume)
    splits = load_splits(settings)
    network = make_network(settings).to(device)
    matrices = [weight for weight in network.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in network.parameters() if weight.dim() < 2]
    try:
        optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": settings.weight_decay},
                                       {"params": vectors, "weight_decay": 0.0}],
                                      betas=(settings.beta1, settings.beta2))
    except ValueError as error:
        raise InputError(f"beta1, beta2: {error}") from None

    # ---- state of the loop
    step, best, earlier, losses, wandb_id = 0, None, 0.0, [], ""
    if state:
        theirs = state["settings"]
        for name in (*MODEL_SETTINGS, "seed", "batch_rows", "valid_rows"):
            if theirs.get(name) != getattr(settings, name):
                raise InputError(f"{name}: {getattr(settings, name)} in the settings, {theirs.get(name)} in the "
                                 "checkpoint to go on from; these must agree")
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        step, best, earlier, losses, wandb_id = (state[name] for name in ("step", "best", "seconds", "losses",
                                                                          "wandb_id"))
    elif settings.init_from:
        try:
            network.load_state_dict(load_state(settings.init_from)["model"])
        except RuntimeError:
            raise InputError(f"init_from: {settings.init_from} has weights of another shape") from None
    seconds, started = earlier, time.monotonic() - earlier

    def loop_state():
        return {"model": network.state_dict(), "model_config": {}, "vocabulary": {}, "settings": vars(settings),
                "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "step": step, "best": best,
                "seconds": seconds, "losses": losses, "wandb_id": wandb_id}

    wandb_run = runs.start_wandb(settings, wandb_id)
    wandb_id = wandb_run.id if wandb_run else wandb_id
    record = runs.open_log(settings, step, wandb_run)
    parameters = sum(weight.numel() for weight in network.parameters())
    print(f"{settings.model} on {settings.task}, {parameters:,} parameters, {device_name(device)}, from step {step}",
          file=sys.stderr)

    # ---- the loop
    asked_to_stop = catch_signals(os.getppid())
    bar = tqdm(total=settings.max_steps, initial=step, disable=None)  # None: off where stderr is no terminal
    done = progress(settings, step, seconds) >= 1
    network.train()
    while not done and not asked_to_stop():
        rate = learning_rate(settings, step, progress(settings, step, seconds))
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, y = to_tensors(*training_rows(settings, splits, step), task.inputs, device)  # (T, B, inputs), (answers, B)
        loss = losses_of(network(x, len(y)), y).mean()
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.grad_clip or math.inf)
        if not loss.isfinite() or not grad_norm.isfinite():
            raise InputError(f"{out_dir}: loss {loss:.4g} and norm of the gradient {grad_norm:.4g} at step {step}; "
                             "a lower learning_rate may help")
        optimizer.step()
        losses.append(loss.item())
        step += 1
        seconds = time.monotonic() - started
        done = progress(settings, step, seconds) >= 1
        bar.update()

        if step % settings.log_every == 0 or done:
            record(step, seconds, {"loss": statistics.fmean(losses), "learning_rate": rate,
                                   "grad_norm": grad_norm.item(), "memory_gb": peak_memory(device)})
            bar.set_postfix_str(f"loss {statistics.fmean(losses):.3g}", refresh=False)
            losses.clear()
        if step % settings.eval_every == 0 or done:
            figures = score(network, task, *splits["valid"], device)
            started = time.monotonic() - seconds  # the seconds are those of training alone
            record(step, seconds, {f"valid_{name}": value for name, value in figures.items()})
            bar.write(f"step {step}: validation loss {figures['loss']:.3g}, exact {figures['exact']:.2%}, mean squared "
                      f"error {figures['mse']:.3g}, {seconds / 60:.1f} min", file=sys.stderr)
            if best is None or figures["loss"] < best["loss"]:
                best = figures | {"step": step}
                checkpoint.save(out_dir / "best.pt", loop_state())
        if step % settings.save_every == 0 or done:
            checkpoint.save_limited(out_dir, loop_state(), settings.save_limit)
    bar.close()
    if wandb_run:
        wandb_run.finish()
    if not done:
        checkpoint.save_limited(out_dir, loop_state(), settings.save_limit)
        print(f"stopped by {signal.Signals(asked_to_stop()).name} at step {step}, nothing is lost; "
              f"go on with: python ablations/wave/train.py {out_dir}/config.py --resume", file=sys.stderr)
        return 128 + asked_to_stop()

    evaluate(out_dir / "best.pt", device)
    return 0


if __name__ == "__main__":
    main_guard(main)
