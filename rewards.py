"""
What an answer is worth: how near it is to the truth as text, whether it equals the truth, whether it equals the amplitude itself.

    edit      -(edit distance of the tokens, over the longer length): 0 for the very text, -1 at worst (Levenshtein 1966)
    truth     1 for the same function as the row's sqamp, however it is spelled, else 0
    physics   1 for the square of the amplitude, else 0; needs no sqamp

Functions are compared as in `decode.py --verify`: in floating point (verify.py), then in exact arithmetic (proof.py). An answer without
an end has the worst of each; `truth` and `physics` of what cannot be read are 0. A mix is written "0.5*edit + 0.5*physics". Rewards are
computed in worker processes, where a row always goes to the same one: its values at the random points are still there when it comes again.
"""
import array
import contextlib
import math
import re
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from physics.exact import equal, prove
from physics.numeric import same, verify
from runtime.files import InputError

WORST = {"edit": -1.0, "truth": 0.0, "physics": 0.0}
NEED_TRUTH = {"edit", "truth"}
MEMORY = 2**17  # answers remembered
TERM = re.compile(r"(?:(\d+(?:\.\d*)?|\.\d+)\s*\*\s*)?([A-Za-z_]\w*)")


class Text(NamedTuple):
    ids: tuple  # tokens without the end
    text: str


class Question(NamedTuple):
    amp: str
    truth: Text | None  # None where no reward needs it
    answers: list  # of Text


def parse_reward(text):
    """{"edit": 0.5, "physics": 0.5} of "0.5*edit + 0.5*physics"; the weights are above 0. Raises InputError."""
    weights = {}
    for term in text.split("+"):
        match = TERM.fullmatch(term.strip())
        if not match or match[2] not in WORST:
            raise InputError(f"reward: got {term.strip()!r} in {text!r}, wanted {', '.join(WORST)}, or a sum such as 0.5*edit + 0.5*physics")
        weight = float(match[1] or 1)
        if match[2] in weights or not 0 < weight < math.inf:
            raise InputError(f"reward: got {text!r}, wanted each of {', '.join(WORST)} once at most, with a weight above 0")
        weights[match[2]] = weight
    return weights


def judge(names, amp, truth, answer):
    """The rewards of one answer, {name: value}; answer: a Text."""
    rewards = {}
    for name in names:
        if name == "edit":
            rewards[name] = -Levenshtein.normalized_distance(answer.ids, truth.ids)
        elif name == "truth":
            texts = answer.text, truth.text
            rewards[name] = float(answer.text == truth.text or holds(same, amp, *texts) and holds(equal, amp, *texts))
        else:
            rewards[name] = float(bool(verify(amp, answer.text)) and holds(prove, amp, answer.text))
    return rewards


def holds(proof, amp, *texts):
    try:
        return proof(amp, *texts)
    except (InputError, ArithmeticError, ValueError, TypeError, RecursionError):  # a model may write anything
        return False


def judge_all(names, questions):
    return [[judge(names, question.amp, question.truth, answer) for answer in question.answers] for question in questions]


@contextlib.contextmanager
def all_alive():
    try:
        yield
    except BrokenProcessPool:
        raise InputError("a worker process was killed (out of memory?); --resume goes on") from None


class Judges:
    """Rewards from worker processes (parallel.start_workers), and a memory of them: the same text of a row is judged once."""

    def __init__(self, workers, names):
        self.workers, self.names, self.memory = workers, list(names), {}  # {(row number, tokens): rewards in the order of names}

    def forget(self):
        """Make room, if much is remembered; not between `ask` and `rewards`."""
        if len(self.memory) > MEMORY:
            self.memory.clear()

    def ask(self, questions):
        """Send {row number: Question} to the workers; they judge while the caller does something else."""
        asked = []
        for number, worker in enumerate(self.workers):
            share = {}
            for row, question in questions.items():
                new = [answer for answer in set(question.answers) if (row, short(answer.ids)) not in self.memory]
                if new and row % len(self.workers) == number:
                    share[row] = question._replace(answers=new)
            if share:
                with all_alive():
                    asked.append((share, worker.submit(judge_all, self.names, list(share.values()))))
        return asked

    def wait(self, asked):
        """Until all that was asked is answered; `rewards` knows it then."""
        for share, future in asked:
            with all_alive():
                answered = future.result()
            for (row, question), rewards in zip(share.items(), answered):
                for answer, reward in zip(question.answers, rewards):
                    self.memory[row, short(answer.ids)] = tuple(reward[name] for name in self.names)

    def rewards(self, row, ids):
        """{name: value} of the tokens of a Text that was asked for, or of None: an answer without an end."""
        return {name: WORST[name] for name in self.names} if ids is None else dict(zip(self.names, self.memory[row, short(ids)]))


def short(ids):
    """Token ids in two bytes each: half of what is remembered."""
    return array.array("H", ids).tobytes()
