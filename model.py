"""
The one encoder-decoder transformer: amplitude tokens in, tokens of the squared amplitude out.

Layers are pre-norm (Xiong et al. 2020, arXiv 2002.04745): they bear a high learning rate after a short warm-up. Positions are
rotary (Su et al. 2021, arXiv 2104.09864): after 800 steps on the public QED set the validation loss was 0.05, with
learned positions 0.13, for 3% more time a step; and no table bounds the length. All attention goes through `attend`.

Decoding is incremental: `start` reads the source once into a `Cache`, `step` appends one target token to every row;
`greedy` is the plain decoder made of the two.

Shapes: B rows, S source tokens, T target tokens, V target vocabulary, d = d_model, H heads of width h = d / H, L decoder layers.
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from files import InputError
from tokenizer import BOS, EOS, PAD


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


def attend(q, k, v, mask=None, causal=False):
    """
    Attention softmax(q k^T / sqrt(h)) v (Vaswani et al. 2017, arXiv 1706.03762, eq. 1).

    q: (B, H, T, h); k, v: (B, H, S, h); mask: (B, 1, 1, S), True where a key may be seen, or None for all.
    causal: query t sees keys 0..t. Returns (B, H, T, h). The one place where a faster kernel goes in.
    No dropout on the weights: it would rule out the fused kernels, and the residual branches have theirs.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def rotary_table(positions, width):
    """Cosine and sine of the angle position / 10000^(2i / width). positions: (T,) -> (2, T, width / 2), in double precision."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.double) / width)
    angle = positions[:, None] * frequency
    return torch.stack((angle.cos(), angle.sin()))


def rotate(x, rotary):
    """Turn the pairs (x_i, x_{i + h/2}) by their position's angle. x: (..., T, h); rotary: (2, T, h / 2)."""
    cos, sin = rotary
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def split_heads(x, parts, heads):
    """(B, T, parts * d) -> (parts, B, H, T, h), a view."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4)


def merge_heads(x):
    """(B, H, T, h) -> (B, T, d)"""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)  # one matrix product instead of three
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x, rotary, mask=None, causal=False, past=None, position=0):
        """
        x: (B, T, d) -> (B, T, d). With `past` (2, B, H, room, h), the keys and values of the tokens before
        `position`, x is the one token at `position`, and its own key and value are written there.
        """
        qkv = split_heads(self.qkv(x), 3, self.heads)
        q, k = rotate(qkv[:2], rotary)  # (B, H, T, h) each
        v = qkv[2]
        if past is not None:
            past[0, :, :, position], past[1, :, :, position] = k[:, :, 0], v[:, :, 0]
            k, v = past[:, :, :, :position + 1]  # (B, H, position + 1, h) each
        return self.out(merge_heads(attend(q, k, v, mask, causal)))


class CrossAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.d_model, config.d_model, bias=False)
        self.kv = nn.Linear(config.d_model, 2 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def keys_values(self, memory):
        """memory (B, S, d) -> (2, B, H, S, h): computed once, however many target tokens follow."""
        return split_heads(self.kv(memory), 2, self.heads)

    def forward(self, x, keys_values, mask):
        q, = split_heads(self.q(x), 1, self.heads)  # (B, H, T, h)
        k, v = keys_values
        return self.out(merge_heads(attend(q, k, v, mask)))


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

    def forward(self, x, rotary, mask):
        """x: (B, S, d) -> (B, S, d)"""
        x = x + self.dropout(self.attention(self.norm1(x), rotary, mask))
        return x + self.dropout(self.mlp(self.norm2(x)))


class DecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention, self.cross, self.mlp = SelfAttention(config), CrossAttention(config), MLP(config)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(config.d_model) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, rotary, keys_values, mask, past=None, position=0):
        """x: (B, T, d), a whole target; with `past`, the one token at `position` (see SelfAttention). Same shape out."""
        x = x + self.dropout(self.attention(self.norm1(x), rotary, causal=past is None, past=past, position=position))
        x = x + self.dropout(self.cross(self.norm2(x), keys_values, mask))
        return x + self.dropout(self.mlp(self.norm3(x)))


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.src_embedding = nn.Embedding(config.src_vocab, config.d_model)
        self.tgt_embedding = nn.Embedding(config.tgt_vocab, config.d_model)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.d_model, config.tgt_vocab, bias=False)
        self.apply(initialise)

    def rotary(self, start, end):
        weight = self.head.weight
        return rotary_table(torch.arange(start, end, device=weight.device), self.config.d_model // self.config.heads).to(weight.dtype)

    def encode(self, src):
        """src (B, S), padded with PAD -> memory (B, S, d) and its mask (B, 1, 1, S), True at tokens."""
        mask = (src != PAD)[:, None, None, :]
        rotary = self.rotary(0, src.shape[1])
        x = self.dropout(self.src_embedding(src))  # (B, S, d)
        for layer in self.encoder:
            x = layer(x, rotary, mask)
        return self.encoder_norm(x), mask

    def forward(self, src, tgt):
        """src (B, S), tgt (B, T) that begins with BOS -> logits (B, T, V) of the token after each."""
        memory, mask = self.encode(src)
        rotary = self.rotary(0, tgt.shape[1])
        x = self.dropout(self.tgt_embedding(tgt))  # (B, T, d); padding comes last, so that causality hides it
        for layer in self.decoder:
            x = layer(x, rotary, layer.cross.keys_values(memory), mask)
        return self.head(self.decoder_norm(x))

    @torch.no_grad()
    def start(self, src):
        """src (B, S) -> a Cache from which `step` decodes, with no target token in it yet."""
        memory, mask = self.encode(src)
        cross = torch.stack([layer.cross.keys_values(memory) for layer in self.decoder])
        past = cross.new_zeros(*cross.shape[:4], 0, cross.shape[5])
        return Cache(cross, past, mask, position=0)

    @torch.no_grad()
    def step(self, token, cache):
        """token (B,), BOS first -> logits (B, V) of the next token; the cache moves on by one position."""
        cache.make_room()
        rotary = self.rotary(cache.position, cache.position + 1)  # (2, 1, h / 2)
        x = self.tgt_embedding(token[:, None])  # (B, 1, d)
        for layer, keys_values, past in zip(self.decoder, cache.cross, cache.past):
            x = layer(x, rotary, keys_values, cache.mask, past, cache.position)
        cache.position += 1
        return self.head(self.decoder_norm(x))[:, 0]


def initialise(module):
    """Unit variance through every matrix, std = 1 / sqrt(fan in): QED is learned in half the steps that GPT-2's 0.02 needs."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


@dataclass
class Cache:
    """What the decoder need not compute again. Every row is at the same position."""
    cross: torch.Tensor  # (L, 2, B, H, S, h) keys and values of the source
    past: torch.Tensor  # (L, 2, B, H, room, h) keys and values of the target tokens so far, then free room
    mask: torch.Tensor  # (B, 1, 1, S)
    position: int  # target tokens so far

    def select(self, rows):
        """Keep these rows (int64 tensor), in this order; a row may come more than once."""
        self.cross, self.past, self.mask = self.cross[:, :, rows], self.past[:, :, rows], self.mask[rows]

    def make_room(self):
        """Room for one more token; doubled when it is full, so that memory follows the length really needed."""
        room = self.past.shape[4]
        if self.position == room:
            self.past = F.pad(self.past, (0, 0, 0, max(room, 32)))


@torch.inference_mode()
def greedy(model, src, max_len):
    """
    The most probable token at each position, one after another.

    src: (B, S), padded with PAD. Returns the ids of each row, a list of B lists that end in EOS (without BOS), and the
    log-probability of each as a list of B floats. A row not finished after max_len tokens has no EOS.
    """
    B = len(src)
    cache = model.start(src)
    rows = torch.arange(B, device=src.device)  # of src, those that are still being written
    token = torch.full_like(rows, BOS)
    ids = torch.full((B, max_len), PAD, device=src.device)
    length = torch.zeros_like(rows)
    logprob = cache.cross.new_zeros(B)
    for position in range(max_len):
        best, token = model.step(token, cache).log_softmax(dim=-1).max(dim=-1)
        ids[rows, position] = token
        length[rows] += 1
        logprob[rows] += best
        going = token != EOS
        if not going.all():
            rows, token = rows[going], token[going]
            if not len(rows):
                break
            cache.select(going.nonzero()[:, 0])
    return [row[:n] for row, n in zip(ids.tolist(), length.tolist())], logprob.tolist()
