"""
Bootstraps: the data cache gets shorter chains that the model itself has found or can do without steps of.

STaR (Zelikman et al. 2022, arXiv 2203.14465) answers new problems; augmentation answers those of the cache again. An
answer is kept if each of its steps is right and it has fewer steps than the chain that was known. Axing deletes the
middle step of a chain whose removal raises the loss of the next steps least.
"""
import numpy as np
import torch
import torch.nn.functional as F

from ablations.blotching.data import (
    PAD,
    collate,
    count_steps,
    encode,
    is_right,
    nearest_level,
    sample_chains,
)
from ablations.blotching.model import predict, solve


def bootstrap(model, settings, cache, epoch):
    """
    Apply the bootstraps that the settings ask for to `cache`, a list of chains, in place.

    Returns {"star": {"tried": chains, "kept": chains}, ...}.
    """
    level, counts = nearest_level(settings, settings.bootstrap_blotch_p), {}
    if settings.star_loops:
        rng = np.random.default_rng([settings.seed, epoch, 1])
        known = sample_chains(settings, settings.star_loops * settings.val_batch_size, f"{settings.seed} star {epoch}")
        kept = [new for new in shorter_answers(model, settings, known, level, rng) if new]
        cache += kept
        counts["star"] = {"tried": len(known), "kept": len(kept)}
    if settings.aug_loops:
        rng = np.random.default_rng([settings.seed, epoch, 2])
        chosen = choose(len(cache), settings.aug_loops, settings.val_batch_size, rng)
        answers = shorter_answers(model, settings, [cache[number] for number in chosen], level, rng)
        counts["aug"] = keep(cache, chosen, answers, settings.in_place)
    if settings.axe_loops:
        rng = np.random.default_rng([settings.seed, epoch, 3])
        chosen = choose(len(cache), settings.axe_loops, settings.val_batch_size, rng)
        axed = [axe(model, settings, cache[number], level, rng) for number in chosen]
        counts["axe"] = keep(cache, chosen, axed, in_place=True)
    if settings.max_samples:
        del cache[:-settings.max_samples]  # the oldest
    return counts


def choose(total, loops, batch, rng):
    """Numbers of `loops` batches of different chains; -1: of all chains."""
    count = total if loops == -1 else min(total, loops * batch)
    return rng.permutation(total)[:count].tolist()


def keep(cache, chosen, chains, in_place):
    """Chains that are not None replace those with the chosen numbers, or are appended."""
    kept = [(number, chain) for number, chain in zip(chosen, chains) if chain]
    for number, chain in kept:
        if in_place:
            cache[number] = chain
        else:
            cache.append(chain)
    return {"tried": len(chosen), "kept": len(kept)}


def shorter_answers(model, settings, known, level, rng):
    """For each known chain the model's answer to its problem, None unless it is right and has fewer steps."""
    kept = []
    for first in range(0, len(known), settings.val_batch_size):
        chains = known[first:first + settings.val_batch_size]
        problems = [chain.partition("=")[0] for chain in chains]
        answers = solve(model, settings, problems, level, settings.aug_temp, rng)
        kept += [new if count_steps(new) < count_steps(old) and is_right(new) else None
                 for old, new in zip(chains, answers)]
    return kept


@torch.inference_mode()
def axe(model, settings, chain, level, rng):
    """
    The chain without the middle step whose removal raises the loss least; None if the rise is above the tolerance.

    The loss is the mean over the tokens of the axe_comp_steps steps after the deleted one, with it and without it. Only
    removals count with which the most probable tokens of the answer are the right ones.
    """
    steps = chain.split("=")
    ends = np.cumsum([len(step) + 1 for step in steps])  # (steps,), index of the token after each step
    middle = len(steps) - 2
    if middle == 0:
        return None
    cuts = [[step == cut for step in range(middle)] for cut in range(-1, middle)]  # the first row has all steps
    batch = collate([encode(chain, level, cut) for cut in cuts], incl_intl_prob=False)
    was_training = model.training
    model.eval()
    logits = predict(model, settings, batch, rng).cpu()  # (N, V)
    model.train(was_training)
    losses = F.cross_entropy(logits, batch.truth, ignore_index=PAD, reduction="none")  # (N,)
    wrong = (logits.argmax(-1) != batch.truth) & (batch.truth != PAD)  # (N,)
    # index of the predicted token in the chain with all steps: the next of its row, and the end for the last one
    after = torch.cat([batch.index[1:], batch.index[:1]])
    after[batch.rows.start[1:].long() - 1] = len(chain) + 1

    def loss_of(row, begin, end):
        there = (batch.rows.row == row) & (after > begin) & (after <= end)
        return float(losses[there].mean())

    best, least = None, np.inf
    for cut in range(middle):
        row = cut + 1
        last = len(steps) - 1
        if settings.axe_comp_steps:
            last = min(last, cut + 1 + settings.axe_comp_steps)
        span = ends[cut + 1], ends[last]  # after the deleted step, number cut + 1, to the end of the last one compared
        before = loss_of(0, *span)
        rise = loss_of(row, *span) - before
        if not settings.abs_axe_tol:
            rise /= max(before, 1e-9)
        if (wrong & (batch.rows.row == row) & (after > ends[-2])).any():
            continue
        if rise < least:
            best, least = cut, rise
    if best is None or least > settings.axe_tol:
        return None
    return "=".join(step for number, step in enumerate(steps) if number != best + 1)
