"""
The gradient of an expected reward: answers drawn from a model, what their rewards are compared with, the loss.

A policy p is a model with temperature, top_k and top_p; an answer y ends with EOS, or is cut off after so many tokens. Then
grad E[r] = E[(r(y) - b) grad log p(y)] for any b that does not depend on y (Williams 1992), so that the loss -(r - b) log p(y) of
answers drawn from p has the right gradient: all tokens of y, its end included, of the very distribution that it was drawn from.
"""
import math
from typing import NamedTuple

import numpy as np
import torch

from decode import pad
from generate import sample, truncate
from tokenizer import BOS

BASELINES = "leave-one-out", "greedy"


class Target(NamedTuple):
    """What the loss of one target is made of, see `losses_of`."""
    ids: list  # with EOS where it ends
    advantage: float = 0.0  # sum over the answers that are this text
    count: int = 0  # answers that are
    truths: int = 0  # 1: the row's truth


def draw_answers(model, sources, numbers, longest, settings, step):
    """For each source (list of ids) k hypotheses drawn at random; with baseline="greedy" one more, of the most probable tokens.

    The random numbers depend on the seed, the step and the row's number alone: not on ranks, on batches, or on how often the run was resumed.
    """
    src = pad(sources).to(model.tgt_embedding.weight.device)
    k = settings.scst_samples
    uniform = np.zeros((len(numbers), k + (settings.baseline == "greedy"), longest))  # at 0 stands the most probable token
    for place, number in enumerate(numbers):
        uniform[place, :k] = np.random.default_rng([settings.seed, step, number]).random((k, longest))
    return sample(model, src, longest, torch.from_numpy(uniform).to(src.device), settings.temperature, settings.top_k, settings.top_p)


def baselines(rewards, k):
    """What each of k rewards is compared with, (k,): the mean of the others, or, if there is a reward more, that one: the greedy answer's."""
    if len(rewards) > k:
        return np.full(k, rewards[k])
    if rewards.min() == rewards.max():
        return rewards  # to the last digit
    return (rewards.sum() - rewards) / (k - 1)


def advantages(rewards, baseline, normalise=False):
    """Rewards minus baselines; `normalise`: over their root mean square, with leave-one-out as in GRPO (Shao et al. 2024, arXiv 2402.03300)."""
    difference = rewards - baseline
    size = math.sqrt((difference ** 2).mean())
    return difference / size if normalise and size else difference


def lesson_of(answers, advantages, keep=False):
    """Hypotheses of one row -> Targets, each text once. Those that the policy's gradient does not need are left out unless `keep`."""
    targets = {}
    for answer, advantage in zip(answers, advantages):
        ids = tuple(answer.ids)
        before = targets.get(ids, Target(ids))
        targets[ids] = before._replace(advantage=before.advantage + advantage, count=before.count + 1)
    return [target for target in targets.values() if target.advantage or keep]


def batches_of(lessons, batch_tokens):
    """Lessons (src, [Target, ...]) in lists of at most batch_tokens tokens with their padding; a larger lesson is a list of its own."""
    batch, longest_src, longest_tgt, targets = [], 0, 0, 0
    for src, lesson in lessons:
        tgt = max(len(target.ids) for target in lesson)
        size = max(longest_src, len(src)) * (len(batch) + 1) + max(longest_tgt, tgt) * (targets + len(lesson))
        if batch and size > batch_tokens:
            yield batch
            batch, longest_src, longest_tgt, targets = [], 0, 0, 0
        batch.append((src, lesson))
        longest_src, longest_tgt, targets = max(longest_src, len(src)), max(longest_tgt, tgt), targets + len(lesson)
    if batch:
        yield batch


def losses_of(model, start, lessons, settings):
    """
    Three sums over the targets of a batch of lessons (src, [Target, ...]), each a tensor:

    policy          -advantage * log p(ids)
    divergence      count * KL(model || start) of the next token, summed over the tokens; exact over the vocabulary; 0 without `start`
    cross_entropy   -truths * log-probability of ids under the model itself, at temperature 1
    """
    device = model.tgt_embedding.weight.device
    src = pad([src for src, _ in lessons]).to(device)  # (B, S)
    counts = torch.tensor([len(lesson) for _, lesson in lessons], device=device)  # (B,) targets of each source, M in all
    targets = [target for _, lesson in lessons for target in lesson]
    tgt = pad([[BOS, *target.ids] for target in targets]).to(device)  # (M, 1 + T)
    length = torch.tensor([len(target.ids) for target in targets], device=device)
    real = torch.arange(tgt.shape[1] - 1, device=device) < length[:, None]  # (M, T); PAD may have been drawn, as any token
    logits = widened(model(src, tgt[:, :-1], counts))  # (M, T, V)
    own = logits.log_softmax(-1)
    drawn_from = policy_logprobs(logits, tgt[:, 1:], settings.temperature, settings.top_k, settings.top_p)

    def total(of_tokens, weights):
        """(M, T), (M) -> ()"""
        return (of_tokens.masked_fill(~real, 0).sum(1) * of_tokens.new_tensor(weights)).sum()

    def at_targets(logprobs):
        """(M, T, V) -> (M, T)"""
        return logprobs.gather(-1, tgt[:, 1:, None])[..., 0]

    policy = total(-at_targets(drawn_from), [target.advantage for target in targets])
    cross_entropy = total(-at_targets(own), [target.truths for target in targets])
    if start is None:
        return policy, policy.new_zeros(()), cross_entropy
    with torch.no_grad():
        before = widened(start(src, tgt[:, :-1], counts)).log_softmax(-1)
    return policy, total((own.exp() * (own - before)).sum(-1), [target.count for target in targets]), cross_entropy


def policy_logprobs(logits, drawn, temperature, top_k, top_p):
    """
    Log-probabilities (..., V) of what generate.draw draws from.

    drawn (...): the tokens that were drawn; they count as candidates, though logits that are rounded otherwise may say they are none.
    """
    if not top_k and top_p == 1:
        return (logits / temperature).log_softmax(-1)
    with torch.no_grad():
        p, order = truncate(logits.log_softmax(-1), temperature, top_k, top_p)
        candidate = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, p > 0).scatter(-1, drawn[..., None], True)
    return (logits / temperature).masked_fill(~candidate, -torch.inf).log_softmax(-1)


def widened(logits):
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
