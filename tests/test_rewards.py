"""Rewards: facts about real rows, and what a mix, a memory and the workers do."""
import concurrent.futures
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import qed_rows

import rewards
from physics import exact as proof
from physics.particles import Facts
from physics.square import square
from physics.verdict import are_equal
from rewards import Question, RewardWorkers, Text, judge, parse_reward
from runtime.files import InputError
from runtime.workers import start_workers
from tokenizer import sqamp_tokens

ROOT = Path(rewards.__file__).parent
ALL = ["edit", "truth", "physics"]
ROW = qed_rows()[0]
AMP, SQAMP = ROW["amp"], ROW["sqamp"]


def text(sqamp):
    try:
        tokens = sqamp_tokens(sqamp)
    except InputError:
        tokens = sqamp
    return Text(tuple(zlib.crc32(token.encode(errors="replace")) % 2**16 for token in tokens), sqamp)


def rate(answer, truth=SQAMP, amp=AMP):
    return judge(ALL, amp, text(truth), text(answer))


def test_the_very_square_has_the_best_of_each():
    for row in qed_rows():
        assert rate(row["sqamp"], row["sqamp"], row["amp"]) == {"edit": 0, "truth": 1, "physics": 1}


def test_a_square_that_is_spelled_otherwise_is_right_but_edited():
    first, rest = SQAMP.split("*(", 1)
    polynomial, propagators = rest.split(")*", 1)
    terms = polynomial.split(" + ")
    for respelled in (f"{first}*({' + '.join(terms[::-1])})*{propagators}", f"({polynomial})*{first}*{propagators}",
                      SQAMP + " + s_12 + -s_12", SQAMP + "*s_12*s_34^(-1)"):  # the last by momentum conservation
        found = rate(respelled)
        assert found["truth"] == found["physics"] == 1 and -1 < found["edit"] < 0, respelled


@pytest.mark.parametrize("change", [
    " + 10^(-30)", "*(1 + 1/10^12)", "*1/2", " + m_e^4", " + i*s_12", "*s_12*s_13^(-1)"])
def test_what_is_not_the_square_is_wrong_however_little_it_differs(change):
    found = rate(SQAMP + change)
    assert found["truth"] == found["physics"] == 0 and found["edit"] < 0


@pytest.mark.parametrize("change", ["+ 2^25 - 295", "* (s_12^8)^4194267", "+ m_x*(5793*5793 - 4712)"])
def test_what_is_the_square_modulo_a_prime_only_is_wrong(change):
    wrong = f"({SQAMP}){change}"
    assert not are_equal(AMP, wrong, SQAMP)
    assert judge(ALL, AMP, text(SQAMP), text(wrong))["truth"] == 0


def test_a_wrong_label_is_the_truth_but_no_physics():
    wrong = SQAMP + " + e^4"
    assert rate(wrong, wrong) == {"edit": 0, "truth": 1, "physics": 0}
    assert rate(SQAMP, wrong)["truth"] == 0 and rate(SQAMP, wrong)["physics"] == 1


ABSURD = ["", "nan", "inf", "1/0", "0/0", "(" * 5000, "s_12^(-1)*0^(-1)", "9^999999999999", "e^" * 1000, "s_99",
          "s_12 + ", "<pad>", "\ud800", "10^400*10^(-400)*(s_12)", "%mu_1", "A_{i_1}(p_1)", "(-1)^(1/2)", "2" * 5000,
          "s_12*" * 3000 + "s_12", "p_1_%mu", "cos(theta_W)^(-1)"]


@pytest.mark.parametrize("answer", ABSURD, ids=range(len(ABSURD)))
def test_absurd_answers_are_wrong_and_stop_nothing(answer):
    found = rate(answer)
    assert found["truth"] == found["physics"] == 0 and -1 <= found["edit"] < 0


@given(st.lists(st.sampled_from([
    "s_12", "e^4", "(", ")", "^(-2)", "*", " + ", "m_e^2", "1/2", "nan", "i", "/", "-", "0"])).map("".join))
def test_any_text_has_rewards_within_their_bounds(answer):
    found = rate(answer)
    assert -1 <= found["edit"] <= 0 and found["truth"] in (0, 1)
    assert found["truth"] == found["physics"]  # as the label is right


@given(st.dictionaries(st.sampled_from(ALL), st.floats(0.001, 100).map(lambda x: round(x, 3)), min_size=1),
       st.booleans())
def test_a_mix_is_read_as_it_is_written(weights, spaces):
    space = " " * spaces
    terms = [f"{weight}{space}*{space}{name}" for name, weight in weights.items()]
    assert parse_reward(f"{space}+{space}".join(terms)) == weights


def test_a_name_alone_counts_once():
    assert parse_reward("physics") == {"physics": 1} and parse_reward("edit + 2*truth") == {"edit": 1, "truth": 2}


@pytest.mark.parametrize("wrong", ["", "edits", "edit +", "0*edit", "-1*edit", "edit*0.5", "edit + edit", "0.5 edit",
                                   "nan*edit", "inf*edit", "1e3*edit",
                                   "edit - truth", "__import__('os')", "9" * 400 + "*edit"])
def test_a_mix_that_is_none_is_one_clear_error(wrong):
    with pytest.raises(InputError, match="^reward: got "):
        parse_reward(wrong)


def test_answers_are_judged_once_in_workers_and_one_without_an_end_is_worst():
    with start_workers(2) as workers:
        reward_workers = RewardWorkers(workers, ALL)
        questions = {row: Question(AMP, text(SQAMP), [text(SQAMP), text(SQAMP), text("s_12"), text(f"{row}")])
                     for row in range(5)}
        pending = reward_workers.submit(questions)
        sent = [question for share, _ in pending for question in share.values()]
        assert all(len(question.answers) == 3 for question in sent)  # the same text twice is one
        reward_workers.collect(pending)
        for row in questions:
            assert reward_workers.rewards_of(row, text(SQAMP).ids) == {"edit": 0, "truth": 1, "physics": 1}
            assert reward_workers.rewards_of(row, text(f"{row}").ids)["physics"] == 0
            assert reward_workers.rewards_of(row, None) == {"edit": -1, "truth": 0, "physics": 0}
        assert reward_workers.submit(questions) == []  # all known
        pending = reward_workers.submit({row: Question(AMP, None, [text("e^4")]) for row in questions})
        shares = [list(share) for share, _ in pending]
        assert shares == [[0, 2, 4], [1, 3]]  # a row always goes to the same worker


def test_the_points_of_an_amplitude_are_drawn_once_for_all_its_candidates(monkeypatch):
    calls = []
    proof._points_at.cache_clear()
    monkeypatch.setattr(proof, "random_point", lambda *args, draw=proof.random_point: calls.append(1) or draw(*args))
    for answer in (f"({SQAMP})*2/2", f"{SQAMP} + 0", "s_12", f"{SQAMP} + e^4*s_14 + (-1)*e^4*s_14"):
        judge(["truth"], AMP, text(SQAMP), text(answer))
    assert len(calls) == proof.POINTS


def test_workers_end_with_the_process_that_started_them():
    """A killed process leaves no workers behind. Workers ignore Ctrl-C, which reaches the whole group."""
    program = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
import os, signal
from runtime.workers import start_workers
with start_workers(2) as workers:
    pids = [worker.submit(os.getpid).result() for worker in workers]
    for pid in pids:
        for number in signal.SIGINT, signal.SIGTERM, signal.SIGUSR1:
            os.kill(pid, number)
    assert [worker.submit(os.getpid).result() for worker in workers] == pids
    print(*pids, flush=True)
    time.sleep(100)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pids = process.stdout.readline().split()
    assert len(pids) == 2 and all(Path(f"/proc/{pid}").exists() for pid in pids)
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except OSError:
        return False


def test_a_worker_that_dies_is_an_error():
    with start_workers(1) as workers:
        reward_workers = RewardWorkers(workers, ["edit"])
        pending = reward_workers.submit({0: Question(AMP, text(SQAMP), [text("s_12")])})
        dead = workers[0].submit(os._exit, 1)
        reward_workers.collect(pending)
        concurrent.futures.wait([dead])
        with pytest.raises(InputError, match="worker process was killed"):
            reward_workers.submit({0: Question(AMP, text(SQAMP), [text("s_13")])})


def test_an_answer_is_judged_by_the_facts_of_its_row():
    """W+ and W- are written alike: their process says that they are not identical, and doubles the square."""
    amp = (r"e^2*gamma_{%\mu_1,%a_1,%a_2}*p_3_+%\mu_1*e_{i_1,%a_2}(p_1)_u*e_{i_2,%a_1}(p_2)_v^(*)"
           r"*S(p_3)^(*)*S(p_4)^(*)/(s_12 + m_S^2)")
    different, identical = (Facts(f"e e~ -> S S{bar}", (("S", "m_S"),)) for bar in ("~", ""))
    for facts in different, identical:
        sqamp = square(amp, facts=facts)
        others = [other for other in (different, identical) if other != facts]
        assert judge(["physics"], amp, None, text(sqamp), facts)["physics"] == 1
        assert judge(["physics"], amp, None, text(sqamp), others[0])["physics"] == 0
