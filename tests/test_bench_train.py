"""The benchmark of training runs through and says what it is; what it says is true of batches made by hand."""
import re

import numpy as np
import pytest
import torch

import batches
from bench import train as bench_train
from tokenizer import BOS, PAD


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


@pytest.mark.parametrize("budget", [1, 30, 60, 10 ** 6])
def test_padded_batches_hold_every_row_once_within_the_budget(budget):
    lengths = np.random.default_rng(0).integers(1, 12, (50, 2))
    packed = bench_train.rows_of(lengths, np.random.default_rng(0))
    cut = batches.cut_padded(packed, np.random.default_rng(0).permutation(50), budget)
    assert sorted(np.concatenate(cut).tolist()) == list(range(50))
    assert all(len(rows) == 1 or lengths[rows].max(0).sum() * len(rows) <= budget for rows in cut)


def test_the_three_trainings_see_the_same_rows_and_none_exceeds_the_budget():
    packed = bench_train.random_rows(64, 0)
    length = batches.lengths(packed, np.arange(len(packed.row)))
    a, b, c = bench_train.three_batchings(packed, 400, 3, 0)
    assert sorted(np.concatenate(a)) == sorted(np.concatenate(b)) == sorted(np.concatenate(c))
    assert len(b) == len(c) == 3 < len(a)
    assert all((length[:, samples].max(1) * len(samples)).sum() <= 400 for samples in [*a, *b])
    means = [length[:, samples].sum(0).mean() for samples in b]
    assert means == sorted(means)


def test_padded_and_packed_inputs_are_the_same_tokens():
    packed, samples = bench_train.random_rows(16, 0), np.array([3, 0, 7])
    (src, tgt), truth = bench_train.padded_inputs(packed, samples, "cpu")
    (packed_src, _, packed_tgt, _), packed_truth = bench_train.packed_inputs(packed, samples, "cpu")
    assert torch.equal(src[src != PAD], packed_src) and torch.equal(truth[truth != PAD], packed_truth)
    assert torch.equal(tgt[truth != PAD], packed_tgt) and (tgt[:, 0] == BOS).all()
