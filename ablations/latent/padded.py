"""
The project's model on padded rows. Rows of six tokens have almost no padding, and packed attention on a CPU takes a
kernel call for each row.
"""
from functools import partial

import torch

from attention import attend
from generate import greedy
from tokenizer import EOS, PAD
from train import token_losses

AT_ONCE = 2048  # rows decoded together


def read(model, src):
    """What the decoder needs of the source: its keys and values for each layer, and their mask. src: (B, S)"""
    memory, mask = model.encode(src)  # (B, S, d), or (B, n_latent, d)
    return [layer.cross.keys_values(memory) for layer in model.decoder], partial(attend, mask=mask)


def write(model, source, tgt):
    """Logits (B, T, V) of the token after each of tgt (B, T), BOS first. source: see `read`."""
    keys_values, attend_source = source
    encoding = model.positional_encoding("decoder", tgt.shape[1])
    return model.decode(tgt, encoding, [partial(attend, causal=True)] * len(keys_values), keys_values, attend_source)


@torch.no_grad()
def mixed_inputs(model, source, tgt, share):
    """
    Tokens for the decoder to read: each is the true one with probability `share`, else the model's own most probable
    one after the true tokens before it (scheduled sampling, Bengio et al. 2015, arXiv 1506.03099, in two parallel
    passes: Mihaylova & Martins 2019, arXiv 1906.07651). BOS and padding stay. tgt: (B, T) -> (B, T)
    """
    own = torch.nn.functional.pad(write(model, source, tgt).argmax(-1)[:, :-1], (1, 0))  # (B, T)
    keep = torch.rand(tgt.shape, device=tgt.device) < share
    keep[:, 0] = True
    return torch.where(keep | (tgt == PAD) | (tgt == EOS), tgt, own)


@torch.inference_mode()
def validate(model, rows):
    """
    (cross-entropy of a token, teacher-forced, in nats; share of the rows that greedy decoding gets exactly right).
    """
    model.eval()
    loss, right = 0.0, []
    for first in range(0, len(rows.src), AT_ONCE):
        src, tgt = rows.src[first:first + AT_ONCE], rows.tgt[first:first + AT_ONCE]
        logits = write(model, read(model, src), tgt[:, :-1])
        loss += float(token_losses(logits.flatten(0, 1), tgt[:, 1:].flatten()).double().sum())
        truths = [[id for id in ids if id != PAD] for ids in tgt[:, 1:].tolist()]
        right += [answer.ids == truth for answer, truth in zip(greedy(model, src, tgt.shape[1] - 1), truths)]
    return loss / int((rows.tgt[:, 1:] != PAD).sum()), sum(right) / len(right)
