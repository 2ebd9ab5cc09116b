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
import sys
from typing import NamedTuple

import torch
import torch.nn.functional as F

from configurator import CHOICES
from runtime.files import InputError

HOW = CHOICES["attention"]


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


def pack_equal(rows, length, device):
    """Packing of so many rows of one length, made on the device."""
    token = torch.arange(rows * length, device=device)
    start = length * torch.arange(rows + 1, device=device, dtype=torch.int32)
    return Packing(start, token // length, token % length, length)


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
    missing = varlen_missing(q.device, q.dtype, q.shape[-1])
    if how == "varlen" and missing:
        raise InputError(f"attention: varlen needs {missing}; auto takes what there is")
    if how == "varlen" or how == "auto" and not missing:
        return varlen(q, k, v, queries, keys, causal)
    return (reference if how == "reference" else sdpa)(q, k, v, queries, keys, causal)


def varlen_missing(device, dtype, width):
    """What the fused kernel needs and does not find, in words; "" where it runs. width: of a head."""
    if device.type != "cuda":
        return f"a GPU, the device is {device}"
    if torch.cuda.get_device_properties(device).major < 8:
        return f"a GPU from A100 on (compute capability 8.0), this is {torch.cuda.get_device_name(device)}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"bf16 or fp16, the numbers are {str(dtype).removeprefix('torch.')}"
    if width % 8 or width > 256:
        return f"heads of a width that is a multiple of 8 and at most 256, theirs is {width}"
    return ""


def packs_rows(how, device, dtype, width):
    """Whether attend_packed works on packed rows there, without padding them. See varlen_missing for the arguments."""
    return device.type == "cpu" or how in ("auto", "varlen") and not varlen_missing(device, dtype, width)


def varlen(q, k, v, queries, keys, causal):
    from torch.nn.attention.varlen import varlen_attn
    window = (-1, 0) if causal else (-1, -1)  # keys before and after the query's own that it sees, -1: all
    return varlen_attn(q, k, v, queries.start, keys.start, queries.longest, keys.longest, window_size=window)


def sdpa(q, k, v, queries, keys, causal):
    # on a CPU a kernel call per row costs less than the padding that one call for all rows needs
    return (one_by_one if q.device.type == "cpu" else with_padding)(q, k, v, queries, keys, causal)


def one_by_one(q, k, v, queries, keys, causal):
    return attend_rows(q, k, v, queries.start, keys.start, causal)[0].to(v.dtype)


def with_padding(q, k, v, queries, keys, causal):
    mask = None  # padding comes last in a row, so a causal mask hides it
    if not causal:
        mask = torch.arange(keys.longest, device=q.device) < keys.start.diff()[:, None]  # (B, S)
        mask = mask[:, None, None]
    out = attend(pad_rows(q, queries), pad_rows(k, keys), pad_rows(v, keys), mask, causal)  # (B, T, H, h)
    return out.flatten(0, 1).index_select(0, queries.row * queries.longest + queries.position)


# One operator to autograd and to torch.compile, which need not look into the loop over the rows
@torch.library.custom_op("symba::attend_rows", mutates_args=())
def attend_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, q_start: torch.Tensor, k_start: torch.Tensor,
                causal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Attention row after row on a CPU: (the output (N, H, h), log of the softmax' denominators (N, H)).

    q: (N, H, h); k, v: (M, H, h); q_start, k_start: (B + 1,), see Packing. In fp32, or fp64 where q is: the kernel's
    backward pass is ten times slower in bf16.
    """
    q, k, v = at_least_fp32(q, k, v)
    out, log_sum = torch.zeros_like(q), q.new_zeros(q.shape[:2])
    for queries, keys in rows_of(q_start, k_start):
        row = [x.transpose(0, 1)[None] for x in (q[queries], k[keys], v[keys])]  # (1, H, t, h)
        o, l = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*row, 0.0, causal)
        out[queries], log_sum[queries] = o[0].transpose(0, 1), l[0].T
    return out, log_sum


@attend_rows.register_fake
def _(q, k, v, q_start, k_start, causal):
    q, = at_least_fp32(q)
    return torch.empty_like(q), q.new_empty(q.shape[:2])


@torch.library.custom_op("symba::attend_rows_backward", mutates_args=())
def attend_rows_backward(
        grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, log_sum: torch.Tensor,
        q_start: torch.Tensor, k_start: torch.Tensor, causal: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v for `grad`, that of the output. The other arguments: see attend_rows."""
    dtypes = [x.dtype for x in (q, k, v)]
    q, k, v = at_least_fp32(q, k, v)
    of_q, of_k, of_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for queries, keys in rows_of(q_start, k_start):
        row = [x.transpose(0, 1)[None]
               for x in (grad[queries], q[queries], k[keys], v[keys], out[queries], log_sum[queries])]
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(*row, 0.0, causal)
        for whole, rows, part in zip((of_q, of_k, of_v), (queries, keys, keys), parts):
            whole[rows] = part[0].transpose(0, 1)
    return tuple(whole.to(dtype) for whole, dtype in zip((of_q, of_k, of_v), dtypes))


@attend_rows_backward.register_fake
def _(grad, q, k, v, out, log_sum, q_start, k_start, causal):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx, inputs, output):
    *tensors, ctx.causal = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx, grad, _):
    q, k, v, q_start, k_start, out, log_sum = ctx.saved_tensors
    grads = attend_rows_backward(grad, q, k, v, out, log_sum, q_start, k_start, ctx.causal)
    return *grads, None, None, None


attend_rows.register_autograd(_backward, setup_context=_keep)


def at_least_fp32(*tensors):
    return [x if x.dtype in (torch.float32, torch.float64) else x.float() for x in tensors]


def rows_of(q_start, k_start):
    """The slices of each row that has queries and keys."""
    q_start, k_start = q_start.tolist(), k_start.tolist()
    return [(slice(a, b), slice(c, d)) for a, b, c, d in zip(q_start, q_start[1:], k_start, k_start[1:])
            if a < b and c < d]


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
        if major not in majors or not importlib.util.find_spec(package):
            continue
        try:
            if importlib.util.find_spec(module):  # imports the package
                torch.nn.attention.activate_flash_attention_impl(name)
                return
        except Exception as error:  # made for another torch, or without what it needs
            print(f"{package} is installed, but {name} cannot be used: {type(error).__name__}: {error}",
                  file=sys.stderr)
