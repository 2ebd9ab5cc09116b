"""The policy gradient: that of the expected reward, on models whose answers can all be counted."""
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import padded

from generate import Hypothesis, draw
from model import ModelConfig, Transformer
from scst import Target, advantages, draw_rollouts, loss_terms, merge_rollouts, micro_batches, policy_logprobs
from tokenizer import BOS, EOS

LONGEST, VOCABULARY = 3, 4
SOURCES = [[3, 4, 4, 3, EOS], [4, EOS]]
HOW = [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.3, 3, 1.0), (1.0, 0, 0.9), (1.2, 3, 0.95)]  # temperature, top_k, top_p


@pytest.fixture
def model():
    torch.manual_seed(5)
    model = Transformer(ModelConfig(6, VOCABULARY, 8, 8, 8, 2, 1, 1, 8, dropout=0.3)).double().eval()
    return model


def settings(how=HOW[0], baseline="leave-one-out", k=4):
    temperature, top_k, top_p = how
    return SimpleNamespace(seed=3, scst_samples=k, baseline=baseline, temperature=temperature, top_k=top_k, top_p=top_p)


ANSWERS = [ids for length in range(1, LONGEST + 1) for ids in itertools.product(range(VOCABULARY), repeat=length)
           if EOS not in ids[:-1] and (ids[-1] == EOS or length == LONGEST)]  # with an end, or cut off


def reward(source, ids):
    """Any number: of these tokens in this order after this source."""
    return math.sin(17 * source + sum((position + 1) * (token + 1) ** 2 for position, token in enumerate(ids)))


def following(model, source, past, how):
    """Probabilities (V,) of the token after `past`: the softmax over the candidates that top_k and top_p leave."""
    temperature, top_k, top_p = how
    p = (padded(model, torch.tensor([SOURCES[source]]), torch.tensor([[BOS, *past]]))[0, -1] / temperature).softmax(-1)
    kept = []
    for token in p.argsort(descending=True).tolist()[:top_k or VOCABULARY]:
        kept.append(token)
        if p[kept].sum() >= top_p * p.sort(descending=True).values[:top_k or VOCABULARY].sum():
            break
    return torch.stack([p[token] / p[kept].sum() if token in kept else 0 * p[token] for token in range(VOCABULARY)])


def gradient(model, value):
    model.zero_grad()
    value.backward()
    return torch.cat([torch.zeros(weight.numel()) if weight.grad is None else weight.grad.flatten()
                      for weight in model.parameters()])


def exact(model, how):
    """(gradient of the expected reward, the mean over the sources; probabilities of all answers to each source)"""
    table = []
    for source in range(len(SOURCES)):
        pasts = {ids[:n] for ids in ANSWERS for n in range(len(ids))}
        pasts = {past: following(model, source, past, how) for past in pasts}
        table.append([math.prod(pasts[ids[:n]][token] for n, token in enumerate(ids)) for ids in ANSWERS])
    expected = sum(p * reward(source, ids) for source, row in enumerate(table) for ids, p in zip(ANSWERS, row))
    return gradient(model, expected / len(SOURCES)), [[p.item() for p in row] for row in table]


@pytest.mark.parametrize("how", HOW)
def test_the_policy_loss_over_all_answers_has_the_gradient_of_the_expected_reward(model, how):
    """Each answer counts with its probability. The baseline adds nothing."""
    wanted, table = exact(model, how)
    assert all(abs(sum(row) - 1) < 1e-12 for row in table)
    for baseline in (0, 0.7):
        examples = []
        for source, row in enumerate(table):
            targets = [Target(ids, p * (reward(source, ids) - baseline)) for ids, p in zip(ANSWERS, row) if p]
            examples.append((SOURCES[source], targets))
        for batch_tokens in (10**9, 1):
            found = sum(gradient(model, -loss_terms(model, None, batch, settings(how))[0] / len(SOURCES))
                        for batch in micro_batches(examples, batch_tokens))
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert wanted.norm() > 1e-3


@pytest.mark.parametrize("baseline", ["leave-one-out", "greedy"])
@pytest.mark.parametrize("how", [HOW[0], HOW[4]])
def test_rollouts_give_that_gradient_up_to_the_error_of_sampling(model, baseline, how):
    """Mean and standard error over steps, along the gradient and along directions at random."""
    wanted, _ = exact(model, how)
    torch.manual_seed(0)
    others = torch.nn.functional.normalize(torch.randn(4, len(wanted), dtype=torch.double), dim=1)
    directions = torch.stack([wanted / wanted.norm(), *others])
    choices = settings(how, baseline)
    k, copies, seen = choices.scst_samples, 60, []
    for step in range(16):
        sources = [SOURCES[number % 2] for number in range(copies)]
        examples = []
        for number, rollouts in enumerate(draw_rollouts(model, sources, range(copies), LONGEST, choices, step)):
            rewards = np.array([reward(number % 2, rollout.ids) for rollout in rollouts])
            targets = merge_rollouts(rollouts[:k], advantages(rewards, k)[0])
            if targets:
                examples.append((sources[number], targets))
        seen.append(directions @ gradient(model, -loss_terms(model, None, examples, choices)[0] / (copies * k)))
    seen = torch.stack(seen)  # (steps, directions)
    error = seen.std(0) / len(seen) ** 0.5
    assert (abs(seen.mean(0) - directions @ wanted) < 4.5 * error).all()
    assert error[0] < wanted.norm() / 5  # it could have failed


def test_the_greedy_baseline_is_the_most_probable_token_each_time(model):
    for source, answers in zip(SOURCES, draw_rollouts(model, SOURCES, [0, 1], LONGEST, settings(baseline="greedy"), 0)):
        past = [BOS]
        for token in answers[-1].ids:
            assert token == padded(model, torch.tensor([source]), torch.tensor([past]))[0, -1].argmax()
            past.append(token)
        assert len(answers) == 5


def test_what_is_drawn_depends_on_seed_step_and_row_alone(model):
    choices = settings(k=16)
    both = draw_rollouts(model, SOURCES, [7, 9], LONGEST, choices, 3)
    alone = draw_rollouts(model, SOURCES[1:], [9], LONGEST, choices, 3)
    assert [answer.ids for answer in both[1]] == [answer.ids for answer in alone[0]]
    for number, step in ((9, 4), (8, 3)):
        other = draw_rollouts(model, SOURCES[1:], [number], LONGEST, choices, step)
        assert [answer.ids for answer in other[0]] != [answer.ids for answer in alone[0]]


@pytest.mark.parametrize("how", HOW)
def test_the_loss_has_the_distribution_that_is_drawn_from(how):
    torch.manual_seed(1)
    logits = 2 * torch.randn(VOCABULARY, dtype=torch.double)
    uniform = (torch.arange(40000) + 0.5) / 40000
    drawn = draw(logits.log_softmax(-1).expand(len(uniform), -1), uniform, *how)
    shares = drawn.bincount(minlength=VOCABULARY) / len(uniform)
    found = policy_logprobs(logits.log_softmax(-1), logits.argmax(), *how).exp()
    torch.testing.assert_close(found, shares.double(), atol=1e-4, rtol=0)


def test_a_drawn_token_is_a_candidate_though_rounding_says_it_is_none():
    logits = torch.tensor([1.0, 1.0 - 1e-7, -3.0])
    assert policy_logprobs(logits.log_softmax(-1), torch.tensor(1), 1.0, 1, 1.0).exp()[1].item() == pytest.approx(0.5)


def test_baselines_do_not_depend_on_the_answer_that_they_are_for():
    rewards = np.array([0.0, 1.0, 0.5, 0.25])
    assert advantages(rewards, 4)[1].tolist() == pytest.approx([1.75 / 3, 0.75 / 3, 1.25 / 3, 1.5 / 3])
    found, baseline = advantages(np.array([0.0, 1.0, 0.5, -2.0]), 3)  # the greedy answer's reward comes last
    assert baseline.tolist() == [-2.0] * 3 and found.tolist() == [2.0, 3.0, 2.5]
    assert not advantages(np.full(8, 0.1 + 0.2), 8)[0].any()


def test_normalised_advantages_of_leave_one_out_are_those_of_grpo():
    rewards = np.array([0.0, 1.0, 0.5, 0.25])
    found, _ = advantages(rewards, 4, normalise=True)
    assert found == pytest.approx((rewards - rewards.mean()) / rewards.std())
    assert advantages(10 * rewards, 4, normalise=True)[0] == pytest.approx(found)
    assert not advantages(np.ones(4), 4, normalise=True)[0].any()


def test_each_text_is_one_target_with_the_sum_of_its_advantages():
    rollouts = [Hypothesis(ids, 0.0, 0.0) for ids in ([3, EOS], [4, EOS], [3, EOS], [EOS])]
    assert merge_rollouts(rollouts, [0.5, -1.0, 0.25, 0.0]) == [Target((3, EOS), 0.75, 2), Target((4, EOS), -1.0, 1)]
    assert len(merge_rollouts(rollouts, [0.0] * 4)) == 0
    assert len(merge_rollouts(rollouts, [0.0] * 4, keep_all=True)) == 3


def test_micro_batches_hold_every_example_once_and_stay_below_their_size():
    draw = np.random.default_rng(0)
    examples = [([3] * draw.integers(1, 30), [Target([4] * draw.integers(1, 20)) for _ in range(draw.integers(1, 5))])
                for _ in range(50)]

    def tokens(batch):
        return sum(len(src) + sum(len(target.ids) for target in targets) for src, targets in batch)

    for size in (1, 100, 300, 10**6):
        batches = list(micro_batches(examples, size))
        assert sum(batches, []) == examples
        assert all(len(batch) == 1 or tokens(batch) <= size for batch in batches)
        assert all(tokens([*batch, following[0]]) > size for batch, following in zip(batches, batches[1:]))


def test_divergence_and_cross_entropy_are_their_definitions(model):
    torch.manual_seed(6)
    reference = Transformer(model.config).double().eval()
    targets = [Target((3, 1, EOS), count=2), Target((EOS,), count=1), Target((1, 1, EOS), is_truth=True)]
    examples = [(SOURCES[0], targets), (SOURCES[1], [Target((3, EOS), count=1)])]
    policy, divergence, cross_entropy = loss_terms(model, reference, examples, settings(HOW[4]))

    def own(net, source, past):
        return padded(net, torch.tensor([source]), torch.tensor([[BOS, *past]]))[0, -1].log_softmax(-1)

    wanted = 0
    for source, targets in examples:
        for target in targets:
            for position in range(len(target.ids)):
                p, q = (own(net, source, target.ids[:position]) for net in (model, reference))
                wanted = wanted + target.count * (p.exp() * (p - q)).sum()
    torch.testing.assert_close(divergence, wanted)
    torch.testing.assert_close(gradient(model, divergence), gradient(model, wanted), rtol=1e-7, atol=1e-10)
    truth = (1, 1, EOS)
    wanted = -sum(own(model, SOURCES[0], truth[:position])[token] for position, token in enumerate(truth))
    policy, _, cross_entropy = loss_terms(model, None, examples, settings(HOW[4]))
    torch.testing.assert_close(cross_entropy, wanted)
    assert policy == 0


def test_many_targets_of_a_source_have_the_logits_of_each_alone(model):
    for how in "sdpa", "reference":
        model.attention = how
        src = torch.tensor([[*SOURCES[0]], [*SOURCES[1], 0, 0, 0]])
        tgt = torch.tensor([[BOS, 3, 1, 3], [BOS, EOS, 0, 0], [BOS, 1, EOS, 0]])
        together = padded(model, src, tgt, torch.tensor([2, 1]))
        for row, source in enumerate((0, 0, 1)):
            torch.testing.assert_close(together[row:row + 1], padded(model, src[source:source + 1], tgt[row:row + 1]))
