"""
Training beside torch.nn.Transformer: useful tokens per second, use of the hardware, memory.

    python bench/run.py train [config/file.py] [--key=value ...]      config/qed.py unless named; minutes on two cores

Three trainings of models of the same size take their steps in turn, on the same rows:
    a   torch.nn.Transformer on padded batches of random rows
    b   torch.nn.Transformer on padded batches of rows of like length
    c   this project, on packed batches of random rows; on a GPU also with SDPA, which pads, and compiled
A step is forward, backward and AdamW, in bf16 or fp16 on a GPU, in fp32 on a CPU. The rows are random tokens: the
longest row has 256 to 2,048 tokens on each side; source and target lengths go together and vary as in the QED and QCD
sets. One more line uses the rows of data_dir, if there is a data set.

Useful tokens are the tokens of the rows, without padding. MFU is the number of floating-point operations that the rows
need (runtime/hardware.py) over the number that the device could do in that time. The peak of a GPU is that of its data
sheet. The peak of a CPU is measured with a large matrix product, and its seconds are user CPU time on all cores.
A second table shows memory against length, one row at a time.
"""
import ctypes
import gc
import os
import re
import resource
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from batches import (
    Packed,
    collate,
    cut,
    cut_padded,
    lengths,
    load_split,
    pad,
    padded_batches,
    room_for,
    to_device,
)
from configurator import load_settings
from dataset import vocabulary
from model import ARCHITECTURE, ModelConfig, Transformer, compile_model
from runtime.hardware import find_device, find_dtype, peak_flops, training_flops
from tokenizer import BOS, EOS, PAD, Tokenizer

SIZES = [*ARCHITECTURE, "dropout"]
SETTINGS = ["data_dir", "seed", "device", *vocabulary.SETTINGS, "attention", *SIZES, "batch_tokens"]
LONGEST = (256, 512, 1024, 2048)  # tokens of the longest row on each side
EW_LIMITS = (810, 1730)  # longest electroweak rows
VOCABULARY = 200
POOL = 2000  # rows to make batches from


class Peer(torch.nn.Module):
    """torch.nn.Transformer with embeddings, learned positions and a head, called as its documentation shows."""

    def __init__(self, config):
        super().__init__()
        d = config.d_model
        self.src, self.tgt = torch.nn.Embedding(config.src_vocab, d), torch.nn.Embedding(config.tgt_vocab, d)
        self.positions = torch.nn.Embedding(max(config.src_max_len, config.tgt_max_len), d)
        warnings.filterwarnings("ignore", message="enable_nested_tensor")  # nested tensors are for inference only
        self.transformer = torch.nn.Transformer(d, config.heads, config.encoder_layers, config.decoder_layers,
                                                config.d_ff, config.dropout, activation="gelu", batch_first=True,
                                                norm_first=config.norm == "pre")
        self.head = torch.nn.Linear(d, config.tgt_vocab, bias=False)

    def forward(self, src, tgt):
        """src (B, S), tgt (B, T), padded with PAD -> logits (B, T, V)."""
        position = torch.arange(max(src.shape[1], tgt.shape[1]), device=src.device)
        causal = torch.ones(tgt.shape[1], tgt.shape[1], dtype=torch.bool, device=src.device).triu(1)  # (T, T)
        x = self.src(src) + self.positions(position[:src.shape[1]])  # (B, S, d)
        y = self.tgt(tgt) + self.positions(position[:tgt.shape[1]])  # (B, T, d)
        src_padding, tgt_padding = src == PAD, tgt == PAD
        y = self.transformer(x, y, tgt_mask=causal, tgt_is_causal=True, src_key_padding_mask=src_padding,
                             tgt_key_padding_mask=tgt_padding, memory_key_padding_mask=src_padding)  # (B, T, d)
        return self.head(y)


def random_rows(longest, seed):
    """A Packed of POOL rows of random tokens.

    Lengths are log-normal around a third of the longest, and nearly the same on both sides.
    """
    generator = np.random.default_rng(seed)
    # log(length) has a standard deviation of 0.4 to 0.6 in MARTY's QED 2->2 rows, of 0.8 to 0.9 in its QCD 2->2 rows
    spread = np.exp(0.65 * generator.standard_normal((POOL, 1)) + 0.02 * generator.standard_normal((POOL, 2)))
    return rows_of(np.clip(longest / 3 * spread, longest / 32, longest).astype(int), generator)


def rows_of(length, generator):
    """A Packed of rows of random tokens, all of one kind. length: (rows, 2), source and target tokens with EOS."""
    sides = []
    for count in length.T:
        start = np.concatenate(([0], count.cumsum()))  # (rows + 1,)
        flat = generator.integers(EOS + 1, VOCABULARY, start[-1]).astype(np.uint16)
        flat[start[1:] - 1] = EOS
        sides += [flat, start]
    rows = np.arange(len(length))
    return Packed(*sides, row=rows, first=np.full(len(rows), BOS, np.uint16), line=rows + 2, kind=np.zeros_like(rows),
                  kinds=np.array(["random"]))


def three_batchings(packed, batch_tokens, count, seed):
    """
    (a, b, c): batches of the same samples for the three trainings, lists of int arrays.

    The samples are those of `count` of the batches of like length, chosen evenly from the shortest to the longest: a
    few rows alone could not be sorted into batches of like length.
    """
    generator = np.random.default_rng(seed)
    alike = padded_batches(packed, batch_tokens, generator.permutation(len(packed.row)))  # the shortest rows first
    count = min(count, len(alike))
    alike = [alike[int((i + 0.5) * len(alike) / count)] for i in range(count)]
    samples = generator.permutation(np.concatenate(alike))
    mixed = np.array_split(generator.permutation(samples), count)  # as many steps as (b) has
    return cut_padded(packed, samples, batch_tokens), alike, mixed


def padded_inputs(packed, samples, device):
    """((src (B, S), tgt (B, T)), truth (B, T)), padded with PAD: what Peer reads and should write."""
    def side(flat, start, rows):
        return pad([flat[start[row]:start[row + 1]].astype(np.int64) for row in rows]).to(device)

    src, truth = side(packed.src, packed.src_start, packed.row[samples]), side(packed.tgt, packed.tgt_start, samples)
    first = torch.from_numpy(packed.first[samples].astype(np.int64)).to(device)
    return (src, torch.cat([first[:, None], truth[:, :-1]], dim=1)), truth


def packed_inputs(packed, samples, device, room=None):
    """((src (N,), sources, tgt (M,), targets), truth (M,)): what our Transformer reads and should write."""
    batch = to_device(collate(packed, samples, room), device)
    return (batch.src, batch.sources, batch.tgt, batch.targets), batch.truth


def loss_of(model, inputs, truth):
    """Mean cross-entropy of a target token."""
    return F.cross_entropy(model(*inputs).flatten(0, -2), truth.flatten(), ignore_index=PAD)


def autocast(device):
    dtype = find_dtype("auto", device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def train_step(model, optimizer, inputs, truth):
    with autocast(truth.device):
        loss = loss_of(model, inputs, truth)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def seconds(device):
    """A clock for differences: on a GPU wall time, after all kernels have ended; on a CPU user time of all threads.

    Other programs do not change user time. It leaves out the time in which the system allocates memory; that is in
    favour of the peers, which need more.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def measured_peak(device):
    """Peak FLOP/s: the data sheet's on a GPU (None if not known).

    On a CPU it is FLOP per second of user CPU time in the best of ten fp32 products of 2048 x 2048 matrices.
    """
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
    """Bytes that `work()` allocates at its peak, beyond those allocated before. None on a CPU without Linux's /proc."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # return free memory to the system: reusing it would not count
        Path("/proc/self/clear_refs").write_text("5")  # reset VmHWM, the peak resident memory, to VmRSS
        before = resident_bytes("VmRSS")
        work()
        return resident_bytes("VmHWM") - before
    except (OSError, AttributeError):
        work()
        return None


def resident_bytes(name):
    """VmRSS, the resident memory, or VmHWM, its peak."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def sizes(settings):
    return {key: getattr(settings, key) for key in SIZES}


def rows_of_data_dir(settings, path):
    """(the training rows, packed; tokens of the source and of the target vocabulary), as train.py has them."""
    scheme = {name: getattr(settings, name) for name in vocabulary.SETTINGS}
    tokenizer = Tokenizer(vocabulary.build_vocabulary(path, **scheme))
    packed = load_split(settings.data_dir, "train", tokenizer, 10 ** 6, 10 ** 6)
    return packed, (len(tokenizer.vocabulary["src"]), len(tokenizer.vocabulary["tgt"]))


def compare(name, packed, tokens, settings, device, peak):
    """Print the lines of one data set in the first table."""
    src, tgt = lengths(packed, np.arange(len(packed.row)))  # (samples,) each
    config = ModelConfig(*tokens, int(src.max()), int(tgt.max()) + 1, **sizes(settings))
    count = 4 if device.type == "cpu" else 16
    random, alike, mixed = three_batchings(packed, settings.batch_tokens, count, settings.seed)
    runs = {"a": (Peer(config), padded_inputs, random), "b": (Peer(config), padded_inputs, alike),
            "c": (Transformer(config, settings.attention), packed_inputs, mixed)}
    if device.type == "cuda":
        runs["c, sdpa"] = Transformer(config, "sdpa"), packed_inputs, mixed
        compiled = compile_model(Transformer(config, settings.attention).to(device))
        room = room_for(packed, settings.batch_tokens)
        runs["c compiled"] = compiled, partial(packed_inputs, room=room), cut(packed, np.concatenate(mixed), room)
    runs = {key: (model.to(device), torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), inputs_of, batches)
            for key, (model, inputs_of, batches) in runs.items()}

    used = {key: 0.0 for key in runs}  # seconds
    memory = {key: 0 for key in runs}  # bytes
    # warm up: moments of the optimizer, kernels of these shapes, autotuning
    for model, optimizer, inputs_of, batches in runs.values():
        if device.type == "cpu":
            batches = [np.argmin(src + tgt)[None]]  # one row is enough
        for samples in batches:
            train_step(model, optimizer, *inputs_of(packed, samples, device))
    for index in range(max(len(batches) for *_, batches in runs.values())):
        for key, (model, optimizer, inputs_of, batches) in runs.items():
            if index < len(batches):
                inputs, truth = inputs_of(packed, batches[index], device)

                def timed_step():
                    before = seconds(device)
                    train_step(model, optimizer, inputs, truth)
                    used[key] += seconds(device) - before
                memory[key] = max(memory[key], peak_of(device, timed_step) or 0)

    samples = np.concatenate(alike)
    useful = int((src + tgt)[samples].sum())
    flops = training_flops(config, src[samples], tgt[samples])
    for key, (*_, batches) in runs.items():
        padding = 0.0
        if key in ("a", "b", "c, sdpa"):
            padding = 1 - useful / sum((src[batch].max() + tgt[batch].max()) * len(batch) for batch in batches)
        mfu = flops / used[key] / peak if peak else float("nan")
        print(f"{name:>12}  {key:10} {padding:7.0%} {useful / used[key]:10,.0f} {mfu:6.1%} {memory[key] / 1e6:9,.0f}"
              f"   {used['a'] / used[key]:5.2f} x (a) {used['b'] / used[key]:5.2f} x (b)", flush=True)


def memory_of_one_row(settings, device):
    """Print the second table: MB of one forward and backward pass over a single row."""
    print("\nMB of one forward and backward pass over one row, without weights and gradients")
    print(f"{'source':>7} {'target':>7} {'(a), (b)':>10} {'(c)':>10} {'(c), checkpoint_layers':>24}")
    longest = 1 + max(*LONGEST, *EW_LIMITS)
    config = ModelConfig(VOCABULARY, VOCABULARY, longest, longest, **sizes(settings))
    peer, ours = Peer(config), Transformer(config, settings.attention)
    economical = Transformer(config, settings.attention, checkpoint_layers=True)
    runs = [(peer.to(device), padded_inputs), (ours.to(device), packed_inputs), (economical.to(device), packed_inputs)]
    for s, t in [*((length, length) for length in LONGEST), EW_LIMITS]:
        row = rows_of(np.array([[s, t]]), np.random.default_rng(settings.seed))
        used = []
        for model, inputs_of in runs:
            inputs, truth = inputs_of(row, np.array([0]), device)
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)

            def work():
                with autocast(device):
                    loss = loss_of(model, inputs, truth)
                loss.backward()
            used.append(peak_of(device, work))
            model.zero_grad()
        shown = [f"{taken / 1e6:,.0f}" if taken is not None else "not known" for taken in used]
        print(f"{s:7} {t:7} {shown[0]:>10} {shown[1]:>10} {shown[2]:>24}")


def main(argv):
    settings = load_settings(__doc__, SETTINGS, argv, config="config/qed.py")
    device = find_device(settings.device)
    torch.manual_seed(settings.seed)
    peak = measured_peak(device)
    where = f"CPU, {torch.get_num_threads()} threads, per second of user CPU time"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    shown = f"{peak / 1e9:,.0f} GFLOP/s" if peak else "not known"
    print(f"{where}; peak {shown}; load {os.getloadavg()[0]:.1f}")
    print(f"{'longest row':>12}  {'':10} {'padding':>7} {'tokens/s':>10} {'MFU':>6} {'MB a step':>9}")
    for longest in LONGEST:
        compare(f"{longest:,}", random_rows(longest, settings.seed), (VOCABULARY, VOCABULARY), settings, device, peak)
    path = Path(settings.data_dir) / "train.csv"
    if path.exists():
        compare(settings.data_dir, *rows_of_data_dir(settings, path), settings, device, peak)
    else:
        print(f"{path}: not there, so no rows of a data set; python prepare.py makes them")
    memory_of_one_row(settings, device)
