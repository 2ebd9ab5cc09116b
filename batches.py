"""A data set as training reads it: every split packed into memory-mapped arrays, and batches of samples of like length.

A row is one sample, amplitude and square; with a termwise vocabulary it is as many as its square has terms.
"""
import array
import hashlib
import json
import pathlib
import sys
from typing import NamedTuple

import numpy as np
import torch

from dataset.reader import read_rows
from runtime.files import InputError, atomic_open
from tokenizer import EOS, PAD

FORMAT = 2                  # of the cache's layout; the vocabulary, which is part of its key, names that of the tokens
JITTER = 0.1                # of a sample's length where batches are drawn: 96% of the positions of a batch are real tokens


class Packed(NamedTuple):
    """Row r is src[src_start[r]:src_start[r + 1]], sample n is row[n] and tgt[tgt_start[n]:tgt_start[n + 1]], each ending in EOS."""
    src: np.ndarray         # uint16, all rows end to end
    src_start: np.ndarray   # int64, rows + 1
    tgt: np.ndarray         # uint16, all samples end to end
    tgt_start: np.ndarray   # int64, samples + 1
    row: np.ndarray         # int64, samples: the rows in order, each as often as it has samples
    first: np.ndarray       # uint16, samples: the token that the target is written after, BOS or <term k>


def load_split(data_dir, split, tokenizer, src_max_len, tgt_max_len):
    """Packed form of data_dir/SPLIT.csv, from the cache beside it where that was made of the same data and vocabulary.

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
        except OSError as error:                            # a read-only data set is packed anew by every run
            print(f"{path}: not cached ({error})", file=sys.stderr)
    return packed


def _cache_key(path, vocabulary, *limits):
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror}); python prepare.py makes the data") from None
    digest.update(json.dumps([FORMAT, vocabulary, limits]).encode())
    return digest.hexdigest()[:24]


def _read_cache(stem, vocabulary):
    """The cached arrays, memory-mapped; None where they are missing, cut short or not what they should be."""
    try:
        packed = Packed(*(np.load(f"{stem}.{name}.npy", mmap_mode="r", allow_pickle=False) for name in Packed._fields))
    except (OSError, ValueError, EOFError):
        return None
    for flat, start, tokens in ((packed.src, packed.src_start, vocabulary["src"]), (packed.tgt, packed.tgt_start, vocabulary["tgt"])):
        sound = (flat.dtype == np.uint16 and start.dtype == np.int64 and flat.ndim == start.ndim == 1
                 and len(start) > 1 and start[0] == 0 and start[-1] == len(flat)
                 and (np.diff(start) > 0).all() and (flat[start[1:] - 1] == EOS).all() and flat.max() < len(tokens))
        if not sound:
            return None
    row, first, samples = packed.row, packed.first, len(packed.tgt_start) - 1
    sound = (row.dtype == np.int64 and first.dtype == np.uint16 and row.shape == first.shape == (samples,) and row[0] == 0
             and row[-1] == len(packed.src_start) - 2 and np.isin(np.diff(row), (0, 1)).all() and first.max() < len(vocabulary["tgt"]))
    return packed if sound else None


def _pack(path, tokenizer, src_max_len, tgt_max_len):
    src, tgt, src_start, tgt_start = array.array("H"), array.array("H"), array.array("q", [0]), array.array("q", [0])
    row_of, first = array.array("q"), array.array("H")
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
        ends = [k for k, id in enumerate(tgt_ids, 1) if id == EOS]              # of the samples
        longest = max(end - start for start, end in zip([0, *ends], ends)) + 1
        if longest > tgt_max_len:
            raise InputError(f"{path}:{line}: sqamp: {longest} tokens{' in a term' * (len(ends) > 1)}, tgt_max_len is {tgt_max_len}")
        tgt_start.extend(len(tgt) + end for end in ends)
        row_of.extend([len(src_start) - 1] * len(ends))
        first.extend(tokenizer.first[:len(ends)])
        src.fromlist(src_ids)
        tgt.fromlist(tgt_ids)
        src_start.append(len(src))
    if len(src_start) == 1:
        raise InputError(f"{path}:2: no rows, at least one is expected")
    return Packed(np.array(src, np.uint16), np.array(src_start, np.int64), np.array(tgt, np.uint16), np.array(tgt_start, np.int64),
                  np.array(row_of, np.int64), np.array(first, np.uint16))


def length_batches(packed, batch_tokens, generator_seed, samples=None):
    """Numbers of the samples (None: all there are) of each batch, a list of int arrays: of like length, at most batch_tokens with their padding.

    The seed draws how samples of nearly the same length are mixed and in which order the batches come; with None samples and
    batches come by length. A sample longer than batch_tokens is a batch of its own.
    """
    samples = np.arange(len(packed.row)) if samples is None else samples
    src, tgt = lengths(packed, samples)                                     # (samples,)
    length = src + tgt
    if generator_seed is not None:
        # Rows of exactly one length are often of one process: a little jitter mixes them and costs 3% more padding
        generator = np.random.default_rng(generator_seed)
        length = length * generator.uniform(1 - JITTER, 1 + JITTER, len(length))
    order = np.argsort(length, kind="stable")
    batches, first, longest_src, longest_tgt = [], 0, 0, 0
    for end, (s, t) in enumerate(zip(src[order].tolist(), tgt[order].tolist())):
        longest_src, longest_tgt = max(longest_src, s), max(longest_tgt, t)
        if (longest_src + longest_tgt) * (end + 1 - first) > batch_tokens and end > first:
            batches.append(samples[order[first:end]])
            first, longest_src, longest_tgt = end, s, t
    batches.append(samples[order[first:]])
    if generator_seed is not None:
        generator.shuffle(batches)
    return batches


def validation_batches(packed, settings):
    """The samples of the same eval_rows random rows each time (0: of all), in batches of like length."""
    rows = len(packed.src_start) - 1
    chosen = np.random.default_rng(settings.seed).permutation(rows)[:settings.eval_rows or rows]
    return length_batches(packed, settings.batch_tokens, None, np.flatnonzero(np.isin(packed.row, chosen)))


def lengths(packed, samples):
    """Tokens of these samples with the end token: (2, samples), source and target."""
    rows = packed.row[samples]
    return np.stack([packed.src_start[rows + 1] - packed.src_start[rows], packed.tgt_start[samples + 1] - packed.tgt_start[samples]])


def collate(packed, samples):
    """The samples as tensors: src (B, S), padded with PAD; tgt (B, T), the token to begin with ... EOS, padded. int64."""
    samples = np.asarray(samples)
    src, tgt = _pad(packed.src, packed.src_start, packed.row[samples]), _pad(packed.tgt, packed.tgt_start, samples)
    return torch.from_numpy(src), torch.from_numpy(np.column_stack([packed.first[samples], tgt]))


def _pad(flat, start, rows):
    length = start[rows + 1] - start[rows]                                  # (B,)
    column = np.arange(length.max())                                        # (T,)
    real = column < length[:, None]                                         # (B, T)
    ids = np.full((len(rows), len(column)), PAD)
    ids[real] = flat[(start[rows][:, None] + column)[real]]
    return ids


def pad(rows):
    """Lists of ids -> (B, S) int64, filled up with PAD."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in rows], batch_first=True, padding_value=PAD)
