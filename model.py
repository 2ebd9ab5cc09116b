"""
The one encoder-decoder transformer: amplitude tokens in, tokens of the squared amplitude out.

By default layers are post-norm (Vaswani et al. 2017, arXiv 1706.03762) and positions rotary (Su et al. 2021, arXiv 2104.09864), which
learned most in the same time of all six combinations, and no table bounds the length (README, "Architecture"). The other choices, for
ablations and for older architectures (config/flash.py, config/skanformer.py), are in architecture.py.

The layers know nothing of rows and masks: they take tokens (..., d), and what a query sees is the business of the `attend` that
they are given. Training packs all rows of a batch end to end, (N, d), and computes nothing for padding; generate.py, which writes
token by token, hands the same layers an `attend` that remembers. attention.py has the kernels.

Shapes: B rows, S source tokens, T target tokens, V target vocabulary, d = width of the side, H heads of width h = d / H; in training N
source tokens and M target tokens in all rows together.
"""
from functools import partial
from itertools import repeat

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from architecture import ModelConfig
from attention import attend, attend_packed, find_rows, set_up
from files import InputError
from sinekan import SineKAN
from tokenizer import EOS, PAD


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
    """Cosine and sine of the angle position / 10000^(2i / width). positions: (T,) -> (T, 2, 1, width / 2), in double precision."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.double) / width)
    angle = positions[:, None, None] * frequency
    return torch.stack((angle.cos(), angle.sin()), dim=1)


def sinusoidal_table(positions, width):
    """Sine (even columns) and cosine (odd) of the same angles (Vaswani et al. 2017, arXiv 1706.03762, section 3.5). (T,) -> (T, width)"""
    return rotary_table(positions, width).flip(1).flatten(1, 2).transpose(1, 2).flatten(1)


def rotate(x, rotary):
    """Turn the pairs (x_i, x_{i + h/2}) by their position's angle. x: (..., T, H, h); rotary: (T, 2, 1, h / 2)."""
    cos, sin = rotary.unbind(-3)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)  # bf16 would blur the angles of far positions


class SelfAttention(nn.Module):
    def __init__(self, config, side):
        super().__init__()
        width, self.heads = config.width(side), config.heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.bias)  # one matrix product instead of three
        self.out = nn.Linear(width, width, bias=config.bias)

    def forward(self, x, rotary, attend):
        """x: (..., d) -> (..., d). rotary: see Transformer.place. `attend` takes q, k, v (..., H, h) to (..., H, h)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # (..., H, h) each
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return self.out(attend(q, k, v).flatten(-2))


class CrossAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.kv = nn.Linear(config.width("encoder"), 2 * config.d_model, bias=config.bias)
        self.out = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def keys_values(self, memory):
        """memory (..., d) -> two of (..., H, h): computed once, however many target tokens follow."""
        return self.kv(memory).unflatten(-1, (2, self.heads, -1)).unbind(-3)

    def forward(self, x, keys_values, attend):
        return self.out(attend(self.q(x).unflatten(-1, (self.heads, -1)), *keys_values).flatten(-2))


class MLP(nn.Module):
    def __init__(self, widths, activation):
        super().__init__()
        self.activation, (inputs, hidden, outputs) = activation, widths
        self.up = nn.Linear(inputs, 2 * hidden if activation == "swiglu" else hidden)
        self.down = nn.Linear(hidden, outputs)

    def forward(self, x):
        x = self.up(x)
        if self.activation == "swiglu":  # Shazeer 2020, arXiv 2002.05202, eq. 6
            gate, x = x.chunk(2, dim=-1)
            return self.down(F.silu(gate) * x)
        return self.down(F.relu(x) if self.activation == "relu" else F.gelu(x))


class Layer(nn.Module):
    """What the layers of both sides share: the branches' places beside the stream, and the feed-forward branch, an MLP or SineKANs."""

    def __init__(self, config, side, layer, branches):
        super().__init__()
        widths = config.ffn_widths(side, layer)
        self.post, self.ends = config.norm == "post", config.ends(side, layer)
        self.attention = SelfAttention(config, side)
        if side == "decoder":
            self.cross = CrossAttention(config)
        if config.has_kan(side, layer):
            self.mlp = nn.Sequential(*(SineKAN(a, b, config.kan_grid) for a, b in zip(widths, widths[1:])))
        else:
            self.mlp = MLP(widths, config.activation)
        for index in range(1, branches + 1):
            setattr(self, f"norm{index}", nn.LayerNorm(widths[-1] if self.post and index == branches else widths[0]))
        self.dropout = nn.Dropout(config.dropout)

    def add(self, x, norm, branch):
        """The stream x (..., d) with a branch added to it."""
        if self.post:
            return norm(x + self.dropout(branch(x)))
        return x + self.dropout(branch(norm(x)))

    def feed(self, x, norm):
        if self.ends:
            return norm(self.dropout(self.mlp(x))) if self.post else self.dropout(self.mlp(norm(x)))
        return self.add(x, norm, self.mlp)


class EncoderLayer(Layer):
    def __init__(self, config, layer):
        super().__init__(config, "encoder", layer, 2)

    def forward(self, x, rotary, attend):
        """x: (..., d) -> (..., d)"""
        x = self.add(x, self.norm1, lambda x: self.attention(x, rotary, attend))
        return self.feed(x, self.norm2)


class DecoderLayer(Layer):
    def __init__(self, config, layer):
        super().__init__(config, "decoder", layer, 3)

    def forward(self, x, rotary, attend, keys_values, attend_source):
        """x: (..., d) -> (..., d): the targets see each other through `attend`, the source's `keys_values` through `attend_source`."""
        x = self.add(x, self.norm1, lambda x: self.attention(x, rotary, attend))
        x = self.add(x, self.norm2, lambda x: self.cross(x, keys_values, attend_source))
        return self.feed(x, self.norm3)


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig, attention="auto", checkpoint_layers=False):
        """
        attention: see attention.py. checkpoint_layers: in training the activations inside the layers are not kept but computed again
        for the gradients. Neither changes what the model computes, so neither is part of its architecture.
        """
        set_up(attention)
        super().__init__()
        self.config, self.attention, self.checkpoint_layers = config, attention, checkpoint_layers
        added, width = config.positions != "rotary", config.width("encoder")
        self.src_embedding = nn.Embedding(config.src_vocab, width)
        self.tgt_embedding = nn.Embedding(config.tgt_vocab, config.d_model)
        self.encoder = nn.ModuleList(EncoderLayer(config, layer) for layer in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.decoder_layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(config.end_width)
        if config.norm == "post":  # the last layers end with a norm already
            self.encoder_norm = self.decoder_norm = nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.end_width, config.tgt_vocab, bias=config.bias)
        if config.positions == "learned":
            self.src_positions, self.tgt_positions = nn.Embedding(config.src_max_len, width), nn.Embedding(config.tgt_max_len, config.d_model)
        if config.kan_embed:
            self.src_kan, self.tgt_kan = SineKAN(width, width, config.kan_grid), SineKAN(config.d_model, config.d_model, config.kan_grid)
        # what is added to sines, or a SineKAN's input, should be of their size: sqrt(d) times numbers of 1 / sqrt(d) (Vaswani et al., section 3.4)
        self.scaled = added or config.kan_embed
        self.apply(partial(initialise, small=not self.scaled))
        if config.embeddings != "separate":  # one matrix with the size of the head's (Press & Wolf 2017, arXiv 1608.05859)
            self.tgt_embedding.weight = self.head.weight
        if config.embeddings == "shared":
            self.src_embedding.weight = self.head.weight

    def places(self, side, length):
        """
        What tells the first `length` positions of a side apart, (length, ...): rows to add to the embeddings, or the angles by which
        queries and keys are turned. InputError where learned positions end before.
        """
        table, width = (self.src_embedding, self.config.width(side)) if side == "encoder" else (self.tgt_embedding, self.config.d_model)
        if self.config.positions == "learned":
            table = self.src_positions if side == "encoder" else self.tgt_positions
            if length > len(table.weight):
                raise InputError(f"positions: learned for {len(table.weight)} tokens of the {side}, a row has {length}")
            return table.weight[:length] * width ** 0.5
        positions = torch.arange(length, device=table.weight.device)
        if self.config.positions == "sinusoidal":
            return sinusoidal_table(positions, width).to(table.weight.dtype)
        return rotary_table(positions, width // self.config.heads).to(table.weight.dtype)

    def embed(self, ids, side, place):
        """Tokens (...) at these places -> the stream (..., d), and the angles for its layers, or None where positions are added."""
        table = self.src_embedding if side == "encoder" else self.tgt_embedding
        x, rotary = table(ids), place if self.config.positions == "rotary" else None
        if self.scaled:
            x = x * x.shape[-1] ** 0.5
        if rotary is None:
            x = x + place
        if self.config.kan_embed:
            x = (self.src_kan if side == "encoder" else self.tgt_kan)(x)
        return self.dropout(x), rotary

    def encode(self, src):
        """src (B, S), padded with PAD -> memory (B, S, d) and its mask (B, 1, 1, S), True at tokens."""
        mask = (src != PAD)[:, None, None, :]
        return self.read(src, self.places("encoder", src.shape[1]), partial(attend, mask=mask)), mask

    def read(self, src, place, see):
        """src (...) at these places -> memory (..., d). see: how sources attend to sources."""
        x, rotary = self.embed(src, "encoder", place)
        for layer in self.encoder:
            x = self.run(layer, x, rotary, see)
        return self.encoder_norm(x)

    def decode(self, tgt, place, sees, keys_values, see_source):
        """
        tgt (...) at these places -> logits (..., V) of the token after each.

        sees, keys_values: for each layer how targets attend to targets, and what it reads of the source (see DecoderLayer).
        """
        x, rotary = self.embed(tgt, "decoder", place)
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
        see = partial(attend_packed, how=self.attention)
        place = self.places("encoder", src.shape[1])[sources.position()]
        memory = self.read(sources.pack(src), place, partial(see, queries=sources, keys=sources))  # (N, d)
        logits = self.decode(
            targets.pack(tgt), self.places("decoder", tgt.shape[1])[targets.position()], repeat(partial(see, queries=targets, keys=targets, causal=True)),
            [layer.cross.keys_values(memory) for layer in self.decoder], partial(see, queries=asking, keys=sources))  # (M, V)
        return targets.pad(logits)


def initialise(module, small=True):
    """
    Unit variance through every matrix, std = 1 / sqrt(fan in): QED is learned in half the steps that GPT-2's 0.02 needs.

    small: the embeddings, of 0.02 then, are what the first norm makes of them.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02 if small else module.embedding_dim ** -0.5)
    elif isinstance(module, SineKAN):
        module.initialise()
