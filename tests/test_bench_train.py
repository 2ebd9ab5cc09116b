"""The benchmark of training runs through and says what it is; what it says is true of batches made by hand."""
import re

import numpy as np
import pytest

from batches import Packed
from bench import train as bench_train


def test_both_tables_come_out(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench_train, "LONGEST", (32,))
    monkeypatch.setattr(bench_train, "EW_LIMITS", (8, 17))
    monkeypatch.setattr(bench_train, "POOL", 40)
    monkeypatch.setattr(bench_train, "measured_peak", lambda device: 1e11)
    bench_train.main(["--d_model=16", "--heads=2", "--encoder_layers=1", "--decoder_layers=1", "--d_ff=16",
                      "--batch_tokens=200", "--device=cpu", f"--data_dir={tmp_path}"])
    out = capsys.readouterr().out
    assert re.search(r"CPU, \d+ threads.*peak 100 GFLOP/s", out)
    for key in "abc":
        line, = re.findall(rf"^ +32  {key} +(\d+)% +([\d,]+) +([\d.]+)% +([\d,]+)", out, re.MULTILINE)
        assert float(line[1].replace(",", "")) > 0 and 0 < float(line[2]) < 100
    assert "not there, so no rows of a data set" in out
    assert len(re.findall(r"^ +(?:32 +32|8 +17) ", out, re.MULTILINE)) == 2


def packed_of(lengths):
    sides = []
    for count in zip(*lengths):
        start = np.concatenate(([0], np.cumsum(count)))
        sides += [np.zeros(start[-1], np.uint16), start]
    return Packed(*sides, np.arange(len(lengths)), np.ones(len(lengths), np.uint16))


@pytest.mark.parametrize("budget", [1, 30, 60, 10 ** 6])
def test_random_batches_hold_every_row_once_within_the_budget(budget):
    lengths = np.random.default_rng(0).integers(1, 12, (50, 2))
    batches = bench_train.random_batches(packed_of(lengths), budget, 0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(50))
    assert all(len(rows) == 1 or lengths[rows].max(0).sum() * len(rows) <= budget for rows in batches)
