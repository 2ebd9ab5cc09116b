r"""Square amplitudes with a trained model.

    python decode.py                                    the test split, by the best checkpoint of the newest run
    python decode.py config/qed.py --beam               the same of that config's run, by beam search
    python decode.py --input=FILE.csv --beam --verify   any CSV file with a column amp; the beam's first right candidate is the answer
    python decode.py --amp="-1/2*i*e^2*gamma_{...}..."  one amplitude (--amp=-: from standard input): its square, certainty and verdict
    torchrun --nproc_per_node=4 decode.py ...           the rows shared by four processes, a GPU each

Writes predictions.csv (for --input=FILE.csv: FILE.predictions.csv) beside the checkpoint, or --output=FILE. Rows are kept as they are
answered: the same command goes on after a crash. The columns: row (counted from 1), amp, prediction, logprob (natural, of the whole answer), status,
    token_mean   geometric mean of the probabilities of the answer's tokens
    token_min    the least of them
    margin       logprob minus that of the best other candidate (--beam, --samples)
    agreement    with --agree: share of the candidates' probability that is on texts equal to the answer as physics
    rank         which candidate the answer is, the most probable is 1
then sqamp where the input has it, and with --n_best candidates, a JSON list of [text, logprob, status]. The status is
    verified     the answer is the square: verify.py found both sides equal at random momenta, proof.py in exact arithmetic
    computed     no candidate was right; physics/square.py computed the square (--fallback), verified like the others
    unverified   no candidate is right, this is the most probable one
    unchecked    nobody looked (without --verify)
    unfinished   the most probable answer was not complete at tgt_max_len tokens
    unreadable   the amplitude has no tokens in the model's vocabulary, or too many; stderr says FILE:LINE and why
An amplitude that cannot be read stops no other row; a file that is no CSV does. From Python:

    from decode import decode, load
    model = load("out/quickstart/best.pt")
    for answer in decode(model, amplitudes, beam_size=5, check=True): print(answer.prediction, answer.logprob, answer.status)
"""
import collections
import contextlib
import csv
import fcntl
import glob
import heapq
import itertools
import json
import math
import os
import re
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("GOMP_SPINCOUNT", "1000")         # see train.py: threads that wait must not burn a core that others need

import numpy as np
import torch
from tqdm import tqdm

from batches import pad
from configurator import load_settings
from dataset.reader import count_lines, read_rows
from generate import beam_search, for_decoding, greedy, sample
from generate_terms import beam_terms, greedy_terms, sample_terms
from model import load_model
from physics.exact import prove
from physics.numeric import verify
from physics.square import square_many
from runtime import checkpoint
from runtime.distributed import join, leave, wait
from runtime.files import InputError, atomic_open, check_output, digest, main_guard, writing
from runtime.hardware import find_device
from tokenizer import Tokenizer

SEARCH = ["beam", "beam_size", "length_penalty", "samples", "temperature", "top_k", "top_p", "seed", "verify", "fallback", "agree"]
KEYS = ["data_dir", "out_dir", "ckpt", "input", "output", "amp", *SEARCH, "n_best", "batch_rows", "max_rows", "device", "dtype"]
CERTAINTY = ["logprob", "token_mean", "token_min", "margin", "agreement"]
COLUMNS = ["row", "amp", "prediction", "logprob", "status", *CERTAINTY[1:], "rank"]
MOST = 1000                     # candidates of a row
WINDOW = 8                      # batches read together, so that amplitudes of like length meet in one


class Answer(NamedTuple):
    prediction: str             # text of the squared amplitude; "" if unreadable
    logprob: float              # of the whole answer with its end; this and the next four NaN where there is no such number
    token_mean: float           # geometric mean of the probabilities of its tokens
    token_min: float            # the least of them
    margin: float               # logprob minus that of the best other candidate
    agreement: float            # share of the candidates' probability on texts that equal the answer as physics
    rank: int                   # of the answer among the candidates, 1 the most probable; 0 where none of them is the answer
    status: str                 # verified, computed, unverified, unchecked, unfinished, unreadable
    reason: str                 # why it is unreadable or unverified, else ""
    candidates: list            # [text, logprob, status] of each, the most probable first


class Loaded(NamedTuple):
    model: torch.nn.Module
    tokenizer: Tokenizer
    state: dict                 # the checkpoint: step, settings, ...


def load(ckpt, device="auto", dtype="auto"):
    """The model of a checkpoint file, ready to decode. InputError if the file is missing or damaged."""
    model, tokenizer, state = load_model(ckpt, find_device(str(device)))
    return Loaded(for_decoding(model, dtype), tokenizer, state)


def decode(loaded, amps, batch_rows=64, beam_size=1, length_penalty=0.0, samples=0, temperature=1.0, top_k=0, top_p=1.0, seed=0,
           check=False, fallback=False, agree=False):
    """The Answer to each amplitude of an iterable, in its order, as they come. One text is taken for a list of one.

    beam_size: 1 decodes greedily; a wider beam has so many candidates. samples: candidates drawn at random instead, see generate.draw;
    what is drawn depends on the seed and the amplitude alone. check: candidates are compared with the amplitude numerically, in order of
    probability, and the first right one is the answer. fallback: where none is right, physics/square.py computes it. agree: see Answer.
    """
    amps = iter([amps] if isinstance(amps, str) else amps)
    limits = loaded.state["model_config"]
    longest = limits["tgt_max_len"] - 1                                                     # BOS counts, but is not written
    device = loaded.model.tgt_embedding.weight.device
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
                answers[k] = Answer("", *[math.nan] * 5, 0, "unreadable", f"amp: {error}", [])
        order = sorted(sources, key=lambda k: len(sources[k]))
        for first in range(0, len(order), batch_rows):
            rows = order[first:first + batch_rows]
            src = pad([sources[k] for k in rows]).to(device)
            terms = (loaded.tokenizer.first, loaded.tokenizer.more) if loaded.tokenizer.more else ()
            if samples:
                def uniform(row, *number):
                    return torch.from_numpy(random_numbers(window[rows[row]], seed, samples, longest, *number)).to(device)
                options = temperature, top_k, top_p
                if terms:
                    lists = sample_terms(loaded.model, src, longest, uniform, *options, *terms)
                else:
                    lists = sample(loaded.model, src, longest, torch.stack([uniform(row) for row in range(len(rows))]), *options)
            elif beam_size > 1:
                lists = (beam_terms if terms else beam_search)(loaded.model, src, longest, beam_size, length_penalty, *terms)
            else:
                lists = ([hypothesis] for hypothesis in (greedy_terms if terms else greedy)(loaded.model, src, longest, *terms))
            for k, hypotheses in zip(rows, lists):
                fermions = loaded.tokenizer.fermions(window[k])
                texts = {}                                                                  # the same text twice counts once
                for hypothesis in sorted(hypotheses, key=lambda h: -h.logprob) if samples else hypotheses:
                    text = loaded.tokenizer.decode_sqamp(hypothesis.ids, fermions)
                    if text not in texts or hypothesis.finished > texts[text].finished:     # termwise one that is cut short may have the same
                        texts[text] = hypothesis
                answers[k] = choose(window[k], texts, check, agree)
        if fallback:
            compute([(amp, k) for k, amp in enumerate(window) if isinstance(amp, str) and answers[k].status != "verified"], answers)
        yield from (answers[k] for k in range(len(window)))


def random_numbers(amp, seed, samples, longest, *term):
    """(samples, longest) numbers in [0, 1), the same for an amplitude (and a term, by its number) wherever it stands."""
    return np.random.default_rng([seed, zlib.crc32(amp.encode()), *term]).random((samples, longest))


def choose(amp, texts, check, agree):
    """The Answer among the candidates. texts: {text: Hypothesis}, the most probable first."""
    candidates = [[text, hypothesis.logprob, "unchecked" if hypothesis.finished else "unfinished"] for text, hypothesis in texts.items()]
    chosen, values, reason = None, {}, ""                                                   # values: {candidate: number, or "right"}
    for k, candidate in enumerate(candidates):
        if candidate[2] == "unchecked" and (agree or check and chosen is None):
            verdict = verify(amp, candidate[0])
            values[k] = "right" if verdict else verdict.square                              # NaN where it is unreadable
            if check:
                doubt = verdict.reason or disprove(amp, candidate[0])
                candidate[2] = "unverified" if doubt else "verified"
                reason = reason or doubt
                chosen = k if not doubt and chosen is None else chosen
    chosen = chosen or 0
    text, logprob, status = candidates[chosen]
    hypothesis = texts[text]
    others = [candidate[1] for k, candidate in enumerate(candidates) if k != chosen]
    return Answer(
        text, logprob, token_mean=math.exp(logprob / len(hypothesis.ids)), token_min=math.exp(hypothesis.lowest),
        margin=logprob - max(others) if others else math.nan, agreement=agreement(candidates, values, chosen) if agree else math.nan,
        rank=chosen + 1, status=status, reason=reason if status == "unverified" else "", candidates=candidates)


def disprove(amp, sqamp):
    """Why a candidate that floating-point numbers cannot tell from the square is not it after all, or cannot be proven; "" if it is."""
    try:
        return "" if prove(amp, sqamp) else "equal to the square in floating point, but not exactly"
    except InputError as error:
        return str(error)


def agreement(candidates, values, chosen):
    """Share of the finished candidates' probability that is on texts with the value of the chosen one."""
    weights = {k: math.exp(candidates[k][1]) for k in values}
    mine = values.get(chosen, math.nan)
    equal = [weights[k] for k, value in values.items()
             if (value == mine if "right" in (value, mine) else abs(value - mine) <= 1e-9 * abs(mine))]
    return sum(equal) / sum(weights.values()) if equal else 0.0


def compute(questions, answers):
    """Replace answers[k] by the computed square, for each (amp, k), where it is proven right. One FORM process for all."""
    for (amp, k), result in zip(questions, square_many([amp for amp, _ in questions])):
        doubt = str(result) if isinstance(result, InputError) else verify(amp, result).reason or disprove(amp, result)
        if doubt:
            answers[k] = answers[k]._replace(reason=f"{answers[k].reason}; not computed: {doubt}".removeprefix("; "))
        else:
            answers[k] = Answer(result, *[math.nan] * 5, 0, "computed", "", answers[k].candidates)


# ---------------------------------------------------------------------------------------------------------------------
# Settings and files

def search_options(settings):
    """The arguments of `decode` that the settings ask for. InputError for what cannot work."""
    for name, least in (("batch_rows", 1), ("max_rows", 0), ("beam_size", 1), ("samples", 0), ("top_k", 0), ("length_penalty", 0)):
        if getattr(settings, name) < least:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted at least {least}")
    if settings.temperature <= 0:
        raise InputError(f"temperature: got {settings.temperature}, wanted more than 0; greedy decoding is what there is without --samples")
    for name in ("beam_size", "samples"):
        if getattr(settings, name) > MOST:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted at most {MOST}")
    if not 0 < settings.top_p <= 1:
        raise InputError(f"top_p: got {settings.top_p}, wanted more than 0 and at most 1")
    if settings.beam and settings.samples:
        raise InputError("beam, samples: one or the other")
    if settings.fallback and not settings.verify:
        raise InputError("fallback: needs --verify, which finds out where it is needed")
    names = ("batch_rows", "length_penalty", "samples", "temperature", "top_k", "top_p", "seed", "fallback", "agree")
    return {name: getattr(settings, name) for name in names} | {"beam_size": settings.beam_size if settings.beam else 1, "check": settings.verify}


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
    """A row of predictions.csv from one with the fields of an Answer, amp and maybe sqamp."""
    figures = {name: "" if math.isnan(row[name]) else f"{row[name]:.6g}" for name in CERTAINTY}
    return row | figures | {"row": number, "candidates": json.dumps(row["candidates"])}


def decode_share(loaded, path, settings, options, file, fingerprint, world):
    """Append the answers to this process's share of the rows to a part: an open file of JSON lines that begins with the fingerprint.

    What is there already, from the same fingerprint, is gone on with from its last whole window of rows, so that every row meets the
    same others in its batch and the answers are to the last digit those of a run that was not interrupted.
    """
    window = WINDOW * settings.batch_rows
    rows = read_input(path, ("amp",), settings.max_rows)
    mine = ((number, line, row) for number, (line, row) in enumerate(rows, 1) if (number - 1) // window % world.size == world.rank)
    done = cut_part(file, fingerprint, window)
    total = count_lines(path)
    total = total and min(total - 1, settings.max_rows or total) // world.size
    with tqdm(total=total, initial=done, unit=" rows", disable=None if world.rank == 0 else True) as bar:
        rows, questions = itertools.tee(itertools.islice(mine, done, None))                 # decode reads ahead, by a window of rows
        answers = decode(loaded, (row["amp"] for _, _, row in questions), **options)
        for count, ((number, line, row), answer) in enumerate(zip(rows, answers), 1):
            if answer.status == "unreadable":
                tqdm.write(f"{path}:{line}: {answer.reason}", file=sys.stderr)
            file.write(json.dumps(prediction_row(number, row | answer._asdict())).encode() + b"\n")
            bar.update()
            if count % window == 0:
                file.flush()
                os.fsync(file.fileno())
    file.flush()


def hold(part):
    """Open a part for reading and writing; nobody else can while it is open. InputError if somebody does."""
    file = open(part, "ab+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{part}: another decode.py writes there; wait for its end, or name another --output") from None
    except OSError:                                                                         # a file system without locks
        pass
    return file


def cut_part(file, fingerprint, window):
    """Cut a part to its whole windows of rows, or to its first line if that is another, and return how many rows these are."""
    count = rows = 0
    file.seek(0)
    if file.readline() != fingerprint.encode() + b"\n":
        file.truncate(0)
        file.write(fingerprint.encode() + b"\n")
        return 0
    whole = file.tell()
    while file.readline().endswith(b"\n"):
        count += 1
        if count % window == 0:
            whole, rows = file.tell(), count
    file.truncate(whole)
    return rows


def join_parts(parts, output, columns):
    """The rows of all parts as one CSV file, in order; the parts are deleted when it is safe. Returns how many rows have which status."""
    counts = collections.Counter()
    with atomic_open(output) as file, contextlib.ExitStack() as stack:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        files = [stack.enter_context(open(part, encoding="utf-8")) for part in parts]
        for row in heapq.merge(*(map(json.loads, itertools.islice(lines, 1, None)) for lines in files), key=lambda row: row["row"]):
            writer.writerow(row)
            counts[row["status"]] += 1
    for part in output.parent.glob(f"{glob.escape(output.name)}.part-*-of-*"):              # also those of another number of processes
        part.unlink()
    return counts


def fingerprint_of(loaded, ckpt, path, settings):
    """What an answer depends on, as text: half a run is gone on with only where this is the same."""
    names = (*SEARCH, "batch_rows", "max_rows", "dtype")
    weight = loaded.model.tgt_embedding.weight
    return json.dumps([digest(ckpt), digest(path), weight.device.type, str(weight.dtype), {name: getattr(settings, name) for name in names}])


def decode_file(loaded, ckpt, path, output, settings, options, world):
    """Answer every row of a file; returns how many rows have which status. One of torchrun's processes, if there are several."""
    _, first = next(read_input(path, ("amp",), 1))
    if output.exists() and output.samefile(path):
        raise InputError(f"{output}: is the input itself; name another --output")
    for _ in read_input(path, ("amp",), settings.max_rows):                                 # a file that is no CSV stops us before the work
        pass
    parts = [output.with_name(f"{output.name}.part-{rank}-of-{world.size}") for rank in range(world.size)]
    output.parent.mkdir(parents=True, exist_ok=True)
    with writing(parts[world.rank]), hold(parts[world.rank]) as file:
        decode_share(loaded, path, settings, options, file, fingerprint_of(loaded, ckpt, path, settings), world)
        wait(world)
        if world.rank == 0:
            return join_parts(parts, output, COLUMNS + ["sqamp"] * ("sqamp" in first) + ["candidates"] * settings.n_best)


def answer_one(loaded, amp, options):
    """Print the answer to one amplitude: formula, certainty, verdict."""
    answer, = decode(loaded, amp, **options)
    if answer.status == "unreadable":
        raise InputError(f"--amp: {answer.reason.removeprefix('amp: ')}")
    print(answer.prediction)
    if answer.rank:
        print(f"log-probability {answer.logprob:.4g} (probability {math.exp(answer.logprob):.2%}), least certain token {answer.token_min:.2%}"
              + (f", {answer.margin:.3g} nats ahead of the next" if answer.margin > 0 else "") + f", candidate {answer.rank}" * (answer.rank > 1))
    print({"verified": "verified: equal to the square of the amplitude at random momenta, in exact arithmetic",
           "computed": "computed: the model's candidates are all wrong, this is the square by FORM",
           "unverified": f"unverified: {answer.reason}",
           "unfinished": "unfinished: the answer was not complete at the model's tgt_max_len tokens"}[answer.status])


def main(argv=None):
    settings = load_settings(__doc__, KEYS, argv)
    options = search_options(settings)
    if "--amp=" in (sys.argv[1:] if argv is None else argv):
        raise InputError("--amp=: no amplitude")
    ckpt = checkpoint.find(settings)
    if settings.amp:
        loaded = load(ckpt, settings.device, settings.dtype)
        amp = sys.stdin.buffer.read().decode("utf-8", "replace").strip() if settings.amp == "-" else settings.amp
        return answer_one(loaded, amp, options | {"check": True})
    with join(settings.device) as world:
        loaded = load(ckpt, world.device, settings.dtype)
        path = Path(settings.input or data_folder(settings, loaded) / "test.csv")
        own = "predictions.csv" if not settings.input else re.sub(r"(\.csv|\.txt)?(\.gz)?$", ".predictions.csv", path.name, count=1)
        output = Path(settings.output or ckpt.with_name(own))
        if output.is_dir():
            raise InputError(f"output: {output} is a folder, a file is expected")
        check_output(output, "row,amp,prediction")
        if world.rank == 0:
            print(f"{path}, by {ckpt}", file=sys.stderr)
        counts = decode_file(loaded, ckpt, path, output, settings, options, world)
        if counts:
            print(f"{output}: {sum(counts.values())} rows: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    leave(world, 0)


if __name__ == "__main__":
    main_guard(main)
