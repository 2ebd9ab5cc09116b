"""The command line of the benchmarks: help for each, one clear line for what is not there."""
import subprocess
import sys

import pytest

from bench import run
from runtime.files import InputError


@pytest.mark.parametrize("words, expected", [
    ([], "bench/run.py sinekan"), (["--help"], "bench/run.py data"), (["data", "--help"], "tokenizer"),
    (["decode", "--help"], "CTranslate2"), (["train", "--help"], "--batch_tokens="),
    (["sinekan", "--help"], "--d_model=")])
def test_help_describes_each_benchmark(words, expected, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench/run.py", *words])
    try:
        run.main()
    except SystemExit as end:  # after its help
        assert not end.code
    assert expected in capsys.readouterr().out


def test_help_of_one_benchmark_is_printed_from_the_shell():
    done = subprocess.run([sys.executable, run.__file__, "decode", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "CTranslate2" in done.stdout and "bench/run.py data" not in done.stdout


@pytest.mark.parametrize("words, message", [
    (["speed"], "bench/run.py speed: no such benchmark; expected data, train, decode, sinekan, wave or gpu"),
    (["decode", "--rows=3"], "bench/run.py decode: takes no settings, got --rows=3"),
    (["train", "--rows=3"], "unknown setting rows")])
def test_what_is_not_there_is_named(words, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench/run.py", *words])
    with pytest.raises(InputError, match=message):
        run.main()
