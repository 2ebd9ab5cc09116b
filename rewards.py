"""
Rewards of an answer: how close its tokens are to the truth, whether it equals the truth, whether it equals the square.

    edit      -(edit distance of the tokens / the longer length): 0 for the same text, -1 at worst (Levenshtein 1966)
    truth     1 if the answer and the row's sqamp are the same function, however they are written, else 0
    physics   1 if the answer is the square of the amplitude, else 0; needs no sqamp

Functions are compared as in `decode.py --verify`: in floating point (physics/numeric.py), then in exact arithmetic
(physics/exact.py). An answer without an end has the worst value of each reward; `truth` and `physics` of an answer that
cannot be read are 0. A weighted sum is written "0.5*edit + 0.5*physics".

Worker processes compute the rewards while the model samples. A row always goes to the same worker, which has the row's
values at the random points in its cache when the row comes again.
"""
import array
import contextlib
import math
import re
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from physics.particles import NO_FACTS, Facts
from physics.verdict import are_equal, doubt_of
from runtime.files import InputError

WORST = {"edit": -1.0, "truth": 0.0, "physics": 0.0}
NEED_TRUTH = {"edit", "truth"}
CACHE_SIZE = 2**17  # answers whose rewards are kept
TERM = re.compile(r"(?:(\d+(?:\.\d*)?|\.\d+)\s*\*\s*)?([A-Za-z_]\w*)")


class Text(NamedTuple):
    """A squared amplitude as the model writes it and as people read it."""
    ids: tuple  # tokens without EOS
    text: str


class Question(NamedTuple):
    """What a worker needs to compute the rewards of a row's answers."""
    amp: str
    truth: Text | None  # None where no reward needs it
    answers: list  # of Text
    facts: Facts = NO_FACTS  # the row's process and the masses that the user says


def parse_reward(text):
    """"0.5*edit + 0.5*physics" -> {"edit": 0.5, "physics": 0.5}; the weights are above 0. Raises InputError."""
    names, weights = ", ".join(WORST), {}
    for term in text.split("+"):
        match = TERM.fullmatch(term.strip())
        if not match or match[2] not in WORST:
            raise InputError(f"reward: got {term.strip()!r} in {text!r}, wanted {names}, "
                             "or a sum such as 0.5*edit + 0.5*physics")
        weight = float(match[1] or 1)
        if match[2] in weights or not 0 < weight < math.inf:
            raise InputError(f"reward: got {text!r}, wanted each of {names} once at most, with a weight above 0")
        weights[match[2]] = weight
    return weights


def question_of(row, rollouts, tokenizer):
    """The Question about a row (dataset.held_out.Row) and those of its rollouts that have an end."""
    texts = [Text(tuple(y.ids[:-1]), tokenizer.decode_sqamp(y.ids, row.fermions)) for y in rollouts if y.finished]
    return Question(row.amp, Text(tuple(row.tgt[:-1]), row.sqamp) if row.tgt else None, texts, row.facts)


def judge(names, amp, truth, answer, facts=NO_FACTS):
    """The rewards of one answer, {name: value}. truth, answer: Text; facts: see physics/particles.py."""
    rewards = {}
    for name in names:
        if name == "edit":
            rewards[name] = -Levenshtein.normalized_distance(answer.ids, truth.ids)
        elif name == "truth":
            rewards[name] = float(answer.text == truth.text or are_equal(amp, answer.text, truth.text, facts))
        else:
            rewards[name] = float(not doubt_of(amp, answer.text, facts))
    return rewards


def judge_all(names, questions):
    """Rewards of every answer to every Question: a list for each question. Runs in a worker."""
    return [[judge(names, question.amp, question.truth, answer, question.facts) for answer in question.answers]
            for question in questions]


class RewardWorkers:
    """Rewards from worker processes (runtime.workers.start_workers); the same answer to a row is judged once."""

    def __init__(self, workers, names):
        self.workers, self.names = workers, list(names)
        self.cache = {}  # (row number, tokens as bytes): rewards, in the order of names

    def limit_cache(self):
        """Empty the cache if it has grown large. Not between `submit` and `rewards_of`, which needs its entries."""
        if len(self.cache) > CACHE_SIZE:
            self.cache.clear()

    def submit(self, questions):
        """
        Send {row number: Question} to the workers and return at once; `collect` waits for what this returns.

        Answers whose rewards are in the cache are not sent.
        """
        shares = [{} for _ in self.workers]
        for row, question in questions.items():
            new = [answer for answer in set(question.answers) if (row, to_bytes(answer.ids)) not in self.cache]
            if new:
                shares[row % len(shares)][row] = question._replace(answers=new)
        pending = []  # [({row number: Question}, future)]
        for worker, share in zip(self.workers, shares):
            if share:
                with report_killed_worker():
                    pending.append((share, worker.submit(judge_all, self.names, list(share.values()))))
        return pending

    def collect(self, pending):
        """Wait for the rewards of the questions that `submit` sent; afterwards `rewards_of` has them."""
        for share, future in pending:
            with report_killed_worker():
                answered = future.result()
            for (row, question), rewards in zip(share.items(), answered):
                for answer, reward in zip(question.answers, rewards):
                    self.cache[row, to_bytes(answer.ids)] = tuple(reward[name] for name in self.names)

    def rewards_of(self, row, ids):
        """{name: value} of a collected answer. ids: its tokens without EOS, or None: it has no end."""
        if ids is None:
            return {name: WORST[name] for name in self.names}
        return dict(zip(self.names, self.cache[row, to_bytes(ids)]))


@contextlib.contextmanager
def report_killed_worker():
    try:
        yield
    except BrokenProcessPool:
        raise InputError("a worker process was killed (out of memory?); --resume goes on") from None


def to_bytes(ids):
    """Token ids as two bytes each, the smallest key for the cache."""
    return array.array("H", ids).tobytes()
