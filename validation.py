"""How well a model does while it learns: the loss, and how many validation rows greedy decoding gets right."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from batches import collate
from distributed import gather
from generate import greedy
from tokenizer import PAD

SAMPLES = 2  # validation rows whose answers are logged


def loss_sum(logits, target, smoothing=0.0):
    """Cross-entropy summed over the target tokens. logits: (B, T, V); target: (B, T), padded with PAD, which counts nothing."""
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="sum", label_smoothing=smoothing)


@torch.inference_mode()
def validate(model, packed, batches, world):
    """
    {"valid_loss": teacher-forced loss per target token, "valid_exact": share of the rows that greedy decoding gets right}, and
    some answers as [{"sqamp": ids, "prediction": ids}]. The ranks share the batches; the figures do not depend on how many they are.
    Termwise an answer is one term, and a row is right if all its terms are. batches: of all samples of the rows to look at.
    """
    model.eval()
    table, answered = torch.zeros(len(batches), 2, dtype=torch.double), []
    wrong = torch.zeros(len(packed.src_start) - 1)  # samples of each row
    for number in range(world.rank, len(batches), world.size):
        batch = batches[number]
        src, tgt = (side.to(world.device) for side in collate(packed, batch))
        loss = loss_sum(model(src, tgt[:, :-1]), tgt[:, 1:]).item()
        # what is longer than the longest target is wrong anyway
        answers = [answer.ids for answer in greedy(model, src, max_len=tgt.shape[1] - 1, first=tgt[:, 0])]
        truths = [packed.tgt[packed.tgt_start[sample]:packed.tgt_start[sample + 1]].tolist() for sample in batch]
        table[number] = torch.tensor([loss, sum(map(len, truths))], dtype=torch.double)
        for row, truth, answer in zip(packed.row[batch], truths, answers):
            wrong[row] += truth != answer
        answered += [{"sqamp": truth, "prediction": answer} for truth, answer in zip(truths, answers)][:SAMPLES - len(answered)]
    model.train()
    table = gather(world, table).sum(0)  # a line is one rank's and zero on the others: no rounding
    loss, tokens = (math.fsum(column) for column in table.T.tolist())
    rows = np.unique(packed.row[np.concatenate(batches)])
    exact = (gather(world, wrong).sum(0)[rows] == 0).double().mean().item()
    return {"valid_loss": loss / tokens, "valid_exact": exact}, answered


def better(figures, best):
    """More exact matches; among equals the lower loss."""
    return (figures["valid_exact"], -figures["valid_loss"]) > (best["valid_exact"], -best["valid_loss"])
