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
from scst import Target, advantages, baselines, batches_of, draw_answers, lesson_of, losses_of, policy_logprobs
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
    """Probabilities of the token after `past`, (V,), by the definition of the policy: the softmax of what top_k and top_p leave."""
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
    return torch.cat([weight.grad.flatten() if weight.grad is not None else torch.zeros(weight.numel()) for weight in model.parameters()])


def exact(model, how):
    """(gradient of the expected reward, the mean over the sources; probabilities of all answers to each source)"""
    table = []
    for source in range(len(SOURCES)):
        pasts = {past: following(model, source, past, how) for past in {ids[:n] for ids in ANSWERS for n in range(len(ids))}}
        table.append([math.prod(pasts[ids[:n]][token] for n, token in enumerate(ids)) for ids in ANSWERS])
    expected = sum(p * reward(source, ids) for source, row in enumerate(table) for ids, p in zip(ANSWERS, row)) / len(SOURCES)
    return gradient(model, expected), [[p.item() for p in row] for row in table]


@pytest.mark.parametrize("how", HOW)
def test_weighted_by_their_probabilities_the_losses_of_all_answers_give_the_gradient_of_the_expected_reward(model, how):
    """Whatever the baseline, which adds nothing."""
    wanted, table = exact(model, how)
    assert all(abs(sum(row) - 1) < 1e-12 for row in table)
    for baseline in (0, 0.7):
        lessons = [(SOURCES[source], [Target(ids, p * (reward(source, ids) - baseline)) for ids, p in zip(ANSWERS, row) if p])
                   for source, row in enumerate(table)]
        for batch_tokens in (10**9, 1):
            found = sum(gradient(model, -losses_of(model, None, batch, settings(how))[0] / len(SOURCES)) for batch in batches_of(lessons, batch_tokens))
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert wanted.norm() > 1e-3


@pytest.mark.parametrize("baseline", ["leave-one-out", "greedy"])
@pytest.mark.parametrize("how", [HOW[0], HOW[4]])
def test_drawn_answers_give_it_up_to_the_error_of_sampling(model, baseline, how):
    """Mean and standard error over steps, along the gradient and along directions at random."""
    wanted, _ = exact(model, how)
    torch.manual_seed(0)
    directions = torch.stack([wanted / wanted.norm(), *torch.nn.functional.normalize(torch.randn(4, len(wanted), dtype=torch.double), dim=1)])
    choices = settings(how, baseline)
    k, copies, seen = choices.scst_samples, 60, []
    for step in range(16):
        sources = [SOURCES[number % 2] for number in range(copies)]
        lessons = []
        for number, answers in enumerate(draw_answers(model, sources, range(copies), LONGEST, choices, step)):
            rewards = np.array([reward(number % 2, answer.ids) for answer in answers])
            lessons.append((sources[number], lesson_of(answers[:k], advantages(rewards[:k], baselines(rewards, k)))))
        lessons = [lesson for lesson in lessons if lesson[1]]
        seen.append(directions @ gradient(model, -losses_of(model, None, lessons, choices)[0] / (copies * k)))
    seen = torch.stack(seen)  # (steps, directions)
    error = seen.std(0) / len(seen) ** 0.5
    assert (abs(seen.mean(0) - directions @ wanted) < 4.5 * error).all()
    assert error[0] < wanted.norm() / 5  # it could have failed


def test_the_greedy_baseline_is_the_most_probable_token_each_time(model):
    for source, answers in zip(SOURCES, draw_answers(model, SOURCES, [0, 1], LONGEST, settings(baseline="greedy"), 0)):
        past = [BOS]
        for token in answers[-1].ids:
            assert token == padded(model, torch.tensor([source]), torch.tensor([past]))[0, -1].argmax()
            past.append(token)
        assert len(answers) == 5


def test_what_is_drawn_depends_on_seed_step_and_row_alone(model):
    choices = settings(k=16)
    both = draw_answers(model, SOURCES, [7, 9], LONGEST, choices, 3)
    alone = draw_answers(model, SOURCES[1:], [9], LONGEST, choices, 3)
    assert [answer.ids for answer in both[1]] == [answer.ids for answer in alone[0]]
    for other in (draw_answers(model, SOURCES[1:], [9], LONGEST, choices, 4), draw_answers(model, SOURCES[1:], [8], LONGEST, choices, 3)):
        assert [answer.ids for answer in other[0]] != [answer.ids for answer in alone[0]]


@pytest.mark.parametrize("how", HOW)
def test_the_loss_has_the_distribution_that_is_drawn_from(how):
    torch.manual_seed(1)
    logits = 2 * torch.randn(VOCABULARY, dtype=torch.double)
    uniform = (torch.arange(40000) + 0.5) / 40000
    drawn = draw(logits.log_softmax(-1).expand(len(uniform), -1), uniform, *how)
    shares = drawn.bincount(minlength=VOCABULARY) / len(uniform)
    torch.testing.assert_close(policy_logprobs(logits, logits.argmax(), *how).exp(), shares.double(), atol=1e-4, rtol=0)


def test_a_drawn_token_is_a_candidate_though_rounding_says_it_is_none():
    logits = torch.tensor([1.0, 1.0 - 1e-7, -3.0])
    assert policy_logprobs(logits, torch.tensor(1), 1.0, 1, 1.0).exp()[1].item() == pytest.approx(0.5)


def test_baselines_do_not_depend_on_the_answer_that_they_are_for():
    rewards = np.array([0.0, 1.0, 0.5, 0.25])
    assert baselines(rewards, 4).tolist() == pytest.approx([1.75 / 3, 0.75 / 3, 1.25 / 3, 1.5 / 3])
    assert baselines(np.array([0.0, 1.0, 0.5, -2.0]), 3).tolist() == [-2.0] * 3  # the greedy answer's reward comes last
    equal = np.full(8, 0.1 + 0.2)
    assert not advantages(equal, baselines(equal, 8)).any()


def test_normalised_advantages_of_leave_one_out_are_those_of_grpo():
    rewards = np.array([0.0, 1.0, 0.5, 0.25])
    found = advantages(rewards, baselines(rewards, 4), normalise=True)
    assert found == pytest.approx((rewards - rewards.mean()) / rewards.std())
    assert advantages(10 * rewards, baselines(10 * rewards, 4), normalise=True) == pytest.approx(found)
    assert not advantages(np.ones(4), np.ones(4), normalise=True).any()


def test_each_text_is_one_target_with_the_sum_of_its_advantages():
    answers = [Hypothesis(ids, 0.0, 0.0) for ids in ([3, EOS], [4, EOS], [3, EOS], [EOS])]
    assert lesson_of(answers, [0.5, -1.0, 0.25, 0.0]) == [Target((3, EOS), 0.75, 2), Target((4, EOS), -1.0, 1)]
    assert len(lesson_of(answers, [0.0] * 4)) == 0 and len(lesson_of(answers, [0.0] * 4, keep=True)) == 3


def test_batches_hold_every_lesson_once_and_stay_below_their_size():
    draw = np.random.default_rng(0)
    lessons = [([3] * draw.integers(1, 30), [Target([4] * draw.integers(1, 20)) for _ in range(draw.integers(1, 5))]) for _ in range(50)]
    for size in (1, 100, 300, 10**6):
        batches = list(batches_of(lessons, size))
        assert sum(batches, []) == lessons
        for batch in batches:
            targets = [len(target.ids) for _, lesson in batch for target in lesson]
            assert len(batch) == 1 or max(len(src) for src, _ in batch) * len(batch) + max(targets) * len(targets) <= size


def test_divergence_and_cross_entropy_are_their_definitions(model):
    torch.manual_seed(6)
    start = Transformer(model.config).double().eval()
    lessons = [(SOURCES[0], [Target((3, 1, EOS), count=2), Target((EOS,), count=1), Target((1, 1, EOS), truths=1)]), (SOURCES[1], [Target((3, EOS), count=1)])]
    policy, divergence, cross_entropy = losses_of(model, start, lessons, settings(HOW[4]))

    def own(net, source, past):
        return padded(net, torch.tensor([source]), torch.tensor([[BOS, *past]]))[0, -1].log_softmax(-1)

    wanted = 0
    for source, lesson in lessons:
        for target in lesson:
            for position in range(len(target.ids)):
                p, q = (own(net, source, target.ids[:position]) for net in (model, start))
                wanted = wanted + target.count * (p.exp() * (p - q)).sum()
    torch.testing.assert_close(divergence, wanted)
    torch.testing.assert_close(gradient(model, divergence), gradient(model, wanted), rtol=1e-7, atol=1e-10)
    truth = (1, 1, EOS)
    wanted = -sum(own(model, SOURCES[0], truth[:position])[token] for position, token in enumerate(truth))
    policy, _, cross_entropy = losses_of(model, None, lessons, settings(HOW[4]))
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
