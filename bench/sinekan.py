"""
SineKAN beside the MLP: time and memory of training with equal parameters, and memory against the grid size.

    python bench/run.py sinekan [config/file.py] [--key=value ...]      config/quickstart.py unless named; a minute

The first table compares three models that differ only in the feed-forward networks: MLPs, two SineKANs a layer with as
many weights as the MLP (kan_ff_dims=""), or one SineKAN a layer (kan_ff_dims="none"). They take their steps in turn, on
the same batches. The second table measures one feed-forward network alone, two SineKANs d -> d_ff / 8 -> d, for several
grid sizes K: MB of a forward and backward pass, without the weights and their gradients, beside the plain formula and
the MLP.
"""
import os
import statistics

import numpy as np
import torch

from batches import lengths, mixed_batches
from bench.train import SETTINGS, VOCABULARY, packed_inputs, peak_of, random_rows, seconds, sizes, train_step
from configurator import load_settings
from model import MLP, ModelConfig, Transformer
from runtime.hardware import find_device
from sinekan import SineKAN, reference

LONGEST = 256  # tokens of the longest row on each side
STEPS = 8
GRIDS = (2, 4, 8, 16, 32)
TOKENS = 8192  # tokens of the pass in the second table
MODELS = {"MLP": {"ffn": "mlp"}, "SineKANs": {"ffn": "sinekan"},
          "one SineKAN": {"ffn": "sinekan", "kan_ff_dims": "none"}}


def compare_models(settings, device):
    packed = random_rows(LONGEST, settings.seed)
    src, tgt = lengths(packed, np.arange(len(packed.row)))  # (samples,) each
    batches = mixed_batches(packed, settings.batch_tokens, settings.seed)
    batches = [batches[number % len(batches)] for number in range(STEPS + 1)]
    models = {}
    for name, change in MODELS.items():
        config = ModelConfig(VOCABULARY, VOCABULARY, int(src.max()), int(tgt.max()) + 1, **sizes(settings) | change)
        models[name] = Transformer(config, settings.attention).to(device)
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True) for name, model in models.items()}
    used = {name: [] for name in models}  # seconds of each step
    memory = {name: [] for name in models}  # bytes of each step
    for samples in batches:
        inputs, truth = packed_inputs(packed, samples, device)
        for name, model in models.items():
            def timed_step():
                before = seconds(device)
                train_step(model, optimizers[name], inputs, truth)
                used[name].append(seconds(device) - before)
            memory[name].append(peak_of(device, timed_step) or 0)
    print(f"{'':12} {'parameters':>11} {'ms a step':>10} {'tokens/s':>9} {'MB a step':>10}")
    tokens = sum(int((src + tgt)[samples].sum()) for samples in batches[1:])
    for name, model in models.items():
        took = used[name][1:]  # the first step also allocates the optimizer's moments
        slower = statistics.median(a / b for a, b in zip(took, used["MLP"][1:]))
        parameters = sum(weight.numel() for weight in model.parameters())
        print(f"{name:12} {parameters:11,} {1000 * statistics.median(took):10.1f} {tokens / sum(took):9,.0f} "
              f"{max(memory[name][1:]) / 1e6:10,.0f}   {slower:5.2f} x the MLP's time")


def memory_against_grid(settings, device):
    d, hidden = settings.d_model, max(1, settings.d_ff // 8)
    print(f"\nMB of a forward and backward pass over {TOKENS:,} tokens, {d} -> {hidden} -> {d}")
    print(f"{'K':>4} {'SineKANs':>9} {'formula':>9}")

    def measure(network, weights):
        x = torch.randn(TOKENS, d, device=device, requires_grad=True)
        for tensor in (x, *weights):
            tensor.grad = torch.zeros_like(tensor)
        taken = peak_of(device, lambda: network(x).square().sum().backward())
        return "not known" if taken is None else f"{taken / 1e6:,.0f}"

    for grid in GRIDS:  # the formula keeps its table of sines for the backward pass
        layers = torch.nn.Sequential(SineKAN(d, hidden, grid), SineKAN(hidden, d, grid)).to(device)
        weights = list(layers.parameters())
        measure(layers, weights)  # warm up: libraries allocate some memory once
        formula = measure(lambda x: reference(layers[1], reference(layers[0], x)), weights)
        print(f"{grid:4} {measure(layers, weights):>9} {formula:>9}", flush=True)
    mlp = MLP([d, settings.d_ff, d], "gelu").to(device)
    print(f" MLP {measure(mlp, list(mlp.parameters())):>9}   with its {settings.d_ff} hidden numbers")


def main(argv):
    settings = load_settings(__doc__, SETTINGS, argv, config="config/quickstart.py")
    device = find_device(settings.device)
    torch.manual_seed(settings.seed)
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))
    else:
        print(f"CPU, {torch.get_num_threads()} threads, seconds of user CPU time; load {os.getloadavg()[0]:.1f}")
    compare_models(settings, device)
    memory_against_grid(settings, device)
