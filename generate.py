"""
Autoregressive decoding with a KV cache: greedy, sampling and beam search.

All three run the same loop: `decode_step` feeds the newest token of every hypothesis to the decoder and returns the
log-probabilities of the next one. The KV cache keeps what earlier steps computed. The encoder runs once per input, and
the K hypotheses of an input share its keys and values. The cache has one slot for each token of each hypothesis, in the
order in which the tokens came. A mask says which slots a hypothesis sees. When beam search drops one hypothesis and
continues another twice, only rows of this mask are copied; keys and values stay where they are.

A step writes into tensors that exist already, and counts positions on the device. So it asks the device for no value,
and on a GPU it is captured once as a CUDA graph (runtime/graphs.py) and replayed for each token. There the shapes are
rounded up, so that few graphs serve all batches, and the host looks every 16 tokens whether rows have ended. On a CPU
the same step runs as it is, and the host looks after each token.

Shapes: B inputs, K hypotheses of each, S source tokens, V target vocabulary, H heads of width h, L decoder layers, N
slots, T positions.
"""
import copy
import math
import sys
import warnings
import weakref
from functools import partial
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F

from runtime import graphs
from runtime.files import InputError
from runtime.hardware import find_dtype, has_bf16, memory_of
from tokenizer import BOS, EOS, PAD

COMPACT_AT = 0.75  # compact the batch when at most 75% of its rows are unfinished; compacting copies the KV cache
SAMPLES_TOGETHER = 8  # samples of an input in a row of the batch: each computes attention to the slots of all of them
LOOK_EVERY = 16  # with graphs: tokens between two looks at what has ended, as a look waits for the device
GRAPH_MEMORY = 0.125  # share of the GPU's memory for the tensors that graphs work on
_captured = weakref.WeakKeyDictionary()  # {model: {key: (replay, tensors)}}, see `ready`


class Hypothesis(NamedTuple):
    ids: list  # without BOS; the last is EOS, unless max_len tokens were not enough
    logprob: float  # natural logarithm of the probability of all ids
    lowest: float  # log-probability of the least probable token

    @property
    def finished(self):
        return self.ids[-1:] == [EOS]


# ---------------------------------------------------------------------------------------------------------------------
# The KV cache

class KVCache:
    """
    Keys and values of the source, computed once, and of all target tokens so far; B inputs, K hypotheses each.

    `rows` has the tensors whose first dimension is the inputs. A search adds its own, so that they are selected,
    captured and replayed together with the cache. `shared` has those that all inputs share.
    """

    def __init__(self, model, src, hypotheses, max_len):
        self.K = hypotheses
        self.static = uses_graphs(src.device)
        if self.static:
            longest = model.config.src_max_len if model.config.positions == "learned" else math.inf
            src = F.pad(src, (0, max(0, min(-src.shape[1] % 32, longest - src.shape[1]))), value=PAD)
        memory, tokens = model.encode(src)  # (B, S, d), (B, 1, 1, S)
        pairs = [layer.cross.keys_values(memory) for layer in model.decoder]  # of (B, S, H, h)
        # under autocast `memory` is fp32, its keys and values are not; the int8 copy names a dtype of its own
        self.dtype = getattr(model, "cache_dtype", pairs[0][0].dtype)
        # The fused kernel reads keys (B, H, N, h). The plain product is faster with keys (B, H, h, N), where the
        # numbers of a key lie far apart: writing a single new one there costs more than the product gains.
        self.fused = src.is_cuda or hypotheses == 1 and self.dtype == torch.bfloat16
        self.columns = not self.fused and hypotheses > 1
        B, S, H, h = pairs[0][0].shape
        self.rows = {}
        for layer, (k, v) in enumerate(pairs):
            self.rows["source keys", layer] = self.laid_out(k, not self.fused).contiguous()
            self.rows["source values", layer] = v.to(self.dtype).transpose(1, 2).contiguous()
            self.rows["keys", layer] = self.laid_out(k.new_zeros(B, 0, H, h), self.columns)
            self.rows["values", layer] = v.new_zeros(B, H, 0, h, dtype=self.dtype)
        if self.static or not tokens.all():
            self.rows["source mask"] = additive_mask(tokens, self.dtype)
        self.rows["mask"] = memory.new_zeros(B, 1, hypotheses, 0, dtype=self.dtype)  # (B, 1, K, N), 0 or -inf
        encodings = model.positional_encoding("decoder", max_len)  # (T, ...)
        if self.static:
            encodings = F.pad(encodings, (0, 0) * (encodings.dim() - 1) + (0, -max_len % 64))
        own = additive_mask(torch.eye(hypotheses, dtype=torch.bool, device=src.device), self.dtype)
        self.shared = {"encodings": encodings, "own": own[None, None],  # a new token is seen by its own hypothesis
                       "position": torch.empty(1, dtype=torch.int64, device=src.device),  # of the newest tokens
                       "slots": torch.empty(hypotheses, dtype=torch.int64, device=src.device)}  # theirs
        self.restart()

    def restart(self):
        """No token yet: the first ones will be at position 0."""
        self.used = 0  # slots in use; the host counts them as the device does
        self.shared["position"].fill_(-1)
        torch.arange(-self.K, 0, out=self.shared["slots"])

    def laid_out(self, k, columns):
        """Keys (B, N, H, h) as they are kept: (B, H, h, N) as columns, else (B, H, N, h)."""
        return k.to(self.dtype).permute((0, 2, 3, 1) if columns else (0, 2, 1, 3))

    @property
    def capacity(self):
        return self.rows["mask"].shape[3]

    @property
    def room(self):
        """The slots that attention reads. A multiple of 16, as kernels are prepared anew for each shape."""
        return self.capacity if self.static else min(-(-self.used // (16 * self.K)) * 16 * self.K, self.capacity)

    def reserve(self):
        """On the host: room for one more token of each hypothesis. Returns whether tensors have other shapes now."""
        full = self.used + self.K > self.capacity
        if full:
            if self.K > 1 and self.used:
                self.drop_invisible()
            if self.used > 0.75 * self.capacity or not self.capacity:
                self.grow(2 * self.capacity or 32 * self.K)
            torch.arange(self.used - self.K, self.used, out=self.shared["slots"])
        self.used += self.K
        return full

    def advance(self):
        """On the device: the next position, and slots for its tokens, each seen by its own hypothesis."""
        self.shared["position"] += 1
        self.shared["slots"] += self.K
        self.fill(self.rows["mask"], 3, self.shared["own"])

    def fill(self, x, along, new):
        """Write into the newest slots of x."""
        if self.static:  # the graph knows them on the device alone
            x.index_copy_(along, self.shared["slots"], new.expand(len(x), *new.shape[1:]))
        else:
            x.narrow(along, self.used - self.K, self.K).copy_(new)

    def attend_self(self, layer, q, k, v):
        """Store the newest tokens' keys and values, then attend to all so far. q, k, v: (B, K, H, h) -> (B, K, H, h)"""
        keys, values, along = self.rows["keys", layer], self.rows["values", layer], 3 if self.columns else 2
        self.fill(keys, along, self.laid_out(k, self.columns))
        self.fill(values, 2, v.to(self.dtype).transpose(1, 2))
        room = self.room
        keys = keys.narrow(along, 0, room)
        if not self.fused and not self.columns:
            keys = keys.transpose(2, 3)
        return self.attend(q, keys, values[:, :, :room], self.rows["mask"][..., :room])

    def attend_source(self, q, keys, values):
        """Cross-attention of the newest tokens. q: (B, K, H, h) -> (B, K, H, h)"""
        return self.attend(q, keys, values, self.rows.get("source mask"))

    def attend(self, q, keys, values, mask):
        """
        Attention of the few queries of a step. On a CPU two plain products are faster than a fused kernel's tiles, but
        for a single query in bf16.

        q: (B, K, H, h); keys: (B, H, N, h) for the fused kernel, else (B, H, h, N); values: (B, H, N, h); mask:
        additive, or None. Returns (B, K, H, h).
        """
        query = q.transpose(1, 2)  # (B, H, K, h)
        if self.fused:
            out = F.scaled_dot_product_attention(query.to(self.dtype), keys, values, attn_mask=mask)
        else:
            score = (query * q.shape[-1] ** -0.5).to(self.dtype) @ keys  # (B, H, K, N)
            if mask is not None:
                score = score + mask
            out = score.softmax(-1, dtype=sum_dtype(score.dtype)).to(self.dtype) @ values
        return out.to(q.dtype).transpose(1, 2)

    def reorder(self, parent):
        """From now on hypothesis k continues hypothesis parent[b, k]. parent: (B, K)"""
        mask = self.rows["mask"]
        mask.copy_(mask.gather(2, parent[:, None, :, None].expand_as(mask)))

    def select(self, inputs):
        """Keep these inputs (int64 tensor), in this order."""
        self.rows = {name: x.index_select(0, inputs) for name, x in self.rows.items()}

    def each_slot(self, function):
        """Replace the tensors that have slots by function(tensor, dimension of the slots, what it is)."""
        dimension = {"keys": 3 if self.columns else 2, "values": 2, "mask": 3}
        for name, x in self.rows.items():
            kind = name if isinstance(name, str) else name[0]
            if kind in dimension:
                self.rows[name] = function(x, dimension[kind], kind)

    def grow(self, capacity):
        """More slots, which no hypothesis sees yet."""
        def padded(x, along, kind):
            padding = (0, 0) * (3 - along) + (0, capacity - x.shape[along])
            return F.pad(x, padding, value=-torch.inf if kind == "mask" else 0)
        self.each_slot(padded)

    def drop_invisible(self):
        """Drop the slots that no hypothesis sees. Hypotheses of a beam share most of their past, so few are left."""
        seen = (self.rows["mask"] == 0).any(2)[:, 0]  # (B, N)
        self.used = int(seen.sum(1).max())
        order = seen.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices  # (B, N), the seen ones first

        def gathered(x, along, kind):
            index = order[:, None, None, :] if along == 3 else order[:, None, :, None]
            return x.gather(along, index.expand_as(x))
        self.each_slot(gathered)


def uses_graphs(device):
    return device.type == "cuda"


def additive_mask(visible, dtype):
    """Boolean mask -> the same as numbers to add to the attention scores: 0 where True, -inf where False."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, -torch.inf)


def sum_dtype(dtype):
    return torch.promote_types(dtype, torch.float32)


def decode_step(model, token, cache):
    """The newest token of each hypothesis, (B, K), BOS first -> log-probabilities (B, K, V) of the next one."""
    layers = range(len(model.decoder))
    encoding = cache.shared["encodings"].index_select(0, cache.shared["position"])  # (1, ...)
    source = [(cache.rows["source keys", layer], cache.rows["source values", layer]) for layer in layers]
    attends = [partial(cache.attend_self, layer) for layer in layers]
    logits = model.decode(token, encoding, attends, source, cache.attend_source)
    return logits.log_softmax(-1, dtype=sum_dtype(logits.dtype))


# ---------------------------------------------------------------------------------------------------------------------
# The loop of every search

def search(model, cache, step, how, busy, names, max_len):
    """
    Call step(model, cache, *how) for each position until no input is busy, or max_len times.

    busy(rows): (B,) bool, the inputs that are not done. Returns the `names` of cache.rows: {name: (B, ...)} of all
    inputs. Those that are done leave the batch when few others are left.
    """
    B, device = len(cache.rows["token"]), cache.rows["token"].device
    results = {name: cache.rows[name].new_empty(B + 1, *cache.rows[name].shape[1:]) for name in names}
    active = torch.arange(B, device=device)  # (b,), the input of each row; B: a row that only fills the batch up
    if cache.static and rounded(B) > B:
        active = F.pad(active, (0, rounded(B) - B), value=B)
        cache.select(active.clamp(max=B - 1))
    look_every, take_step = LOOK_EVERY if cache.static else 1, None
    for position in range(max_len):
        if cache.reserve() or take_step is None:
            take_step = ready(model, cache, step, how)
        take_step()
        if (position + 1) % look_every == 0 or position == max_len - 1:
            open_rows = busy(cache.rows) & (active < B)  # (b,)
            count = int(open_rows.sum())
            kept = rounded(count) if cache.static else count
            is_last = count == 0 or position == max_len - 1
            if is_last or kept <= COMPACT_AT * len(active):
                for name in names:
                    results[name][active] = cache.rows[name]
                if is_last:
                    break
                chosen = open_rows.to(torch.uint8).sort(descending=True, stable=True).indices[:kept]
                cache.select(chosen)
                active, take_step = active[chosen].where(open_rows[chosen], B), None
    return {name: x[:B] for name, x in results.items()}


def rounded(rows):
    """Rows of a batch on a GPU: few different numbers, for few graphs."""
    return 1 << max(3, (rows - 1).bit_length()) if rows <= 256 else -(-rows // 256) * 256


def ready(model, cache, step, how):
    """
    step(model, cache, *how) as a function without arguments.

    With graphs the cache's tensors are copied into those that the graph for their shapes was captured with, and the
    cache works on these from now on. Graphs are kept with the model, as long as its weights stay where they are.
    """
    take_step = partial(step, model, cache, *how)
    if not cache.static:
        return take_step
    tensors = [*cache.rows.values(), *cache.shared.values()]
    most = GRAPH_MEMORY * memory_of(tensors[0].device)
    if graphs.failed or sum(x.nbytes for x in tensors) > most:
        return take_step
    known = _captured.setdefault(model, {})
    key = (step, how, tuple(cache.rows), tuple((x.shape, x.dtype) for x in tensors), graphs.place_of(model))
    if key not in known:
        kept = sum(x.nbytes for _, some in known.values() for x in some)
        if kept + sum(x.nbytes for x in tensors) > most:
            known.clear()
        own = [x.clone() for x in tensors]
        used = cache.used
        use_tensors(cache, own)
        cache.restart()  # the steps that warm up write at the beginning
        try:
            known[key] = graphs.capture(take_step), own
        except RuntimeError as error:
            graphs.give_up(error)
        cache.used = used
        if graphs.failed:
            use_tensors(cache, tensors)
            return take_step
    replay, own = known[key]
    for mine, new in zip(own, tensors):
        mine.copy_(new)
    use_tensors(cache, own)
    return replay


def use_tensors(cache, tensors):
    """Replace all tensors of the cache by these, in the same order."""
    tensors = iter(tensors)
    cache.rows, cache.shared = ({name: next(tensors) for name in some} for some in (cache.rows, cache.shared))


# ---------------------------------------------------------------------------------------------------------------------
# Greedy decoding and sampling

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
        if first.shape[1] > SAMPLES_TOGETHER:
            return sample_in_groups(model, src, max_len, uniform, temperature, top_k, top_p)
    K = first.shape[1]
    cache = KVCache(model, src, K, max_len)
    if source is not None:
        cache.select(source)
    T = len(cache.shared["encodings"])
    zeros = torch.zeros_like(first, dtype=torch.double)
    cache.rows |= dict(token=first.clone(), unfinished=torch.ones_like(first, dtype=torch.bool),
                       ids=first.new_full((*first.shape, T), PAD), length=torch.zeros_like(first), logprob=zeros,
                       lowest=zeros.clone())
    if uniform is not None:
        cache.rows["uniform"] = F.pad(uniform, (0, T - max_len))  # (B, K, T)
    found = search(model, cache, sample_step, (temperature, top_k, top_p, more),
                   lambda rows: rows["unfinished"].any(1), ("ids", "length", "logprob", "lowest"), max_len)
    lists = zip(*(x.tolist() for x in found.values()))
    return [[Hypothesis(i[:n], p, low) for i, n, p, low in zip(*row)] for row in lists]


def sample_in_groups(model, src, max_len, uniform, temperature, top_k, top_p):
    """`sample` for many samples of a row: several inputs of a few samples each, which takes less attention."""
    (B, K, _), device = uniform.shape, src.device
    groups = math.ceil(K / SAMPLES_TOGETHER)
    size = math.ceil(K / groups)
    uniform = F.pad(uniform, (0, 0, 0, groups * size - K)).reshape(B * groups, size, max_len)
    first = torch.full((B * groups, size), BOS, device=device)
    source = torch.arange(B, device=device).repeat_interleave(groups)
    lists = sample(model, src, max_len, uniform, temperature, top_k, top_p, first, source)
    return [sum(lists[groups * row:groups * (row + 1)], [])[:K] for row in range(B)]


def sample_step(model, cache, temperature, top_k, top_p, more):
    """One more token of each hypothesis: drawn, or the most probable one where there are no random numbers."""
    cache.advance()
    rows, position = cache.rows, cache.shared["position"]
    logprobs, unfinished = decode_step(model, rows["token"], cache), rows["unfinished"]  # (B, K, V), (B, K)
    if "uniform" in rows:
        token = draw(logprobs, rows["uniform"].index_select(2, position)[..., 0], temperature, top_k, top_p)
        gained = logprobs.gather(-1, token[..., None])[..., 0]
    else:
        gained, token = logprobs.max(-1)
    gained = gained.masked_fill(~unfinished, 0).double()
    rows["ids"].index_copy_(2, position, token.masked_fill(~unfinished, PAD)[..., None])
    rows["length"] += unfinished
    rows["logprob"] += gained
    rows["lowest"].copy_(torch.minimum(rows["lowest"], gained))
    goes_on = unfinished & (token != EOS)
    if more is not None:
        last = unfinished & (token == EOS) & (rows["token"] != more)
        goes_on &= last.cumsum(1) - last.long() == 0  # no last term before it
    unfinished.copy_(goes_on)
    rows["token"].copy_(token)


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
        p[..., top_k:].zero_()
    total = p.cumsum(-1)
    p = p.masked_fill(total - p >= top_p * total[..., -1:], 0)  # the tokens before these are enough
    return p, order


# ---------------------------------------------------------------------------------------------------------------------
# Beam search

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
    T = len(cache.shared["encodings"])
    logprob = torch.full((B, K), -torch.inf, dtype=torch.double, device=src.device)
    logprob[:, 0] = 0  # the beam starts with one hypothesis, the empty one
    # tokens, parents: the open hypotheses at each position: their newest tokens, and which hypotheses of the last
    # position they continue. ended: the ended hypotheses, best first: score, logprob, lowest, position of EOS, index in
    # the beam there.
    cache.rows |= dict(token=first[:, None].repeat(1, K), logprob=logprob, lowest=torch.zeros_like(logprob),
                       tokens=first.new_zeros(B, K, T), parents=first.new_zeros(B, K, T),
                       ended=logprob.new_full((B, 5, K), -torch.inf))

    def attainable(rows):
        """The best score that an open hypothesis can still get, (B,)."""
        return rows["logprob"][:, 0] / max_len ** length_penalty

    found = search(model, cache, beam_step, (length_penalty,),
                   lambda rows: rows["ended"][:, 0, -1] < attainable(rows),
                   ("tokens", "parents", "logprob", "lowest", "ended"), max_len)

    # the best open hypothesis, where it is better than all that have ended
    score, ended = attainable(found), found["ended"]
    open_one = torch.stack((score, found["logprob"][:, 0], found["lowest"][:, 0], torch.full_like(score, max_len),
                            torch.zeros_like(score)), dim=1)[..., None]  # (B, 5, 1)
    open_one = open_one.masked_fill((score <= ended[:, 0, 0])[:, None, None], -torch.inf)
    answers = torch.cat((open_one, ended), dim=2)  # (B, 5, 1 + K)
    position, index = answers[:, 3:].clamp(min=0).long().unbind(1)
    ids = trace_back(found["tokens"], found["parents"], position, index)
    lists = zip(ids.tolist(), position.tolist(), answers[:, 1].tolist(), answers[:, 2].tolist())
    return [[Hypothesis(with_end(i[:n], max_len), p, low) for i, n, p, low in zip(*row) if p != -torch.inf]
            for row in lists]


def beam_step(model, cache, length_penalty):
    """The hypotheses of each beam that end here, and the best continuations of all of them."""
    cache.advance()
    rows, position = cache.rows, cache.shared["position"]
    logprobs = decode_step(model, rows["token"], cache).double()  # (B, K, V)
    total = rows["logprob"][..., None] + logprobs
    K, V = total.shape[1:]

    ending, low = total[..., EOS], torch.minimum(rows["lowest"], logprobs[..., EOS])
    score = ending / (position + 1.0).double() ** length_penalty
    beam = torch.arange(K, dtype=torch.double, device=total.device).expand_as(score)
    new = torch.stack((score, ending, low, position.double().expand_as(score), beam), dim=1)  # (B, 5, K)
    both = torch.cat((rows["ended"], new), dim=2)  # (B, 5, 2 K)
    best = both[:, 0].topk(K).indices
    rows["ended"].copy_(both.gather(2, best[:, None].expand(-1, 5, -1)))

    total[..., EOS].fill_(-torch.inf)
    logprob, best = total.flatten(1).topk(K)  # (B, K)
    parent, token = best // V, best % V
    lowest = torch.minimum(rows["lowest"].gather(1, parent), logprobs.flatten(1).gather(1, best))
    rows["tokens"].index_copy_(2, position, token[..., None])
    rows["parents"].index_copy_(2, position, parent[..., None])
    for name, x in (("token", token), ("logprob", logprob), ("lowest", lowest)):
        rows[name].copy_(x)
    cache.reorder(parent)


def with_end(ids, max_len):
    """The ids of a hypothesis of a beam and EOS; without EOS if it has max_len tokens, as it has not ended then."""
    return ids if len(ids) == max_len else ids + [EOS]


def trace_back(tokens, parents, position, index):
    """
    The ids of hypothesis `index` of the beam at `position`, followed back from parent to parent.

    tokens, parents: (B, K, T); position, index: (B, n). Returns (B, n, longest) ids, padded with PAD.
    """
    longest = int(position.max())
    ids = torch.full((*position.shape, longest), PAD, device=position.device)
    for p in reversed(range(longest)):
        written = p < position
        ids[:, :, p] = torch.where(written, tokens[:, :, p].gather(1, index), PAD)
        index = torch.where(written, parents[:, :, p].gather(1, index), index)
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
        bias = None if linear.bias is None else linear.bias.detach()
        engine = torch.backends.quantized.engine
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "deprecated": the pinned torch has it, and no faster kernel for few rows
            zero = torch.zeros_like(scale, dtype=torch.int64)
            integers = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
            if "onednn" in torch.backends.quantized.supported_engines:
                torch.backends.quantized.engine = "onednn"  # its kernels for many rows are twice as fast as FBGEMM's
            self.packed = torch.ops.quantized.linear_prepack(integers, bias)
            torch.backends.quantized.engine = engine

    def forward(self, x):
        return torch.ops.quantized.linear_dynamic(x, self.packed, False)


def for_decoding(model, dtype="auto"):
    """
    A copy of the model to decode with. dtype: as in training, or "int8" (CPU only). InputError where the device cannot
    do it.

    bf16 and fp16 are for the matrix products inside the layers, and so for the KV cache, as under autocast in training.
    The residual stream, norms, positional encodings and the head stay in fp32: rounded logits would blur the order of a
    beam. int8 is for all matrix products; the KV cache is bf16 then where the CPU has units for it, else fp32.
    """
    device = next(model.parameters()).device
    if dtype == "int8" and (device.type != "cpu" or "x86" not in torch.backends.quantized.supported_engines):
        raise InputError(f"dtype: int8 needs an x86 CPU, the device is {device}")
    if dtype == "fp16" and device.type == "cpu":
        raise InputError("dtype: fp16 needs a GPU; on a CPU there are fp32, bf16 and int8")
    model = copy.deepcopy(model).float().eval()
    if dtype == "int8":
        replace_linear(model, Int8Linear)
        model.cache_dtype = torch.bfloat16 if has_bf16(device) else torch.float32
        return model
    dtype = find_dtype(dtype, device)
    if dtype == torch.bfloat16 and not has_bf16(device):
        print(f"dtype: this {device} has no units for bf16; fp32 is faster", file=sys.stderr)
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
