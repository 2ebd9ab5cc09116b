"""
Runs in small: a dozen QED rows, and a model that has learned them by heart in seconds; settings of runs that last a
second.
"""

import csv
import json
from dataclasses import asdict

import torch

import train
from attention import pack_rows, pad_rows
from batches import collate, load_split, pad, to_device
from dataset.vocabulary import build_vocabulary
from model import ModelConfig, Transformer
from physics.amplitude import amplitudes, parse_process
from physics.square import square_many
from physics.theory import THEORIES
from runtime import checkpoint
from tokenizer import EOS, PAD, Tokenizer

PROCESSES = [
    "e mu -> e mu",
    "e mu~ -> e mu~",
    "e e~ -> mu mu~",
    "e t -> e t",
    "mu t -> mu t",
    "t e -> t e",
    "e e -> e e",
]
SMALL = [
    "--d_model=16",
    "--heads=2",
    "--encoder_layers=1",
    "--decoder_layers=1",
    "--d_ff=16",
    "--batch_tokens=256",
    "--device=cpu",
    "--learning_rate=0.01",
    "--warmup_steps=5",
    "--log_every=1",
    "--eval_every=10",
    "--save_every=5",
    "--eval_rows=8",
]


def padded(model, src, tgt, counts=None):
    """
    Logits (B, T, V) of padded rows, 0 at the padding and after EOS. src: (B, S), padded with PAD; tgt: (B, T), BOS
    first.

    counts (B,): where a source has several targets, how many; tgt and the logits have those of the first source first.
    """
    sources = pack_rows((src != PAD).sum(1).cpu())
    lengths = ((tgt == EOS).cumsum(1) == 0).sum(1).cpu()
    targets, queries = pack_rows(lengths), None
    if counts is not None:
        queries = pack_rows(torch.stack([part.sum() for part in lengths.split(counts.tolist())]))
        queries = to_device(queries, src.device)
    sources, targets = to_device(sources, src.device), to_device(targets, src.device)
    logits = model(src[sources.row, sources.position], sources, tgt[targets.row, targets.position], targets, queries)
    short = pad_rows(logits, targets)
    return torch.nn.functional.pad(short, (0, 0, 0, tgt.shape[1] - short.shape[1]))


def padded_batch(packed, samples):
    """The samples as padded rows: src (B, S); tgt (B, T), the token to begin with ... EOS."""
    batch = collate(packed, samples)
    src, truth = (
        [ids[rows.row == row] for row in range(len(samples))]
        for ids, rows in ((batch.src, batch.sources), (batch.truth, batch.targets))
    )
    first = batch.tgt[batch.targets.start[:-1].long()]
    return pad(src), torch.cat([first[:, None], pad(truth)], dim=1)


def qed_rows():
    qed = THEORIES["qed"]
    amps = [amp for process in PROCESSES for amp in amplitudes(parse_process(process, qed), qed)]
    return [{"amp": amp, "sqamp": str(sqamp)} for amp, sqamp in zip(amps, square_many(amps))]


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_run(folder, steps=150, rows=None, longest=64, **scheme):
    """
    Data in folder/data (the three splits are the same rows), folder/run/best.pt, trained for so many steps; returns
    the rows. rows: those of qed_rows if none are given, of at most so many tokens. scheme: settings of the vocabulary,
    see build_vocabulary.
    """
    rows = rows or qed_rows()
    (folder / "data").mkdir()
    for split in ("train", "valid", "test"):
        write_csv(folder / "data" / f"{split}.csv", rows)
    tokens = Tokenizer(build_vocabulary(folder / "data" / "train.csv", **scheme))
    packed = load_split(folder / "data", "train", tokens, longest, longest)
    torch.manual_seed(0)
    config = ModelConfig(
        src_vocab=len(tokens.vocabulary["src"]),
        tgt_vocab=len(tokens.vocabulary["tgt"]),
        src_max_len=longest,
        tgt_max_len=longest,
        d_model=64,
        heads=4,
        encoder_layers=1,
        decoder_layers=1,
        d_ff=128,
        dropout=0.0,
        norm="pre",
    )
    model = Transformer(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = collate(packed, range(len(packed.row)))
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(batch.src, batch.sources, batch.tgt, batch.targets), batch.truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    checkpoint.save(
        folder / "run" / "best.pt",
        {
            "model": model.state_dict(),
            "model_config": asdict(config),
            "vocabulary": tokens.vocabulary,
            "step": steps,
            "settings": {"data_dir": str(folder / "data"), "seed": 0},
        },
    )
    return rows


def made_up_rows():
    """Rows of several lengths, made from one form; its users do not ask whether they are right physics."""
    for a in "e", "mu", "t":
        for b in "u", "d", "s", "c", "b":
            for s, terms in ("s_12", 1), ("s_13", 2), ("s_14", 3):
                amp = (
                    rf"-1/2*i*e^2*gamma_{{+%\sigma_1,%x_1,%x_2}}*gamma_{{%\sigma_1,%x_3,%x_4}}"
                    rf"*{a}_{{i_3,%x_2}}(p_1)_u*{a}_{{k_3,%x_1}}(p_2)_v^(*)*{b}_{{l_3,%x_3}}(p_3)_u^(*)"
                    rf"*{b}_{{i_5,%x_4}}(p_4)_v/(m_{a}^2 + {s} + 1/2*reg_prop)"
                )
                polynomial = " + ".join([f"m_{a}^2*m_{b}^2", f"m_{b}^2*{s}", "s_14*s_23"][:terms])
                yield {"amp": amp, "sqamp": f"2*e^4*({polynomial})*(m_{a}^2 + {s} + 1/2*reg_prop)^(-2)"}


def make_data(folder):
    rows = list(made_up_rows())
    write_csv(folder / "train.csv", rows)
    write_csv(folder / "valid.csv", rows[::4])
    return folder


def log_of(out_dir):
    """Lines of the log without what depends on the clock."""
    lines = [json.loads(line) for line in (out_dir / "log.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "tokens_per_second", "memory_gb")}
        for line in lines
    ]


def assert_same_run(a, b):
    first, second = checkpoint.load(a / "last.pt"), checkpoint.load(b / "last.pt")
    for name in (
        "step",
        "epoch",
        "batch",
        "skipped",
        "bad",
        "rollbacks",
        "kind_loss",
        "dealt",
        "skipped_lines",
        "scaler",
        "best",
    ):
        assert first[name] == second[name], name
    for weights in ("model", "ema"):
        assert (first[weights] is None) == (second[weights] is None)
        assert all(torch.equal(first[weights][name], second[weights][name]) for name in first[weights] or ())
    for one, other in zip(first["optimizers"], second["optimizers"], strict=True):
        for ours, theirs in zip(one["state"].values(), other["state"].values(), strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(first["rng"]["cpu"], second["rng"]["cpu"])  # of every rank
    assert log_of(a) == log_of(b)


def run(data, out_dir, *flags):
    """Train the small model in this process; returns the exit code."""
    return train.main([f"--data_dir={data}", f"--out_dir={out_dir}", *SMALL, *flags])
