"""
The one encoder-decoder transformer: amplitude tokens in, tokens of the squared amplitude out.

Layers are pre-norm (Xiong et al. 2020, arXiv 2002.04745): they bear a high learning rate after a short warm-up. Positions are
rotary (Su et al. 2021, arXiv 2104.09864): after 800 steps on the public QED set the validation loss was 0.05, with
learned positions 0.13, for 3% more time a step; and no table bounds the length.

The layers know nothing of rows and masks: they take tokens (..., d), and what a query sees is the business of the `attend` that
they are given. Training packs all rows of a batch end to end, (N, d), and computes nothing for padding; generate.py, which writes
token by token, hands the same layers an `attend` that remembers. attention.py has the kernels.

Shapes: B rows, S source tokens, T target tokens, V target vocabulary, d = d_model, H heads of width h = d / H; in training N
source tokens and M target tokens in all rows together.
"""
from dataclasses import dataclass
from functools import partial
from itertools import repeat

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from attention import attend, attend_packed, find_rows, set_up
from files import InputError
from tokenizer import EOS, PAD


@dataclass
class ModelConfig:
    """The architecture, and the longest sequences that it was trained for; stored in the checkpoint."""
    src_vocab: int  # tokens in the source vocabulary
    tgt_vocab: int
    src_max_len: int  # longest source, end token included
    tgt_max_len: int  # longest target, start and end token included
    d_model: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    d_ff: int
    dropout: float

    def __post_init__(self):
        for name, value in vars(self).items():
            if name != "dropout" and value < 1:
                raise InputError(f"{name}: got {value}, wanted at least 1")
        if self.d_model % (2 * self.heads):
            raise InputError(f"d_model: {self.d_model} does not divide into {self.heads} heads of an even width")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout: got {self.dropout}, wanted at least 0 and less than 1")


def find_device(name):
    """torch.device of the setting `device`; "auto" is cuda where there is one. InputError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise InputError(f"device: {name!r} cannot be used here ({str(error).splitlines()[0]})") from None
    return device


def rotary_table(positions, width):
    """Cosine and sine of the angle position / 10000^(2i / width). positions: (T,) -> (2, T, 1, width / 2), in double precision."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.double) / width)
    angle = positions[:, None, None] * frequency
    return torch.stack((angle.cos(), angle.sin()))


def rotate(x, rotary):
    """Turn the pairs (x_i, x_{i + h/2}) by their position's angle. x: (..., T, H, h); rotary: (2, T, 1, h / 2)."""
    cos, sin = rotary
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)  # bf16 would blur the angles of far positions


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)  # one matrix product instead of three
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x, rotary, attend):
        """x: (..., d) -> (..., d). `attend` takes q, k, v (..., H, h) to (..., H, h)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # (..., H, h) each
        return self.out(attend(rotate(q, rotary), rotate(k, rotary), v).flatten(-2))


class CrossAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.d_model, config.d_model, bias=False)
        self.kv = nn.Linear(config.d_model, 2 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def keys_values(self, memory):
        """memory (..., d) -> two of (..., H, h): computed once, however many target tokens follow."""
        return self.kv(memory).unflatten(-1, (2, self.heads, -1)).unbind(-3)

    def forward(self, x, keys_values, attend):
        return self.out(attend(self.q(x).unflatten(-1, (self.heads, -1)), *keys_values).flatten(-2))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class EncoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention, self.mlp = SelfAttention(config), MLP(config)
        self.norm1, self.norm2 = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, rotary, attend):
        """x: (..., d) -> (..., d)"""
        x = x + self.dropout(self.attention(self.norm1(x), rotary, attend))
        return x + self.dropout(self.mlp(self.norm2(x)))


class DecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention, self.cross, self.mlp = SelfAttention(config), CrossAttention(config), MLP(config)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(config.d_model) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, rotary, attend, keys_values, attend_source):
        """x: (..., d) -> (..., d): the targets see each other through `attend`, the source's `keys_values` through `attend_source`."""
        x = x + self.dropout(self.attention(self.norm1(x), rotary, attend))
        x = x + self.dropout(self.cross(self.norm2(x), keys_values, attend_source))
        return x + self.dropout(self.mlp(self.norm3(x)))


class Transformer(nn.Module):
    def __init__(self, config, attention="auto", checkpoint_layers=False):
        """
        attention: see attention.py. checkpoint_layers: in training the activations inside the layers are not kept but computed again
        for the gradients. Neither changes what the model computes, so neither is part of its architecture.
        """
        set_up(attention)
        super().__init__()
        self.config, self.attention, self.checkpoint_layers = config, attention, checkpoint_layers
        self.src_embedding = nn.Embedding(config.src_vocab, config.d_model)
        self.tgt_embedding = nn.Embedding(config.tgt_vocab, config.d_model)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.d_model, config.tgt_vocab, bias=False)
        self.apply(initialise)

    def rotary(self, start, end):
        weight = self.tgt_embedding.weight
        return rotary_table(torch.arange(start, end, device=weight.device), self.config.d_model // self.config.heads).to(weight.dtype)

    def encode(self, src):
        """src (B, S), padded with PAD -> memory (B, S, d) and its mask (B, 1, 1, S), True at tokens."""
        mask = (src != PAD)[:, None, None, :]
        return self.read(src, self.rotary(0, src.shape[1]), partial(attend, mask=mask)), mask

    def read(self, src, rotary, see):
        """src (...) -> memory (..., d). see: how sources attend to sources."""
        x = self.dropout(self.src_embedding(src))  # (..., d)
        for layer in self.encoder:
            x = self.run(layer, x, rotary, see)
        return self.encoder_norm(x)

    def decode(self, tgt, rotary, sees, keys_values, see_source):
        """
        tgt (...) -> logits (..., V) of the token after each.

        sees, keys_values: for each layer how targets attend to targets, and what it reads of the source (see DecoderLayer).
        """
        x = self.dropout(self.tgt_embedding(tgt))  # (..., d)
        for layer, see, pair in zip(self.decoder, sees, keys_values):
            x = self.run(layer, x, rotary, see, pair, see_source)
        return self.head(self.decoder_norm(x))

    def run(self, layer, *inputs):
        return checkpoint(layer, *inputs, use_reentrant=False) if self.checkpoint_layers and self.training else layer(*inputs)

    def forward(self, src, tgt, counts=None):
        """
        src (B, S), padded with PAD, tgt (B, T) that begins with BOS -> logits (B, T, V) of the token after each; after EOS: 0.

        counts (B,): where a source has several targets, how many; those of the first come first, logits (sum of counts, T, V).
        """
        sources, targets = find_rows(src != PAD), find_rows((tgt == EOS).cumsum(1) == 0)
        asking = targets if counts is None else targets.join(counts)
        rotary = self.rotary(0, max(src.shape[1], tgt.shape[1]))
        see = partial(attend_packed, how=self.attention)
        memory = self.read(sources.pack(src), rotary[:, sources.position()], partial(see, queries=sources, keys=sources))  # (N, d)
        logits = self.decode(
            targets.pack(tgt), rotary[:, targets.position()], repeat(partial(see, queries=targets, keys=targets, causal=True)),
            [layer.cross.keys_values(memory) for layer in self.decoder], partial(see, queries=asking, keys=sources))  # (M, V)
        return targets.pad(logits)


def initialise(module):
    """Unit variance through every matrix, std = 1 / sqrt(fan in): QED is learned in half the steps that GPT-2's 0.02 needs."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
