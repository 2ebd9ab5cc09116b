"""Optimisers, learning-rate schedules, and the moving average of the weights."""
import contextlib
import math

import torch

from files import InputError

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
