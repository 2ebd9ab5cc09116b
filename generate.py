"""
Autoregressive decoding with a KV cache: greedy, sampling and beam search.

All three run the same loop: `decode_step` feeds the newest token of every hypothesis to the decoder and returns the
log-probabilities of the next one. The KV cache keeps what earlier steps computed. The encoder runs once per input, and
the K hypotheses of an input share its keys and values. The cache has one slot for each token of each hypothesis, in the
order in which the tokens came. A table of booleans says which slots a hypothesis sees. When beam search drops one
hypothesis and continues another twice, only rows of this table are copied; keys and values stay where they are.

Shapes: B inputs, K hypotheses of each, S source tokens, V target vocabulary, H heads of width h, L decoder layers, N
slots in use.
"""
import copy
import warnings
from functools import partial
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F

from attention import attend
from runtime.files import InputError
from runtime.hardware import find_dtype
from tokenizer import BOS, EOS, PAD

COMPACT_AT = 0.75  # compact the batch when at most 75% of its rows are unfinished; compacting copies the KV cache


class Hypothesis(NamedTuple):
    ids: list  # without BOS; the last is EOS, unless max_len tokens were not enough
    logprob: float  # natural logarithm of the probability of all ids
    lowest: float  # log-probability of the least probable token

    @property
    def finished(self):
        return self.ids[-1:] == [EOS]


class KVCache:
    """Keys and values of the source, computed once, and of all target tokens so far; B inputs, K hypotheses each."""

    def __init__(self, model, src, hypotheses, max_len):
        memory, mask = model.encode(src)  # (B, S, d), (B, 1, 1, S)
        self.source_mask = None if mask.all() else additive_mask(mask)  # (B, 1, 1, S)
        pairs = [layer.cross.keys_values(memory) for layer in model.decoder]  # of (B, S, H, h)
        # under autocast `memory` is fp32, its keys and values are not; the int8 copy names a dtype of its own
        dtype = getattr(model, "cache_dtype", pairs[0][0].dtype)
        # of each layer two of (B, H, S, h)
        self.source_kv = [tuple(x.to(dtype).transpose(1, 2).contiguous() for x in pair) for pair in pairs]
        self.positions = model.positional_encoding("decoder", max_len)  # positional encodings, (max_len, ...)
        self.length = 0  # tokens of each hypothesis so far
        self.used = 0  # N
        B, H, S, h = self.source_kv[0][0].shape
        self.kv = self.source_kv[0][0].new_zeros(len(pairs), 2, B, H, 0, h)  # (L, 2, B, H, slots, h), N in use
        self.visible = torch.zeros(B, hypotheses, 0, dtype=torch.bool, device=src.device)  # (B, K, slots)
        self.mask = None  # (B, 1, K, N); None: all slots are visible

    def add_slots(self):
        """Make room for one more token of each hypothesis, visible to that hypothesis alone."""
        B, K, room = self.visible.shape
        if self.used + K > room:
            self.drop_invisible()
            room = 2 * max(self.used, 16 * K)
            self.kv = F.pad(self.kv, (0, 0, 0, room - self.kv.shape[4]))
            self.visible = F.pad(self.visible, (0, room - self.visible.shape[2]))
        self.visible[:, :, self.used:self.used + K] = torch.eye(K, dtype=torch.bool, device=self.visible.device)
        self.used += K
        self.mask = None if K == 1 else additive_mask(self.visible[:, None, :, :self.used])

    def attend_self(self, layer, q, k, v):
        """Store the newest tokens' keys and values, then attend to all so far. q, k, v: (B, K, H, h) -> (B, K, H, h)"""
        for cached, new in zip(self.kv[layer], (k, v)):
            cached[:, :, self.used - q.shape[1]:self.used] = new.transpose(1, 2)
        return attend_cached(q, *self.kv[layer, :, :, :, :self.used], self.mask)

    def attend_source(self, q, k, v):
        """Cross-attention of the newest tokens. q: (B, K, H, h); k, v: (B, H, S, h) -> (B, K, H, h)"""
        return attend_cached(q, k, v, self.source_mask)

    def reorder(self, parent):
        """From now on hypothesis k continues hypothesis parent[b, k]. parent: (B, K)"""
        self.visible = self.visible.gather(1, parent[:, :, None].expand_as(self.visible))

    def select(self, inputs):
        """Keep these inputs (int64 tensor), in this order."""
        self.source_mask = None if self.source_mask is None else self.source_mask[inputs]
        self.visible, self.kv = self.visible[inputs], self.kv[:, :, inputs]
        self.source_kv = [tuple(x[inputs] for x in pair) for pair in self.source_kv]

    def drop_invisible(self):
        """Drop the slots that no hypothesis sees. Hypotheses of a beam share most of their past, so few are left."""
        seen = self.visible[:, :, :self.used].any(1)  # (B, N)
        self.used = int(seen.sum(1).max()) if self.used else 0
        kept = seen.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :self.used]  # (B, new N)
        self.visible = self.visible.gather(2, kept[:, None].expand(-1, self.visible.shape[1], -1))
        L, two, B, H, _, h = self.kv.shape
        self.kv = self.kv.gather(4, kept[None, None, :, None, :, None].expand(L, two, B, H, self.used, h))


def additive_mask(visible):
    """Boolean mask -> the same as numbers to add to the attention scores: 0 where True, -inf where False."""
    return torch.zeros_like(visible, dtype=torch.float32).masked_fill(~visible, -torch.inf)


def attend_cached(q, k, v, mask):
    """
    attention.attend for the few queries of a decode step. On a CPU two plain products are faster than a fused kernel's
    tiles.

    q: (B, K, H, h); k, v: (B, H, N, h), laid out as they are read; mask: additive, or None. Returns (B, K, H, h).
    """
    if q.is_cuda:
        return attend(q, k.transpose(1, 2), v.transpose(1, 2), None if mask is None else mask.to(q.dtype))
    score = (q.transpose(1, 2) * q.shape[-1] ** -0.5).to(k.dtype) @ k.transpose(2, 3)  # (B, H, K, N)
    if mask is not None:
        score = score + mask
    weight = score.softmax(-1, dtype=at_least_fp32(score.dtype))
    return (weight.to(v.dtype) @ v).to(q.dtype).transpose(1, 2)


def at_least_fp32(dtype):
    return torch.promote_types(dtype, torch.float32)


def decode_step(model, token, cache):
    """Append one token to each hypothesis. token: (B, K), BOS first -> log-probabilities (B, K, V) of the next one."""
    cache.add_slots()
    attends = [partial(cache.attend_self, layer) for layer in range(len(cache.source_kv))]
    logits = model.decode(token, cache.positions[cache.length], attends, cache.source_kv, cache.attend_source)
    cache.length += 1
    return logits.log_softmax(-1, dtype=at_least_fp32(logits.dtype))


def greedy(model, src, max_len, first=None):
    """
    The most probable token at each position.

    src: (B, S), padded with PAD. first: (B,), the token that each answer is written after; None: BOS. Returns B
    hypotheses of at most max_len tokens.
    """
    return [hypothesis for hypothesis, in sample(model, src, max_len, first=None if first is None else first[:, None])]


@torch.inference_mode()
def sample(model, src, max_len, uniform=None, temperature=1.0, top_k=0, top_p=1.0, first=None, source=None, more=None):
    """
    Hypotheses drawn at random, independently of each other and of the rest of the batch.

    src: (B, S), padded with PAD. uniform: (B, K, max_len), a random number in [0, 1) for every token; None takes the
    most probable token instead. temperature, top_k (0: all), top_p: see `draw`. Returns B lists of K hypotheses;
    logprob is that of the model itself, at temperature 1. Only termwise decoding (generate_terms.py) needs the rest.
    first: (B, K), the token that each hypothesis is written after; None: BOS, and K = 1 without uniform. source: (B,),
    the row of src that each input reads; None: row b. more: hypotheses are terms in their order, and those after one
    that ends without this token are given up.
    """
    if first is None:
        first = torch.full((len(src), 1 if uniform is None else uniform.shape[1]), BOS, device=src.device)
    B, K = first.shape
    cache = KVCache(model, src, K, max_len)
    if source is not None:
        cache.select(source)
    active = torch.arange(B, device=src.device)  # (b,), the unfinished inputs
    token = first
    unfinished = torch.ones_like(token, dtype=torch.bool)  # (b, K)
    ids = torch.full((B, K, max_len), PAD, device=src.device)
    length = torch.zeros_like(token)
    logprob = torch.zeros(B, K, dtype=torch.double, device=src.device)
    lowest = torch.zeros_like(logprob)
    for position in range(max_len):
        logprobs, previous = decode_step(model, token, cache), token  # (b, K, V), (b, K)
        if uniform is None:
            token = logprobs.argmax(-1)
        else:
            token = draw(logprobs, uniform[active, :, position], temperature, top_k, top_p)
        gained = logprobs.gather(-1, token[..., None])[..., 0].masked_fill(~unfinished, 0).double()
        ids[active, :, position] = token.masked_fill(~unfinished, PAD)
        length[active] += unfinished
        logprob[active] += gained
        lowest[active] = torch.minimum(lowest[active], gained)
        if more is not None:
            last = unfinished & (token == EOS) & (previous != more)
            unfinished = unfinished & (last.cumsum(1) - last.long() == 0)  # no last term before it
        unfinished = unfinished & (token != EOS)
        busy = unfinished.any(1)  # (b,)
        count = int(busy.sum())
        if count == 0:
            break
        if count <= COMPACT_AT * len(active):
            cache.select(busy.nonzero()[:, 0])
            active, token, unfinished = active[busy], token[busy], unfinished[busy]
    lists = zip(ids.tolist(), length.tolist(), logprob.tolist(), lowest.tolist())
    return [[Hypothesis(i[:n], p, low) for i, n, p, low in zip(*row)] for row in lists]


def draw(logprobs, uniform, temperature=1.0, top_k=0, top_p=1.0):
    """
    Tokens (...) drawn from log-probabilities (..., V): the inverse of the distribution function at `uniform` (...).

    Candidates are the top_k most probable tokens at this temperature (0: all), and of these the fewest that together
    have the share top_p (nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751).
    """
    p, order = truncate(logprobs, temperature, top_k, top_p)
    total = p.cumsum(-1)
    chosen = (total <= uniform[..., None] * total[..., -1:]).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)
    return order.gather(-1, chosen)[..., 0]


def truncate(logprobs, temperature=1.0, top_k=0, top_p=1.0):
    """
    The distribution that `draw` draws from: probabilities (..., V), largest first, and the tokens (..., V) that have
    them.

    The probabilities are not normalised; tokens that are no candidates have 0.
    """
    p, order = (logprobs.double() / temperature).softmax(-1).sort(-1, descending=True)
    if top_k:
        p[..., top_k:] = 0
    total = p.cumsum(-1)
    p[total - p >= top_p * total[..., -1:]] = 0  # the tokens before it are enough
    return p, order


@torch.inference_mode()
def beam_search(model, src, max_len, beams, length_penalty=0.0, first=None, source=None):
    """
    The best hypotheses of each input that a beam of width K = `beams` finds.

    The score of a hypothesis is logprob / length**length_penalty; its length counts EOS, and penalty 0 compares
    probabilities. At each position every hypothesis of the beam may end, and the K best continuations of all of them go
    on. An input is done when K ended hypotheses are at least as good as any open one can become. So a beam that holds
    all sequences finds the K best there are.

    src: (B, S), padded with PAD. Returns B lists, best first, of at most K ended hypotheses. If an open hypothesis is
    better than all of them after max_len tokens, it stands before them as it is. Only termwise decoding needs the rest.
    first: (B,), the token that the hypotheses of an input are written after; None: BOS. source: (B,), the row of src
    that each input reads; None: row b.
    """
    if first is None:
        first = torch.full((len(src),), BOS, device=src.device)
    B, K = len(first), beams
    cache = KVCache(model, src, K, max_len)
    if source is not None:
        cache.select(source)
    active = torch.arange(B, device=src.device)  # (b,), the inputs that are not done
    token = first[:, None].expand(B, K)
    logprob = torch.full((B, K), -torch.inf, dtype=torch.double, device=src.device)
    logprob[:, 0] = 0  # the beam starts with one hypothesis, the empty one
    lowest = torch.zeros_like(logprob)
    # the open hypotheses at each position: their newest tokens, and which hypotheses of the last position they continue
    tokens, parents = (torch.zeros(max_len, B, K, dtype=torch.int64, device=src.device) for _ in range(2))
    # the ended hypotheses, best first: score, logprob, lowest, position of EOS, index in the beam there
    ended = torch.full((5, B, K), -torch.inf, dtype=torch.double, device=src.device)
    beam = torch.arange(K, dtype=torch.double, device=src.device)
    for position in range(max_len):
        logprobs = decode_step(model, token, cache).double()  # (b, K, V)
        total = logprob[..., None] + logprobs

        ending, low = total[..., EOS], torch.minimum(lowest, logprobs[..., EOS])
        score = ending / (position + 1) ** length_penalty
        new = torch.stack((score, ending, low, torch.full_like(score, position), beam.expand_as(score)))
        both = torch.cat((ended[:, active], new), dim=2)  # (5, b, 2K)
        best = both[0].topk(K).indices
        ended[:, active] = both.gather(2, best.expand(5, -1, -1))

        total[..., EOS] = -torch.inf
        logprob, best = total.flatten(1).topk(K)  # (b, K)
        parent, token = best // total.shape[2], best % total.shape[2]
        lowest = torch.minimum(lowest.gather(1, parent), logprobs.flatten(1).gather(1, best))
        tokens[position, active], parents[position, active] = token, parent
        cache.reorder(parent)

        attainable = logprob[:, 0] / max_len ** length_penalty  # the best score that an open one can still get
        busy = ended[0, active, -1] < attainable
        count = int(busy.sum())
        if count == 0:
            break
        if count <= COMPACT_AT * len(active):
            cache.select(busy.nonzero()[:, 0])
            active, token, logprob, lowest = active[busy], token[busy], logprob[busy], lowest[busy]

    # the best open hypothesis, where it is better than all that have ended
    open_one = torch.full_like(ended[:, :, :1], -torch.inf)
    if count:
        score = logprob[:, 0] / max_len ** length_penalty
        better = (score > ended[0, active, 0]).nonzero()[:, 0]
        zero = torch.zeros(len(better), dtype=torch.double, device=src.device)
        figures = score[better], logprob[better, 0], lowest[better, 0], zero + max_len, zero
        open_one[:, active[better], 0] = torch.stack(figures)
    answers = torch.cat((open_one, ended), dim=2)  # (5, B, 1 + K)
    position, index = answers[3:].clamp(min=0).long()
    ids = trace_back(tokens, parents, position, index)
    lists = zip(ids.tolist(), position.tolist(), answers[1].tolist(), answers[2].tolist())
    return [[Hypothesis(with_end(i[:n], max_len), p, low) for i, n, p, low in zip(*row) if p > -torch.inf]
            for row in lists]


def with_end(ids, max_len):
    """The ids of a hypothesis of a beam and EOS; without EOS if it has max_len tokens, as it has not ended then."""
    return ids if len(ids) == max_len else ids + [EOS]


def trace_back(tokens, parents, position, index):
    """
    The ids of hypothesis `index` of the beam at `position`, followed back from parent to parent.

    tokens, parents: (max_len, B, K); position, index: (B, K). Returns (B, K, longest) ids, padded with PAD.
    """
    longest = int(position.max())
    ids = torch.full((*position.shape, longest), PAD, device=position.device)
    for p in reversed(range(longest)):
        written = p < position
        ids[:, :, p] = torch.where(written, tokens[p].gather(1, index), PAD)
        index = torch.where(written, parents[p].gather(1, index), index)
    return ids


# ---------------------------------------------------------------------------------------------------------------------
# A copy of the model for decoding


class PackedLinear(nn.Module):
    """nn.Linear by oneDNN on a CPU, with the weight in the blocks of its kernel for few rows."""

    def __init__(self, linear, dtype):
        super().__init__()
        self.dtype = dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), 16)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x):
        return torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")


class LowPrecisionLinear(nn.Module):
    """nn.Linear in bf16 or fp16. The input may be fp32, the result has the low precision, as under autocast."""

    def __init__(self, linear, dtype):
        super().__init__()
        self.weight = linear.weight.detach().to(dtype)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x):
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Int8Linear(nn.Module):
    """
    nn.Linear with int8 weights, one scale for each output, and activations rounded to 8 bits, one scale for all rows of
    a call; x86.

    Each product has about 1% of noise. The scale of the activations makes a row's answer depend on its batch, within
    that noise.
    """

    def __init__(self, linear):
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(1).double().clamp(min=1e-12) / 127
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "deprecated": the pinned torch has it, and no faster kernel for few rows
            zero = torch.zeros_like(scale, dtype=torch.int64)
            rounded = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, None if linear.bias is None else linear.bias.detach())

    def forward(self, x):
        return torch.ops.quantized.linear_dynamic(x, self.packed, False)


def for_decoding(model, dtype="auto"):
    """
    A copy of the model to decode with. dtype: as in training, or "int8" (CPU only). InputError where the device cannot
    do it.

    bf16 and fp16 are for the matrix products inside the layers, and so for the KV cache, as under autocast in training.
    The residual stream, norms, positional encodings and the head stay in fp32: rounded logits would blur the order of a
    beam. int8 is for all matrix products; the KV cache is bf16 then, which has half the bytes and a third of the noise
    of int8.
    """
    device = next(model.parameters()).device
    if dtype == "int8" and (device.type != "cpu" or "x86" not in torch.backends.quantized.supported_engines):
        raise InputError(f"dtype: int8 needs an x86 CPU, the device is {device}")
    if dtype == "fp16" and device.type == "cpu":
        raise InputError("dtype: fp16 needs a GPU; on a CPU there are fp32, bf16 and int8")
    model = copy.deepcopy(model).float().eval()
    if dtype == "int8":
        replace_linear(model, Int8Linear)
        model.cache_dtype = torch.bfloat16
        return model
    dtype = find_dtype(dtype, device)
    packed = device.type == "cpu" and torch.backends.mkldnn.is_available()
    if dtype != torch.float32:
        low = PackedLinear if packed else LowPrecisionLinear
        for side in ("encoder", "decoder"):
            for index, layer in enumerate(getattr(model, side)):
                for name, branch in layer.named_children():
                    # kan_end: these SineKANs replace the residual stream, so they are fp32
                    if not (name == "mlp" and model.config.ends(side, index)):
                        replace_linear(branch, partial(low, dtype=dtype))
    if packed:
        replace_linear(model, partial(PackedLinear, dtype=torch.float32))
    return model


def replace_linear(model, kind):
    """Replace every nn.Linear inside a module by kind(linear)."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, kind(child))
