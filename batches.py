"""
A data set as training reads it: every split packed into memory-mapped arrays, and batches that are fair samples of it.

A batch packs rows of all lengths end to end: padding costs nothing there, and a batch of rows of one length would be
a batch of one kind of process. A row of the file is one sample, amplitude and square; with a termwise vocabulary it
is as many samples as its square has terms.
"""
import array
import hashlib
import itertools
import json
import pathlib
import sys
import time
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from attention import Packing, pack_rows
from dataset.reader import read_rows, refuse
from physics.processes import process_kind
from runtime.files import InputError, atomic_open
from tokenizer import EOS, PAD

HERE = pathlib.Path(__file__).resolve().parent
# the files that make what is cached
CODE = ("batches.py", "tokenizer.py", "notation.py", "termwise.py", "dataset/reader.py", "physics/*.py")
TILE = 16  # the room of a batch is a multiple of it: products of matrices of such sizes are fast
LOOK = 8  # samples that did not fit into a batch until it counts as full
KEPT = 30 * 86400  # seconds that a cache is kept, when another one is made
FEW = 8  # validation rows of a kind, where it has so many


class Packed(NamedTuple):
    """
    A split. Row r is src[src_start[r]:src_start[r + 1]], sample n is row[n] and tgt[tgt_start[n]:tgt_start[n + 1]],
    each ending in EOS.
    """
    src: np.ndarray  # uint16, all rows end to end
    src_start: np.ndarray  # int64, rows + 1
    tgt: np.ndarray  # uint16, all samples end to end
    tgt_start: np.ndarray  # int64, samples + 1
    row: np.ndarray  # int64, samples: the rows in order, each as often as it has samples
    first: np.ndarray  # uint16, samples: the token that the target is written after, BOS or <term k>
    line: np.ndarray  # int64, rows: line of the row in its file
    kind: np.ndarray  # int64, rows: number of the row's kind of process
    kinds: np.ndarray  # text, kinds: such as "f f~ -> A A"


class Batch(NamedTuple):
    """Samples packed end to end: N source tokens and M target tokens."""
    src: torch.Tensor  # (N,) int64, each sample's source, EOS at its end
    sources: Packing
    tgt: torch.Tensor  # (M,) int64, the token before each target token: BOS or <term k> first
    truth: torch.Tensor  # (M,) int64, the target tokens, EOS at each sample's end
    targets: Packing


# ---------------------------------------------------------------------------------------------------------------------
# A split, packed once and cached beside its file

def load_split(data_dir, split, tokenizer, src_max_len, tgt_max_len):
    """
    Packed form of data_dir/SPLIT.csv, from the cache beside it where the same data, vocabulary and code made that.

    Raises InputError as FILE:LINE for a row that is unreadable, has an unknown token or is longer than src_max_len
    (with EOS) or tgt_max_len (with BOS and EOS).
    """
    path = pathlib.Path(data_dir) / f"{split}.csv"
    key = _cache_key(path, tokenizer.vocabulary, src_max_len, tgt_max_len)
    stem = path.parent / ".cache" / f"{split}-{key}"
    packed = _read_cache(stem, tokenizer.vocabulary)
    if packed is None:
        packed = _pack(path, tokenizer, src_max_len, tgt_max_len)
        try:
            for name, values in packed._asdict().items():
                with atomic_open(f"{stem}.{name}.npy", "wb") as file:
                    np.save(file, values, allow_pickle=False)
            for old in stem.parent.glob(f"*{split}-*.npy*"):  # of other settings or code, and of killed runs
                if old.stat().st_mtime < time.time() - KEPT:
                    old.unlink(missing_ok=True)
        except OSError as error:  # every run packs a read-only data set anew
            print(f"{path}: not cached ({error})", file=sys.stderr)
    return packed


def _cache_key(path, vocabulary, *limits):
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror}); python prepare.py makes the data") from None
    digest.update(json.dumps([vocabulary, limits]).encode())
    for code in sorted(code for pattern in CODE for code in HERE.glob(pattern)):
        digest.update(code.read_bytes())
    return digest.hexdigest()[:24]


def _read_cache(stem, vocabulary):
    """The cached arrays, memory-mapped; None where they are missing, cut short or not what they should be."""
    try:
        packed = Packed(*(np.load(f"{stem}.{name}.npy", mmap_mode="r", allow_pickle=False) for name in Packed._fields))
    except (OSError, ValueError, EOFError):
        return None
    sides = (packed.src, packed.src_start, vocabulary["src"]), (packed.tgt, packed.tgt_start, vocabulary["tgt"])
    for flat, start, tokens in sides:
        sound = (flat.dtype == np.uint16 and start.dtype == np.int64 and flat.ndim == start.ndim == 1
                 and len(start) > 1 and start[0] == 0 and start[-1] == len(flat)
                 and (np.diff(start) > 0).all() and (flat[start[1:] - 1] == EOS).all() and flat.max() < len(tokens))
        if not sound:
            return None
    row, first, rows, samples = packed.row, packed.first, len(packed.src_start) - 1, len(packed.tgt_start) - 1
    line, kind = packed.line, packed.kind
    sound = (row.dtype == np.int64 and first.dtype == np.uint16 and row.shape == first.shape == (samples,)
             and row[0] == 0 and row[-1] == rows - 1 and np.isin(np.diff(row), (0, 1)).all()
             and first.max() < len(vocabulary["tgt"])
             and line.dtype == kind.dtype == np.int64 and line.shape == kind.shape == (rows,)
             and packed.kinds.dtype.kind == "U" and 0 <= kind.min() and kind.max() < len(packed.kinds))
    return packed if sound else None


def _pack(path, tokenizer, src_max_len, tgt_max_len):
    src, tgt, src_start, tgt_end = array.array("H"), array.array("H"), array.array("q", [0]), array.array("q")
    lines = array.array("q")
    for line, row in read_rows(path, on_bad=refuse):
        try:
            column = "amp"
            src_ids = tokenizer.encode_amp(row["amp"])[0]
            column = "sqamp"
            tgt_ids = tokenizer.encode_sqamp(row["sqamp"], tokenizer.fermions(row["amp"]))
        except InputError as error:
            raise InputError(f"{path}:{line}: {column}: {error}") from None
        if len(src_ids) > src_max_len:
            raise InputError(f"{path}:{line}: amp: {len(src_ids)} tokens, src_max_len is {src_max_len}")
        if len(tgt_ids) + 1 > tgt_max_len:  # in terms each of them may still be short enough
            ends = [k for k, id in enumerate(tgt_ids, 1) if id == EOS]
            longest = max(end - start for start, end in zip([0, *ends], ends)) + 1
            if longest > tgt_max_len:
                where = " in a term" if len(ends) > 1 else ""
                raise InputError(f"{path}:{line}: sqamp: {longest} tokens{where}, tgt_max_len is {tgt_max_len}")
        lines.append(line)
        src.fromlist(src_ids)
        tgt.fromlist(tgt_ids)
        src_start.append(len(src))
        tgt_end.append(len(tgt))
    if len(src_start) == 1:
        raise InputError(f"{path}:2: no rows, at least one is expected")
    src, tgt, src_start = np.array(src, np.uint16), np.array(tgt, np.uint16), np.array(src_start, np.int64)
    tgt_start = np.concatenate([[0], np.flatnonzero(tgt == EOS) + 1])  # samples + 1
    row_of = np.searchsorted(tgt_end, tgt_start[1:])
    term = np.arange(len(row_of)) - np.searchsorted(row_of, row_of)  # the sample's number in its row
    first = np.array(tokenizer.first, np.uint16)[term]
    return Packed(src, src_start, tgt, tgt_start, row_of, first, np.array(lines, np.int64),
                  *_kinds(src, src_start, tokenizer.vocabulary["src"]))


def _kinds(src, src_start, tokens):
    """
    Number of each row's kind of process, int64, and the kinds, text.

    A leg is two tokens, `e_{` and `}(p_1)_u`, or one, `h(p_3)`. Rows of the same legs are of the same kind.
    """
    ends = np.flatnonzero(np.array(["(p_" in token for token in tokens])[src])  # where legs end, legs
    pairs, leg = np.unique(src[ends - 1].astype(np.int64) * len(tokens) + src[ends], return_inverse=True)
    texts = [tokens[end] if tokens[end][0] != "}" else tokens[start] + tokens[end]
             for start, end in zip(*np.divmod(pairs, len(tokens)))]
    leg, rows = leg.tolist(), np.searchsorted(ends, src_start).tolist()
    kind_of, kinds, kind = {}, {}, array.array("q")  # legs -> number of the kind; kind -> number; of the rows
    for first, after in itertools.pairwise(rows):
        legs = frozenset(leg[first:after])
        if legs not in kind_of:
            kind_of[legs] = kinds.setdefault(process_kind("*".join(texts[k] for k in legs)), len(kinds))
        kind.append(kind_of[legs])
    return np.array(kind, np.int64), np.array(list(kinds))


# ---------------------------------------------------------------------------------------------------------------------
# Which samples make a batch

class Room(NamedTuple):
    """Most tokens and rows of a batch: with padding every batch has just these, one shape in the whole run."""
    src: int  # source tokens, N
    tgt: int  # target tokens, M
    tokens: int  # of both sides; one row alone may have more
    rows: int
    longest_src: int  # tokens of the longest row
    longest_tgt: int


def room_for(packed, batch_tokens):
    """Room of batches of batch_tokens tokens. Source and target share them as the data do; the longest sample fits."""
    every = lengths(packed, np.arange(len(packed.row)))  # (2, samples)
    (all_src, all_tgt), (longest_src, longest_tgt), shortest = every.sum(1), every.max(1), every.min(1)
    src = round(batch_tokens * all_src / (all_src + all_tgt))
    src, tgt = (-(-int(max(side, longest)) // TILE) * TILE
                for side, longest in ((src, longest_src), (batch_tokens - src, longest_tgt)))
    rows = int(min(src // shortest[0], tgt // shortest[1]))
    padding = max(-(-src // longest_src), -(-tgt // longest_tgt))  # rows of a batch of padding alone
    return Room(src, tgt, batch_tokens, rows + int(padding), int(longest_src), int(longest_tgt))


def mixed_batches(packed, batch_tokens, seed):
    """
    One epoch: the numbers of the samples of each batch, a list of int arrays, about batch_tokens tokens each.

    Samples come in random order, so that every batch is a fair sample of the data: all lengths, all kinds of process.
    """
    return cut(packed, np.random.default_rng(seed).permutation(len(packed.row)), room_for(packed, batch_tokens))


def cut(packed, samples, room):
    """
    The samples in their order, cut into batches that fit into the room on both sides.

    A sample that does not fit any more opens the next batch; up to LOOK samples after it may still fit.
    """
    tokens = lengths(packed, samples).T.tolist()
    batches, waiting, next_one = [], [], 0  # numbers into `samples`
    while waiting or next_one < len(samples):
        batch, src, tgt, both, left = [], room.src, room.tgt, room.tokens, []
        while len(left) < LOOK and (waiting or next_one < len(samples)):
            if waiting:
                number = waiting.pop(0)
            else:
                number, next_one = next_one, next_one + 1
            s, t = tokens[number]
            if s <= src and t <= tgt and (s + t <= both or not batch):
                batch.append(number)
                src, tgt, both = src - s, tgt - t, both - s - t
            else:
                left.append(number)
        waiting = left + waiting
        batches.append(samples[batch])
    return batches


def longest_batch(packed, batch_tokens):
    """A batch of the longest samples that fits into the room of the others."""
    room = room_for(packed, batch_tokens)
    order = np.argsort(-lengths(packed, np.arange(len(packed.row))).sum(0), kind="stable")
    return cut(packed, order[:room.rows], room)[0]


def deal_anew(packed, micro_batches, batch_tokens, seed):
    """The samples of these micro-batches in another mixture, cut as above."""
    samples = np.random.default_rng(seed).permutation(np.concatenate(micro_batches))
    return cut(packed, samples, room_for(packed, batch_tokens))


def padded_batches(packed, batch_tokens, samples):
    """
    These samples by length, in batches of at most batch_tokens tokens with their padding: for decoding, which pads.
    """
    order = np.argsort(lengths(packed, samples).sum(0), kind="stable")
    return cut_padded(packed, samples[order], batch_tokens)


def cut_padded(packed, samples, batch_tokens):
    """The samples in their order, cut into batches of at most batch_tokens tokens with their padding."""
    batches, first, longest_src, longest_tgt = [], 0, 0, 0
    for end, (s, t) in enumerate(lengths(packed, samples).T.tolist()):
        longest_src, longest_tgt = max(longest_src, s), max(longest_tgt, t)
        if (longest_src + longest_tgt) * (end + 1 - first) > batch_tokens and end > first:
            batches.append(samples[first:end])
            first, longest_src, longest_tgt = end, s, t
    return [*batches, samples[first:]]


def choose_rows(packed, count, seed):
    """
    Rows to validate with: (count random rows, more rows of rare kinds), int arrays, the same ones each time. count 0:
    all rows.

    The first are a fair sample. The others fill up each kind that has fewer than FEW rows among the first, at most
    `count` in all.
    """
    order = np.random.default_rng(seed).permutation(len(packed.kind))
    chosen, rest = order[:count or len(order)], order[count or len(order):]
    have, more = np.bincount(packed.kind[chosen], minlength=len(packed.kinds)), []
    for row in rest.tolist():
        if have[packed.kind[row]] < FEW and len(more) < count:
            have[packed.kind[row]] += 1
            more.append(row)
    return chosen, np.array(more, np.int64)


def samples_of(packed, rows):
    """The samples of these rows, in order."""
    return np.flatnonzero(np.isin(packed.row, rows))


def lengths(packed, samples):
    """Tokens of these samples with the end token: (2, samples), source and target."""
    rows = packed.row[samples]
    return np.stack([packed.src_start[rows + 1] - packed.src_start[rows],
                     packed.tgt_start[samples + 1] - packed.tgt_start[samples]])


# ---------------------------------------------------------------------------------------------------------------------
# The tensors of a batch

def collate(packed, samples, room=None):
    """
    The Batch of these samples, on the CPU.

    room: fill the batch up with rows of PAD, so that its tensors have the shapes of the room. Rows attend to themselves
    alone, and a loss that leaves out truth PAD has no gradient from these.
    """
    samples = np.asarray(samples)
    rows = packed.row[samples]
    src, tgt = lengths(packed, samples)  # (B,) each
    of_src = torch.from_numpy(_join(packed.src, packed.src_start[rows], src))
    truth = torch.from_numpy(_join(packed.tgt, packed.tgt_start[samples], tgt))
    first = torch.from_numpy(packed.first[samples].astype(np.int64))
    if room:
        of_src, truth = F.pad(of_src, (0, room.src - len(of_src))), F.pad(truth, (0, room.tgt - len(truth)))
        src = _pad_lengths(src, room.src, room.rows, room.longest_src)
        tgt = _pad_lengths(tgt, room.tgt, room.rows, room.longest_tgt)
    sources, targets = pack_rows(torch.from_numpy(src)), pack_rows(torch.from_numpy(tgt))
    if room:
        sources, targets = sources._replace(longest=room.longest_src), targets._replace(longest=room.longest_tgt)
    tgt = truth.roll(1)
    tgt[targets.start[:len(samples)].long()] = first
    return Batch(of_src, sources, tgt, truth, targets)


def _join(flat, start, count):
    """Pieces of a flat array end to end, int64. start, count: (pieces,), where each begins and how long it is."""
    ends = count.cumsum()
    return flat[np.repeat(start - ends + count, count) + np.arange(ends[-1])].astype(np.int64)


def _pad_lengths(count, tokens, rows, longest):
    """The lengths of so many rows with so many tokens: `count`, then rows of padding, none longer than the longest."""
    rest, filled = tokens - count.sum(), np.zeros(rows, np.int64)
    filled[:len(count)] = count
    padding = filled[len(count):]
    padding[:rest // longest] = longest
    if rest % longest:
        padding[rest // longest] = rest % longest
    return filled


def join_ids(rows):
    """Lists of ids end to end, (N,) int64, and their Packing."""
    return torch.tensor([id for ids in rows for id in ids]), pack_rows(torch.tensor([len(ids) for ids in rows]))


def pad(rows):
    """Lists of ids -> (B, S) int64, filled up with PAD."""
    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(ids) for ids in rows], batch_first=True, padding_value=PAD)


def to_device(value, device):
    """An array, a tensor, or a NamedTuple of tensors, numbers and such tuples, its tensors on the device."""
    if isinstance(value, tuple):
        return type(value)(*(to_device(part, device) for part in value))
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if not isinstance(value, torch.Tensor):
        return value
    if torch.device(device).type == "cuda" and value.device.type == "cpu":
        value = value.pin_memory()  # else the copy would wait for the steps that the GPU has been given
    return value.to(device, non_blocking=True)
