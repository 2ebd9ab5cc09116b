"""A run in small: a dozen QED rows, and a model that has learned them by heart in seconds."""
import csv
from dataclasses import asdict

import torch

import checkpoint
from batches import collate, load_split
from model import ModelConfig, Transformer
from physics.amplitude import amplitudes, parse_process
from physics.square import square_many
from physics.theory import THEORIES
from tokenizer import PAD, Tokenizer, build_vocabulary

PROCESSES = ["e mu -> e mu", "e mu~ -> e mu~", "e e~ -> mu mu~", "e t -> e t", "mu t -> mu t", "t e -> t e", "e e -> e e"]


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


def make_run(folder):
    """Data in folder/data (the three splits are the same rows), a trained folder/run/best.pt; returns the rows."""
    rows = qed_rows()
    (folder / "data").mkdir()
    for split in ("train", "valid", "test"):
        write_csv(folder / "data" / f"{split}.csv", rows)
    tokens = Tokenizer(build_vocabulary(folder / "data" / "train.csv"))
    packed = load_split(folder / "data", "train", tokens, 64, 64)
    torch.manual_seed(0)
    config = ModelConfig(src_vocab=len(tokens.vocabulary["src"]), tgt_vocab=len(tokens.vocabulary["tgt"]), src_max_len=64, tgt_max_len=64,
                         d_model=64, heads=4, encoder_layers=1, decoder_layers=1, d_ff=128, dropout=0.0)
    model = Transformer(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    src, tgt = collate(packed, range(len(rows)))
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(model(src, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    checkpoint.save(folder / "run" / "best.pt", {
        "model": model.state_dict(), "model_config": asdict(config), "vocabulary": tokens.vocabulary, "step": 150,
        "settings": {"data_dir": str(folder / "data"), "seed": 0}})
    return rows
