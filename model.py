"""
The one encoder-decoder transformer: amplitude tokens in, tokens of the squared amplitude out.

Pre-norm layers (Xiong et al. 2020, arXiv 2002.04745): they train at a high learning rate from a short warm-up. All attention goes
through `attend`. Decoding is incremental: `start` reads the source once into a `Cache`, `step` adds one target
token to every row, `greedy` is the plain decoder made of the two.

Shapes: B rows, S source tokens, T target tokens, H heads, d = d_model, V target vocabulary.
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from files import InputError
from tokenizer import BOS, EOS, PAD


@dataclass
class ModelConfig:
    """Everything that the shape of the weights depends on; stored in the checkpoint."""
    src_vocab: int  # tokens in the source vocabulary
    tgt_vocab: int
    src_max_len: int  # longest source, in tokens
    tgt_max_len: int  # longest target, start and end token included
    d_model: int = 256
    heads: int = 8
    encoder_layers: int = 3
    decoder_layers: int = 3
    d_ff: int = 1024
    dropout: float = 0.1

    def __post_init__(self):
        for name in ("src_vocab", "tgt_vocab", "src_max_len", "tgt_max_len", "d_model", "heads", "encoder_layers", "decoder_layers", "d_ff"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, wanted at least 1")
        if self.d_model % self.heads:
            raise InputError(f"d_model: {self.d_model} does not divide into {self.heads} heads")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout: got {self.dropout}, wanted 0 <= dropout < 1")


def attend(q, k, v, mask=None, causal=False):
    """
    Attention softmax(q k^T / sqrt(d_head)) v (Vaswani et al. 2017, arXiv 1706.03762, eq. 1).

    q: (B, H, T, d_head); k, v: (B, H, S, d_head); mask: (B, 1, 1, S), True where a key may be seen, or None for all.
    causal: query t sees keys 0..t. Returns (B, H, T, d_head). The one place where a faster kernel goes in.
    No dropout on the weights: it would rule out the fused kernels, and the residual branches have theirs.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def split_heads(x, heads):
    """(B, T, d) -> (B, H, T, d_head), a view."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x):
    """(B, H, T, d_head) -> (B, T, d)"""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)  # one matrix product instead of three
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x, mask=None, causal=False, past=None, position=0):
        """
        x: (B, T, d) -> (B, T, d). With `past`, keys and values (2, B, H, max_len, d_head) of the positions before
        `position`, x is the one token at `position`: its key and value are stored there.
        """
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        if past is not None:
            past[0, :, :, position], past[1, :, :, position] = k[:, :, 0], v[:, :, 0]
            k, v = past[:, :, :, :position + 1]  # (B, H, position + 1, d_head)
        return self.out(merge_heads(attend(q, k, v, mask, causal)))


class CrossAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.d_model, config.d_model, bias=False)
        self.kv = nn.Linear(config.d_model, 2 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def keys_values(self, memory):
        """memory (B, S, d) -> keys and values (B, H, S, d_head): once per source, however many target tokens."""
        return [split_heads(part, self.heads) for part in self.kv(memory).chunk(2, dim=-1)]

    def forward(self, x, keys_values, mask):
        q = split_heads(self.q(x), self.heads)  # (B, H, T, d_head)
        return self.out(merge_heads(attend(q, *keys_values, mask)))


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

    def forward(self, x, mask):
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        return x + self.dropout(self.mlp(self.norm2(x)))  # (B, S, d)


class DecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention, self.cross, self.mlp = SelfAttention(config), CrossAttention(config), MLP(config)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(config.d_model) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, keys_values, mask, past=None, position=0):
        """x: (B, T, d), a whole target; with `past`, the one token at `position` (SelfAttention says how)."""
        x = x + self.dropout(self.attention(self.norm1(x), causal=past is None, past=past, position=position))
        x = x + self.dropout(self.cross(self.norm2(x), keys_values, mask))
        return x + self.dropout(self.mlp(self.norm3(x)))  # (B, T, d)


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.src_embedding = nn.Embedding(config.src_vocab, config.d_model)
        self.tgt_embedding = nn.Embedding(config.tgt_vocab, config.d_model)
        self.src_position = nn.Embedding(config.src_max_len, config.d_model)
        self.tgt_position = nn.Embedding(config.tgt_max_len, config.d_model)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.d_model, config.tgt_vocab, bias=False)
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def encode(self, src, mask):
        x = self.dropout(self.src_embedding(src) + self.src_position.weight[:src.shape[1]])
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x)

    def forward(self, src, tgt):
        """src (B, S), tgt (B, T) -> (B, T, V)"""
        mask = (src != PAD)[:, None, None, :]
        memory = self.encode(src, mask)
        x = self.dropout(self.tgt_embedding(tgt) + self.tgt_position.weight[:tgt.shape[1]])
        for layer in self.decoder:
            x = layer(x, layer.cross.keys_values(memory), mask)
        return self.head(self.decoder_norm(x))
