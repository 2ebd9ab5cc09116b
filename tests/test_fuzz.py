"""A seeded sample of what tests/fuzz.py does at length with random and mutated texts; and that it sees faults."""
import signal
import sys

import fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verify import ELECTRON_MUON, SQUARE

from physics.numeric import Verdict
from physics.particles import Facts

ROW = fuzz.Sample(ELECTRON_MUON, SQUARE, "e e~ -> mu mu~", True)


@pytest.fixture(scope="module")
def rows():
    handler = signal.signal(signal.SIGALRM, fuzz._hang)
    yield fuzz.generated_samples(3, processes=5)
    signal.signal(signal.SIGALRM, handler)


def test_texts_are_read_or_refused(rows):
    report = fuzz.check_texts(rows, seed=5, count=200)
    assert report.failures == []
    assert report.counts["verify: right"] > 2 and report.counts["verify: unreadable"] > 50


def test_mutated_squares_are_not_called_right(rows):
    report = fuzz.check_squares(rows, seed=6, count=200)
    assert report.failures == []
    assert report.counts["rational arithmetic: False"] > 10 and report.counts["rational arithmetic: True"] > 10


@settings(max_examples=30)
@given(st.lists(st.one_of(st.sampled_from(fuzz.WORDS), st.text(max_size=4)), max_size=12).map("".join), st.booleans())
def test_any_text_is_read_or_refused(text, is_amplitude):
    report = fuzz.Report()
    fuzz.check_text(report, text, ROW, is_amplitude)
    assert report.failures == []


def test_false_verdicts_crashes_and_slow_calls_are_seen(monkeypatch, rows):
    right = Verdict("right", "")
    with monkeypatch.context() as patch:
        patch.setattr(fuzz, "verify", lambda *row, **facts: right)
        assert fuzz.check_squares([ROW], seed=1, count=40).counts["failures"] > 10
        patch.setattr(fuzz, "prove", lambda *row, **facts: True)
        report = fuzz.check_squares([ROW], seed=1, count=40)
        assert any(failure.startswith("1 + tiny: false right") for failure in report.failures)
        report = fuzz.Report()
        fuzz.check_text(report, f"2*{SQUARE}", ROW, False)
        assert "rational arithmetic gives another value" in report.failures[0]
    report = fuzz.Report()
    proven = [(f"2*{ELECTRON_MUON}", SQUARE), (ELECTRON_MUON, SQUARE), ("e*(", None)]
    report.to_square = [(amp, Facts(), sqamp) for amp, sqamp in proven]
    fuzz.check_squaring(report)
    assert ["rational arithmetic gives another value" in failure for failure in report.failures] == [True]
    with monkeypatch.context() as patch:
        patch.setattr(fuzz, "verify", lambda *row, **facts: right._replace(status="wrong"))
        assert "but right" in " ".join(fuzz.check_squares([ROW], seed=1, count=100).failures)
        patch.setattr(fuzz, "parse", lambda text: text[10**6])
        report = fuzz.check_texts([ROW], seed=1, count=20)
        assert "parse: IndexError" in report.failures[0] and "\n" not in report.failures[0].partition("  ")[0][:-1]
    report, times = fuzz.Report(), iter((0.0, 1.5))
    monkeypatch.setattr(fuzz, "cpu_seconds", lambda: next(times))
    report.call("slow", str, "x")
    assert "slow: 1.5 seconds" in report.failures[0]


def test_the_command_prints_a_table_and_ends_in_time(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "generated_samples", lambda seed: [ROW])
    monkeypatch.setattr(fuzz, "marty_samples", list)
    monkeypatch.setattr(fuzz, "ROWS", [])
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--texts=30", "--squares=20", "--workers=1"])
    assert fuzz.main() == 0
    table = capsys.readouterr().out
    assert "1 rows, 30 texts, 20 squares, 0 failures" in table and "          30  tokenizer" in table
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--texts=30", "--squares=20", "--workers=1", "--minutes=0"])
    assert fuzz.main() == 0 and " 0 texts, 0 squares" in capsys.readouterr().out
