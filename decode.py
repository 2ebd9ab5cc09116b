r"""Square amplitudes with a trained model.

    python decode.py                                    the test split, by the best checkpoint of the newest run
    python decode.py config/qed.py                      the same of that config's run
    python decode.py --input=FILE.csv --verify          any CSV file with a column amp, every answer checked
    python decode.py --amp="-1/2*i*e^2*gamma_{...}..."  one amplitude: its square, log-probability and verdict

Writes predictions.csv (for --input=FILE.csv: FILE.predictions.csv) beside the checkpoint, or --output=FILE: row (counted from 1), amp, prediction, logprob (natural, of
the whole answer), status, and sqamp where the input has it. The status is
    verified     the answer is the square: verify.py found both sides equal
    unverified   they differ
    unchecked    nobody looked (without --verify)
    unfinished   the answer was not complete at tgt_max_len tokens
    unreadable   the amplitude has no tokens in the model's vocabulary, or too many; stderr says FILE:LINE and why
An amplitude that cannot be read stops no other row; a file that is no CSV does. From Python:

    from decode import decode, load
    model = load("out/quickstart/best.pt")
    for answer in decode(model, amplitudes, check=True): print(answer.prediction, answer.logprob, answer.status)
"""
import collections
import csv
import itertools
import math
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

import checkpoint
from configurator import load_settings
from files import InputError, atomic_open, check_output, count_lines, main_guard, read_rows
from generate import greedy
from model import find_device
from tokenizer import PAD, Tokenizer
from verify import verify

KEYS = ["data_dir", "out_dir", "ckpt", "input", "output", "amp", "verify", "batch_rows", "max_rows", "device"]
COLUMNS = ["row", "amp", "prediction", "logprob", "status"]
WINDOW = 8                      # batches read together, so that amplitudes of like length meet in one


class Answer(NamedTuple):
    prediction: str             # text of the squared amplitude; "" if unreadable
    logprob: float              # of the whole answer with its end; NaN if unreadable
    status: str                 # verified, unverified, unchecked, unfinished, unreadable
    reason: str                 # why it is unreadable or unverified, else ""


class Loaded(NamedTuple):
    model: torch.nn.Module
    tokenizer: Tokenizer
    state: dict                 # the checkpoint: step, settings, ...


def load(ckpt, device="auto"):
    """The model of a checkpoint file, ready to decode. InputError if the file is missing or damaged."""
    return Loaded(*checkpoint.load_model(ckpt, find_device(device)))


def decode(loaded, amps, batch_rows=64, check=False):
    """The Answer to each amplitude of an iterable, in its order, as they come. One text is taken for a list of one.

    check: compare each answer with its amplitude numerically, for the status verified or unverified.
    """
    amps = iter([amps] if isinstance(amps, str) else amps)
    limits = loaded.state["model_config"]
    while window := list(itertools.islice(amps, WINDOW * batch_rows)):
        answers, sources = {}, {}
        for k, amp in enumerate(window):
            try:
                if not isinstance(amp, str):
                    raise InputError(f"{amp!r} is no text")
                ids = loaded.tokenizer.encode_amp(amp)[0]
                if len(ids) > limits["src_max_len"]:
                    raise InputError(f"{len(ids)} tokens, the model's src_max_len is {limits['src_max_len']}")
                sources[k] = ids
            except InputError as error:
                answers[k] = Answer("", math.nan, "unreadable", f"amp: {error}")
        order = sorted(sources, key=lambda k: len(sources[k]))
        for first in range(0, len(order), batch_rows):
            rows = order[first:first + batch_rows]
            src = pad([sources[k] for k in rows]).to(device_of(loaded.model))
            for k, best in zip(rows, greedy(loaded.model, src, limits["tgt_max_len"] - 1)):   # BOS counts, but is not written
                prediction = loaded.tokenizer.decode_sqamp(best.ids, loaded.tokenizer.fermions(window[k]))
                answers[k] = Answer(prediction, best.logprob, *judge(window[k], prediction, best.finished, check))
        yield from (answers[k] for k in range(len(window)))


def judge(amp, prediction, finished, check):
    """Status and reason of an answer."""
    if not finished:
        return "unfinished", ""
    if not check:
        return "unchecked", ""
    verdict = verify(amp, prediction)
    return ("verified", "") if verdict.status == "right" else ("unverified", verdict.reason)


def pad(rows):
    """Lists of ids -> (B, S) int64, filled up with PAD."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in rows], batch_first=True, padding_value=PAD)


def device_of(model):
    return next(model.parameters()).device


# ---------------------------------------------------------------------------------------------------------------------

def check_settings(settings):
    for name, least in (("batch_rows", 1), ("max_rows", 0)):
        if getattr(settings, name) < least:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted at least {least}")
    if settings.output and Path(settings.output).is_dir():
        raise InputError(f"output: {settings.output} is a folder, a file is expected")


def data_folder(settings, loaded):
    """data_dir; where neither that nor a config is named, the data_dir that the checkpoint was trained on."""
    named = settings.config_name != "default" or settings.data_dir != "data/default"
    return Path(settings.data_dir if named or not loaded else loaded.state["settings"]["data_dir"])


def read_input(path, required, max_rows):
    """An iterator over (line number, row) of a CSV file, at least one, at most max_rows unless that is 0."""
    rows = read_rows(path, required)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}:2: no rows, at least one is expected")
    return itertools.islice(itertools.chain([first], rows), max_rows or None)


def prediction_row(number, row):
    """A row of predictions.csv from one with amp, prediction, logprob, status and maybe sqamp."""
    logprob = "" if math.isnan(row["logprob"]) else f"{row['logprob']:.6g}"
    return {name: row[name] for name in (*COLUMNS, "sqamp") if name in row} | {"row": number, "logprob": logprob}


def decode_file(loaded, path, output, settings):
    """Write the answers to a CSV file's amplitudes; returns how many have each status."""
    rows = read_input(path, ("amp",), settings.max_rows)
    first = next(rows)
    if output.exists() and output.samefile(path):
        raise InputError(f"{output}: is the input itself; name another --output")
    rows, questions = itertools.tee(itertools.chain([first], rows))     # decode reads ahead, by a window of rows
    answers = decode(loaded, (row["amp"] for _, row in questions), settings.batch_rows, settings.verify)
    total, counts = count_lines(path), collections.Counter()
    with atomic_open(output) as file:
        writer = csv.DictWriter(file, COLUMNS + ["sqamp"] * ("sqamp" in first[1]), lineterminator="\n")
        writer.writeheader()
        progress = tqdm(zip(rows, answers), total=total and min(total - 1, settings.max_rows or total), unit=" rows", disable=None)
        for number, ((line, row), answer) in enumerate(progress, 1):
            if answer.status == "unreadable":
                tqdm.write(f"{path}:{line}: {answer.reason}", file=sys.stderr)
            counts[answer.status] += 1
            writer.writerow(prediction_row(number, row | answer._asdict()))
    return counts


def answer_one(loaded, amp):
    answer, = decode(loaded, amp, check=True)
    if answer.status == "unreadable":
        raise InputError(f"--amp: {answer.reason.removeprefix('amp: ')}")
    print(answer.prediction)
    print(f"log-probability {answer.logprob:.4g} (probability {math.exp(answer.logprob):.2%})")
    print({"verified": "verified: equal to the square of the amplitude at random momenta",
           "unverified": f"unverified: {answer.reason}",
           "unfinished": "unfinished: the answer was not complete at the model's tgt_max_len tokens"}[answer.status])


def main(argv=None):
    settings = load_settings(__doc__, KEYS, argv)
    check_settings(settings)
    ckpt = checkpoint.find(settings)
    loaded = load(ckpt, settings.device)
    if settings.amp:
        return answer_one(loaded, settings.amp)
    path = Path(settings.input or data_folder(settings, loaded) / "test.csv")
    own = "predictions.csv" if not settings.input else f"{path.name.split('.')[0]}.predictions.csv"
    output = Path(settings.output or ckpt.with_name(own))
    check_output(output, "row,amp,prediction")
    print(f"{path}, by {ckpt}", file=sys.stderr)
    counts = decode_file(loaded, path, output, settings)
    print(f"{output}: {sum(counts.values())} rows: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))


if __name__ == "__main__":
    main_guard(main)
