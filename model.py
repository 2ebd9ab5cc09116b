"""
The one encoder-decoder transformer: amplitude tokens in, logits of the squared amplitude's tokens out.

By default layers are post-norm (Vaswani et al. 2017, arXiv 1706.03762) with RoPE (Su et al. 2021, arXiv 2104.09864);
docs/results.md, "Architecture", compares. ModelConfig lists the other choices, which ablations and config/flash.py and
config/skanformer.py use.

The layers work on tokens (..., d) and know nothing of rows or masks: the caller passes `attend(q, k, v)`, packed
attention in training (rows end to end, no padding: attention.py), attention to the KV cache in decoding
(generate.py).

Shapes: B rows, S source tokens, T target tokens, V target vocabulary, d = width of the side, H heads of width h = d /
H. Packed rows have N source tokens and M target tokens together.
"""
import re
from dataclasses import dataclass, fields
from functools import lru_cache, partial

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint

from ablations.wave.recurrence import ENCODER_MODES, RecurrentMixer
from attention import Packing, attend, attend_packed, pack_equal, pad_rows, set_up
from runtime import checkpoint
from runtime.files import InputError
from sinekan import SineKAN
from tokenizer import PAD, Tokenizer

CHOICES = {"ffn": ("mlp", "sinekan"), "norm": ("pre", "post"), "positions": ("rotary", "sinusoidal", "learned"),
           "embeddings": ("separate", "tied", "shared"), "activation": ("gelu", "relu", "relu2", "swiglu"),
           "encoder": ("attention", "wave", "ssm")}


@dataclass
class ModelConfig:
    """
    The architecture, and the longest sequences that it was trained for; every checkpoint holds it. config/default.py
    explains each.

    The defaults are what checkpoints older than a field were made with, but for `norm`: see config_of.
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
    encoder: str = "attention"
    norm: str = "post"
    positions: str = "rotary"
    embeddings: str = "separate"
    activation: str = "gelu"
    bias: bool = False
    qk_norm: bool = False
    zero_init: bool = False
    ffn: str = "mlp"
    kan_layers: str = "all"
    kan_grid: int = 8
    kan_ff_dims: str = ""
    kan_end: bool = False
    n_latent: int = 0

    def __post_init__(self):
        for field in fields(self):
            value, may_be_0 = getattr(self, field.name), ("encoder_d_model", "encoder_d_ff", "n_latent")
            least = 0 if field.name in may_be_0 else 1
            if field.type is int and value < least:
                raise InputError(f"{field.name}: got {value}, wanted at least {least}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name}: got {getattr(self, name)!r}, wanted {', '.join(known)}")
        for name in ("encoder_d_model", "d_model"):
            if getattr(self, name) % (2 * self.heads):
                raise InputError(f"{name}: {getattr(self, name)} does not divide into {self.heads} heads of an even "
                                 "width")
        if self.encoder != "attention" and self.width("encoder") % (ENCODER_MODES + 1):
            raise InputError(f"encoder: {self.encoder} needs a width that is a multiple of {ENCODER_MODES + 1}, "
                             f"it is {self.width('encoder')}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout: got {self.dropout}, wanted at least 0 and less than 1")
        if self.embeddings == "shared" and (self.width("encoder") != self.d_model or self.src_vocab != self.tgt_vocab):
            raise InputError("embeddings: shared needs one vocabulary and one width, "
                             f"these are {self.src_vocab} x {self.width('encoder')} and {self.tgt_vocab} x "
                             f"{self.d_model}")
        self.sinekan_layers()
        if not re.fullmatch(r"|none|[1-9]\d*( [1-9]\d*)*", self.kan_ff_dims):
            raise InputError(f'kan_ff_dims: got {self.kan_ff_dims!r}, '
                             'wanted widths such as "256" or "256 256", "none" or ""')
        if self.kan_end and (not self.has_kan("decoder", self.decoder_layers - 1) or self.kan_ff_dims in ("", "none")):
            raise InputError("kan_end: needs ffn=sinekan in the last layer of the decoder, and widths in kan_ff_dims")
        if self.kan_end and self.embeddings != "separate":
            raise InputError(f"kan_end: the head reads a width of {self.end_width}, "
                             f"so embeddings cannot be {self.embeddings}")

    def width(self, side):
        return self.encoder_d_model or self.d_model if side == "encoder" else self.d_model

    def sinekan_layers(self):
        """The layers with ffn=sinekan, a set of (side, index). InputError where kan_layers does not say which."""
        count = {"encoder": self.encoder_layers, "decoder": self.decoder_layers}
        chosen = set()
        for word in self.kan_layers.split() or [""]:
            match = re.fullmatch(r"(all)|(encoder|decoder)(?::(last|\d+))?", word)
            side, layer = (match[2], match[3]) if match else (None, None)
            if not match or layer not in (None, "last") and not 1 <= int(layer) <= count[side]:
                most = f" with N from 1 to {count[side]}" if match else ""
                raise InputError(f"kan_layers: got {word!r}, "
                                 f"wanted all, encoder, decoder, decoder:last or encoder:N{most}")
            for side in [side] if side else count:
                if layer:
                    chosen.add((side, count[side] - 1 if layer == "last" else int(layer) - 1))
                else:
                    chosen.update((side, index) for index in range(count[side]))
        return chosen

    def has_kan(self, side, layer):
        """Is this layer's feed-forward network a SineKAN?"""
        return self.ffn == "sinekan" and (side, layer) in self.sinekan_layers()

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
        """Is this the last layer of an S-KANformer, whose SineKANs replace the residual stream? See kan_end."""
        return self.kan_end and (side, layer) == ("decoder", self.decoder_layers - 1)

    @property
    def end_width(self):
        """Width that the head reads."""
        return self.ffn_widths("decoder", self.decoder_layers - 1)[-1]


# the settings that make an architecture: a checkpoint can only be gone on from where they agree
ARCHITECTURE = [field.name for field in fields(ModelConfig)
                if field.name not in ("src_vocab", "tgt_vocab", "src_max_len", "tgt_max_len", "dropout")]


# ---------------------------------------------------------------------------------------------------------------------
# Positions

def rotary_table(positions, width):
    """
    RoPE: cosine and sine of the angles position / 10000^(2i / width), in double precision.

    positions: (T,) -> (T, 2, 1, width / 2)
    """
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.double) / width)
    angle = positions[:, None, None] * frequency
    return torch.stack((angle.cos(), angle.sin()), dim=1)


def sinusoidal_table(positions, width):
    """
    Sine (even columns) and cosine (odd columns) of the same angles (Vaswani et al. 2017, section 3.5). (T,) -> (T,
    width)
    """
    return rotary_table(positions, width).flip(1).flatten(1, 2).transpose(1, 2).flatten(1)


@lru_cache(maxsize=64)
def make_table(kind, length, width, device, dtype):
    table = rotary_table if kind == "rotary" else sinusoidal_table
    with torch.inference_mode(False):  # or training could not use the table that decoding was the first to need
        return table(torch.arange(length, device=device), width).to(dtype)


def position_table(kind, length, width, device, dtype):
    """The RoPE or sinusoidal table of so many positions; computed once, as every batch needs it."""
    return make_table(kind, length, width, device, dtype)


def rotate(x, rope):
    """Turn the pairs (x_i, x_{i + h/2}) by their position's angle. x: (..., T, H, h); rope: (T, 2, 1, h / 2)."""
    cos, sin = rope.unbind(-3)
    a, b = x.chunk(2, dim=-1)
    turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return turned.to(x.dtype)  # rounded here: angles of far positions in bf16 would be blurred


# ---------------------------------------------------------------------------------------------------------------------
# Layers

class SelfAttention(nn.Module):
    def __init__(self, config, side):
        super().__init__()
        width, self.heads, self.qk_norm = config.width(side), config.heads, config.qk_norm
        self.qkv = nn.Linear(width, 3 * width, bias=config.bias)  # one matrix product instead of three
        self.out = nn.Linear(width, width, bias=config.bias)

    def forward(self, x, rope, attend):
        """x: (..., d) -> (..., d). rope: see Transformer.embed. attend: q, k, v (..., H, h) -> (..., H, h)."""
        qk, v = self.qkv(x).unflatten(-1, (3 * self.heads, -1)).tensor_split((2 * self.heads,), dim=-2)
        if self.qk_norm:
            qk = normalise(qk)
        if rope is not None:
            qk = rotate(qk, rope)  # (..., 2 H, h); together: half the kernels
        return self.out(attend(*qk.chunk(2, dim=-2), v).flatten(-2))  # attention of (..., H, h) each


class CrossAttention(nn.Module):
    """Cross-attention to the encoder's memory; the queries have the width of a side."""

    def __init__(self, config, side):
        super().__init__()
        width, self.heads, self.qk_norm = config.width(side), config.heads, config.qk_norm
        self.q = nn.Linear(width, width, bias=config.bias)
        self.kv = nn.Linear(config.width("encoder"), 2 * width, bias=config.bias)
        self.out = nn.Linear(width, width, bias=config.bias)

    def keys_values(self, memory):
        """memory (..., d) -> keys and values (..., H, h): once per source, however many target tokens follow."""
        k, v = self.kv(memory).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return normalise(k) if self.qk_norm else k, v

    def forward(self, x, keys_values, attend):
        """x: (..., d) -> (..., d). attend: q, k, v (..., H, h) -> (..., H, h)."""
        q = self.q(x).unflatten(-1, (self.heads, -1))
        return self.out(attend(normalise(q) if self.qk_norm else q, *keys_values).flatten(-2))


def normalise(x):
    """QK-norm (Henry et al. 2020, arXiv 2010.04245, with RMSNorm): queries and keys of length sqrt(h). (..., H, h)"""
    return F.rms_norm(x, x.shape[-1:]).to(x.dtype)


class MLP(nn.Module):
    def __init__(self, widths, activation):
        super().__init__()
        self.activation, (inputs, hidden, outputs) = activation, widths
        self.up = nn.Linear(inputs, 2 * hidden if activation == "swiglu" else hidden)
        self.down = nn.Linear(hidden, outputs)

    def forward(self, x):
        """x: (..., inputs) -> (..., outputs)"""
        x = self.up(x)
        if self.activation == "swiglu":  # Shazeer 2020, arXiv 2002.05202, eq. 6
            gate, x = x.chunk(2, dim=-1)
            return self.down(F.silu(gate) * x)
        if self.activation == "relu2":  # So et al. 2021, arXiv 2109.08668
            return self.down(F.relu(x).square())
        return self.down(F.relu(x) if self.activation == "relu" else F.gelu(x))


class Dropout(nn.Dropout):
    """
    Dropout. On a CPU each element takes 16 bits of a 64-bit draw: half the time of one draw for each element.

    The rate is exact to 2^-16.
    """

    def forward(self, x):
        if not self.training or self.p == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        draws = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-2**63, None).view(torch.int16)
        kept = draws[:x.numel()].view(x.shape) >= round(self.p * 2**16) - 2**15
        return x * kept.to(x.dtype).div_(1 - self.p)


class Layer(nn.Module):
    """Encoder or decoder layer: residual branches, pre- or post-norm. A decoder layer has cross-attention too."""

    def __init__(self, config, side, layer):
        super().__init__()
        widths = config.ffn_widths(side, layer)
        self.post_norm = config.norm == "post"
        self.replaces_stream = config.ends(side, layer)
        if side == "decoder" or config.encoder == "attention":
            self.attention = SelfAttention(config, side)
        else:
            self.attention = RecurrentMixer(config.encoder, config.width(side))
        if side == "decoder":
            self.cross = CrossAttention(config, side)
        if config.has_kan(side, layer):
            self.mlp = nn.Sequential(*(SineKAN(a, b, config.kan_grid) for a, b in zip(widths, widths[1:])))
        else:
            self.mlp = MLP(widths, config.activation)
        branches = 3 if side == "decoder" else 2
        for branch in range(1, branches + 1):
            width = widths[-1] if self.post_norm and branch == branches else widths[0]
            setattr(self, f"norm{branch}", nn.LayerNorm(width))
        self.dropout = Dropout(config.dropout)

    def silence(self):
        """Zero the matrices that end the residual branches: each layer begins as the identity."""
        ends = [self.attention.out] + ([self.cross.out] if hasattr(self, "cross") else [])
        if not self.replaces_stream:
            ends.append(self.mlp.down if isinstance(self.mlp, MLP) else self.mlp[-1].mix)
        for matrix in ends:
            nn.init.zeros_(matrix.weight)

    def residual(self, x, norm, branch):
        """Add a residual branch. x: (..., d) -> (..., d)"""
        if self.post_norm:
            return norm(x + self.dropout(branch(x)))
        return x + self.dropout(branch(norm(x)))

    def feed_forward(self, x, norm):
        """
        The last branch, an MLP or SineKANs. x: (..., d) -> (..., d), or (..., end_width) in an S-KANformer's last
        layer.
        """
        if not self.replaces_stream:
            return self.residual(x, norm, self.mlp)
        return norm(self.dropout(self.mlp(x))) if self.post_norm else self.dropout(self.mlp(norm(x)))


class EncoderLayer(Layer):
    def __init__(self, config, layer):
        super().__init__(config, "encoder", layer)

    def forward(self, x, rope, attend):
        """
        x: (..., d) -> (..., d). attend: attention of source tokens to source tokens; with encoder="wave" or "ssm" the
        Packing of the rows instead.
        """
        x = self.residual(x, self.norm1, lambda x: self.attention(x, rope, attend))
        return self.feed_forward(x, self.norm2)


class DecoderLayer(Layer):
    def __init__(self, config, layer):
        super().__init__(config, "decoder", layer)

    def forward(self, x, rope, attend, keys_values, attend_source):
        """
        x: (..., d) -> (..., d). attend: causal attention of target tokens to target tokens; attend_source:
        cross-attention to `keys_values`, those of the source in this layer.
        """
        x = self.residual(x, self.norm1, lambda x: self.attention(x, rope, attend))
        x = self.residual(x, self.norm2, lambda x: self.cross(x, keys_values, attend_source))
        return self.feed_forward(x, self.norm3)


class Latents(nn.Module):
    """
    n_latent learned tokens Z that read the encoder's memory M and replace it for the decoder:
    Z1 = LN(Z + Attn(Z, M)), Z2 = LN(Z1 + MLP(Z1)), as in pooling by attention (Lee et al. 2019, arXiv 1810.00825).
    """

    def __init__(self, config):
        super().__init__()
        width = config.width("encoder")
        self.tokens = nn.Parameter(torch.randn(config.n_latent, width))  # of unit size, so that they ask differently
        self.cross = CrossAttention(config, "encoder")
        self.mlp = MLP([width, config.encoder_d_ff or config.d_ff, width], config.activation)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(self, memory, rows, attend):
        """
        memory (N, d) of packed rows or (rows, S, d) -> (rows * n_latent, d) or (rows, n_latent, d). attend: attention
        of the latent tokens of a row to the memory of the row.
        """
        z = self.tokens.expand(rows, -1, -1)
        z = z if memory.dim() == 3 else z.flatten(0, 1)
        z = self.norm1(z + self.dropout(self.cross(z, self.cross.keys_values(memory), attend)))
        return self.norm2(z + self.dropout(self.mlp(z)))


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig, attention="auto", checkpoint_layers=False):
        """
        attention: which kernels, see attention.py. checkpoint_layers: in training the activations inside the layers
        are recomputed for the gradients instead of kept. Neither changes what the model computes, so neither is part
        of ModelConfig.
        """
        set_up(attention)
        super().__init__()
        self.config, self.attention, self.checkpoint_layers = config, attention, checkpoint_layers
        width = config.width("encoder")
        self.src_embedding = nn.Embedding(config.src_vocab, width)
        self.tgt_embedding = nn.Embedding(config.tgt_vocab, config.d_model)
        self.encoder = nn.ModuleList(EncoderLayer(config, layer) for layer in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.decoder_layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(config.end_width)
        if config.norm == "post":  # the last layers end with a norm already
            self.encoder_norm = self.decoder_norm = nn.Identity()
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(config.end_width, config.tgt_vocab, bias=config.bias)
        if config.positions == "learned":
            self.src_positions = nn.Embedding(config.src_max_len, width)
            self.tgt_positions = nn.Embedding(config.tgt_max_len, config.d_model)
        # Added positions want embeddings of their own size: sqrt(d) times numbers of size 1 / sqrt(d)
        # (Vaswani et al., section 3.4)
        self.scaled = config.positions != "rotary"
        self.latents = Latents(config) if config.n_latent else None
        self.apply(partial(initialise, small=not self.scaled))
        if config.zero_init:
            for layer in [*self.encoder, *self.decoder]:
                layer.silence()
        if config.embeddings != "separate":  # weight tying (Press & Wolf 2017, arXiv 1608.05859)
            self.tgt_embedding.weight = self.head.weight
        if config.embeddings == "shared":
            self.src_embedding.weight = self.head.weight

    def positional_encoding(self, side, length):
        """
        Positional encodings of the first `length` positions of a side: an additive table (length, d), or RoPE cosines
        and sines (length, 2, 1, h / 2). InputError where learned positions end before.
        """
        encoder = side == "encoder"
        weight, width = (self.src_embedding if encoder else self.tgt_embedding).weight, self.config.width(side)
        if self.config.positions == "learned":
            table = (self.src_positions if encoder else self.tgt_positions).weight
            if length > len(table):
                raise InputError(f"positions: learned for {len(table)} tokens of the {side}, a row has {length}")
            return table[:length] * width ** 0.5
        rounded = 1 << max(5, (length - 1).bit_length())  # few tables serve all lengths
        per_head = width // self.config.heads if self.config.positions == "rotary" else width
        return position_table(self.config.positions, rounded, per_head, weight.device, weight.dtype)[:length]

    def embed(self, ids, side, encoding):
        """Embed tokens (...); returns hidden states (..., d), and RoPE tables or None. encoding: theirs, (..., ...)."""
        x = (self.src_embedding if side == "encoder" else self.tgt_embedding)(ids)
        rope = encoding if self.config.positions == "rotary" else None
        if self.scaled:
            x = x * x.shape[-1] ** 0.5
        if rope is None:
            x = x + encoding
        return self.dropout(x), rope

    def run(self, layer, *inputs):
        if self.checkpoint_layers and self.training:
            return torch.utils.checkpoint.checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    def encode_tokens(self, src, encoding, attend):
        """
        Source tokens (...) with their positional encodings -> memory (..., d). attend: see EncoderLayer.
        """
        x, rope = self.embed(src, "encoder", encoding)
        for layer in self.encoder:
            x = self.run(layer, x, rope, attend)
        return self.encoder_norm(x)

    def encode(self, src):
        """
        src (B, S), padded with PAD -> memory (B, S, d) and its padding mask (B, 1, 1, S), True at tokens. With latent
        tokens these are the memory, and S is their number.
        """
        tokens = src != PAD
        mask = tokens[:, None, None]
        encoding = self.positional_encoding("encoder", src.shape[1])
        if self.config.encoder == "attention":
            memory = self.encode_tokens(src, encoding, partial(attend, mask=mask))
        else:
            start = F.pad(tokens.sum(1).cumsum(0), (1, 0)).int()
            rows = Packing(start, *tokens.nonzero(as_tuple=True), longest=src.shape[1])
            memory = pad_rows(self.encode_tokens(src[tokens], encoding[rows.position], rows), rows)
        if self.latents is None:
            return memory, mask
        memory = self.latents(memory, len(src), partial(attend, mask=mask))
        return memory, mask.new_ones(len(src), 1, 1, self.config.n_latent)

    def decode(self, tgt, encoding, attends, keys_values, attend_source):
        """
        Target tokens (...) with their positional encodings -> logits (..., V) of the token after each.

        For each layer `attends` has its self-attention and `keys_values` its keys and values of the source;
        attend_source: the cross-attention of every layer.
        """
        x, rope = self.embed(tgt, "decoder", encoding)
        for layer, attend_target, pair in zip(self.decoder, attends, keys_values):
            x = self.run(layer, x, rope, attend_target, pair, attend_source)
        return in_full_precision(self.head, self.decoder_norm(x))

    def forward(self, src, sources, tgt, targets, queries=None):
        """
        Packed rows -> logits (M, V) of the token after each target token.

        src: (N,) source tokens of the rows that `sources` packs; tgt: (M,) target tokens of the rows that `targets`
        packs, each row from its first token to the one before EOS. queries: the same M tokens packed by source, where
        a source has several targets; None: each source has one.
        """
        packed = partial(attend_packed, how=self.attention)
        encoding = self.positional_encoding("encoder", sources.longest)[sources.position]
        mixing = sources  # recurrences need no more than the packing
        if self.config.encoder == "attention":
            mixing = partial(packed, queries=sources, keys=sources)
        memory = self.encode_tokens(src, encoding, mixing)  # (N, d)
        if self.latents is not None:  # from here on the sources are their latent tokens
            latent = pack_equal(len(sources.start) - 1, self.config.n_latent, src.device)
            memory = self.latents(memory, len(sources.start) - 1, partial(packed, queries=latent, keys=sources))
            sources = latent
        keys_values = [layer.cross.keys_values(memory) for layer in self.decoder]
        encoding = self.positional_encoding("decoder", targets.longest)[targets.position]
        causal = partial(packed, queries=targets, keys=targets, causal=True)
        cross = partial(packed, queries=targets if queries is None else queries, keys=sources)
        return self.decode(tgt, encoding, [causal] * len(self.decoder), keys_values, cross)


def compile_model(model, backend="inductor"):
    """The model, compiled as one graph, for batches of one shape."""
    torch.compiler.assume_constant_result(position_table)  # of its cache a compiled model knows nothing
    return torch.compile(model, fullgraph=True, dynamic=False, backend=backend)


def in_full_precision(layer, x):
    """layer(x) without autocast: logits in bf16 would blur log-probabilities and the order of a beam."""
    if x.device.type == "meta":  # has no autocast
        return layer(x)
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(torch.promote_types(x.dtype, torch.float32)))


def initialise(module, small=True):
    """
    Unit variance through every matrix, std = 1 / sqrt(fan in): QED is learned in half the steps that GPT-2's 0.02
    needs.

    small: embeddings have std 0.02; the first norm scales them. Else 1 / sqrt(d), for embeddings that are scaled by
    sqrt(d).
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02 if small else module.embedding_dim ** -0.5)
    elif isinstance(module, SineKAN):
        module.initialise()


def config_of(state):
    """
    The ModelConfig of a checkpoint. Fields that are younger than it have the value that its model was made with.

    InputError for an architecture that this program no longer has.
    """
    known = {"norm": "pre"} | state["model_config"]
    if known.pop("kan_embed", False):
        raise InputError("kan_embed: SineKANs on the embeddings are no longer supported")
    return ModelConfig(**known)


def load_model(path, device):
    """
    (model in eval mode on `device`, its tokenizer, the checkpoint): everything as it was trained, whatever the
    settings.
    """
    state = checkpoint.load(path)
    try:
        model = Transformer(config_of(state))
        model.load_state_dict(checkpoint.weights(state))
        tokenizer = Tokenizer(state["vocabulary"])
        for side in ("src", "tgt"):
            if len(state["vocabulary"][side]) != getattr(model.config, f"{side}_vocab"):
                raise InputError(f"its vocabulary has {len(state['vocabulary'][side])} {side} tokens, its weights are "
                                 f"for {getattr(model.config, f'{side}_vocab')}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a checkpoint of this model ({str(error).splitlines()[0]})") from None
    return model.to(device).eval(), tokenizer, state
