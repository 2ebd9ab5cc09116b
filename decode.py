r"""Square amplitudes with a trained model.

    python decode.py                                    the test split, by the best checkpoint of the newest run
    python decode.py config/qed.py --beam               the same of that config's run, by beam search
    python decode.py --input=FILE --beam --verify       any file that dataset/reader.py reads, with a column amp; the
                                                        answer is the beam's first right candidate
    python decode.py --amp="-1/2*i*e^2*gamma_{...}..."  one amplitude (--amp=-: from standard input): its square,
                                                        certainty and verdict
    torchrun --standalone --nproc-per-node=4 decode.py ...    the rows shared by four processes, a GPU each

Writes predictions.csv (for --input=FILE.csv: FILE.predictions.csv) beside the checkpoint, or --output=FILE. Rows are
kept by windows of 8 * batch_rows: the same command goes on after a crash. The columns: row (counted from 1 over the
rows of the file), amp, prediction, logprob (natural, of the whole answer), status,
    token_mean   geometric mean of the probabilities of the answer's tokens
    token_min    the least of them
    margin       logprob minus that of the best other candidate (--beam, --samples)
    agreement    with --agree: share of the candidates' probability that is on texts equal to the answer as physics
    rank         which candidate the answer is, the best is 1: the most probable, or by the beam's score where
                 length_penalty is not 0
then sqamp and process where the input has them, with --n_best candidates, a JSON list of [text, logprob, status], and
with --format=latex (or sympy, mathematica, form, python) a column of that name, the predictions in that notation.
The status is
    verified     the answer is the square: both sides are equal at random momenta in floating point, and then proven
                 equal in exact arithmetic
    computed     no candidate was right; physics/square.py computed the square (--fallback), verified like the others
    unverified   no candidate is known to be right, this is the best one
    unchecked    nobody looked (without --verify)
    unfinished   the best answer was not complete at tgt_max_len tokens
    unreadable   the amplitude has no tokens in the model's vocabulary, or too many; with --verify also: a fact is
                 missing without which no square can be judged, such as a mass. stderr names each such row as
                 FILE:LINE with the reason, and the flag that states the fact; of the unverified rows it names
                 only the first
The check and the computation use the column `process` of the input, which says who comes in and who is identical, and
--masses="X=m Y=0", the masses that the amplitudes do not say (0: massless). An amplitude or a line that cannot be read
is named and stops no other row. From Python:

    from decode import decode, load
    model = load("out/quickstart/best.pt")
    for answer in decode(model, amplitudes, beam_size=5, check=True): print(answer.prediction, answer.status)

An answer shows itself as a typeset formula in a notebook; answer.sympy() is a SymPy expression, answer.function() a
function of NumPy arrays, f(s_12=..., m_e=...).
"""
import collections
import contextlib
import fcntl
import glob
import hashlib
import heapq
import itertools
import json
import math
import os
import re
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see train.py: threads that wait must not burn a core that others need

import numpy as np
import torch
from tqdm import tqdm

from batches import CODE as OF_DATA
from batches import pad
from configurator import DEFAULT, ROOT, check_least, check_sampling, load_settings, read_config
from dataset.reader import file_names, read_rows, warn
from generate import SAMPLES_TOGETHER, beam_search, for_decoding, greedy, sample
from generate_terms import search_terms
from model import load_model
from physics import mathml
from physics.expression import parse
from physics.formats import annotated, check_format, formula_or_empty, to_function, to_sympy
from physics.latex import latex_text
from physics.particles import NO_FACTS, Facts, parse_masses
from physics.spelling import canonical
from physics.square import square_many
from physics.verdict import are_equal, doubt_of, missing_fact
from runtime import checkpoint
from runtime.certainty import CERTAINTY
from runtime.distributed import join, leave, wait
from runtime.files import InputError, check_output, digest, is_same_file, main_guard, write_rows, writing
from runtime.hardware import find_device, memory_of
from tokenizer import Tokenizer

SEARCH = ["beam", "beam_size", "length_penalty", "samples", "temperature", "top_k", "top_p", "seed", "verify",
          "fallback", "agree", "masses"]
KEYS = ["data_dir", "out_dir", "ckpt", "input", "output", "amp", *SEARCH, "n_best", "format", "batch_rows", "max_rows",
        "device", "dtype"]
COLUMNS = ["row", "amp", "prediction", "logprob", "status", *CERTAINTY[1:], "rank"]
WINDOW = 8  # batches read together, so that amplitudes of like length meet in one
MOST = 1000  # candidates of a row; fewer where one of the next two is the limit
LONGEST = 60  # seconds that a row may take, estimated
SPEED = {"cpu": 1e10, "cuda": 1e13}  # floating-point operations a second assumed for it, of a CPU thread or a GPU
FEW = 10  # so many candidates are never refused
LEAST = {"batch_rows": 1, "beam_size": 1, "samples": 0, "length_penalty": 0}
MOST_PENALTY = 10  # length_penalty: length**penalty stays within the range of floating-point numbers
# the files that make answers
CODE = (*OF_DATA, "decode.py", "generate*.py", "model.py", "attention.py", "sinekan.py",
        "ablations/wave/recurrence.py")


class Answer(NamedTuple):
    prediction: str  # text of the squared amplitude; "" if the model cannot read the amplitude
    logprob: float  # of the whole answer with its end; this and the next four NaN where there is no such number
    token_mean: float  # geometric mean of the probabilities of its tokens
    token_min: float  # the least of them
    margin: float  # logprob minus that of the best other candidate
    agreement: float  # share of the candidates' probability on texts that equal the answer as physics
    rank: int  # of the answer among the candidates, 1 the best; 0 where none of them is the answer
    status: str  # verified, computed, unverified, unchecked, unfinished, unreadable
    reason: str  # why it is unreadable or unverified, else ""
    candidates: list  # [text, logprob, status] of each, the best first

    def sympy(self):
        """The prediction as a SymPy expression. InputError if it is no formula."""
        return to_sympy(parse(self.prediction))

    def function(self):
        """The prediction as a function of NumPy arrays, f(s_12=..., m_e=...). InputError if it is no formula."""
        return to_function(parse(self.prediction))

    def _repr_latex_(self):
        """The typeset prediction and its status, for notebooks that show LaTeX; None if it is no formula."""
        try:
            return latex_text(parse(self.prediction), self.status)
        except InputError:
            return None

    def _repr_html_(self):
        """What a notebook shows: the typeset prediction, or its text if it is no formula, verdict and certainty."""
        notes = ", ".join(certainty_texts(self))
        return mathml.answer(self.prediction, self.status, verdict_text(self).removeprefix(self.status), notes)


class Loaded(NamedTuple):
    model: torch.nn.Module
    tokenizer: Tokenizer
    state: dict  # the checkpoint: step, settings, ...


def load(ckpt, device="auto", dtype="auto"):
    """The model of a checkpoint file, ready to decode. InputError if the file is missing or damaged."""
    model, tokenizer, state = load_model(ckpt, find_device(str(device)))
    return Loaded(for_decoding(model, dtype), tokenizer, state)


def decode(loaded, amps, batch_rows=64, beam_size=1, length_penalty=0.0, samples=0, temperature=1.0, top_k=0, top_p=1.0,
           seed=0, check=False, fallback=False, agree=False, facts=NO_FACTS, window_rows=0):
    """
    The Answer to each amplitude of an iterable, in its order, one after the other. A single text is a list of one. Any
    spelling is read that physics/spelling.py knows.

    beam_size: 1 decodes greedily, more is the width of a beam and the number of candidates. samples: so many candidates
    are drawn at random instead, see generate.draw; they depend on the seed and the amplitude alone. check: candidates
    are compared with the amplitude, the best first, see `doubt_of`; the first right one is the
    answer. fallback: where none is right, physics/square.py computes the square. agree: see Answer.
    facts: what the texts do not say (physics/particles.py), one Facts for all amplitudes or an iterable with one for
    each. window_rows: amplitudes that are read together; 0: WINDOW batches.
    """
    search = dict(beam_size=beam_size, length_penalty=length_penalty, samples=samples, temperature=temperature,
                  top_k=top_k, top_p=top_p, seed=seed)
    asked = SimpleNamespace(**search, batch_rows=batch_rows)
    check_least(asked, LEAST)
    check_sampling(asked)
    if isinstance(facts, (str, dict)):
        raise InputError("facts: wanted Facts of physics/particles.py, one or as many as amplitudes")
    amps = map(canonical_or_same, [amps] if isinstance(amps, str) else amps)
    if isinstance(facts, Facts):
        questions = zip(amps, itertools.repeat(facts))
    else:
        questions = zip(amps, facts, strict=True)
    while window := list(itertools.islice(questions, window_rows or WINDOW * batch_rows)):
        answers, sources = {}, {}
        for k, (amp, _) in enumerate(window):
            try:
                sources[k] = encode(loaded, amp)
            except InputError as error:
                answers[k] = Answer("", *[math.nan] * 5, 0, "unreadable", f"amp: {error}", [])
        order = sorted(sources, key=lambda k: len(sources[k]))  # rows of like length in a batch: less padding
        for first in range(0, len(order), batch_rows):
            rows = order[first:first + batch_rows]
            found = candidates_of(loaded, [window[k][0] for k in rows], [sources[k] for k in rows], **search)
            for k, texts in zip(rows, found):
                amp, known = window[k]
                answers[k] = choose(amp, texts, check, agree, known)
        if fallback:
            compute({k: question for k, question in enumerate(window)
                     if isinstance(question[0], str) and answers[k].status != "verified"}, answers)
        yield from (answers[k] for k in range(len(window)))


def canonical_or_same(amp):
    """A text in MARTY's spelling, see physics/spelling.py; anything else as it is, which `encode` refuses."""
    return canonical(amp) if isinstance(amp, str) else amp


def encode(loaded, amp):
    """Token ids of an amplitude. InputError for what the model cannot read."""
    if not isinstance(amp, str):
        raise InputError(f"{amp!r} is no text")
    ids, limit = loaded.tokenizer.encode_amp(amp)[0], loaded.state["model_config"]["src_max_len"]
    if len(ids) > limit:
        raise InputError(f"{len(ids)} tokens, the model's src_max_len is {limit}")
    return ids


def candidates_of(loaded, amps, sources, beam_size, length_penalty, samples, temperature, top_k, top_p, seed):
    """{text: Hypothesis} of the candidates for each amplitude of a batch, best first. sources: their token ids."""
    model, tokenizer = loaded.model, loaded.tokenizer
    max_len = loaded.state["model_config"]["tgt_max_len"] - 1  # tgt_max_len counts BOS, which is given
    src = pad(sources).to(model.tgt_embedding.weight.device)  # (B, S)

    def uniform(row, *term):
        return torch.from_numpy(random_numbers(amps[row], seed, samples, max_len, *term)).to(src.device)  # (K, max_len)

    if tokenizer.more:  # termwise
        lists = search_terms(model, tokenizer, src, max_len, uniform if samples else None, temperature, top_k, top_p,
                             beam_size, length_penalty)
    elif samples:
        numbers = torch.stack([uniform(row) for row in range(len(amps))])
        lists = sample(model, src, max_len, numbers, temperature, top_k, top_p)
    elif beam_size > 1:
        lists = beam_search(model, src, max_len, beam_size, length_penalty)
    else:
        lists = [[hypothesis] for hypothesis in greedy(model, src, max_len)]
    return [texts_of(tokenizer, amp, hypotheses, by_logprob=samples > 0) for amp, hypotheses in zip(amps, lists)]


def texts_of(tokenizer, amp, hypotheses, by_logprob):
    """{text: Hypothesis}: of several hypotheses with one text the first stays, or the first that is finished."""
    if by_logprob:
        hypotheses = sorted(hypotheses, key=lambda hypothesis: -hypothesis.logprob)
    fermions, texts = tokenizer.fermions(amp), {}
    for hypothesis in hypotheses:
        text = tokenizer.decode_sqamp(hypothesis.ids, fermions)
        if text not in texts or hypothesis.finished > texts[text].finished:
            texts.pop(text, None)  # the finished one has its own place
            texts[text] = hypothesis
    return texts


def random_numbers(amp, seed, samples, max_len, *term):
    """(samples, max_len) numbers in [0, 1), the same for an amplitude (and a term's number) in any file and batch."""
    return np.random.default_rng([seed, zlib.crc32(amp.encode()), *term]).random((samples, max_len))


# ---------------------------------------------------------------------------------------------------------------------
# The answer among the candidates

def choose(amp, texts, check, agree, facts=NO_FACTS):
    """The Answer among the candidates. texts: {text: Hypothesis}, the best first."""
    candidates = [[text, hypothesis.logprob, "unchecked" if hypothesis.finished else "unfinished"]
                  for text, hypothesis in texts.items()]
    chosen, reason = 0, ""
    if check:
        for k, candidate in enumerate(candidates):
            if candidate[2] == "unchecked":
                doubt = doubt_of(amp, candidate[0], facts)
                candidate[2] = "unverified" if doubt else "verified"
                reason = reason or doubt
                if not doubt:
                    chosen = k
                    break
    text, logprob, status = candidates[chosen]
    hypothesis = texts[text]
    others = [candidate[1] for k, candidate in enumerate(candidates) if k != chosen]
    missing = ""
    if status == "unverified" or status == "unchecked" and agree:
        missing = missing_fact(amp, texts, facts)
    if missing and check:
        status, reason = "unreadable", missing
    return Answer(
        text, logprob,
        token_mean=math.exp(logprob / len(hypothesis.ids)),
        token_min=math.exp(hypothesis.lowest),
        margin=logprob - max(others) if others else math.nan,
        agreement=agreement(amp, candidates, chosen, facts) if agree and not missing else math.nan,
        rank=chosen + 1,
        status=status,
        reason=reason if status in ("unverified", "unreadable") else "",
        candidates=candidates)


def agreement(amp, candidates, chosen, facts=NO_FACTS):
    """Share of the finished candidates' probability that is on texts of the same function as the chosen one."""
    answer, _, status = candidates[chosen]
    if status == "unfinished" or not is_formula(answer):
        return 0.0
    finished = [(text, logprob) for text, logprob, status in candidates if status != "unfinished"]
    highest = max(logprob for _, logprob in finished)  # exp(logprob) itself may be too small for a float
    weights = {text: math.exp(logprob - highest) for text, logprob in finished}
    equal = [text for text in weights if text == answer or are_equal(amp, text, answer, facts)]
    return sum(weights[text] for text in equal) / sum(weights.values())


def is_formula(text):
    try:
        parse(text)
    except InputError:
        return False
    return True


def compute(questions, answers):
    """Replace answers[k] by the computed square where that is proven right. questions: {k: (amp, facts)}"""
    amps, facts = [amp for amp, _ in questions.values()], [facts for _, facts in questions.values()]
    for (k, (amp, known)), result in zip(questions.items(), square_many(amps, facts=facts)):
        doubt = str(result) if isinstance(result, InputError) else doubt_of(amp, result, known)
        reason = answers[k].reason
        if not doubt:
            answers[k] = Answer(result, *[math.nan] * 5, 0, "computed", "", answers[k].candidates)
        elif doubt != reason.removeprefix("amp: "):
            answers[k] = answers[k]._replace(reason=f"{reason}; not computed: {doubt}".removeprefix("; "))


# ---------------------------------------------------------------------------------------------------------------------
# Settings and files

def search_options(settings):
    """The arguments of `decode` that the settings ask for. InputError for what cannot work."""
    check_least(settings, LEAST | {"max_rows": 0})
    check_sampling(settings)
    if settings.length_penalty > MOST_PENALTY:
        raise InputError(f"length_penalty: got {settings.length_penalty}, wanted at most {MOST_PENALTY}")
    if settings.beam and settings.samples:
        raise InputError("beam, samples: one or the other")
    if settings.fallback and not settings.verify:
        raise InputError("fallback: needs --verify, which finds out where it is needed")
    usual = read_config(DEFAULT)
    for name, switch in (("beam_size", "beam"), ("length_penalty", "beam"), ("temperature", "samples"),
                         ("top_k", "samples"), ("top_p", "samples")):
        if getattr(settings, name) != usual[name] and not getattr(settings, switch):
            print(f"note: {name} says nothing without --{switch}", file=sys.stderr)
    parse_masses(settings.masses)
    check_format(settings.format)
    names = ("batch_rows", "length_penalty", "samples", "temperature", "top_k", "top_p", "seed", "fallback", "agree")
    options = {name: getattr(settings, name) for name in names}
    return options | {"beam_size": settings.beam_size if settings.beam else 1, "check": settings.verify}


def check_cost(loaded, settings, rows):
    """InputError for more candidates than reasonable time and memory allow, with the number that works."""
    name = "samples" if settings.samples else "beam_size"
    wanted = settings.samples or (settings.beam_size if settings.beam else 1)
    device, batch = loaded.model.tgt_embedding.weight.device, min(rows, settings.batch_rows)
    memory = memory_of(device) / 2
    speed = SPEED["cuda"] if device.type == "cuda" else SPEED["cpu"] * torch.get_num_threads()

    def cost(candidates):
        """(seconds of a row, bytes of a batch), estimated."""
        operations, size = cost_of_row(loaded.state["model_config"], candidates, bool(settings.samples))
        return operations / speed, batch * size

    def works(candidates):
        seconds, size = cost(candidates)
        return candidates <= MOST and seconds <= LONGEST and size <= memory

    if wanted > FEW and not works(wanted):
        most = next(fewer for fewer in range(min(wanted, MOST), 0, -1) if works(fewer) or fewer == FEW)
        seconds, size = cost(wanted)
        raise InputError(
            f"{name}: got {wanted}, wanted at most {MOST}, here at most {most}: {wanted} candidates need about "
            f"{seconds:,.0f} s a row (limit {LONGEST} s; {rows * seconds / 3600:,.1f} h for {rows} rows) and "
            f"{size / 1e9:,.1f} GB for {batch} rows together (limit {memory / 1e9:,.1f} GB); --{name}={most} works; "
            "a smaller --batch_rows needs less memory")


def cost_of_row(config, candidates, sampled):
    """
    (floating-point operations, bytes) that decoding a row with so many candidates takes, estimated for answers of
    tgt_max_len tokens; termwise: for one term of it.

    A beam drops the slots of the KV cache that no candidate sees, samples keep all of theirs (KVCache in generate.py).
    """
    K, T, V = candidates, config["tgt_max_len"], config["tgt_vocab"]
    d, L = config["d_model"], config["decoder_layers"]
    slots = 2 * T * K if sampled else 2 * (T + 16 * K)
    seen = 2 * T * min(K, SAMPLES_TOGETHER) if sampled else slots  # by a candidate
    weights = L * (6 * d * d + 3 * d * config["d_ff"]) + d * V
    operations = T * K * (2 * weights + 4 * L * d * seen)  # products with the weights, attention to these slots
    cache = 2 * slots * 2 * L * d * 4  # two copies while it grows, keys and values
    scores = K * seen * (8 * config["heads"] + 5)  # two of (K, N) for each head, and the mask
    return operations, cache + scores + 4 * K * V * 8


def data_folder(settings, loaded):
    """data_dir; where neither that nor a config is named, the data_dir that the checkpoint was trained on."""
    named = settings.config_name != "default" or settings.data_dir != "data/default"
    return Path(settings.data_dir if named or not loaded else loaded.state["settings"]["data_dir"])


def input_file(settings):
    """The Path that --input names, None where it names none. InputError for more than one."""
    if not settings.input:
        return None
    names = file_names(settings.input)
    if len(names) != 1:
        raise InputError(f"input: got {len(names)} files in {settings.input}, wanted one; a name with spaces stands in "
                         "quotes")
    return Path(names[0])


def silent(path, line, reason):
    """Instead of dataset.reader.warn, where a file is read again: its bad lines are named once."""


def read_input(path, required, max_rows, on_bad=warn):
    """
    An iterator over (line number, row) of a file, at least one, at most max_rows unless that is 0. on_bad: see
    dataset.reader.read_rows.
    """
    rows = read_rows(path, required, on_bad)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}:2: no rows, at least one is expected")
    return itertools.islice(itertools.chain([first], rows), max_rows or None)


def facts_of(row, masses):
    """What a row says of its amplitude beside its text, and what the user says of masses."""
    return Facts(row.get("process", ""), masses)


def prediction_row(number, row):
    """A row of predictions.csv from one with the fields of an Answer, amp and maybe sqamp."""
    figures = {name: "" if math.isnan(row[name]) else f"{row[name]:.6g}" for name in CERTAINTY}
    return row | figures | {"row": number, "candidates": json.dumps(row["candidates"])}


def decode_share(loaded, path, count, settings, options, file, fingerprint, world):
    """
    Append the answers to this process's share of `count` rows to a part: the fingerprint, then JSON lines.

    A part with the same fingerprint is continued after its last whole window of rows. Then every row meets the same
    others in its batch, and the answers are to the last digit those of a run that was not interrupted.
    """
    window = window_of(count, world.size, settings.batch_rows)
    share = share_of(count, world.rank, world.size, settings.batch_rows)
    rows, masses = read_input(path, ("amp",), settings.max_rows, silent), parse_masses(settings.masses)
    mine = ((number, line, row) for number, (line, row) in enumerate(rows, 1)
            if number in share)
    done = cut_part(file, fingerprint, window)
    with tqdm(total=len(share), initial=done, unit=" rows", disable=None if world.rank == 0 else True) as bar:
        rows, amps, facts = itertools.tee(itertools.islice(mine, done, None), 3)  # decode reads ahead, by a window
        amps = (row["amp"] for _, _, row in amps)
        facts = (facts_of(row, masses) for _, _, row in facts)
        answers = decode(loaded, amps, facts=facts, window_rows=window, **options)
        first_unverified = True
        for place, ((number, line, row), answer) in enumerate(zip(rows, answers), 1):
            if answer.status == "unreadable":
                tqdm.write(f"{path}:{line}: {answer.reason}", file=sys.stderr)
            elif answer.status == "unverified" and first_unverified:
                tqdm.write(f"{path}:{line}: the first unverified row: {answer.reason}", file=sys.stderr)
                first_unverified = False
            file.write(json.dumps(prediction_row(number, row | answer._asdict())).encode() + b"\n")
            bar.update()
            if place % window == 0:
                file.flush()
                os.fsync(file.fileno())
    file.flush()


def window_of(count, ranks, batch_rows):
    """Rows that a process reads together: WINDOW batches, or less where the rows would not do for all processes."""
    return max(1, min(WINDOW * batch_rows, -(-count // ranks)))


def share_of(count, rank, ranks, batch_rows):
    """The numbers, from 1, of the rows of one of several processes: each window goes to the next process."""
    window = window_of(count, ranks, batch_rows)
    return {number for number in range(1, count + 1) if (number - 1) // window % ranks == rank}


def hold(part):
    """Open a part for reading and writing, and lock it. InputError if another process has it open."""
    file = open(part, "ab+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"{part}: another decode.py writes there; wait for its end, or name another --output"
        raise InputError(message) from None
    except OSError:  # a file system without locks
        pass
    return file


def cut_part(file, fingerprint, window):
    """
    Cut a part to its whole windows of rows and return how many rows these are.

    A part with another fingerprint is emptied, which stderr says: its answers are of other settings, data or code.
    """
    count = rows = 0
    file.seek(0)
    found = file.readline()
    if found != fingerprint.encode() + b"\n":
        if found:
            print(f"{file.name}: made with other settings, data or code; starting again", file=sys.stderr)
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


def join_parts(parts, output, columns, format="text"):
    """Write the rows of all parts as one CSV file, in order, and delete the parts. Returns {status: rows}.

    format: of one more column, see physics/formats.py; "text": there is none.
    """
    if format != "text":
        columns = [*columns, format]
    counts = collections.Counter()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(part, encoding="utf-8")) for part in parts]
        shares = [map(json.loads, itertools.islice(lines, 1, None)) for lines in files]  # without the fingerprints

        def rows():
            for row in heapq.merge(*shares, key=lambda row: row["row"]):
                if format != "text":
                    row[format] = formula_or_empty(row["prediction"], format)
                counts[row["status"]] += 1
                yield row

        write_rows(output, columns, rows())
    for part in output.parent.glob(f"{glob.escape(output.name)}.part-*-of-*"):  # of any number of processes
        part.unlink()
    return counts


def fingerprint_of(loaded, ckpt, path, settings):
    """All that an answer depends on, as text: a run continues the part of an earlier one only if this is the same."""
    names = (*SEARCH, "batch_rows", "max_rows", "dtype")
    device = loaded.model.tgt_embedding.weight.device
    device = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    chosen = {name: getattr(settings, name) for name in names}
    return json.dumps([code_version(), digest(ckpt), digest(path), device, chosen])


def code_version(root=ROOT):
    """Hash of the files that make answers, and the version of torch."""
    paths = sorted(path for pattern in CODE for path in root.glob(pattern))
    return hashlib.sha256(" ".join([torch.__version__, *map(digest, paths)]).encode()).hexdigest()[:16]


def decode_file(loaded, ckpt, path, output, settings, options, world):
    """
    Answer every row of a file, or this process's share of them. Returns ({status: number of rows}, bad lines), the
    former on rank 0 and else None.
    """
    bad_lines = 0

    def on_bad(*where):
        nonlocal bad_lines
        bad_lines += 1
        if world.rank == 0:
            warn(*where)

    rows = read_input(path, ("amp",), settings.max_rows, on_bad)
    _, first = next(rows)
    if is_same_file(output, path):
        raise InputError(f"{output}: is the input itself; name another --output")
    count = 1 + sum(1 for _ in rows)  # reads the whole file: what is wrong with it is said before the first answer
    check_cost(loaded, settings, count)
    columns = COLUMNS + [name for name in ("sqamp", "process") if name in first]
    if settings.n_best:
        columns.append("candidates")
    parts = [output.with_name(f"{output.name}.part-{rank}-of-{world.size}") for rank in range(world.size)]
    output.parent.mkdir(parents=True, exist_ok=True)
    with writing(parts[world.rank]), hold(parts[world.rank]) as file:
        fingerprint = fingerprint_of(loaded, ckpt, path, settings)
        decode_share(loaded, path, count, settings, options, file, fingerprint, world)
        wait(world)
        return join_parts(parts, output, columns, settings.format) if world.rank == 0 else None, bad_lines


def answer_one(loaded, amp, options, facts, format):
    """Print the answer to one amplitude: formula, certainty, verdict; the latter two as comments of the format."""
    answer, = decode(loaded, amp, facts=facts, **options)
    if answer.status == "unreadable":
        raise InputError(f"--amp: {answer.reason.removeprefix('amp: ')}")
    lines = [", ".join(certainty_texts(answer)), verdict_text(answer)]
    print(annotated(answer.prediction, format, list(filter(None, lines))), end="")


def certainty_texts(answer):
    """How certain the model is of an answer, for people; [] where the answer is not the model's."""
    if not answer.rank:
        return []
    texts = [f"log-probability {answer.logprob:.4g} (probability {math.exp(answer.logprob):.2%})",
             f"least certain token {answer.token_min:.2%}"]
    if answer.margin > 0:
        texts.append(f"{answer.margin:.3g} nats ahead of the next")
    if answer.rank > 1:
        texts.append(f"candidate {answer.rank}")
    return texts


def verdict_text(answer):
    """An answer's status and what it means."""
    meaning = {"verified": "equal to the square of the amplitude at random momenta, in exact arithmetic",
               "computed": "the model's candidates are all wrong, this is the square by FORM",
               "unchecked": "nobody has compared it with the amplitude",
               "unfinished": "the answer was not complete at the model's tgt_max_len tokens"}
    return f"{answer.status}: {meaning.get(answer.status, answer.reason)}"


def main(argv=None):
    settings = load_settings(__doc__, KEYS, argv)
    options = search_options(settings)
    if settings.amp and (settings.input or settings.output or settings.n_best):
        raise InputError("amp: one amplitude, whose answer is printed; input, output and n_best are for files")
    named, ckpt = input_file(settings), checkpoint.find(settings)
    if settings.amp:
        loaded = load(ckpt, settings.device, settings.dtype)
        check_cost(loaded, settings, 1)
        amp = sys.stdin.buffer.read().decode("utf-8", "replace").strip() if settings.amp == "-" else settings.amp
        if not amp.strip():
            raise InputError("--amp: no amplitude")
        return answer_one(loaded, amp, options | {"check": True}, Facts(masses=parse_masses(settings.masses)),
                          settings.format)
    with join(settings.device) as world:
        loaded = load(ckpt, world.device, settings.dtype)
        path = named or data_folder(settings, loaded) / "test.csv"
        name = "predictions.csv"
        if named:
            name = re.sub(r"(\.csv|\.tsv|\.txt)?(\.gz|\.bz2|\.xz|\.zip)?$", ".predictions.csv", path.name, count=1)
        output = Path(settings.output or checkpoint.folder_beside(ckpt) / name)
        if output.is_dir():
            raise InputError(f"output: {output} is a folder, a file is expected")
        check_output(output, "row,amp,prediction")
        if world.rank == 0:
            print(f"{path}, by {ckpt}", file=sys.stderr)
        counts, bad_lines = decode_file(loaded, ckpt, path, output, settings, options, world)
        if world.rank == 0:
            summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            if bad_lines:
                summary += f"; bad lines left out: {bad_lines}"
            print(f"{output}: {sum(counts.values())} rows: {summary}")
    code = int(world.rank == 0 and set(counts) == {"unreadable"})  # nothing was answered
    leave(world, code)
    return code


if __name__ == "__main__":
    main_guard(main)
