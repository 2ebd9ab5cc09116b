"""
A data set as training reads it: every split packed into memory-mapped arrays, and batches that are fair samples of it.

A batch packs rows of all lengths end to end: padding costs nothing there, and a batch of rows of one length would be
a batch of one kind of process. A row of the file is one sample, amplitude and square; with a termwise vocabulary it
is as many samples as its square has terms.
"""
import array
import hashlib
import json
import pathlib
import sys
from typing import NamedTuple

import numpy as np
import torch

from attention import Packing, pack_rows
from dataset.reader import read_rows
from physics.processes import process_kind
from runtime.files import InputError, atomic_open
from tokenizer import EOS, PAD

HERE = pathlib.Path(__file__).resolve().parent
CODE = ("batches.py", "tokenizer.py", "notation.py", "termwise.py", "dataset/reader.py", "physics/spelling.py",
        "physics/processes.py")  # makes what is cached
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
    for name in CODE:
        digest.update((HERE / name).read_bytes())
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
    src, tgt, src_start, tgt_start = array.array("H"), array.array("H"), array.array("q", [0]), array.array("q", [0])
    row_of, first, lines, kind, kinds = array.array("q"), array.array("H"), array.array("q"), array.array("q"), {}
    # the tokens of a row's legs say its kind: a look-up in place of a second parse of every row
    of_legs = {id for id, token in enumerate(tokenizer.vocabulary["src"]) if token[-1] == "{" or "(p_" in token}
    kind_of = {}  # tokens of the legs -> number of the kind
    for line, row in read_rows(path):
        try:
            column = "amp"
            src_ids = tokenizer.encode_amp(row["amp"])[0]
            column = "sqamp"
            tgt_ids = tokenizer.encode_sqamp(row["sqamp"], tokenizer.fermions(row["amp"]))
        except InputError as error:
            raise InputError(f"{path}:{line}: {column}: {error}") from None
        if len(src_ids) > src_max_len:
            raise InputError(f"{path}:{line}: amp: {len(src_ids)} tokens, src_max_len is {src_max_len}")
        ends = [k for k, id in enumerate(tgt_ids, 1) if id == EOS]  # of the samples
        longest = max(end - start for start, end in zip([0, *ends], ends)) + 1
        if longest > tgt_max_len:
            where = " in a term" if len(ends) > 1 else ""
            raise InputError(f"{path}:{line}: sqamp: {longest} tokens{where}, tgt_max_len is {tgt_max_len}")
        tgt_start.extend(len(tgt) + end for end in ends)
        row_of.extend([len(src_start) - 1] * len(ends))
        first.extend(tokenizer.first[:len(ends)])
        lines.append(line)
        legs = tuple(id for id in src_ids if id in of_legs)
        if legs not in kind_of:
            kind_of[legs] = kinds.setdefault(process_kind(row["amp"]), len(kinds))
        kind.append(kind_of[legs])
        src.fromlist(src_ids)
        tgt.fromlist(tgt_ids)
        src_start.append(len(src))
    if len(src_start) == 1:
        raise InputError(f"{path}:2: no rows, at least one is expected")
    return Packed(np.array(src, np.uint16), np.array(src_start, np.int64), np.array(tgt, np.uint16),
                  np.array(tgt_start, np.int64), np.array(row_of, np.int64), np.array(first, np.uint16),
                  np.array(lines, np.int64), np.array(kind, np.int64), np.array(list(kinds)))


# ---------------------------------------------------------------------------------------------------------------------
# Which samples make a batch

def mixed_batches(packed, batch_tokens, seed):
    """
    One epoch: the numbers of the samples of each batch, a list of int arrays, at most batch_tokens tokens each.

    Samples come in random order, so that every batch is a fair sample of the data: all lengths, all kinds of process.
    A sample longer than batch_tokens is a batch of its own.
    """
    return cut(packed, np.random.default_rng(seed).permutation(len(packed.row)), batch_tokens)


def cut(packed, samples, batch_tokens):
    """The samples in their order, cut into batches of at most batch_tokens tokens; a longer sample is alone."""
    batches, first, total = [], 0, 0
    for end, tokens in enumerate(lengths(packed, samples).sum(0).tolist()):
        if total + tokens > batch_tokens and end > first:
            batches.append(samples[first:end])
            first, total = end, 0
        total += tokens
    return [*batches, samples[first:]]


def deal_anew(packed, micro_batches, batch_tokens, seed):
    """The samples of these micro-batches in another mixture: int arrays, at most batch_tokens tokens each, as above."""
    samples = np.random.default_rng(seed).permutation(np.concatenate(micro_batches))
    return cut(packed, samples, batch_tokens)


def padded_batches(packed, batch_tokens, samples):
    """
    These samples by length, in batches of at most batch_tokens tokens with their padding: for decoding, which pads.
    """
    src, tgt = lengths(packed, samples)  # (samples,)
    order = np.argsort(src + tgt, kind="stable")
    batches, first, longest_src, longest_tgt = [], 0, 0, 0
    for end, (s, t) in enumerate(zip(src[order].tolist(), tgt[order].tolist())):
        longest_src, longest_tgt = max(longest_src, s), max(longest_tgt, t)
        if (longest_src + longest_tgt) * (end + 1 - first) > batch_tokens and end > first:
            batches.append(samples[order[first:end]])
            first, longest_src, longest_tgt = end, s, t
    return [*batches, samples[order[first:]]]


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

def collate(packed, samples):
    """The Batch of these samples, on the CPU."""
    samples = np.asarray(samples)
    src, sources = _join(packed.src, packed.src_start, packed.row[samples])
    truth, targets = _join(packed.tgt, packed.tgt_start, samples)
    tgt = truth.roll(1)
    tgt[targets.start[:-1].long()] = torch.from_numpy(packed.first[samples].astype(np.int64))
    return Batch(src, sources, tgt, truth, targets)


def _join(flat, start, rows):
    """Rows of a flat array end to end, (N,) int64, and their Packing."""
    packing = pack_rows(torch.from_numpy(start[rows + 1] - start[rows]))
    index = torch.from_numpy(start[rows])[packing.row] + packing.position
    return torch.from_numpy(flat[index.numpy()].astype(np.int64)), packing


def join_ids(rows):
    """Lists of ids end to end, (N,) int64, and their Packing."""
    return torch.tensor([id for ids in rows for id in ids]), pack_rows(torch.tensor([len(ids) for ids in rows]))


def pad(rows):
    """Lists of ids -> (B, S) int64, filled up with PAD."""
    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(ids) for ids in rows], batch_first=True, padding_value=PAD)


def to_device(batch, device):
    """A NamedTuple of tensors, numbers and such tuples, its tensors on the device."""
    def move(value):
        if isinstance(value, tuple):
            return to_device(value, device)
        return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
    return type(batch)(*map(move, batch))
