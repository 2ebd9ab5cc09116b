"""
Attention softmax(q k^T / sqrt(h)) v (Vaswani et al. 2017, arXiv 1706.03762, eq. 1): the one place where kernels are
chosen.

Decoding attends with padded tensors and masks (`attend`). Training attends with rows of unequal length packed end to
end (`attend_packed`). The setting `attention` names how:

    varlen      one fused kernel over all rows, linear memory: a GPU from A100 on, in bf16 or fp16. torch's
                FlashAttention 2, or FlashAttention 4 or 3 where these are installed and fit the GPU
    sdpa        torch's scaled_dot_product_attention: row after row on a CPU, with padding and a mask on a GPU
    reference   the formula, row after row, with every weight in memory: the slow one that the others are tested against
    auto        varlen where it runs, sdpa elsewhere

Shapes: B rows of at most T tokens (S for keys), N tokens in all, H heads of width h.
"""
import importlib.util
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from runtime.files import InputError

HOW = ("auto", "varlen", "sdpa", "reference")


def attend(q, k, v, mask=None, causal=False):
    """
    q: (B, T, H, h); k, v: (B, S, H, h); mask: broadcasts to (B, H, T, S), True where a query attends to a key, or
    None for all. causal: query t attends to keys 0..t. Returns (B, T, H, h). No dropout on the weights: it would rule
    out the fused kernels, and the residual branches have theirs.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)


class Packing(NamedTuple):
    """Where B rows lie when packed end to end into N tokens: row r is start[r]:start[r + 1]."""
    start: torch.Tensor  # (B + 1,) int32
    row: torch.Tensor  # (N,) int64, row of each token
    position: torch.Tensor  # (N,) int64, index of each token in its row
    longest: int  # tokens of the longest row


def pack_rows(lengths):
    """
    Packing of rows with these lengths. lengths: (B,) int64 on the CPU, where batches are made: no device is asked.
    """
    start = F.pad(lengths.cumsum(0), (1, 0))
    row = torch.arange(len(lengths)).repeat_interleave(lengths)
    return Packing(start.int(), row, torch.arange(len(row)) - start[row], int(lengths.max()))


def pad_rows(x, rows):
    """Packed tokens (N, ...) -> padded rows (B, T, ...), T the longest; 0 at the padding."""
    B, T = len(rows.start) - 1, rows.longest
    return x.new_zeros(B * T, *x.shape[1:]).index_copy(0, rows.row * T + rows.position, x).unflatten(0, (B, T))


def attend_packed(q, k, v, queries, keys, causal=False, how="auto"):
    """
    Attention inside each row: queries of row r attend to the keys of row r. Returns (N, H, h).

    q: (N, H, h), packed as `queries` says; k, v: (M, H, h), packed as `keys` says.
    causal: query t attends to keys 0..t, for queries that are the keys. how: see the top of the file.
    """
    missing = varlen_missing(q)
    if how == "varlen" and missing:
        raise InputError(f"attention: varlen needs {missing}; auto takes what there is")
    if how == "varlen" or how == "auto" and not missing:
        return varlen(q, k, v, queries, keys, causal)
    return (reference if how == "reference" else sdpa)(q, k, v, queries, keys, causal)


def varlen_missing(q):
    """What the kernel for packed rows needs and does not find for these queries, in words; "" where it runs."""
    if not q.is_cuda:
        return f"a GPU, the device is {q.device}"
    if torch.cuda.get_device_properties(q.device).major < 8:
        return f"a GPU from A100 on (compute capability 8.0), this is {torch.cuda.get_device_name(q.device)}"
    if q.dtype not in (torch.bfloat16, torch.float16):
        return f"bf16 or fp16, the numbers are {str(q.dtype).removeprefix('torch.')}"
    if q.shape[-1] % 8 or q.shape[-1] > 256:
        return f"heads of a width that is a multiple of 8 and at most 256, theirs is {q.shape[-1]}"
    return ""


def varlen(q, k, v, queries, keys, causal):
    from torch.nn.attention.varlen import varlen_attn
    window = (-1, 0) if causal else (-1, -1)  # keys before and after the query's own that it sees, -1: all
    return varlen_attn(q, k, v, queries.start, keys.start, queries.longest, keys.longest, window_size=window)


def sdpa(q, k, v, queries, keys, causal):
    if q.is_cuda or torch.compiler.is_compiling():
        mask = None  # padding comes last in a row, so a causal mask hides it
        if not causal:
            mask = torch.arange(keys.longest, device=q.device) < keys.start.diff()[:, None]  # (B, S)
            mask = mask[:, None, None]
        out = attend(pad_rows(q, queries), pad_rows(k, keys), pad_rows(v, keys), mask, causal)  # (B, T, H, h)
        return out.flatten(0, 1).index_select(0, queries.row * queries.longest + queries.position)
    # on a CPU a kernel call per row costs less than the padding that one call for all rows needs
    return each_row(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal), q, k, v, queries, keys)


def reference(q, k, v, queries, keys, causal):
    def formula(q, k, v):
        score = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (1, H, t, s)
        if causal:
            score = score.masked_fill(torch.ones_like(score, dtype=torch.bool).triu(1), -torch.inf)
        return score.softmax(-1) @ v
    return each_row(formula, q, k, v, queries, keys)


def each_row(function, q, k, v, queries, keys):
    """`function` of q (1, H, t, h), k and v (1, H, s, h) of every row; packed again, (N, H, h)."""
    lengths = [rows.start.diff().tolist() for rows in (queries, keys, keys)]
    sides = [x.transpose(0, 1)[None].split(length, dim=2) for x, length in zip((q, k, v), lengths)]
    return torch.cat([function(*row).transpose(1, 2) for row in zip(*sides)], dim=1)[0]


def set_up(how):
    """
    Check the setting `attention`, and let torch call FlashAttention 4 or 3 instead of its own 2 where one is
    installed and made for this GPU: once, before a model is built, as torch.compile could not trace it.
    """
    if how not in HOW:
        raise InputError(f"attention: got {how!r}, wanted {', '.join(HOW)}")
    if how not in ("auto", "varlen") or not torch.cuda.is_available():
        return
    if torch.nn.attention.current_flash_attention_impl():
        return
    major = torch.cuda.get_device_capability()[0]
    for name, module, majors in (("FA4", "flash_attn.cute", (9, 10)), ("FA3", "flash_attn_interface", (9,))):
        package = module.partition(".")[0]
        if major in majors and importlib.util.find_spec(package) and importlib.util.find_spec(module):
            torch.nn.attention.activate_flash_attention_impl(name)
            return
