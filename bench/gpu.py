"""
One GPU: how fast it trains and decodes, and how much of it is used. A CPU makes a dry run in small.

    python bench/run.py gpu [config/file.py] [--key=value ...]      config/qed.py unless named

Training, at 8,192 and 65,536 tokens a step, in bf16: this project as it is and compiled (batches of one shape),
torch.nn.Transformer of the same size on padded batches of rows of like length, as it is and compiled, and Hugging
Face's BART of the same size on the same padded batches. A step is forward, backward and AdamW. The rows are those of
data_dir; where there is no data set, random ones of 100 to 300 tokens.

tokens/s counts the tokens of the rows, without padding. MFU: the floating-point operations that the rows need
(runtime/hardware.py) over the peak of the device's data sheet. busy: the share of the time in which a kernel runs, of
three steps under torch.profiler. warm-up: seconds of the first step, which compiles.

Decoding: tokens/s of greedy decoding and of a beam of 5, at 64 and 512 rows together, beside BART's generate(). The
last line has the share of a training run that its validations take: eval_rows and eval_train_rows every eval_every
steps.
"""
import importlib.util
import math
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from batches import choose_rows, lengths, mixed_batches, padded_batches, room_for
from bench import decode as bench_decode
from bench.train import (SIZES, VOCABULARY, Peer, autocast, measured_peak, packed_inputs, padded_inputs, rows_of,
                         rows_of_data_dir, seconds, sizes, train_step)
from configurator import load_settings
from dataset import vocabulary
from model import ModelConfig, Transformer, compile_model
from runtime.distributed import World
from runtime.hardware import find_device, training_flops
from tokenizer import PAD
from train import validate

SETTINGS = ["data_dir", "seed", "device", *vocabulary.SETTINGS, "attention", *SIZES, "eval_every", "eval_rows",
            "eval_train_rows", "eval_batch_tokens"]
STEPS = 12  # timed, after the warm-up


def random_rows(count, seed):
    """Rows of 100 to 300 tokens on each side."""
    generator = np.random.default_rng(seed)
    length = generator.integers(100, 301, (count, 1)) + generator.integers(-20, 21, (count, 2))
    return rows_of(length.clip(100, 300), generator)


class Bart(torch.nn.Module):
    """Hugging Face's encoder-decoder of the same size, called like Peer."""

    def __init__(self, config):
        super().__init__()
        import transformers
        d, heads, ff = config.d_model, config.heads, config.d_ff
        self.model = transformers.BartForConditionalGeneration(transformers.BartConfig(
            vocab_size=max(config.src_vocab, config.tgt_vocab), d_model=d, dropout=config.dropout,
            max_position_embeddings=max(config.src_max_len, config.tgt_max_len) + 2, pad_token_id=PAD,
            encoder_layers=config.encoder_layers, encoder_attention_heads=heads, encoder_ffn_dim=ff,
            decoder_layers=config.decoder_layers, decoder_attention_heads=heads, decoder_ffn_dim=ff))

    def forward(self, src, tgt):
        """src (B, S), tgt (B, T), padded with PAD -> logits (B, T, V)."""
        return self.model(input_ids=src, attention_mask=src != PAD, decoder_input_ids=tgt, use_cache=False).logits


def ways(config, settings, device, packed, batch_tokens):
    """{name: (model, batches, inputs_of)}: what is timed; inputs_of(batch) -> (inputs, truth) on the device."""
    room = room_for(packed, batch_tokens)
    mixed = mixed_batches(packed, batch_tokens, settings.seed)
    padded = padded_batches(packed, batch_tokens, np.arange(len(packed.row)))
    padded = [padded[number] for number in np.random.default_rng(settings.seed).permutation(len(padded))]

    filled = partial(packed_inputs, packed, device=device, room=room)
    with_padding = partial(padded_inputs, packed, device=device)
    found = {"this project": (Transformer(config, settings.attention).to(device), mixed, filled)}
    found["torch.nn.Transformer"] = Peer(config).to(device), padded, with_padding
    if device.type == "cuda":
        ours = compile_model(Transformer(config, settings.attention).to(device))
        found["this project, compiled"] = ours, mixed, filled
        theirs = torch.compile(Peer(config).to(device), dynamic=True)
        found["torch.nn.Transformer, compiled"] = theirs, padded, with_padding
    if importlib.util.find_spec("transformers"):
        found["Hugging Face BART"] = Bart(config).to(device), padded, with_padding
    return found


def time_training(packed, tokens, settings, device, peak, batch_tokens):
    """Print a line for each way; returns this project's seconds a step, the fastest way. tokens: of each vocabulary."""
    src, tgt = lengths(packed, np.arange(len(packed.row)))  # (samples,) each
    config = ModelConfig(*tokens, int(src.max()), int(tgt.max()) + 1, **sizes(settings))
    rates, step_seconds = {}, []
    for name, (model, batches, inputs_of) in ways(config, settings, device, packed, batch_tokens).items():
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step(samples):
            train_step(model, optimizer, *inputs_of(samples))

        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            started = time.perf_counter()
            step(batches[0])
            seconds(device)  # waits for the device
            warm_up = time.perf_counter() - started
            step(batches[1 % len(batches)])
            steps = STEPS if device.type == "cuda" else 1
            chosen = [batches[number % len(batches)] for number in range(2, 2 + steps)]
            before = seconds(device)
            for samples in chosen:
                step(samples)
            used = seconds(device) - before
            every = np.concatenate(chosen)
            useful, flops = int((src + tgt)[every].sum()), training_flops(config, src[every], tgt[every])
            memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")
            busy = busy_share(step, chosen[:3], device)
        except torch.OutOfMemoryError:
            print(f"{batch_tokens:8,}  {name:31} out of memory", flush=True)
            continue
        finally:
            model.zero_grad()
        rates[name] = useful / used
        if name.startswith("this project"):
            step_seconds.append(used / steps)
        mfu = f"{flops / used / peak:6.1%}" if peak else "   n/k"
        print(f"{batch_tokens:8,}  {name:31} {used / steps * 1e3:8.1f} {useful / used:12,.0f} {mfu} {busy:6.0%} "
              f"{memory:7.1f} {warm_up:8.1f}   {rates.get('this project', math.nan) / rates[name]:5.2f}", flush=True)
    return min(step_seconds, default=math.nan)


def busy_share(step, batches, device):
    """Share of the time in which a kernel runs; on a CPU not known."""
    if device.type != "cuda":
        return float("nan")
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        before = seconds(device)
        for samples in batches:
            step(samples)
        used = seconds(device) - before
    return sum(event.self_device_time_total for event in trace.key_averages()) / 1e6 / used


def validation_share(packed, tokens, settings, device, step_seconds):
    src, tgt = lengths(packed, np.arange(len(packed.row)))
    config = ModelConfig(*tokens, int(src.max()), int(tgt.max()) + 1, **sizes(settings))
    model, world = Transformer(config, settings.attention).to(device), World(0, 1, device)
    times = []
    counts = [settings.eval_rows] + ([settings.eval_train_rows] if settings.eval_train_rows else [])
    for _ in range(2):  # the first time kernels are set up
        started = time.perf_counter()
        for rows in counts:
            with autocast(device):
                validate(model, packed, *choose_rows(packed, rows, settings.seed), settings.eval_batch_tokens, world)
        times.append(time.perf_counter() - started)
    steps = settings.eval_every * step_seconds
    print(f"a validation of {settings.eval_rows} + {settings.eval_train_rows} rows, all answers of the longest length: "
          f"{times[1]:.1f} s; {settings.eval_every} steps: {steps:.1f} s; share {times[1] / (times[1] + steps):.1%}")


def main(argv):
    settings = load_settings(__doc__, SETTINGS, argv, config="config/qed.py")
    device = find_device(settings.device)
    torch.manual_seed(settings.seed)
    peak = measured_peak(device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU (a dry run: small, no share of use)"
    print(f"{where}, torch {torch.__version__}; peak {f'{peak / 1e12:,.1f} TFLOP/s' if peak else 'not known'}")
    path = Path(settings.data_dir) / "train.csv"
    if path.exists():
        name, (packed, tokens) = settings.data_dir, rows_of_data_dir(settings, path)
    else:
        print(f"{path}: not there, so random rows; prepare.py makes it", file=sys.stderr)
        name, tokens = "random rows, 100-300 tokens", (VOCABULARY, VOCABULARY)
        packed = random_rows(4000 if device.type == "cuda" else 20, settings.seed)
    print(f"\n{name}\n{'tokens':>8}  {'':31} {'ms/step':>8} {'tokens/s':>12} {'MFU':>6} {'busy':>6} {'GB':>7} "
          f"{'warm-up':>8}   this project / it")
    sizes_of_batch = (8192, 65536) if device.type == "cuda" else (1024,)
    step_seconds = [time_training(packed, tokens, settings, device, peak, size) for size in sizes_of_batch]
    validation_share(packed, tokens, settings, device, step_seconds[0])
    print()
    size = {} if device.type == "cuda" else {"row_counts": (2,), "rounds": 1}
    bench_decode.bench_gpu(device, peer=bool(importlib.util.find_spec("transformers")), **size)
