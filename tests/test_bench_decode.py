"""The decoding benchmark for GPUs, dry, on a CPU: a line for each search and number of rows."""
import torch

from bench import decode as bench


def test_the_benchmark_for_gpus_runs_on_a_cpu(monkeypatch, capsys):
    monkeypatch.setattr(bench, "NEW", 3)
    monkeypatch.setattr(bench, "SOURCE", 5)
    monkeypatch.setattr(bench, "SHAPE", dict(d_model=16, heads=2, encoder_layers=1, decoder_layers=1, d_ff=16))
    bench.bench_gpu("cpu", row_counts=(2, 3), rounds=1, peer=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["decoding", "greedy", "ours"] * 2
    assert all(line.split()[2::2] == ["1.00", "1.00"] for line in lines[2::3])
    assert f"{torch.get_num_threads()} threads" in lines[0]
