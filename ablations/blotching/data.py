"""
Arithmetic problems, their solutions step by step, and blotching.

A chain is the text of a problem and its steps, joined by "=": `3+4*2=2*4+3=4+4+3=8+3=11`. The last step is the answer.
The steps: what stands in the first innermost parenthesis comes first; products to the left, their smaller factor
first; the leftmost a*b becomes a copies of b; all numbers are split into digits times powers of ten, ones first; the
leftmost two numbers are added, until one is left. A step that would change nothing is left out.

Blotching deletes middle steps of a chain, never the problem or the answer. A row of training is a blotch token, the
kept text, one token for each character, and EOS. Blotch token <bk> states the probability with which steps were
deleted, so that one model learns every level of blotching.
"""
import random
import re
import zlib
from typing import NamedTuple

import numpy as np
import torch

from attention import Packing, pack_rows
from runtime.files import InputError

SAMPLER = ("max_num", "max_ents", "p_ent", "p_mult", "max_mult_num", "p_paren", "space_mults", "zipf_order")
SYMBOLS = "0123456789+*()="
PAD, EOS, EQUALS = 0, 1, 2 + SYMBOLS.index("=")
CODE = np.zeros(128, np.int64)  # token of each ASCII character
CODE[[ord(symbol) for symbol in SYMBOLS]] = 2 + np.arange(len(SYMBOLS))
BLOTCH = 2 + len(SYMBOLS)  # the blotch tokens <b0>, <b1>, ... come last
INNERMOST = re.compile(r"\(([^()]*)\)")
NUMBER = re.compile(r"0|[1-9][0-9]*")
TRIES = 10_000  # draws in a row that may be refused


def vocabulary(n_btokens):
    """The text of each token."""
    return ["<pad>", "<eos>", *SYMBOLS, *(f"<b{level}>" for level in range(n_btokens + 1))]


# ---------------------------------------------------------------------------------------------------------------------
# Problems

def sample_problem(settings, rng, max_ents=None):
    """
    Text of a random problem, such as "3+(4+1)*2". rng: a random.Random.

    Two entities, and each of the max_ents - 2 others with probability p_ent. An entity is a number, or with probability
    p_paren a problem in parentheses with max_ents - 1 entities at most, if these are two or more. A sign is "*" with
    probability p_mult; with space_mults no entity has one on both sides. Numbers are 0 to max_num, in products 0 to
    max_mult_num.
    """
    max_ents = settings.max_ents if max_ents is None else max_ents
    count = 2 + sum(rng.random() < settings.p_ent for _ in range(max_ents - 2))
    signs = []
    for _ in range(count - 1):
        is_product = rng.random() < settings.p_mult
        if settings.space_mults and signs[-1:] == ["*"]:
            is_product = False
        signs.append("*" if is_product else "+")
    problem = ""
    for entity in range(count):
        if max_ents > 2 and rng.random() < settings.p_paren:
            problem += f"({sample_problem(settings, rng, max_ents - 1)})"
        else:
            in_product = "*" in signs[max(0, entity - 1):entity + 1]
            problem += str(sample_number(settings.max_mult_num if in_product else settings.max_num,
                                         settings.zipf_order, rng))
        if entity < count - 1:
            problem += signs[entity]
    return problem


def sample_number(most, zipf_order, rng):
    """0 to `most`, n with a probability proportional to (n + 1)^-zipf_order: uniform for order 0."""
    if zipf_order == 0:
        return rng.randint(0, most)
    return rng.choices(range(most + 1), [(n + 1) ** -zipf_order for n in range(most + 1)])[0]


def is_held_out(problem):
    """A tenth of all problems is never in training, whatever the seed: those of validation and evaluation."""
    return zlib.crc32(problem.encode()) % 10 == 0


def sample_chains(settings, count, seed, held_out=False):
    """
    `count` random chains, rows of at most seq_len tokens. held_out: only of problems that are held out, else only of
    others. seed: text. InputError where the settings allow hardly any such chain.
    """
    rng, chains, refused, too_long = random.Random(seed), [], 0, 0
    while len(chains) < count:
        problem = sample_problem(settings, rng)
        chain = None
        if is_held_out(problem) == held_out:
            chain = chain_of(problem, settings.seq_len - 2)  # the blotch token and EOS
            too_long += not chain
        if chain:
            chains.append(chain)
        refused = 0 if chain else refused + 1
        if refused == TRIES and not too_long:
            raise InputError(f"max_num, max_ents: got {settings.max_num}, {settings.max_ents}, too few problems: "
                             f"{'all' if held_out else 'none'} of {TRIES} are of those that training may have")
        if refused == TRIES:
            raise InputError(f"seq_len: got {settings.seq_len}, too few tokens for the chains of problems with max_num "
                             f"{settings.max_num} and max_ents {settings.max_ents}: none of {TRIES} fits")
    return chains


# ---------------------------------------------------------------------------------------------------------------------
# Solutions

def chain_of(problem, longest):
    """The problem with all its steps; None if they have more than `longest` characters."""
    chain = problem
    for step in solution(problem, longest):
        chain += f"={step}"
        if len(chain) > longest:
            return None
    return chain if chain.rpartition("=")[2].isdigit() else None


def solution(expression, longest):
    """The steps from an expression to its value. Ends before a product whose copies have more than `longest` digits."""
    while inner := INNERMOST.search(expression):
        before, after = expression[:inner.start()], expression[inner.end():]
        for step in list(solution_of_sum(inner[1], longest)) or [inner[1]]:
            expression = before + (step if step.isdigit() else f"({step})") + after
            yield expression
        if not step.isdigit():
            return
    yield from solution_of_sum(expression, longest)


def solution_of_sum(expression, longest):
    """The same for an expression without parentheses."""
    entities = expression.split("+")
    ordered = ["*".join(sorted(entity.split("*"), key=int)) for entity in entities]
    ordered.sort(key=lambda entity: "*" not in entity)  # products first, otherwise in their order
    if ordered != entities:
        yield "+".join(ordered)
    entities = ordered

    while products := [place for place, entity in enumerate(entities) if "*" in entity]:
        copies, _, factor = entities[products[0]].partition("*")
        if int(copies) * len(factor) > longest:
            return
        entities[products[0]:products[0] + 1] = [factor] * int(copies) or ["0"]
        yield "+".join(entities)

    digits = [part for entity in entities for part in split_digits(entity)]
    digits.sort(key=len)
    if "+".join(entities) not in ["+".join(digits), *sums(digits)]:  # else the sums would only undo it: 64+10
        yield "+".join(digits)
        entities = digits
    yield from sums(entities)


def sums(numbers):
    """The expressions as the leftmost two numbers are added again and again. numbers: a list of texts."""
    total = int(numbers[0])
    for place in range(1, len(numbers)):
        total += int(numbers[place])
        yield "+".join([str(total), *numbers[place + 1:]])


def split_digits(number):
    """"307" -> ["7", "300"], "0" -> ["0"]"""
    parts = [digit + "0" * place for place, digit in enumerate(reversed(number)) if digit != "0"]
    return parts or ["0"]


def value(expression):
    """Exact value of the text of an expression; None if it is none, such as "3++4" or "03"."""
    try:
        number, end = read_sum(expression, 0)
    except ValueError:
        return None
    return number if end == len(expression) else None


def read_sum(text, at):
    """Value of the sum that begins at this character, and where it ends. ValueError if none does."""
    total, at = read_product(text, at)
    while text[at:at + 1] == "+":
        term, at = read_product(text, at + 1)
        total += term
    return total, at


def read_product(text, at):
    product, at = read_factor(text, at)
    while text[at:at + 1] == "*":
        factor, at = read_factor(text, at + 1)
        product *= factor
    return product, at


def read_factor(text, at):
    if text[at:at + 1] == "(":
        inner, at = read_sum(text, at + 1)
        if text[at:at + 1] != ")":
            raise ValueError("no closing parenthesis")
        return inner, at + 1
    number = NUMBER.match(text, at)
    if number is None:
        raise ValueError("no number")
    return int(number[0]), number.end()


def count_steps(chain):
    """Expressions after the problem, the answer included."""
    return chain.count("=")


def is_answered(chain):
    """Does the chain end with the value of its problem, as a number?"""
    problem, *steps = chain.split("=")
    return steps != [] and steps[-1] == str(value(problem))


def is_right(chain):
    """Is the chain answered, and does every step have the value of the problem, by exact arithmetic?"""
    problem, *steps = chain.split("=")
    number = value(problem)
    return is_answered(chain) and all(value(step) == number for step in steps)


# ---------------------------------------------------------------------------------------------------------------------
# Blotching

def blotch_p(settings, level):
    """Probability with which a middle step is deleted at a level, 0 to n_btokens."""
    if settings.n_btokens == 0:
        return settings.blotch_p
    return settings.blotch_p_min + (settings.blotch_p_max - settings.blotch_p_min) * level / settings.n_btokens


def nearest_level(settings, p):
    """The level whose probability is nearest to p."""
    return min(range(settings.n_btokens + 1), key=lambda level: abs(blotch_p(settings, level) - p))


def draw_blotches(steps, p, contiguous, rng):
    """
    Which of so many middle steps are deleted, each with probability p. (steps,) of bool

    Not contiguous: a step after a deleted one stays. rng: a numpy Generator.
    """
    deleted = rng.random(steps) < p
    if not contiguous:
        for step in range(1, steps):
            deleted[step] &= not deleted[step - 1]
    return deleted


def encode(chain, level, deleted=()):
    """
    Tokens of a row, blotch token to EOS, and the index of each in the row without blotches. (T,), (T,)

    deleted: bool for each middle step.
    """
    segments = chain.split("=")
    kept = np.ones(len(chain) + 2, bool)
    at = 1 + len(segments[0]) + 1  # after the blotch token, the problem and its "="
    for segment, is_deleted in zip(segments[1:-1], deleted):
        if is_deleted:
            kept[at:at + len(segment) + 1] = False
        at += len(segment) + 1
    ids = np.empty(len(kept), np.int64)
    ids[0], ids[1:-1], ids[-1] = BLOTCH + level, CODE[np.frombuffer(chain.encode(), np.uint8)], EOS
    index = np.flatnonzero(kept)
    return ids[index], index


def decode(ids):
    """The text of a row of tokens, without the blotch token, up to EOS. A row without EOS ends in "?". ids: a list."""
    end = ids.index(EOS) if EOS in ids else len(ids)
    text = "".join(SYMBOLS[token - 2] if 2 <= token < BLOTCH else "?" for token in ids[1:end])
    return text if EOS in ids else text + "?"


class Batch(NamedTuple):
    tokens: torch.Tensor  # (N,) rows end to end, each from its blotch token to the token before EOS
    truth: torch.Tensor  # (N,) the next token, PAD where it has no loss
    index: torch.Tensor  # (N,) index of the token in the row without blotches
    rows: Packing


def collate(rows, incl_intl_prob):
    """Batch of rows (tokens, index) from `encode`. incl_intl_prob: the tokens of the problem have a loss too."""
    truths = []
    for ids, _ in rows:
        truth = ids[1:].copy()
        if not incl_intl_prob:
            truth[:np.argmax(ids == EQUALS)] = PAD
        truths.append(truth)
    return Batch(torch.from_numpy(np.concatenate([ids[:-1] for ids, _ in rows])),
                 torch.from_numpy(np.concatenate(truths)),
                 torch.from_numpy(np.concatenate([index[:-1] for _, index in rows])),
                 pack_rows(torch.tensor([len(ids) - 1 for ids, _ in rows])))


def make_batch(chains, settings, rng):
    """Training batch: for each chain a random level, and blotches with its probability. The shortest rows first."""
    rows = []
    for chain in chains:
        level = int(rng.integers(settings.n_btokens + 1))
        deleted = draw_blotches(count_steps(chain) - 1, blotch_p(settings, level), settings.contig_blotches, rng)
        rows.append(encode(chain, level, deleted))
    rows.sort(key=lambda row: len(row[0]))
    return collate(rows, settings.incl_intl_prob)
