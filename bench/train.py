"""
Training beside torch.nn.Transformer: useful tokens a second, use of the hardware, memory.

    python bench/run.py train [config/file.py] [--key=value ...]      config/qed.py unless named; about 5 minutes on two cores

Three trainings of one shape, step by step in turn: (a) torch.nn.Transformer on padded batches of random rows, (b) the same on
batches of rows of like length, (c) this project; on a GPU also with padding and SDPA instead of varlen, and compiled. A step is
forward, backward and AdamW, in bf16 or fp16 on a GPU, in fp32 on a CPU. Rows are made up (longest row 256 to 2,048 tokens on each
side; source and target lengths go together and spread as in the QED and QCD sets), and those of data_dir where it holds a data set.
Useful tokens are those of the rows, no padding. MFU: operations that the rows need (hardware.py) over those that the device could do
in that time: by its data sheet on a GPU, in a large matrix product on a CPU, where seconds are user CPU time on all cores. Then
memory against length, one row at a time.
"""
import ctypes
import gc
import os
import re
import resource
import time
import warnings
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in train.py

import numpy as np
import torch
import torch.nn.functional as F

from batches import Packed, collate, length_batches, load_split
from configurator import load_settings
from model import ARCHITECTURE, ModelConfig, Transformer
from runtime.hardware import find_device, find_dtype, peak_flops, training_flops
from tokenizer import BOS, EOS, PAD, Tokenizer, build_vocabulary

SIZES = [*ARCHITECTURE, "dropout"]
SETTINGS = ["data_dir", "seed", "device", "rename_particles", "attention", *SIZES, "batch_tokens"]
LONGEST = (256, 512, 1024, 2048)  # tokens of the longest row on each side
EW_LIMITS = (810, 1730)  # longest electroweak rows
VOCABULARY = 200
POOL = 2000  # rows from which batches are composed


class Peer(torch.nn.Module):
    """torch.nn.Transformer with embeddings, learned positions and a head, called as its documentation shows."""

    def __init__(self, config):
        super().__init__()
        d = config.d_model
        self.src, self.tgt = torch.nn.Embedding(config.src_vocab, d), torch.nn.Embedding(config.tgt_vocab, d)
        self.positions = torch.nn.Embedding(max(config.src_max_len, config.tgt_max_len), d)
        warnings.filterwarnings("ignore", message="enable_nested_tensor")  # which is for inference only
        self.transformer = torch.nn.Transformer(d, config.heads, config.encoder_layers, config.decoder_layers, config.d_ff, config.dropout,
                                                activation="gelu", batch_first=True, norm_first=config.norm == "pre")
        self.head = torch.nn.Linear(d, config.tgt_vocab, bias=False)

    def forward(self, src, tgt):
        place = torch.arange(max(src.shape[1], tgt.shape[1]), device=src.device)
        causal = torch.ones(tgt.shape[1], tgt.shape[1], dtype=torch.bool, device=src.device).triu(1)
        return self.head(self.transformer(
            self.src(src) + self.positions(place[:src.shape[1]]), self.tgt(tgt) + self.positions(place[:tgt.shape[1]]), tgt_mask=causal,
            tgt_is_causal=True, src_key_padding_mask=src == PAD, tgt_key_padding_mask=tgt == PAD, memory_key_padding_mask=src == PAD))


def made_up(longest, seed):
    """A Packed of POOL rows of random tokens: lengths log-normal about a third of the longest, nearly the same on both sides."""
    generator = np.random.default_rng(seed)
    # the standard deviation of a length's logarithm is 0.4 to 0.6 in MARTY's QED 2->2 rows, 0.8 to 0.9 in its QCD 2->2 rows
    spread = np.exp(0.65 * generator.standard_normal((POOL, 1)) + 0.02 * generator.standard_normal((POOL, 2)))
    length = np.clip(longest / 3 * spread, longest / 32, longest).astype(int)  # (POOL, 2)
    sides = []
    for count in length.T:
        start = np.concatenate(([0], count.cumsum()))
        flat = generator.integers(EOS + 1, VOCABULARY, start[-1]).astype(np.uint16)
        flat[start[1:] - 1] = EOS
        sides += [flat, start]
    return Packed(*sides, np.arange(POOL), np.full(POOL, BOS, np.uint16))


def random_batches(packed, batch_tokens, seed):
    """As length_batches, but of rows as they come after a shuffle: how a padded batch is made without further thought."""
    src, tgt = np.diff(packed.src_start), np.diff(packed.tgt_start)
    batches, batch = [], []
    for row in np.random.default_rng(seed).permutation(len(src)):
        if batch and (src[batch + [row]].max() + tgt[batch + [row]].max()) * (len(batch) + 1) > batch_tokens:
            batches.append(np.array(batch))
            batch = []
        batch.append(row)
    return [*batches, np.array(batch)]


def even_share(batches, packed, count):
    """`count` of the batches, the same share of long and short rows as in all of them."""
    ordered = sorted(batches, key=lambda rows: np.diff(packed.src_start)[rows].mean() + np.diff(packed.tgt_start)[rows].mean())
    return [ordered[int((i + 0.5) * len(ordered) / count)] for i in range(count)]


def autocast(device):
    dtype = find_dtype("auto", device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def train_step(model, optimizer, src, tgt):
    with autocast(src.device):
        loss = F.cross_entropy(model(src, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=PAD)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def seconds(device):
    """
    A clock for differences: wall time when a GPU is done; on a CPU user time of all threads, which other programs do not disturb and
    which leaves out what the system takes to hand out memory, in favour of the peers, who need more.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def measured_peak(device):
    """FLOP/s of the data sheet, or, on a CPU, FLOP per second of user CPU time in the best of ten fp32 products of 2048 x 2048 matrices."""
    if device.type == "cuda":
        return peak_flops(device, find_dtype("auto", device))
    a, b = torch.randn(2, 2048, 2048)
    best = float("inf")
    for _ in range(10):
        before = seconds(device)
        a @ b
        best = min(best, seconds(device) - before)
    return 2 * 2048 ** 3 / best


def peak_of(device, work):
    """Bytes that `work()` takes at its peak, beyond what was there before. None on a CPU without Linux's /proc."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what is free, or its use again would not show
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the peak of the resident memory, starts anew from VmRSS
        before = resident("VmRSS")
        work()
        return resident("VmHWM") - before
    except (OSError, AttributeError):
        work()
        return None


def resident(name):
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def sizes(settings):
    return {key: getattr(settings, key) for key in SIZES}


def compare(name, packed, vocabulary, settings, device, peak):
    """One line of the first table."""
    src, tgt = np.diff(packed.src_start), np.diff(packed.tgt_start)  # (rows,) each
    config = ModelConfig(*vocabulary, int(src.max()), int(tgt.max()) + 1, **sizes(settings))
    count = 2 if device.type == "cpu" else 16
    random, alike = (compose(packed, settings.batch_tokens, settings.seed) for compose in (random_batches, length_batches))
    random, alike = (even_share(batches, packed, min(count, len(batches))) for batches in (random, alike))
    runs = {"a": (Peer(config), random), "b": (Peer(config), alike), "c": (Transformer(config, settings.attention), alike)}
    if device.type == "cuda":
        runs["c, sdpa"] = Transformer(config, "sdpa"), alike
        runs["c compiled"] = torch.compile(Transformer(config, settings.attention).to(device), dynamic=True), alike
    runs = {key: (model.to(device), torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), batches)
            for key, (model, batches) in runs.items()}

    used = {key: 0.0 for key in runs}  # seconds
    memory = {key: 0 for key in runs}
    for model, optimizer, batches in runs.values():  # memory of the optimizer, kernels of these shapes, autotuning
        for rows in batches if device.type == "cuda" else [min(batches, key=lambda rows: (src + tgt)[rows].sum())[:1]]:
            train_step(model, optimizer, *(side.to(device) for side in collate(packed, rows)))
    for index in range(max(len(random), len(alike))):
        for key, (model, optimizer, batches) in runs.items():
            if index < len(batches):
                pair = [side.to(device) for side in collate(packed, batches[index])]

                def timed_step():
                    before = seconds(device)
                    train_step(model, optimizer, *pair)
                    used[key] += seconds(device) - before
                memory[key] = max(memory[key], peak_of(device, timed_step) or 0)

    tokens, mfu, padding = {}, {}, {}
    for key, (*_, batches) in runs.items():
        rows = np.concatenate(batches)
        useful = int((src + tgt)[rows].sum())
        padding[key] = 1 - useful / sum((src[batch].max() + tgt[batch].max()) * len(batch) for batch in batches)
        tokens[key] = useful / used[key]
        mfu[key] = training_flops(config, src[rows], tgt[rows]) / used[key] / peak if peak else float("nan")
    for key in runs:
        shown = padding[key] if key in ("a", "b", "c, sdpa") else 0.0
        print(f"{name:>12}  {key:10} {shown:7.0%} {tokens[key]:10,.0f} {mfu[key]:6.1%} {memory[key] / 1e6:9,.0f}"
              f"   {tokens[key] / tokens['a']:5.2f} x (a) {tokens[key] / tokens['b']:5.2f} x (b)", flush=True)


def memory_of_one_row(settings, device):
    """The second table: MB of one forward and backward pass over a single row."""
    print("\nMB of one forward and backward pass over one row, without weights and gradients")
    print(f"{'source':>7} {'target':>7} {'(a), (b)':>10} {'(c)':>10} {'(c), checkpoint_layers':>24}")
    config = ModelConfig(VOCABULARY, VOCABULARY, *(2 * [1 + max(*LONGEST, *EW_LIMITS)]), **sizes(settings))
    models = [Peer(config), Transformer(config, settings.attention), Transformer(config, settings.attention, checkpoint_layers=True)]
    models = [model.to(device) for model in models]
    for s, t in [*((length, length) for length in LONGEST), EW_LIMITS]:
        src, tgt = (torch.randint(EOS + 1, VOCABULARY, (1, length), device=device) for length in (s, t + 1))
        tgt[:, 0], tgt[:, -1], used = BOS, EOS, []
        for model in models:
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)

            def work():
                with autocast(device):
                    loss = F.cross_entropy(model(src, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten())
                loss.backward()
            used.append(peak_of(device, work))
            model.zero_grad()
        shown = [f"{taken / 1e6:,.0f}" if taken is not None else "not known" for taken in used]
        print(f"{s:7} {t:7} {shown[0]:>10} {shown[1]:>10} {shown[2]:>24}")


def main(argv):
    if not any(not word.startswith("-") for word in argv):
        argv = ["config/qed.py", *argv]
    settings = load_settings(__doc__, SETTINGS, argv)
    device = find_device(settings.device)
    torch.manual_seed(settings.seed)
    peak = measured_peak(device)
    where = f"CPU, {torch.get_num_threads()} threads, per second of user CPU time"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    print(f"{where}; peak {peak / 1e9:,.0f} GFLOP/s; load {os.getloadavg()[0]:.1f}" if peak else f"{where}; peak not known")
    print(f"{'longest row':>12}  {'':10} {'padding':>7} {'tokens/s':>10} {'MFU':>6} {'MB a step':>9}")
    for longest in LONGEST:
        compare(f"{longest:,}", made_up(longest, settings.seed), (VOCABULARY, VOCABULARY), settings, device, peak)
    path = Path(settings.data_dir) / "train.csv"
    if path.exists():
        tokenizer = Tokenizer(build_vocabulary(path, settings.rename_particles))
        packed = load_split(settings.data_dir, "train", tokenizer, 10 ** 6, 10 ** 6)
        compare(settings.data_dir, packed, (len(tokenizer.vocabulary["src"]), len(tokenizer.vocabulary["tgt"])), settings, device, peak)
    else:
        print(f"{path}: not there, so no rows of a data set; python prepare.py makes them")
    memory_of_one_row(settings, device)
