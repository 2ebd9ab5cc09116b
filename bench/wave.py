"""
Encoders that are linear in the length: their time and memory against the length, beside attention.

    python bench/run.py wave [config/file.py] [--key=value ...]      config/quickstart.py unless named; minutes

The first table is one encoder layer of the model's width on one row of so many tokens, forward and backward: ms and MB
with self-attention, with the unitary recurrence as a parallel scan (encoder="ssm") and with the travelling wave
(encoder="wave"), which takes one step after the other. The last line has the shortest of these lengths from which on
each recurrence is faster than attention. The second table is the recurrence h_t = a_t h_{t-1} + b_t alone, as a scan
and as a loop.
"""
import os
import statistics
from functools import partial

import torch

from ablations.wave.recurrence import loop, scan
from attention import attend_packed, pack_rows
from batches import to_device
from bench.train import SETTINGS as OF_TRAINING
from bench.train import VOCABULARY, peak_of, seconds, sizes
from configurator import load_settings
from model import EncoderLayer, ModelConfig, initialise, position_table
from runtime.hardware import device_name, find_device

SETTINGS = [name for name in OF_TRAINING if name not in ("data_dir", "rename_particles", "batch_tokens", "encoder")]
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)  # tokens
ROUNDS = 3
KINDS = ("attention", "ssm", "wave")


def median_ms(device, work):
    """Median time of `work()` over some rounds, after one to warm up."""
    times = []
    for _ in range(ROUNDS + 1):
        before = seconds(device)
        work()
        times.append(seconds(device) - before)
    return 1000 * statistics.median(times[1:])


def layers_against_length(settings, device):
    layers = {}
    for kind in KINDS:
        config = ModelConfig(VOCABULARY, VOCABULARY, max(LENGTHS), max(LENGTHS), **sizes(settings) | {"encoder": kind})
        layers[kind] = EncoderLayer(config, 0).apply(initialise).to(device)
    width = config.width("encoder")
    parameters = [sum(weight.numel() for weight in layers[kind].parameters()) for kind in KINDS]
    print("one encoder layer: " + ", ".join(f"{kind} {count:,} parameters" for kind, count in zip(KINDS, parameters)))
    print(f"{'tokens':>7}" + "".join(f" {kind + ' ms':>13} {'MB':>7}" for kind in KINDS))
    table = []
    for length in LENGTHS:
        rows = to_device(pack_rows(torch.tensor([length])), device)
        x = torch.randn(length, width, device=device, requires_grad=True)
        rope = position_table("rotary", length, width // config.heads, device, x.dtype)
        attend = partial(attend_packed, queries=rows, keys=rows, how=settings.attention)
        line = []
        for kind, layer in layers.items():
            inputs = x, rope, attend if kind == "attention" else rows

            def work():
                layer(*inputs).square().sum().backward()
            line.append((median_ms(device, work), (peak_of(device, work) or 0) / 1e6))
        table.append([ms for ms, _ in line])
        print(f"{length:7}" + "".join(f" {ms:13.1f} {megabytes:7,.0f}" for ms, megabytes in line), flush=True)
    for number, kind in enumerate(KINDS[1:], 1):
        slower = [length for length, times in zip(LENGTHS, table) if times[number] >= times[0]]
        faster = [length for length in LENGTHS if length > max(slower, default=0)]
        where = f"faster than attention from {faster[0]} tokens on" if faster else "not faster than attention"
        print(f"{kind}: {where}")


def scan_against_loop(settings, device):
    states = (settings.encoder_d_model or settings.d_model) * 7 // 8  # of one direction in the encoder
    print(f"\nthe recurrence alone, {states} complex numbers, forward and backward")
    print(f"{'steps':>7} {'scan ms':>9} {'loop ms':>9} {'times':>6}")
    for length in LENGTHS:
        a = torch.polar(torch.ones(length, states), torch.randn(length, states)).to(device).requires_grad_()
        b = torch.randn(length, states, dtype=torch.complex64, device=device).requires_grad_()
        fast, slow = (median_ms(device, lambda: recurrence(a, b).abs().sum().backward())
                      for recurrence in (scan, loop))
        print(f"{length:7} {fast:9.1f} {slow:9.1f} {slow / fast:6.1f}", flush=True)


def main(argv):
    settings = load_settings(__doc__, SETTINGS, argv, config="config/quickstart.py")
    device = find_device(settings.device)
    torch.manual_seed(settings.seed)
    clock = "" if device.type == "cuda" else f", ms of user CPU time; load {os.getloadavg()[0]:.1f}"
    print(f"{device_name(device)}{clock}")
    layers_against_length(settings, device)
    scan_against_loop(settings, device)
