"""
The rows that scst.py learns from: all rows of a CSV file or those at given indices, never one of the validation or test
split.
"""
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.baseline import canonical_key
from dataset.reader import read_rows
from physics.matrices import read_amplitude
from physics.particles import Facts
from runtime.files import InputError, digest, is_same_file


class Row(NamedTuple):
    line: int  # in its file
    amp: str
    sqamp: str | None  # None: not read
    src: list  # ids of the amplitude, EOS at the end
    tgt: list | None  # ids of the square, EOS at the end
    fermions: tuple  # see tokenizer.Tokenizer
    facts: Facts  # the row's process and the masses that the user says


def load_rows(path, tokenizer, limits, labelled, indices, held_out, skip, masses=()):
    """
    The rows of a CSV file as a list of Row, those at `indices` (None: all), and how many were left out.

    limits: longest amp and sqamp, in tokens with EOS; no rollout could equal a longer sqamp. labelled: read sqamp too.
    held_out: see `held_out_keys`; a row among them is left out if `skip` is true, else it is an error. masses: see
    physics.particles.parse_masses. Raises InputError as FILE:LINE for a row that is held out, unreadable or too long.
    """
    wanted = None if indices is None else set(indices.tolist())
    rows, left_out, count = [], 0, 0
    for count, (line, row) in enumerate(read_rows(path, ("amp",)), 1):
        if wanted is not None and count - 1 not in wanted:
            continue
        if labelled and "sqamp" not in row:
            raise InputError(f"{path}:1: no column 'sqamp', which the reward or mle_weight compares with; "
                             "--reward=physics --mle_weight=0 needs none")
        try:
            column = "amp"
            key = canonical_key(row["amp"])
            if key in held_out:
                if not skip:
                    raise InputError(f"stands at {held_out[key]} too, up to index names; no row to validate or test "
                                     "with may be trained on")
                left_out += 1
                continue
            read_amplitude(row["amp"])  # text of known tokens may still be no amplitude: every answer would be wrong
            src = tokenizer.encode_amp(row["amp"])[0]
            fermions = tokenizer.fermions(row["amp"])
            if len(src) > limits[0]:
                raise InputError(f"{len(src)} tokens, the model's src_max_len is {limits[0]}")
            column = "sqamp"
            tgt = tokenizer.encode_sqamp(row["sqamp"], fermions) if labelled else None
            if tgt and len(tgt) > limits[1]:
                raise InputError(f"{len(tgt)} tokens, the longest rollout has {limits[1]}, "
                                 "by scst_max_len and the model's tgt_max_len")
        except InputError as error:
            raise InputError(f"{path}:{line}: {column}: {error}") from None
        facts = Facts(row.get("process", ""), masses)
        rows.append(Row(line, row["amp"], row["sqamp"] if labelled else None, src, tgt, fermions, facts))
    if wanted and max(wanted) >= count:
        raise InputError(f"indices: row {max(wanted)}, but {path} has {count} rows, numbered from 0")
    if not rows:
        raise InputError(f"{path}: no rows to learn from ({count} in the file, {left_out} of them held out)")
    return rows, left_out


def held_out_keys(folders):
    """{amplitude up to index names: FILE:LINE} of the validation and test splits that these folders have."""
    keys = {}
    for folder in folders:
        if not Path(folder).is_dir():
            print(f"warning: {folder}: no such folder, so its validation and test rows cannot be kept out",
                  file=sys.stderr)
    for path in (Path(folder) / f"{split}.csv" for folder in folders for split in ("valid", "test")):
        if path.exists():
            for line, row in read_rows(path, ("amp",)):
                try:
                    keys.setdefault(canonical_key(row["amp"]), f"{path}:{line}")
                except InputError as error:
                    raise InputError(f"{path}:{line}: amp: {error}") from None
    return keys


def has_column(path, name):
    """Is there a CSV file at this path with at least one row and this column?"""
    return Path(path).exists() and name in next(read_rows(path, ("amp",)), (0, {}))[1]


def load_indices(path, rows_path):
    """
    The row numbers, from 0, that evaluate.py wrote beside its report about rows_path. (n,) int64

    Raises InputError if that report was about another file, or the file has changed.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            indices = np.load(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror}); evaluate.py writes it") from None
    except (ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not an array of NumPy ({reason}); evaluate.py writes it") from None
    if not isinstance(indices, np.ndarray) or indices.dtype != np.int64 or indices.ndim != 1:
        shape = f"{indices.dtype} of shape {indices.shape}" if isinstance(indices, np.ndarray) else "an archive"
        raise InputError(f"{path}: {shape}, wanted int64, one index a row")
    if not len(indices):
        raise InputError(f"{path}: no indices; every answer was right")
    if indices.min() < 0 or len(set(indices.tolist())) < len(indices):
        raise InputError(f"{path}: wanted different row numbers, from 0")
    report_path = path.with_name(f"{path.name.removesuffix('inc_idx.npy').removesuffix('.') or 'report'}.json")
    try:
        report = json.loads(report_path.read_text(encoding="utf-8"))
        source, known = report["input"], report["input_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{report_path}: no report of evaluate.py, which says what file the indices are of; it is "
                         f"expected beside {path.name}") from None
    if known != digest(rows_path):
        changed = ", which has changed since" if is_same_file(source, rows_path) else f", not of {rows_path}"
        raise InputError(f"{path}: indices of {source}{changed}; python evaluate.py --input={rows_path} "
                         "--output=FOLDER/report.json makes its indices")
    return indices
