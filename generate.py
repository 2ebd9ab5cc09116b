"""
Answers written token by token: greedy, sampled, or by beam search, on one cache and one decode step.

The source is read once per input, however many hypotheses are written for it: its keys and values stay, and the K hypotheses are
K queries to them. What the hypotheses have written so far stands in the cache as entries, a key and a value for each token of
each hypothesis, in the order in which they came. Which entries are a hypothesis's own past is a table of booleans: when beam
search drops one hypothesis and continues another twice, the table's rows are copied and no key or value is moved.

Shapes: B inputs, K hypotheses of each, S source tokens, V target vocabulary, H heads of width h, L layers, N entries.
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

LEAVE = 0.75  # finished inputs leave when so few are still being written: leaving copies the cache of those that stay


class Hypothesis(NamedTuple):
    ids: list  # without BOS; the last is EOS, unless max_len tokens were not enough
    logprob: float  # natural logarithm of the probability of all ids
    lowest: float  # that of the least probable of them

    @property
    def finished(self):
        return self.ids[-1:] == [EOS]


class Cache:
    """What need not be computed again: the source's keys and values, and those of the tokens written so far."""

    def __init__(self, model, src, hypotheses, max_len):
        memory, mask = model.encode(src)  # (B, S, d), (B, 1, 1, S)
        self.unread = None if mask.all() else hide(mask)  # (B, 1, 1, S), added to the scores
        pairs = [layer.cross.keys_values(memory) for layer in model.decoder]
        dtype = getattr(model, "cache_dtype", memory.dtype)  # see fast.py
        self.source = [tuple(x.to(dtype).transpose(1, 2).contiguous() for x in pair) for pair in pairs]  # (B, H, S, h) each
        self.places = model.positional_encoding("decoder", max_len)
        self.position = 0  # tokens written by each hypothesis
        self.used = 0  # N, entries in use
        B, H, S, h = self.source[0][0].shape
        self.entries = self.source[0][0].new_zeros(len(self.source), 2, B, H, 0, h)  # with room for more than N
        self.visible = torch.zeros(B, hypotheses, 0, dtype=torch.bool, device=src.device)  # is the entry of the hypothesis's past?
        self.unseen = None  # (B, 1, K, N), added to the scores

    def add_token(self):
        """Make room for the entries of one more token of each hypothesis; each will see its own."""
        B, K, room = self.visible.shape
        if self.used + K > room:
            self.forget()
            room = 2 * max(self.used, 16 * K)
            self.entries = F.pad(self.entries, (0, 0, 0, room - self.entries.shape[4]))
            self.visible = F.pad(self.visible, (0, room - self.visible.shape[2]))
        self.visible[:, :, self.used:self.used + K] = torch.eye(K, dtype=torch.bool, device=self.visible.device)
        self.used += K
        self.unseen = None if K == 1 else hide(self.visible[:, None, :, :self.used])

    def attend(self, layer, q, k, v):
        """Attention of each hypothesis's newest token to its past and itself. q, k, v: (B, K, H, h) -> (B, K, H, h)"""
        for past, new in zip(self.entries[layer], (k, v)):
            past[:, :, self.used - q.shape[1]:self.used] = new.transpose(1, 2)
        return attend_few(q, *self.entries[layer, :, :, :, :self.used], self.unseen)

    def attend_source(self, q, k, v):
        """Attention of each hypothesis's newest token to the source. q: (B, K, H, h); k, v: (B, H, S, h) -> (B, K, H, h)"""
        return attend_few(q, k, v, self.unread)

    def reorder(self, parent):
        """Hypothesis k continues what `parent[b, k]` has written. parent: (B, K)"""
        self.visible = self.visible.gather(1, parent[:, :, None].expand_as(self.visible))

    def select(self, inputs):
        """Keep these inputs (int64 tensor), in this order."""
        self.unread = None if self.unread is None else self.unread[inputs]
        self.visible, self.entries = self.visible[inputs], self.entries[:, :, inputs]
        self.source = [tuple(x[inputs] for x in pair) for pair in self.source]

    def forget(self):
        """Drop the entries that no hypothesis of any input sees: beams soon have most of their past in common."""
        seen = self.visible[:, :, :self.used].any(1)  # (B, N)
        self.used = int(seen.sum(1).max()) if self.used else 0
        kept = seen.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :self.used]  # (B, new N)
        self.visible = self.visible.gather(2, kept[:, None].expand(-1, self.visible.shape[1], -1))
        L, two, B, H, _, h = self.entries.shape
        self.entries = self.entries.gather(4, kept[None, None, :, None, :, None].expand(L, two, B, H, self.used, h))


def hide(visible):
    """What to add to the scores: -inf where a key may not be seen."""
    return torch.zeros_like(visible, dtype=torch.float32).masked_fill(~visible, -torch.inf)


def attend_few(q, k, v, hidden):
    """
    model.attend for the few queries of a decode step: on a CPU two plain products are faster than a fused kernel's tiles.

    q: (B, K, H, h); k, v: (B, H, N, h), the keys of a head together, as they are read; hidden: added to the scores, or None. -> (B, K, H, h)
    """
    if q.is_cuda:
        return attend(q, k.transpose(1, 2), v.transpose(1, 2), None if hidden is None else hidden.to(q.dtype))
    score = (q.transpose(1, 2) * q.shape[-1] ** -0.5).to(k.dtype) @ k.transpose(2, 3)  # (B, H, K, N)
    if hidden is not None:
        score = score + hidden
    return (score.softmax(-1).to(v.dtype) @ v).to(q.dtype).transpose(1, 2)


def step(model, token, cache):
    """Write one token of each hypothesis. token: (B, K), BOS first -> log-probabilities (B, K, V) of what may follow it."""
    cache.add_token()
    sees = [partial(cache.attend, layer) for layer in range(len(cache.source))]
    logits = model.decode(token, cache.places[cache.position], sees, cache.source, cache.attend_source)
    cache.position += 1
    return logits.float().log_softmax(-1) if logits.dtype in (torch.bfloat16, torch.float16) else logits.log_softmax(-1)


def greedy(model, src, max_len, first=None):
    """The most probable token at each position. src: (B, S), padded with PAD -> B hypotheses of at most max_len tokens. first: (B,), see sample."""
    return [hypothesis for hypothesis, in sample(model, src, max_len, first=None if first is None else first[:, None])]


@torch.inference_mode()
def sample(model, src, max_len, uniform=None, temperature=1.0, top_k=0, top_p=1.0, first=None, source=None, more=None):
    """
    Hypotheses drawn at random, independently of each other and of what else is in the batch.

    src: (B, S), padded with PAD. uniform: (B, K, max_len), a random number in [0, 1) for every token; None takes the most
    probable token instead. temperature, top_k (0: all), top_p: see `draw`. Returns B lists of K hypotheses; logprob is that under
    the model itself, at temperature 1.
    first: (B, K), the token that each is written after; None: BOS, and K = 1 without uniform. source: (B,), the rows of src to read
    where that is not each once. more: the hypotheses are terms, and those after one that ends without this token are given up.
    """
    if first is None:
        first = torch.full((len(src), 1 if uniform is None else uniform.shape[1]), BOS, device=src.device)
    B, K = first.shape
    cache = Cache(model, src, K, max_len)
    if source is not None:
        cache.select(source)
    rows = torch.arange(B, device=src.device)  # of the inputs, those that are still being written
    token = first
    going = torch.ones_like(token, dtype=torch.bool)
    ids = torch.full((B, K, max_len), PAD, device=src.device)
    length = torch.zeros_like(token)
    logprob = cache.entries.new_zeros((B, K), dtype=torch.double)
    lowest = torch.zeros_like(logprob)
    for position in range(max_len):
        following, before = step(model, token, cache), token  # (b, K, V) with b = len(rows)
        if uniform is None:
            token = following.argmax(-1)
        else:
            token = draw(following, uniform[rows, :, position], temperature, top_k, top_p)
        gained = following.gather(-1, token[..., None])[..., 0].masked_fill(~going, 0).double()
        ids[rows, :, position] = token.masked_fill(~going, PAD)
        length[rows] += going
        logprob[rows] += gained
        lowest[rows] = torch.minimum(lowest[rows], gained)
        if more is not None:
            last = going & (token == EOS) & (before != more)
            going = going & (last.cumsum(1) - last.long() == 0)
        going = going & (token != EOS)
        busy = going.any(1)
        count = int(busy.sum())
        if count == 0:
            break
        if count <= LEAVE * len(rows):
            cache.select(busy.nonzero()[:, 0])
            rows, token, going = rows[busy], token[busy], going[busy]
    lists = zip(ids.tolist(), length.tolist(), logprob.tolist(), lowest.tolist())
    return [[Hypothesis(i[:n], p, low) for i, n, p, low in zip(*row)] for row in lists]


def draw(logprobs, uniform, temperature=1.0, top_k=0, top_p=1.0):
    """
    Tokens (...) drawn from log-probabilities (..., V) by inverting the distribution function at `uniform` (...).

    Only the top_k most probable tokens (0: all) are candidates, of these the fewest that together have the share top_p (nucleus sampling,
    Holtzman et al. 2019, arXiv 1904.09751), at this temperature.
    """
    p, order = truncate(logprobs, temperature, top_k, top_p)
    total = p.cumsum(-1)
    chosen = (total <= uniform[..., None] * total[..., -1:]).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)
    return order.gather(-1, chosen)[..., 0]


def truncate(logprobs, temperature=1.0, top_k=0, top_p=1.0):
    """What `draw` draws from: probabilities (..., V), not normalised, the largest first and 0 for what is no candidate, and whose they are."""
    p, order = (logprobs.double() / temperature).softmax(-1).sort(-1, descending=True)
    if top_k:
        p[..., top_k:] = 0
    total = p.cumsum(-1)
    p[total - p >= top_p * total[..., -1:]] = 0  # those before it are enough
    return p, order


@torch.inference_mode()
def beam_search(model, src, max_len, beams, length_penalty=0.0, first=None, source=None):
    """
    The best hypotheses of each input that a beam of width K = `beams` finds.

    A hypothesis's score is logprob / length**length_penalty, its length counted with EOS; 0 compares probabilities. At each
    position every hypothesis of the beam may end, and the K best continuations of all go on. An input is done when K ended hypotheses are at
    least as good as any that is still going on can become; so a beam that holds all sequences finds the K best there are.

    src: (B, S), padded with PAD. Returns B lists, best first, of the ended hypotheses, at most K; before them, where after max_len
    tokens one that has not ended is better than all that have, that one as it stands.
    first: (B,), the token that each input's hypotheses are written after; None: BOS. source: see sample.
    """
    if first is None:
        first = torch.full((len(src),), BOS, device=src.device)
    B, K = len(first), beams
    cache = Cache(model, src, K, max_len)
    if source is not None:
        cache.select(source)
    rows = torch.arange(B, device=src.device)  # of the inputs, those that are still being written
    token = first[:, None].expand(B, K)
    logprob = torch.full((B, K), -torch.inf, dtype=torch.double, device=src.device)
    logprob[:, 0] = 0  # one hypothesis to begin with: the empty one
    lowest = torch.zeros_like(logprob)
    tokens, parents = (torch.zeros(max_len, B, K, dtype=torch.int64, device=src.device) for _ in range(2))  # what went on at each position
    # the ended hypotheses, best first: score, logprob, lowest, position of EOS, index in the beam there
    ended = torch.full((5, B, K), -torch.inf, dtype=torch.double, device=src.device)
    beam = torch.arange(K, dtype=torch.double, device=src.device)
    for position in range(max_len):
        following = step(model, token, cache).double()  # (b, K, V)
        total = logprob[..., None] + following

        ending, low = total[..., EOS], torch.minimum(lowest, following[..., EOS])
        score = ending / (position + 1) ** length_penalty
        new = torch.stack((score, ending, low, torch.full_like(score, position), beam.expand_as(score)))
        both = torch.cat((ended[:, rows], new), dim=2)  # (5, b, 2K)
        best = both[0].topk(K).indices
        ended[:, rows] = both.gather(2, best.expand(5, -1, -1))

        total[..., EOS] = -torch.inf
        logprob, best = total.flatten(1).topk(K)  # (b, K)
        parent, token = best // total.shape[2], best % total.shape[2]
        lowest = torch.minimum(lowest.gather(1, parent), following.flatten(1).gather(1, best))
        tokens[position, rows], parents[position, rows] = token, parent
        cache.reorder(parent)

        busy = ended[0, rows, -1] < logprob[:, 0] / max_len ** length_penalty  # the score that it can attain
        count = int(busy.sum())
        if count == 0:
            break
        if count <= LEAVE * len(rows):
            cache.select(busy.nonzero()[:, 0])
            rows, token, logprob, lowest = rows[busy], token[busy], logprob[busy], lowest[busy]

    # the best of what is still going on, where it is better than all that has ended
    going = torch.full_like(ended[:, :, :1], -torch.inf)
    if count:
        score = logprob[:, 0] / max_len ** length_penalty
        better = (score > ended[0, rows, 0]).nonzero()[:, 0]
        first = torch.zeros(len(better), dtype=torch.double, device=src.device)
        going[:, rows[better], 0] = torch.stack((score[better], logprob[better, 0], lowest[better, 0], first + max_len, first))
    answers = torch.cat((going, ended), dim=2)  # (5, B, 1 + K)
    position, index = answers[3:].clamp(min=0).long()
    ids = trace(tokens, parents, position, index)
    lists = zip(ids.tolist(), position.tolist(), answers[1].tolist(), answers[2].tolist())
    return [[Hypothesis(i[:n] + [EOS] * (n < max_len), p, low) for i, n, p, low in zip(*row) if p > -torch.inf] for row in lists]


def trace(tokens, parents, position, index):
    """
    What hypothesis `index` of the beam at `position` had written by then, followed back from parent to parent.

    tokens, parents: (max_len, B, K); position, index: (B, K). Returns (B, K, longest) ids, filled up with PAD.
    """
    longest = int(position.max())
    ids = torch.full((*position.shape, longest), PAD, device=position.device)
    for p in reversed(range(longest)):
        written = p < position
        ids[:, :, p] = torch.where(written, tokens[p].gather(1, index), PAD)
        index = torch.where(written, parents[p].gather(1, index), index)
    return ids


# ---------------------------------------------------------------------------------------------------------------------
# The same model, its matrices laid out for the decode step


class PackedLinear(nn.Module):
    """nn.Linear by oneDNN, with the weight in the blocks that its kernel for few rows wants; the same sums in another order."""

    def __init__(self, linear):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 16)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x):
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """
    nn.Linear with int8 weights, one scale for each output, and activations rounded to 8 bits, one scale for all rows of a call.

    About 1% of noise in each product. The scale makes a row's answer depend on its batch, within that noise. The keys and values of
    the cache are bf16 then, half the bytes at a third of that noise.
    """

    def __init__(self, linear):
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(1).double().clamp(min=1e-12) / 127
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "deprecated": the pinned torch has it, and no faster kernel for few rows
            rounded = torch.quantize_per_channel(weight, scale, torch.zeros_like(scale, dtype=torch.int64), 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, None if linear.bias is None else linear.bias.detach())

    def forward(self, x):
        return torch.ops.quantized.linear_dynamic(x, self.packed, False)


def for_decoding(model, dtype="auto"):
    """A copy of the model to decode with. dtype: as in training, or "int8" (CPU only). InputError where the device cannot do it."""
    device = next(model.parameters()).device
    if dtype == "int8" and (device.type != "cpu" or "x86" not in torch.backends.quantized.supported_engines):
        raise InputError(f"dtype: int8 needs an x86 CPU, the device is {device}")
    if dtype == "fp16" and device.type == "cpu":
        raise InputError("dtype: fp16 needs a GPU; on a CPU there are fp32, bf16 and int8")
    activations = torch.float32 if dtype == "int8" else find_dtype(dtype, device)
    model = copy.deepcopy(model).to(activations).eval()
    if device.type == "cpu" and (dtype == "int8" or torch.backends.mkldnn.is_available()):
        kind = Int8Linear if dtype == "int8" else PackedLinear
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, kind(child))
        if dtype == "int8":
            model.cache_dtype = torch.bfloat16
    return model
