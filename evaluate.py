"""How good is a model: exact answers, right physics, and what a lookup table would have scored.

    python evaluate.py [config/file.py] [--key=value ...]       the test split, by the best checkpoint of the newest run
    python evaluate.py config/qed.py --beam --verify --agree    as decode.py would answer, see there; --agree: one more
                                                                certainty figure
    python evaluate.py config/qed.py --input=FILE               any file with amp and sqamp, see dataset/reader.py
    python evaluate.py config/qed.py --input=predictions.csv    a file with amp, sqamp and prediction: no model needed,
                                                                but the data set, for the lookup table and the ceiling;
                                                                what the file calls verified is judged again
    python evaluate.py --notations --input="data/qed data/ew"   no model: lengths of the rows of data sets, folders or
                                                                files, in each notation, as a table and a figure
    python evaluate.py config/qed.py --export=FOLDER            also write the model, with its scores on a card, as the
                                                                Hugging Face hub has it; --ckpt=FOLDER reads it again
    python evaluate.py --compare="out/A out/B"                  do B, C, ... differ from A on the same rows? From their
                                                                reports: a table, compare.json and compare.html in
                                                                out/A; also means over runs that differ in their seed
    python evaluate.py --notations --compare="out/n/*"          accuracy against notation, of runs that differ in
                                                                notation and seed alone: a table and a figure

Prints a table and some answers beside the truth; writes report.json (or --output=FILE.json), the page report.html that
shows it, and, where it decoded, predictions.csv beside it. In the report, each a share of the rows:
    sequence_accuracy   the answer is the row's sqamp, character for character
    right_physics       the answer is exact, or proven to be the square of the amplitude: equal in floating point, then
                        in exact arithmetic. Where there is no proof the answer counts as wrong; `rows_unproven`
                        says how often that happened to answers that are equal in floating point
    token_accuracy      positions with the right token, over the longer of answer and truth; mean of the rows (the
                        figure of the SYMBA blog of 2022; one of our tokens is worth two of theirs)
    lookup_accuracy     what a lookup table of the training rows gets right, up to the order of terms; the better of
                        "exact" (its keys are amplitudes up to index names) and "renamed" (up to particle names as
                        well); beside it in `lookup` stand "rescaled" (up to the product of the charges as well) and
                        "relabelled" (up to the order and sides of the legs as well: any training row of the same
                        orbit, of every n-th row so that it is asked about 1,000 at most; see dataset/baseline.py)
    mistakes            how often wrong answers have which mistake, see physics/mistakes.py
    coverage            answers that are verified or computed (--verify), where a physicist need not look
    certainty           right physics among the 50%, 80%, 90% and 95% of the rows that are most certain by each figure
                        of decode.py; certainty_intervals: 95% intervals, over the rows
    ceiling             what exact match can hope for: one amplitude may stand with several right texts of its square;
                        for each row, the share of the most frequent text among the rows of its amplitude in all splits
by_process and by_length are the first figures by kind of process and by length. `train` has the same of --train_rows
rows of the training split, some of each kind: a kind that is never right there was never learned; the table says so.
by_diagram and by_terms are the same by the channels of the propagators and by the number of terms of the polynomial.
intervals has 95% intervals of the first figures, over the rows. reliability and accuracy_at_coverage say whether the
figures of certainty can be believed, curves what log.jsonl says of the training, examples the worst errors and a random
sample of rows. outcomes is a text with one letter for each row of the file: r right, o right but spelled otherwise,
w wrong, f unfinished, x unreadable, - no row that counts.
Lines that are no row and rows whose amp or sqamp cannot be read are named on stderr and counted in `rows_unreadable`,
and in no other figure. So are rows whose square nobody can judge because a fact is missing; the message says what
--masses="X=m Y=0" or a column `process` has to add.
Beside the report stands inc_idx.npy (beside NAME.json NAME.inc_idx.npy): the row numbers, from 0, of the answers that
are wrong; those of the training split are what `scst.py --indices=` learns from:
    python evaluate.py config/qed.py --input=data/qed/train.csv --output=out/qed/train/report.json
An answer that is not finished, or to an amplitude that the model cannot read, is wrong.
"""
import collections
import glob
import json
import math
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see train.py

import numpy as np
import torch
from tqdm import tqdm

from batches import Batch, join_ids, to_device
from configurator import check_least, load_settings
from dataset import lengths
from dataset.baseline import canonical_key, every_nth, lookup_scores
from dataset.card import MODEL, claim
from dataset.reader import file_names, read_rows, warn
from decode import (
    COLUMNS,
    SEARCH,
    Answer,
    check_cost,
    data_folder,
    decode,
    encode,
    facts_of,
    input_file,
    load,
    prediction_row,
    read_input,
    search_options,
    silent,
)
from physics.numeric import verify
from physics.particles import parse_masses
from physics.spelling import canonical
from physics.verdict import doubt_of
from runtime import checkpoint, notation_accuracy
from runtime.certainty import CERTAINTY, accuracy_at_coverage, certainty, certainty_intervals, reliability
from runtime.compare import compare, comparison_table, rows_digest
from runtime.export import export_model
from runtime.files import (
    InputError,
    atomic_open,
    check_output,
    digest,
    is_same_file,
    main_guard,
    write_json,
    write_rows,
)
from runtime.page import comparison_page, page_of
from runtime.report import ENOUGH
from runtime.runs import columns, read_log
from runtime.scores import (
    LETTERS,
    NONE,
    OTHERWISE,
    PROVEN,
    RIGHT,
    UNFINISHED,
    UNREADABLE,
    WRONG,
    accuracies,
    accuracies_by,
    by_process_and_length,
    ceiling,
    diagram_of,
    intervals,
    is_right,
    kind_of,
    mistakes,
    readable_tokens,
    terms_of,
    token_accuracy,
    unproven,
)
from runtime.summary import examples, table
from tokenizer import EOS, numbered, rename, sqamp_tokens

KEYS = ["data_dir", "out_dir", "ckpt", "input", "output", *(key for key in SEARCH if key != "fallback"),
        "batch_rows", "max_rows", "train_rows", "device", "dtype", "notations", "compare", "export"]
NEXT = """next: open {page} in a browser
      python decode.py --beam --verify        answers that are checked before you see them
      python prepare.py config/quickstart.py --split=orbit --data_dir=data/orbit    squares unlike those of training"""
NAMED = 5  # unreadable rows that stderr names
LONGEST_CURVE = 400  # points of a training curve
WORST, SAMPLED = 40, 40  # rows on the page
SHOWN_COLUMNS = ("amp", "sqamp", "prediction", "verdict", "status", "reason", "process", "diagram", "theory")


# ---------------------------------------------------------------------------------------------------------------------
# Scores. A row is a dictionary with amp, sqamp, prediction, logprob (NaN if none), status; then also verdict. The
# figures themselves are in runtime/scores.py and runtime/certainty.py

def verdict_of(row, masses=()):
    """One of the keys of LETTERS. The reason of a wrong answer is left in row["reason"]. masses: see parse_masses."""
    if row["status"] in (UNFINISHED, UNREADABLE):
        return row["status"]
    if row["prediction"] == row["sqamp"] and row["status"] != "computed":
        return RIGHT
    if row["status"] == "verified":
        return OTHERWISE
    if row["status"] in ("unverified", "computed"):  # computed by FORM, because all candidates of the model were wrong
        return WRONG
    row["reason"] = doubt_of(row["amp"], row["prediction"], facts_of(row, masses))
    return WRONG if row["reason"] else OTHERWISE


def report_of(rows, train, others, masses=()):
    """
    All figures of judged rows; train: the rows of the training split, others: those of the splits besides. masses: see
    physics.particles.parse_masses.
    """
    lookup = lookup_scores(train, rows, masses, every_nth(len(rows)))
    highest, ambiguous = ceiling(rows, train + others)
    trained = {canonical_key(row["amp"]) for row in train}
    unseen = [row for row in rows if canonical_key(row["amp"]) not in trained]  # up to index names
    logprobs = {True: [], False: []}
    for row in rows:
        if not math.isnan(row["logprob"]):
            logprobs[is_right(row)].append(row["logprob"])
    return {
        **accuracies(rows),
        "token_accuracy": statistics.fmean(map(token_accuracy, rows)),
        "lookup_accuracy": max(lookup["exact"], lookup["renamed"]),
        "ceiling": highest,
        "coverage": sum(row["status"] in PROVEN for row in rows) / len(rows),
        "lookup": lookup,
        "rows_with_several_texts": ambiguous,
        "rows_in_training_set": len(rows) - len(unseen),
        "unseen": accuracies(unseen) if unseen else None,
        "rows_unproven": sum(map(unproven, rows)),
        "verdicts": {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in LETTERS},
        "mistakes": mistakes(rows),
        "mean_logprob": {name: statistics.fmean(logprobs[right]) if logprobs[right] else None
                         for name, right in (("right", True), ("wrong", False))},
        "certainty": certainty(rows),
        **by_process_and_length(rows),
    }


def details_of(rows, loaded, seed):
    """What the page shows beside the figures of `report_of`, of judged rows."""
    letters = {row["number"]: LETTERS[row["verdict"]] for row in rows}
    return {
        "rows_sha256": rows_digest(rows),
        "intervals": intervals(rows, seed),
        "certainty_intervals": certainty_intervals(rows, seed),
        "by_diagram": accuracies_by(diagram_of, rows),
        "by_terms": accuracies_by(terms_of, rows),
        "reliability": reliability(rows),
        "accuracy_at_coverage": accuracy_at_coverage(rows),
        "outcomes": "".join(letters.get(number, NONE) for number in range(max(letters) + 1)),
        "examples": [example(row, chosen, loaded) for chosen, some in
                     (("worst", worst_errors(rows)), ("random", random_rows(rows, seed))) for row in some],
    }


def worst_errors(rows):
    """The wrong answers of which the model is most certain."""
    wrong = [row for row in rows if not is_right(row)]
    return sorted(wrong, key=lambda row: (math.isnan(row["logprob"]), -row["logprob"]))[:WORST]


def random_rows(rows, seed):
    chosen = np.random.default_rng(seed).permutation(len(rows))[:SAMPLED]
    return [rows[k] for k in sorted(chosen.tolist())]


def example(row, chosen, loaded):
    """A row as the page shows it. chosen: which of its lists it is in."""
    copied = {name: row.get(name, "") for name in SHOWN_COLUMNS}
    figures = {name: None if math.isnan(row[name]) else row[name] for name in CERTAINTY}
    truth = [token for token, _ in scored_tokens(row["amp"], row["sqamp"], loaded, False)]
    answer = scored_tokens(row["amp"], row["prediction"], loaded)
    return {"row": row["number"] + 1, "set": chosen, **copied, **figures, "kind": kind_of(row),
            "diagram_type": diagram_of(row), "tokens": len(truth), "truth_tokens": truth, "answer_tokens": answer}


def scored_tokens(amp, sqamp, loaded, with_probabilities=True):
    """
    [(token, its probability given those before it)] of a text as a model's answer. The probabilities are None without
    a model, and for a text that the model cannot write, of which the readable beginning is given.
    """
    try:
        if loaded is None:
            raise InputError("no model")
        tokenizer = loaded.tokenizer
        fermions = tokenizer.fermions(canonical(amp))
        ids = tokenizer.encode_sqamp(sqamp, fermions)
        probabilities = token_probabilities(loaded, amp, ids) if with_probabilities else [None] * len(ids)
    except InputError:
        return [(token, None) for token in readable_tokens(sqamp)]
    tokens = [rename(tokenizer.vocabulary["tgt"][id], *numbered(fermions)[::-1]) for id in ids]
    return [pair for pair, id in zip(zip(tokens, probabilities), ids) if id != EOS]


@torch.no_grad()
def token_probabilities(loaded, amp, ids):
    """
    The probability of each token of an answer given those before it. ids: as encode_sqamp gives them. InputError if
    there are more of them than in any answer of the model.
    """
    ends = [k for k, id in enumerate(ids, 1) if id == EOS]
    terms = [ids[start:end] for start, end in zip([0, *ends], ends)]  # one, if the model is not termwise
    if max(map(len, terms)) >= loaded.state["model_config"]["tgt_max_len"]:
        raise InputError("longer than any answer of the model")
    begun = [[first, *term[:-1]] for first, term in zip(loaded.tokenizer.first, terms)]
    src, sources = join_ids([encode(loaded, canonical(amp))] * len(terms))
    tgt, targets = join_ids(begun)
    batch = to_device(Batch(src, sources, tgt, torch.tensor(ids), targets), loaded.model.tgt_embedding.weight.device)
    probabilities = loaded.model(batch.src, batch.sources, batch.tgt, batch.targets).softmax(-1)  # (M, V)
    return probabilities.gather(1, batch.truth[:, None])[:, 0].tolist()


def curves_of(run_dir):
    """{figure of log.jsonl: [(step, value), ...]}, at most LONGEST_CURVE points of each; {} where there is no log."""
    lines, curves = read_log(run_dir), {}
    for key in ("loss", "valid_loss", "valid_exact", "train_exact", "learning_rate"):
        points = list(zip(*columns(lines, key)))
        curves[key] = points[::math.ceil(len(points) / LONGEST_CURVE) or 1]
    return {key: points for key, points in curves.items() if points}


def training_of(run_dir):
    """Steps, minutes and tokens/s (the median) of a run, from log.jsonl; {} where there is no log."""
    lines = [line for line in read_log(run_dir) if line.get("tokens_per_second") is not None]
    if not lines:
        return {}
    return {"steps": lines[-1]["step"], "minutes": lines[-1]["seconds"] / 60,
            "tokens_per_second": statistics.median(line["tokens_per_second"] for line in lines)}


# ---------------------------------------------------------------------------------------------------------------------
# Rows

class Split(NamedTuple):
    rows: list  # each with its `number`, from 0
    unreadable: list  # likewise; their status is unreadable, and their `reason` is FILE:LINE and why
    bad_lines: int  # lines of the file that are no row


def read_split(path, max_rows=0, masses=None, on_bad=warn):
    """
    The Split of a file with amp and sqamp. InputError if all rows are unreadable.

    A row is unreadable if amp or sqamp has no tokens, or a certainty figure is no number; with `masses`, which are not
    None, also if nobody can judge its sqamp. on_bad: see dataset.reader.read_rows; `silent`: nothing is named.
    """
    rows, unreadable, bad_lines = [], [], 0

    def bad(*where):
        nonlocal bad_lines
        bad_lines += 1
        on_bad(*where)

    lines = read_input(path, ("amp", "sqamp"), max_rows, bad)
    lines = tqdm(lines, unit=" rows", desc=f"reading {Path(path).name}", disable=None, leave=False)
    for number, (line, row) in enumerate(lines):
        row["number"] = number
        if reason := fault_of(row, masses):
            reason = f"{path}:{line}: {reason}"
            unreadable.append(row | Answer("", *[math.nan] * 5, 0, UNREADABLE, reason, [])._asdict())
            continue
        row |= {figure: float(row.get(figure) or "nan") for figure in CERTAINTY}
        row["status"] = row.get("status") or "unchecked"
        rows.append(row)
    if not rows:
        raise InputError(f"{unreadable[0]['reason']} (no row of the file can be read)")
    if on_bad is not silent:
        for row in unreadable[:NAMED]:
            print(row["reason"], file=sys.stderr)
        if len(unreadable) > NAMED:
            print(f"{path}: {len(unreadable) - NAMED} more rows cannot be read", file=sys.stderr)
    return Split(rows, unreadable, bad_lines)


def fault_of(row, masses):
    """Why a row is unreadable, see `read_split`; "" if it is not."""
    try:
        column = "amp"
        canonical_key(row["amp"])
        column = "sqamp"
        sqamp_tokens(row["sqamp"])
        for column in CERTAINTY:
            check_certainty(column, float(row.get(column) or "nan"))
    except (InputError, ValueError) as error:
        return f"{column}: {error}"
    return "" if masses is None else cannot_judge(row, masses)


def check_certainty(figure, value):
    """InputError for a certainty figure that no model can have; NaN is none at all."""
    least, most = {"logprob": (-math.inf, 0.0), "margin": (-math.inf, math.inf)}.get(figure, (0.0, 1.0))
    if math.isinf(value) or not (math.isnan(value) or least <= value <= most):
        raise InputError(f"got {value:g}, wanted a number from {least:g} to {most:g}, finite")


def cannot_judge(row, masses):
    """Why nobody can say whether sqamp is the square of amp; "" if it is known that it is, or that it is not."""
    verdict = verify(row["amp"], row["sqamp"], facts=facts_of(row, masses))
    return verdict.reason if verdict.status == "unreadable" else ""


def sample_rows(rows, count, seed):
    """
    Copies of `count` rows in their order, the same ones for the same seed: drawn at random, but at least ENOUGH of each
    kind of process, or all that there are, as far as the count allows.
    """
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    drawn, place = collections.Counter(), {}  # of each row its place among the drawn rows of its kind
    for k in order:
        kind = kind_of(rows[k])
        place[k] = drawn[kind]
        drawn[kind] += 1
    chosen = sorted(order, key=lambda k: min(place[k], ENOUGH))[:count]  # the first of each kind, then the second, ...
    return [dict(rows[k]) for k in sorted(chosen)]


def add_answers(rows, loaded, options, masses, what):
    """Decode the rows, so that each has the fields of its Answer; returns the seconds that took, with verification."""
    started = time.monotonic()
    answers = decode(loaded, (row["amp"] for row in rows), facts=[facts_of(row, masses) for row in rows], **options)
    for row, answer in zip(rows, tqdm(answers, total=len(rows), unit=" rows", desc=f"decoding {what}", disable=None)):
        row |= answer._asdict()
    return time.monotonic() - started


def judge(rows, masses, believed=True):
    """Give each row its verdict. Not believed: what the file calls verified or unverified is judged anew."""
    for row in tqdm(rows, unit=" rows", desc="judging", disable=None, leave=False):
        claim = row["status"]
        if not believed and claim in ("verified", "unverified"):
            row["status"] = "unchecked"
        row["verdict"] = verdict_of(row, masses)
        if claim == "verified" and is_right(row):
            row["status"] = claim


def tokens_per_row(rows, tokenizer):
    """{"source": mean number of tokens of an amplitude, "target": of its square}, of rows that the model can read."""
    lengths = []
    for row in rows:
        try:
            square = tokenizer.encode_sqamp(row["sqamp"], tokenizer.fermions(row["amp"]))
            lengths.append((len(tokenizer.encode_amp(row["amp"])[0]), len(square)))
        except InputError:  # not in the vocabulary
            pass
    return dict(zip(("source", "target"), map(statistics.fmean, zip(*lengths))))


def indices_name(name):
    """Name of the file with the row numbers of a report's wrong answers."""
    return "inc_idx.npy" if name == "report.json" else f"{name.removesuffix('.json')}.inc_idx.npy"


def split_of(data_dir):
    """"random", "template", "published", ..., from the manifest of prepare.py; None where there is none."""
    try:
        return json.loads((data_dir / "manifest.json").read_text(encoding="utf-8"))["settings"]["split"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sequence_accuracy(loaded, path, max_rows=0, **search):
    """
    Share of the rows of a file whose answer is the row's sqamp, character for character, in 0..1. For a notebook:

        sequence_accuracy(load("out/qed/best.pt"), "data/qed/valid.csv")

    loaded: what decode.load gives. max_rows: so many rows at most; 0: all. search: options of decode.decode, such as
    beam_size=5.
    """
    rows = read_split(path, max_rows).rows
    add_answers(rows, loaded, search, (), "rows")
    return statistics.fmean(row["prediction"] == row["sqamp"] and row["status"] != UNFINISHED for row in rows)


# ---------------------------------------------------------------------------------------------------------------------
# Without a model: lengths in each notation, and runs compared

def compare_notations(settings):
    """--notations: print the table of lengths of the data sets in `input`, draw the figure."""
    check_least(settings, {"max_rows": 0})
    names = file_names(settings.input) if settings.input else [settings.data_dir]
    output = Path(settings.output or "notations.svg")
    check_output(output, "<?xml", ".svg")
    measured = {name: lengths.measure(name, settings.max_rows) for name in names}
    print(lengths.table(measured))
    lengths.draw(measured, output)
    print(f"\n{output}")


def run_names(settings):
    """What --compare names: run folders or reports, separated by spaces; "out/n/*" is all of a folder."""
    return [name for pattern in file_names(settings.compare) for name in sorted(glob.glob(pattern)) or [pattern]]


def accuracy_by_notation(settings):
    """--notations --compare: print the table of the runs' accuracy by notation, draw the figure."""
    output = Path(settings.output or "notation_accuracy.svg")
    check_output(output, "<?xml", ".svg")
    groups = notation_accuracy.in_order(compare(run_names(settings))["groups"])
    print(notation_accuracy.table(groups))
    notation_accuracy.draw(groups, output)
    print(f"\n{output}")


def compare_runs(settings):
    """--compare: print the table, write compare.json and compare.html."""
    names = run_names(settings)
    comparison = compare(names)
    folder = Path(names[0]) if Path(names[0]).is_dir() else Path(names[0]).parent
    output = Path(settings.output or folder / "compare.json")
    check_output(output, '{\n  "compared"', ".json")
    check_output(page_path(output), "<!DOCTYPE html>")
    write_json(output, comparison)
    write_page(page_path(output), comparison_page(comparison))
    print(comparison_table(comparison))
    print(f"\n{output}, {page_path(output)}")


def page_path(output):
    return output.with_name(output.name.removesuffix(".json") + ".html")


def write_page(path, text):
    with atomic_open(path) as file:
        file.write(text)


def main(argv=None):
    settings = load_settings(__doc__, KEYS, argv)
    if settings.notations and settings.compare:
        return accuracy_by_notation(settings)
    if settings.notations:
        return compare_notations(settings)
    if settings.compare:
        return compare_runs(settings)
    options = search_options(settings)
    check_least(settings, {"train_rows": 0})
    if settings.fallback:
        raise InputError("fallback: what FORM computes says nothing about the model; decode.py has it")
    named, masses = input_file(settings), parse_masses(settings.masses)
    answered = named and "prediction" in next(read_input(named, ("amp", "sqamp"), 1, silent))[1]
    if answered and settings.ckpt:
        raise InputError(f"ckpt: {named} has a column 'prediction', whose answers are scored; leave one of the two out")
    ckpt = None if answered else checkpoint.find(settings)
    loaded = None if answered else load(ckpt, settings.device, settings.dtype)
    data_dir = data_folder(settings, loaded)
    path = named or data_dir / "test.csv"
    folder = checkpoint.folder_beside(ckpt) if ckpt else path.parent
    output = Path(settings.output or folder / "report.json")

    check_output(output, '{\n  "rows"', ".json")
    check_output(page_path(output), "<!DOCTYPE html>")
    if settings.export:
        if not loaded:
            raise InputError("export: the file has predictions, so no model answers; name the file without them")
        claim(settings.export, *MODEL)
    if loaded:
        check_output(output.with_name("predictions.csv"), "row,amp,prediction")
        print(f"{path}, by {ckpt}", file=sys.stderr)
    if not (data_dir / "train.csv").exists():
        raise InputError(f"{data_dir}/train.csv: no such file; the config or --data_dir names the data that the model "
                         "was trained on")
    rows, unreadable, bad_lines = read_split(path, settings.max_rows, masses)
    train_csv, *others = (data_dir / f"{name}.csv" for name in ("train", "valid", "test"))
    others = [split for split in others if split.exists() and any(read_rows(split, on_bad=silent))]  # may have no rows
    train, *others = (read_split(split, on_bad=silent if is_same_file(split, path) else warn).rows
                      for split in (train_csv, *others))
    run = {"input": str(path), "input_sha256": digest(path), "data_dir": str(data_dir), "split": split_of(data_dir),
           "masses": settings.masses}
    if loaded:
        check_cost(loaded, settings, len(rows))
        seconds = add_answers(rows, loaded, options, masses, "rows")
        every = sorted(rows + unreadable, key=lambda row: row["number"])
        lines = (prediction_row(row["number"] + 1, row) for row in every)
        columns = COLUMNS + [name for name in ("sqamp", "process") if name in rows[0]]
        write_rows(output.with_name("predictions.csv"), columns, lines)
        state = loaded.state
        run |= {"checkpoint": str(ckpt), "step": state["step"], "seed": state["settings"]["seed"],
                "device": str(loaded.model.tgt_embedding.weight.device), "search": options,
                "seconds": seconds, "seconds_per_row": seconds / len(rows), "settings": state["settings"],
                "tokens_per_row": tokens_per_row(rows, loaded.tokenizer), "training": training_of(ckpt.parent)}
    judge(rows, masses, believed=loaded is not None)
    for row in filter(unproven, rows):
        print(f"{path}: row {row['number'] + 1}: equal in floating point, but {row['reason']}", file=sys.stderr)
    report = report_of(rows, train, [row for split in others for row in split], masses)
    report |= details_of(rows, loaded, settings.seed)
    report["rows_unreadable"] = len(unreadable) + bad_lines
    if loaded:
        report["curves"] = curves_of(ckpt.parent)
    sampled = sample_rows(train, settings.train_rows, settings.seed) if loaded else []
    if sampled := [row for row in sampled if not cannot_judge(row, masses)]:
        add_answers(sampled, loaded, options, masses, "training rows")
        judge(sampled, masses)
        report["train"] = accuracies(sampled) | by_process_and_length(sampled)
    wrong = [row["number"] for row in rows if not is_right(row)]
    with atomic_open(output.with_name(indices_name(output.name)), "wb") as file:
        np.save(file, np.array(wrong, np.int64), allow_pickle=False)
    report |= run
    write_json(output, report)
    write_page(page_path(output), page_of(report))
    if settings.export:
        export_model(settings.export, loaded.state, report)

    print(table(report))
    print(examples(rows, shutil.get_terminal_size((120, 24)).columns))
    print(f"\n{output}, {page_path(output)}")
    if loaded:
        print(NEXT.format(page=page_path(output)))


if __name__ == "__main__":
    main_guard(main)
