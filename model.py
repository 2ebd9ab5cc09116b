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
import re
from dataclasses import dataclass, fields
from functools import partial
from itertools import repeat

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint

from attention import attend, attend_packed, find_rows, set_up
from runtime import checkpoint
from runtime.files import InputError
from sinekan import SineKAN
from tokenizer import EOS, PAD, Tokenizer

CHOICES = {"ffn": ("mlp", "sinekan"), "norm": ("pre", "post"), "positions": ("rotary", "sinusoidal", "learned"),
           "embeddings": ("separate", "tied", "shared"), "activation": ("gelu", "relu", "swiglu")}


@dataclass
class ModelConfig:
    """
    The architecture, and the longest sequences that it was trained for; stored in the checkpoint. See config/default.py for the meaning.

    A field with a default here is younger than the first checkpoints; the default is what these have.
    """
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
    encoder_d_model: int = 0
    encoder_d_ff: int = 0
    norm: str = "pre"
    positions: str = "rotary"
    embeddings: str = "separate"
    activation: str = "gelu"
    bias: bool = False
    ffn: str = "mlp"
    kan_layers: str = "all"
    kan_grid: int = 8
    kan_ff_dims: str = ""
    kan_end: bool = False
    kan_embed: bool = False

    def __post_init__(self):
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name.startswith("encoder_d_") else 1
            if field.type is int and value < least:
                raise InputError(f"{field.name}: got {value}, wanted at least {least}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name}: got {getattr(self, name)!r}, wanted {', '.join(known)}")
        for name in ("encoder_d_model", "d_model"):
            if getattr(self, name) % (2 * self.heads):
                raise InputError(f"{name}: {getattr(self, name)} does not divide into {self.heads} heads of an even width")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout: got {self.dropout}, wanted at least 0 and less than 1")
        if self.embeddings == "shared" and (self.width("encoder") != self.d_model or self.src_vocab != self.tgt_vocab):
            raise InputError("embeddings: shared needs one vocabulary and one width, "
                             f"these are {self.src_vocab} x {self.width('encoder')} and {self.tgt_vocab} x {self.d_model}")
        self.kan_places()
        if not re.fullmatch(r"|none|[1-9]\d*( [1-9]\d*)*", self.kan_ff_dims):
            raise InputError(f'kan_ff_dims: got {self.kan_ff_dims!r}, wanted widths such as "256" or "256 256", "none" or ""')
        if self.kan_end and (not self.has_kan("decoder", self.decoder_layers - 1) or self.kan_ff_dims in ("", "none")):
            raise InputError("kan_end: needs ffn=sinekan in the last layer of the decoder, and widths in kan_ff_dims")
        if self.kan_end and self.embeddings != "separate":
            raise InputError(f"kan_end: the head reads a width of {self.end_width}, so embeddings cannot be {self.embeddings}")

    def width(self, side):
        return self.encoder_d_model or self.d_model if side == "encoder" else self.d_model

    def kan_places(self):
        """The layers with ffn=sinekan, a set of (side, index). InputError where kan_layers does not say which."""
        count = {"encoder": self.encoder_layers, "decoder": self.decoder_layers}
        places = set()
        for word in self.kan_layers.split() or [""]:
            match = re.fullmatch(r"(all)|(encoder|decoder)(?::(last|\d+))?", word)
            if not match or match[3] and match[3] != "last" and not 1 <= int(match[3]) <= count[match[2]]:
                raise InputError(f"kan_layers: got {word!r}, wanted all, encoder, decoder, decoder:last or encoder:N"
                                 + (f" with N from 1 to {count[match[2]]}" if match else ""))
            for side in (match[2],) if match[2] else count:
                layers = [count[side] - 1 if match[3] == "last" else int(match[3]) - 1] if match[3] else range(count[side])
                places.update((side, layer) for layer in layers)
        return places

    def has_kan(self, side, layer):
        """Is this layer's feed-forward network a SineKAN?"""
        return self.ffn == "sinekan" and (side, layer) in self.kan_places()

    def ffn_widths(self, side, layer):
        """Widths from the input of a layer's feed-forward network to its output."""
        width, hidden = self.width(side), self.encoder_d_ff or self.d_ff if side == "encoder" else self.d_ff
        if not self.has_kan(side, layer):
            return [width, hidden, width]
        dims = [max(1, round(hidden / self.kan_grid))]  # as many weights as the MLP has
        if self.kan_ff_dims:
            dims = [int(width) for width in self.kan_ff_dims.split() if width != "none"]
        return [width, *dims] if self.ends(side, layer) else [width, *dims, width]

    def ends(self, side, layer):
        """Is this the layer whose SineKAN has no way round it and a width of its own? See kan_end."""
        return self.kan_end and (side, layer) == ("decoder", self.decoder_layers - 1)

    @property
    def end_width(self):
        """Width that the head reads."""
        return self.ffn_widths("decoder", self.decoder_layers - 1)[-1]


# the settings that make an architecture: a checkpoint can only be gone on from where they agree
ARCHITECTURE = [field.name for field in fields(ModelConfig)
                if field.name not in ("src_vocab", "tgt_vocab", "src_max_len", "tgt_max_len", "dropout")]


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
        return torch.utils.checkpoint.checkpoint(layer, *inputs, use_reentrant=False) if self.checkpoint_layers and self.training else layer(*inputs)

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


def load_model(path, device):
    """(model in eval mode on `device`, its tokenizer, the checkpoint): everything as it was trained, whatever the settings."""
    state = checkpoint.load(path)
    try:
        model = Transformer(ModelConfig(**state["model_config"]))
        model.load_state_dict(checkpoint.weights(state))
        tokenizer = Tokenizer(state["vocabulary"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a checkpoint of this model ({str(error).splitlines()[0]})") from None
    return model.to(device).eval(), tokenizer, state
