"""How well a model does while it learns: the loss, and how many validation rows greedy decoding gets right."""
import math

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
    """
    model.eval()
    table, samples = torch.zeros(len(batches), 4, dtype=torch.double), []
    for number in range(world.rank, len(batches), world.size):
        batch = batches[number]
        src, tgt = (side.to(world.device) for side in collate(packed, batch))
        loss = loss_sum(model(src, tgt[:, :-1]), tgt[:, 1:]).item()
        # what is longer than the longest target is wrong anyway
        answers = [answer.ids for answer in greedy(model, src, max_len=tgt.shape[1] - 1)]
        truths = [packed.tgt[packed.tgt_start[row]:packed.tgt_start[row + 1]].tolist() for row in batch]
        exact = sum(answer == truth for answer, truth in zip(answers, truths))
        table[number] = torch.tensor([loss, sum(map(len, truths)), exact, len(batch)], dtype=torch.double)
        samples += [{"sqamp": truth, "prediction": answer} for truth, answer in zip(truths, answers)][:SAMPLES - len(samples)]
    model.train()
    table = gather(world, table).sum(0)  # a line is one rank's and zero on the others: no rounding
    loss, tokens, exact, rows = (math.fsum(column) for column in table.T.tolist())
    return {"valid_loss": loss / tokens, "valid_exact": exact / rows}, samples


def better(figures, best):
    """More exact matches; among equals the lower loss."""
    return (figures["valid_exact"], -figures["valid_loss"]) > (best["valid_exact"], -best["valid_loss"])
