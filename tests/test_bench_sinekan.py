"""The benchmark of SineKAN runs through, its models are of one size, and its memory is what the layer promises."""
import re

from bench import sinekan as bench_sinekan


def test_both_tables_come_out(monkeypatch, capsys):
    monkeypatch.setattr(bench_sinekan, "STEPS", 1)
    monkeypatch.setattr(bench_sinekan, "LONGEST", 32)
    monkeypatch.setattr(bench_sinekan, "GRIDS", (2, 4))
    monkeypatch.setattr(bench_sinekan, "TOKENS", 64)
    bench_sinekan.main(["--d_model=32", "--heads=2", "--encoder_layers=1", "--decoder_layers=1", "--d_ff=128",
                        "--batch_tokens=200", "--device=cpu"])
    out = capsys.readouterr().out
    line = r"^(?:MLP|SineKANs|one SineKAN) +([\d,]+) +[\d.]+ .* x the MLP's time$"
    mlp, two, one = (int(found.replace(",", "")) for found in re.findall(line, out, re.MULTILINE))
    assert abs(two / mlp - 1) < 0.02 and abs(one / mlp - 1) < 0.02
    assert re.findall(r"^ +(\d+) +[\d,]+ +[\d,]+$", out, re.MULTILINE) == ["2", "4"]
    assert "with its 128 hidden numbers" in out
