"""Greedy decoding is what the model says, token for token; every row gets an answer and an honest status."""
import csv
import gzip
import io
import json
import lzma
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
import types

import pytest
import torch
from tiny import make_run, padded, write_csv

import decode as script
from batches import pad
from dataset.vocabulary import build_vocabulary
from decode import COLUMNS, choose, decode, load, main
from generate import Hypothesis, greedy
from model import ModelConfig, Transformer, load_model
from physics import mathml
from physics.expression import parse
from physics.formats import document, formula, to_sympy
from physics.latex import latex_lines
from physics.numeric import evaluate, verify
from physics.particles import Facts, parse_masses
from physics.verdict import are_equal
from runtime import checkpoint
from runtime.files import InputError
from tokenizer import BOS, EOS, Tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder with data/ and run/best.pt, the rows that the model knows by heart)."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, make_run(folder)


@pytest.fixture
def loaded(run):
    return load(run[0] / "run" / "best.pt", "cpu")


def shorter(loaded, **limits):
    return loaded._replace(state=loaded.state | {"model_config": loaded.state["model_config"] | limits})


def decoded(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def call(run, *flags):
    return main([f"--ckpt={run[0] / 'run' / 'best.pt'}", "--device=cpu", *map(str, flags)])


def uncached(model, src, max_len):
    """Greedy decoding without a cache, one row: the whole target goes through the model again for every token."""
    ids = [BOS]
    while len(ids) <= max_len and ids[-1] != EOS:
        ids.append(padded(model, src[None], torch.tensor([ids]))[0, -1].argmax().item())
    return ids[1:]


# ---------------------------------------------------------------------------------------------------------------------
# Answers

def test_a_learned_row_is_answered_and_verified(run, loaded):
    rows = run[1]
    answers = list(decode(loaded, [row["amp"] for row in rows], check=True))
    assert [answer.prediction for answer in answers] == [row["sqamp"] for row in rows]
    assert {answer.status for answer in answers} == {"verified"} and all(-1 < answer.logprob < 0 for answer in answers)


def test_three_lines_in_a_notebook(run):
    model = load(run[0] / "run" / "best.pt")
    (answer,) = decode(model, run[1][0]["amp"])
    assert (answer.prediction, answer.status) == (run[1][0]["sqamp"], "unchecked")


def test_a_wrong_answer_is_not_verified(run, loaded):
    """Twice the coupling: the model has learned no such row, answers what it knows, and verify.py notices."""
    amp = run[1][0]["amp"].replace("i*e^2", "e^2*e^2", 1)
    (answer,) = decode(loaded, amp, check=True)
    assert answer.status == "unverified" and "the amplitude gives" in answer.reason


@pytest.mark.parametrize("file", ["qed-2to2", "qcd-2to2"])
def test_cached_decoding_is_uncached_decoding_on_real_rows(marty, file):
    """Random weights: their answers wander through the whole vocabulary, some end and some do not."""
    path = marty / f"{file}.csv.gz"
    tokens = Tokenizer(build_vocabulary(path))
    torch.manual_seed(1)
    model = Transformer(
        ModelConfig(
            src_vocab=len(tokens.vocabulary["src"]),
            tgt_vocab=len(tokens.vocabulary["tgt"]),
            src_max_len=512,
            tgt_max_len=512,
            d_model=32,
            heads=2,
            encoder_layers=2,
            decoder_layers=2,
            d_ff=64,
            dropout=0.0,
        )
    ).eval()
    with gzip.open(path, "rt") as lines:
        amps = [row["amp"] for row in csv.DictReader(lines)][::15]
    sources = [tokens.encode_amp(amp)[0] for amp in amps]
    with torch.inference_mode():
        slow = [uncached(model, torch.tensor(ids), 25) for ids in sources]
        assert [answer.ids for answer in greedy(model, pad(sources), 25)] == slow
    assert len(set(map(tuple, slow))) > 1


def test_trained_model_cached_is_uncached_with_its_logprob(run, loaded):
    src = pad([loaded.tokenizer.encode_amp(row["amp"])[0] for row in run[1]])
    with torch.inference_mode():
        for row, (ids, logprob, _) in zip(src, greedy(loaded.model, src, 63)):
            row = row[row != 0]
            assert uncached(loaded.model, row, 63) == ids
            scores = padded(loaded.model, row[None], torch.tensor([[BOS] + ids[:-1]]))[0].log_softmax(-1)
            assert logprob == pytest.approx(scores[range(len(ids)), ids].sum().item(), abs=1e-4)


def test_a_batch_answers_as_its_rows_alone_in_any_order(run, loaded):
    amps = [row["amp"] for row in run[1]] * 3
    random.Random(0).shuffle(amps)
    alone = [next(decode(loaded, amp)) for amp in amps]
    for batch_rows in (1, 5, 64):
        for answer, other in zip(decode(loaded, amps, batch_rows), alone, strict=True):
            assert (answer.prediction, answer.status) == (other.prediction, other.status)
            assert answer.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_answers_come_as_they_are_asked_for(run, loaded):
    """An endless stream of amplitudes is no obstacle."""
    def endless():
        while True:
            yield run[1][0]["amp"]

    assert next(decode(loaded, endless(), batch_rows=2)).prediction == run[1][0]["sqamp"]


def test_an_answer_without_end_is_unfinished_even_when_checked(run, loaded):
    (answer,) = decode(shorter(loaded, tgt_max_len=6), run[1][0]["amp"], check=True)
    assert answer.status == "unfinished" and answer.prediction and run[1][0]["sqamp"].startswith(answer.prediction)


def test_an_answer_may_fill_tgt_max_len_with_both_its_ends(run, loaded):
    tokens = len(loaded.tokenizer.encode_sqamp(run[1][0]["sqamp"])) + 1                       # BOS and EOS included
    for limit, status in ((tokens, "unchecked"), (tokens - 1, "unfinished")):
        (answer,) = decode(shorter(loaded, tgt_max_len=limit), run[1][0]["amp"])
        assert answer.status == status


def test_an_amplitude_that_is_too_long_is_unreadable(run, loaded):
    (answer,) = decode(shorter(loaded, src_max_len=9), run[1][0]["amp"])
    assert answer.status == "unreadable" and re.search(r"\d+ tokens, the model's src_max_len is 9", answer.reason)


# ---------------------------------------------------------------------------------------------------------------------
# Candidates

def hypothesis(p, finished=True):
    return Hypothesis([5, 5, EOS if finished else 5], math.log(p), math.log(p) / 2)


@pytest.fixture
def candidates(run):
    """An amplitude with four candidates: wrong, right, right in another spelling, no formula."""
    amp, sqamp = run[1][0]["amp"], run[1][0]["sqamp"]
    return amp, {
        sqamp.replace("2*e^4", "3*e^4"): hypothesis(0.4),
        sqamp: hypothesis(0.3),
        f"{sqamp}*7/7": hypothesis(0.2),
        "e^": hypothesis(0.1),
    }


def test_the_first_right_candidate_is_the_answer(run, candidates):
    amp, texts = candidates
    answer = choose(amp, texts, check=True, agree=False)
    assert (answer.prediction, answer.status, answer.rank) == (run[1][0]["sqamp"], "verified", 2)
    assert answer.logprob == math.log(0.3) and answer.margin == pytest.approx(math.log(0.3) - math.log(0.4))
    assert answer.token_mean == pytest.approx(0.3 ** (1 / 3)) and answer.token_min == pytest.approx(0.3 ** 0.5)
    assert [status for _, _, status in answer.candidates] == ["unverified", "verified", "unchecked", "unchecked"]


def test_what_only_floating_point_takes_for_the_square_is_not_verified(candidates):
    amp, texts = candidates
    nearly = f"{list(texts)[1]}*(1 + 1/10^12)"
    answer = choose(amp, {nearly: hypothesis(0.9)}, check=True, agree=False)
    assert (answer.status, answer.reason) == ("unverified", "equal to the square in floating point, but not exactly")
    assert choose(amp, {nearly: hypothesis(0.9)} | texts, check=True, agree=False).rank == 3


def test_unchecked_the_most_probable_candidate_is_the_answer(candidates):
    amp, texts = candidates
    answer = choose(amp, texts, check=False, agree=False)
    assert (answer.prediction, answer.status, answer.rank) == (next(iter(texts)), "unchecked", 1)
    assert answer.margin == pytest.approx(math.log(0.4 / 0.3)) and math.isnan(answer.agreement)


def test_where_no_candidate_is_right_the_best_guess_says_why(candidates):
    amp, texts = candidates
    answer = choose(
        amp,
        {text: hypothesis for k, (text, hypothesis) in enumerate(texts.items()) if k in (0, 3)},
        check=True,
        agree=False,
    )
    assert (answer.status, answer.rank) == ("unverified", 1) and "the amplitude gives" in answer.reason


def test_spellings_of_one_polynomial_agree(candidates):
    amp, texts = candidates
    answer = choose(amp, texts, check=True, agree=True)
    assert answer.agreement == pytest.approx((0.3 + 0.2) / (0.4 + 0.3 + 0.2 + 0.1))
    assert choose(amp, texts, check=False, agree=True).agreement == pytest.approx(0.4)
    same = {text: texts[text] for text in list(texts)[1:3]}
    same[f"{list(texts)[1]}*m_t/m_t"] = hypothesis(0.1)  # one more symbol
    assert choose(amp, same, check=True, agree=True).agreement == pytest.approx(1)


def test_spellings_with_different_symbols_are_compared_at_the_same_points(candidates):
    """All are wrong as squares, so only their own values say that they are equal. Another symbol means other points."""
    amp, texts = candidates
    wrong = next(iter(texts))
    spellings = {
        wrong: hypothesis(0.4),
        f"{wrong}*m_t/m_t": hypothesis(0.3),
        f"{wrong}*m_tt/m_t": hypothesis(0.2),
        f"{wrong}*(1 + 1/10^12)": hypothesis(0.1),
    }
    for check in (False, True):
        assert choose(amp, spellings, check=check, agree=True).agreement == pytest.approx(0.7)
    assert choose(amp, {"e^": hypothesis(0.4)} | texts, check=False, agree=True).agreement == 0  # nobody can read it
    unproven = f"{amp}*(1 + 2)^(1/2)"  # whatever can be proven, a text is equal to itself
    assert choose(unproven, {wrong: hypothesis(0.4)}, check=False, agree=True).agreement == 1


def test_the_agreement_of_very_improbable_candidates(candidates):
    amp, texts = candidates
    texts = {text: hypothesis._replace(logprob=hypothesis.logprob - 2000) for text, hypothesis in texts.items()}
    assert choose(amp, texts, check=True, agree=True).agreement == pytest.approx((0.3 + 0.2) / (0.4 + 0.3 + 0.2 + 0.1))


def test_what_the_proof_refuses_is_not_verified_and_says_so(candidates):
    amp, texts = candidates
    answer = choose(amp, {f"{list(texts)[1]}*2^(1/3)*2^(-1/3)": hypothesis(0.9)}, check=True, agree=False)
    assert answer.status == "unverified" and answer.reason.startswith("no proof: ")


def test_an_unfinished_candidate_is_never_checked_and_a_right_one_behind_it_is_found(run):
    amp, sqamp = run[1][0]["amp"], run[1][0]["sqamp"]
    texts = {f"{sqamp} ": hypothesis(0.5, finished=False), sqamp: hypothesis(0.1)}
    assert choose(amp, texts, check=True, agree=False).rank == 2
    answer = choose(amp, {f"{sqamp} ": hypothesis(0.5, finished=False)}, check=True, agree=True)
    assert (answer.status, answer.agreement) == ("unfinished", 0)


def test_fallback_computes_what_the_model_does_not_know(run, loaded):
    amps = [run[1][0]["amp"].replace("i*e^2", "e^2*e^2", 1), run[1][1]["amp"]]
    computed, verified = decode(loaded, amps, beam_size=3, check=True, fallback=True)
    assert (computed.status, computed.rank, verified.status) == ("computed", 0, "verified")
    assert verify(amps[0], computed.prediction) and math.isnan(computed.logprob)
    assert [status for _, _, status in computed.candidates] == ["unverified"] * 3


def test_fallback_computes_what_the_model_cannot_read_and_says_what_cannot_be_computed(run, loaded):
    amps = [run[1][0]["amp"], "e_{i_1,%a}(p_1)_u"]
    long, nonsense = decode(shorter(loaded, src_max_len=9), amps, check=True, fallback=True)
    assert long.status == "computed" and verify(amps[0], long.prediction)
    assert nonsense.status in ("unreadable", "unfinished") and "not computed: " in nonsense.reason


def test_a_beam_answers_what_greedy_answers_where_the_model_is_sure(run, loaded):
    amps = [row["amp"] for row in run[1]]
    for answer, row in zip(decode(loaded, amps, beam_size=5, check=True, agree=True), run[1], strict=True):
        assert (answer.prediction, answer.status, answer.rank) == (row["sqamp"], "verified", 1)
        assert len(answer.candidates) == 5 and answer.margin > 0 and 0.5 < answer.agreement <= 1
        logprobs = [logprob for _, logprob, _ in answer.candidates]
        assert logprobs == sorted(logprobs, reverse=True)


def test_samples_depend_on_seed_and_amplitude_only(run, loaded):
    amps = [row["amp"] for row in run[1]]
    options = dict(samples=6, temperature=3.0, top_k=9)
    texts = [answer.candidates for answer in decode(loaded, amps, **options)]
    backwards = [answer.candidates for answer in decode(loaded, amps[::-1], batch_rows=3, **options)][::-1]
    assert [[text for text, _, _ in row] for row in texts] == [[text for text, _, _ in row] for row in backwards]
    assert any(len(row) > 1 for row in texts)
    others = [answer.candidates for answer in decode(loaded, amps, seed=1, **options)]
    assert [[text for text, _, _ in row] for row in texts] != [[text for text, _, _ in row] for row in others]


@pytest.mark.parametrize("dtype, noise", [("fp32", 1e-3), ("bf16", 0.3), ("int8", 0.3)])
def test_a_learned_row_survives_rounding(run, dtype, noise):
    plain = load_model(run[0] / "run" / "best.pt", torch.device("cpu"))
    rounded = load(run[0] / "run" / "best.pt", "cpu", dtype)
    for row, one, other in zip(
        run[1],
        decode(script.Loaded(*plain), [row["amp"] for row in run[1]]),
        decode(rounded, [row["amp"] for row in run[1]]),
    ):
        assert one.prediction == other.prediction == row["sqamp"]
        assert other.logprob == pytest.approx(one.logprob, abs=noise)


# ---------------------------------------------------------------------------------------------------------------------
# Facts that the amplitude's text does not say

HIGGS_A = (
    r"g^2*gamma_{%\mu_1,%a_1,%c_1}*P_L_{%c_1,%a_2}*(p_3_+%\mu_1 + -p_4_+%\mu_1)*e_{i_1,%a_2}(p_1)_u"
    r"*e_{i_2,%a_1}(p_2)_v^(*)*h(p_3)^(*)*A(p_4)^(*)/(m_e^2 + s_12)"
)
HIGGS_A_SQUARE = (
    "-1/2*g^4*(MASS^2*s_12 + m_h^2*s_12 + (-2)*s_13*s_23 + 2*s_14*s_23 + 2*s_13*s_24 + (-2)*s_14*s_24 + (-2)*s_12*s_34)"
    "*(m_e^2 + s_12)^(-2)"
)
PAIR = HIGGS_A.replace("h(p_3)", "S(p_3)").replace("A(p_4)", "S(p_4)")
W_W = (
    r"e^2*gamma_{%\mu_1,%a_1,%a_2}*p_3_+%\mu_1*e_{i_1,%a_2}(p_1)_u*e_{i_2,%a_1}(p_2)_v^(*)"
    r"*W_{i_3,%\mu_2}(p_3)^(*)*W_{i_4,+%\mu_2}(p_4)^(*)/(m_e^2 + s_12)"
)


def chosen(amp, *sqamps, facts=Facts()):
    texts = {sqamp: hypothesis(0.5 / 2**k) for k, sqamp in enumerate(sqamps)}
    return choose(amp, texts, check=True, agree=True, facts=facts)


def test_a_pseudoscalar_named_as_the_photon_keeps_its_mass():
    massive, massless = HIGGS_A_SQUARE.replace("MASS", "m_A"), HIGGS_A_SQUARE.replace("MASS^2*s_12 + ", "")
    assert (chosen(HIGGS_A, massive).status, chosen(HIGGS_A, massless, massive).rank) == ("verified", 2)
    for sqamps in ((massless,), (massless, "e^"), ("e^",)):
        answer = chosen(HIGGS_A, *sqamps)
        assert answer.status == "unreadable" and '--masses="A=m"' in answer.reason and math.isnan(answer.agreement)
    assert chosen(HIGGS_A, f"{massive}*2", massless).status == "unverified"  # the first one is known to be wrong
    assert chosen(HIGGS_A, massless, facts=Facts(masses=parse_masses("A=0"))).status == "verified"
    assert chosen(HIGGS_A, massless, facts=Facts(masses=parse_masses("A=M"))).status == "unverified"
    renamed = massive.replace("m_A", "M")
    assert chosen(HIGGS_A, renamed, facts=Facts(masses=parse_masses("A=M"))).status == "verified"


def test_the_fallback_computes_with_the_masses_that_are_said_and_not_without(loaded):
    options = dict(check=True, fallback=True)
    (answer,) = decode(loaded, HIGGS_A, **options)
    assert answer.status == "unreadable" and '--masses="A=m"' in answer.reason
    for mass, square in (("m_A", HIGGS_A_SQUARE), ("0", HIGGS_A_SQUARE.replace("MASS^2*s_12 + ", ""))):
        facts = Facts(masses=parse_masses(f"A={mass}"))
        (answer,) = decode(loaded, HIGGS_A, facts=facts, **options)
        assert answer.status == "computed" and ("m_A" in answer.prediction) == (mass == "m_A")
        assert are_equal(HIGGS_A, answer.prediction, square.replace("MASS", mass), facts)


def test_w_plus_and_w_minus_are_answered_with_the_whole_square(run, tmp_path):
    rows = [{"process": process, "amp": W_W} for process in ("e e~ -> W W~", "", "e e~ -> W W")]
    path = write_csv(tmp_path / "in.csv", rows)
    call(run, f"--input={path}", f"--output={tmp_path / 'out.csv'}", "--verify", "--fallback")
    answers = decoded(tmp_path / "out.csv")
    assert [row["status"] for row in answers] == ["computed"] * 3
    assert [row["process"] for row in answers] == [row["process"] for row in rows]
    whole, by_charge, half = (row["prediction"] for row in answers)
    assert whole == by_charge and are_equal(W_W, whole, f"2*({half})")
    assert chosen(W_W, half, whole).rank == 2 and chosen(W_W, half, facts=Facts("e e~ -> W W")).status == "verified"


def test_a_pair_of_unknown_charge_is_unreadable_until_the_process_is_said(run, tmp_path, capsys):
    rows = [{"process": process, "amp": PAIR} for process in ("", "e e~ -> S S~", "e e~ -> S S")]
    path = write_csv(tmp_path / "in.csv", rows)
    flags = [f"--input={path}", f"--output={tmp_path / 'out.csv'}", "--verify", "--fallback"]
    call(run, *flags)
    assert [row["status"] for row in decoded(tmp_path / "out.csv")] == ["unreadable"] * 3  # nobody said the mass
    call(run, *flags, "--masses=S=m_S")
    nothing, pair, twins = decoded(tmp_path / "out.csv")
    assert (nothing["status"], pair["status"], twins["status"]) == ("unreadable", "computed", "computed")
    facts = Facts("e e~ -> S S~", parse_masses("S=m_S"))
    assert are_equal(PAIR, pair["prediction"], f"2*({twins['prediction']})", facts)
    assert re.search(rf"{path}:2: .*S\(p_3\) and S\(p_4\).*a column `process`", capsys.readouterr().err)
    with pytest.raises(InputError, match="masses: got 'S'"):
        call(run, *flags, "--masses=S")


def test_stderr_says_why_the_first_unverified_row_is_so(run, tmp_path, capsys):
    path = write_csv(tmp_path / "in.csv", run[1])
    call(run, f"--input={path}", f"--output={tmp_path / 'out.csv'}", "--verify", "--masses=e=0 mu=0 t=0")
    named = re.findall(rf"{path}:(\d+): the first unverified row: (.*)", capsys.readouterr().err)
    assert len(named) == 1 and named[0][0] == "2" and "stands in sqamp, but is neither" in named[0][1]


def test_facts_come_one_for_each_amplitude_or_one_for_all(run, loaded):
    amps = [row["amp"] for row in run[1][:3]]
    said = Facts(masses=parse_masses("mu=M e=m t=m"))
    for facts in ([said] * 3, iter([said] * 3), said):
        assert {answer.status for answer in decode(loaded, amps, check=True, facts=facts)} == {"unverified"}
    with pytest.raises(ValueError):
        list(decode(loaded, amps, facts=[said] * 2))


def test_masses_are_in_the_fingerprint_of_half_a_run(run, loaded, tmp_path):
    path = write_csv(tmp_path / "in.csv", run[1][:1])
    one, other = (script.fingerprint_of(loaded, path, path, script.load_settings("", script.KEYS, flags))
                  for flags in ([], ["--masses=e=0"]))
    assert one != other


# ---------------------------------------------------------------------------------------------------------------------
# Files

def test_the_test_split_of_the_checkpoints_data_is_the_default(run, capsys):
    folder, rows = run
    call(run, "--verify")
    answers = decoded(folder / "run" / "predictions.csv")
    assert list(answers[0]) == COLUMNS + ["sqamp"]
    assert [answer["row"] for answer in answers] == [str(k) for k in range(1, len(rows) + 1)]
    assert all(answer["prediction"] == answer["sqamp"] and answer["status"] == "verified" for answer in answers)
    assert [answer["amp"] for answer in answers] == [row["amp"] for row in rows]
    assert f"{len(rows)} rows: {len(rows)} verified" in capsys.readouterr().out


def test_a_bad_row_does_not_stop_the_others(run, tmp_path, capsys):
    amps = [row["amp"] for row in run[1]]
    rows = [amps[0], amps[1] + "*&", amps[2].replace("mu_{", "zeta_{"), "", amps[3]]
    path = write_csv(tmp_path / "in.csv", [{"note": "x", "amp": amp} for amp in rows])
    call(run, f"--input={path}", f"--output={tmp_path / 'out.csv'}")
    answers = decoded(tmp_path / "out.csv")
    assert [answer["status"] for answer in answers] == [
        "unchecked",
        "unreadable",
        "unreadable",
        "unreadable",
        "unchecked",
    ]
    assert list(answers[0]) == COLUMNS and answers[1]["prediction"] == answers[1]["logprob"] == ""
    said = capsys.readouterr()
    column = len(amps[1]) + 2
    assert f"{path}:3: amp: column {column}: found '&'" in said.err
    assert re.search(rf"{path}:4: amp: the token 'zeta_{{'", said.err)
    assert f"{path}:5: amp: column 1: found the end of the text" in said.err
    assert "5 rows: 2 unchecked, 3 unreadable" in said.out


def test_candidates_and_certainty_are_in_the_file(run, tmp_path):
    call(run, f"--output={tmp_path / 'out.csv'}", "--beam", "--beam_size=3", "--verify", "--agree", "--n_best")
    for answer, row in zip(decoded(tmp_path / "out.csv"), run[1], strict=True):
        candidates = json.loads(answer["candidates"])
        assert (
            len(candidates) == 3
            and candidates[0][0] == answer["prediction"] == row["sqamp"]
            and candidates[0][2] == "verified"
        )
        assert (
            0 < float(answer["token_min"]) < float(answer["token_mean"]) < 1
            and float(answer["margin"]) > 0
            and float(answer["agreement"]) > 0.5
        )


@pytest.fixture(scope="module")
def many(run, tmp_path_factory):
    """Enough rows for many windows of the smallest batches, and what one undisturbed process answers."""
    folder = tmp_path_factory.mktemp("many")
    path = write_csv(folder / "in.csv", [{"amp": row["amp"], "sqamp": row["sqamp"]} for row in run[1]] * 20)
    command = [
        sys.executable,
        script.__file__,
        f"--ckpt={run[0] / 'run' / 'best.pt'}",
        f"--input={path}",
        "--device=cpu",
        "--batch_rows=1",
        "--beam",
        "--beam_size=2",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, f"--output={folder / 'whole.csv'}"], env=environment, check=True, timeout=100)
    return folder, command, environment


def test_a_killed_run_goes_on_to_the_same_bytes(many):
    folder, command, environment = many
    part, output, kept = folder / "killed.csv.part-0-of-1", folder / "killed.csv", [0]
    for _ in range(2):
        process = subprocess.Popen([*command, f"--output={output}"], env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (part.exists() and part.stat().st_size > kept[-1] + 12000):
            time.sleep(0.005)
        assert process.poll() is None and not output.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept.append(part.stat().st_size)
    with open(part, "ab") as file:
        file.write(b'{"row": 99')  # a line that a full disk cut off
    said = subprocess.run(
        [*command, f"--output={output}"], env=environment, check=True, timeout=100, capture_output=True, text=True
    )
    assert output.read_bytes() == (folder / "whole.csv").read_bytes() and not part.exists()
    assert "160 rows" in said.stdout


def test_half_a_run_is_cut_to_whole_windows_and_to_nothing_with_other_settings(tmp_path):
    part = tmp_path / "part"
    rows = [f'{{"row": {k}}}\n' for k in range(1, 9)]
    for fingerprint, written, kept in (
        ("mine", rows, 6),
        ("mine", rows[:6] + ['{"row": 7}'], 6),
        ("mine", rows[:2], 0),
        ("another", rows, 0),
    ):
        part.write_text("".join([fingerprint + "\n", *written]))
        with script.hold(part) as file:
            assert script.cut_part(file, "mine", window=3) == kept
        assert part.read_text() == "".join(["mine\n", *rows[:kept]])
    with script.hold(tmp_path / "none") as file:
        assert script.cut_part(file, "mine", window=3) == 0


@pytest.mark.parametrize("count, ranks", [(119, 4), (1555, 8), (3, 2), (5000, 4)])
def test_every_process_has_rows(count, ranks):
    shares = [script.share_of(count, rank, ranks, batch_rows=64) for rank in range(ranks)]
    assert sorted(number for share in shares for number in share) == list(range(1, count + 1))
    assert max(map(len, shares)) <= 1.3 * count / ranks + 1


def test_two_runs_with_one_output_do_not_meet(run, tmp_path):
    with (
        script.hold(tmp_path / "out.csv.part-0-of-1"),
        pytest.raises(InputError, match="another decode.py writes there"),
    ):
        call(run, f"--output={tmp_path / 'out.csv'}")


@pytest.mark.parametrize("name, own", [("set.a.csv", "set.a"), ("set.csv.gz", "set")])
def test_predictions_are_named_like_their_input(run, tmp_path, name, own):
    with (gzip.open if name.endswith("gz") else open)(tmp_path / name, "wt", newline="") as file:
        csv.writer(file).writerows([["amp"], [run[1][0]["amp"]]])
    call(run, f"--input={tmp_path / name}")
    assert len(decoded(run[0] / "run" / f"{own}.predictions.csv")) == 1


def test_two_processes_of_torchrun_share_the_rows(many):
    folder, command, environment = many
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
            *command[1:],
            f"--output={folder / 'two.csv'}",
        ],
        env=environment,
        check=True,
        timeout=200,
    )
    assert (folder / "two.csv").read_bytes() == (folder / "whole.csv").read_bytes()
    assert not list(folder.glob("two.csv.part*"))


def test_max_rows(run, tmp_path):
    call(run, f"--output={tmp_path / 'out.csv'}", "--max_rows=2")
    assert len(decoded(tmp_path / "out.csv")) == 2


@pytest.mark.parametrize("text, message", [
    (b"", "in.csv:1: the file is empty"),
    (b"amp\n", "in.csv:2: no rows"),
    (b"ampl,sqamp\n1,2\n", "in.csv:1: no column 'amp'"),
    (b"amp,sqamp\n1\n", "in.csv:2: 1 cells"),
    (b"amp\n\xff\xfe\n", "in.csv:2: not readable"),
    (None, "in.csv: no such file"),
])
def test_a_file_that_is_no_csv_is_one_line_and_overwrites_nothing(run, tmp_path, text, message):
    if text is not None:
        (tmp_path / "in.csv").write_bytes(text)
    (tmp_path / "out.csv").write_text("row,amp,prediction,kept")
    with pytest.raises(InputError) as error:
        call(run, f"--input={tmp_path / 'in.csv'}", f"--output={tmp_path / 'out.csv'}")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "out.csv").read_text() == "row,amp,prediction,kept"
    assert not [path for path in tmp_path.iterdir() if path.name not in ("in.csv", "out.csv")]


def test_a_row_with_too_few_cells_late_in_the_file_is_named_and_the_others_go_on(run, tmp_path, capsys):
    amp = run[1][0]["amp"]
    (tmp_path / "in.csv").write_text(f'amp,x\n"{amp}",1\nm_e\n"{amp}",2\n')
    call(run, f"--input={tmp_path / 'in.csv'}", f"--output={tmp_path / 'out.csv'}")
    assert [(row["row"], row["amp"]) for row in decoded(tmp_path / "out.csv")] == [("1", amp), ("2", amp)]
    assert f"{tmp_path / 'in.csv'}:3: 1 cells, the header has 2" in capsys.readouterr().err


def test_bad_lines_are_named_once_and_counted(run, tmp_path, capsys):
    """Before the header, in the middle, at the end; with rows enough for two windows."""
    amps = [row["amp"] for row in run[1]]
    rows = [f'"{amp}",1\n' for amp in amps * 3]
    path = tmp_path / "in.csv"
    path.write_text("".join(["Error: none\n", "amp,x\n", *rows[:5], "m_e\n", "  \n", *rows[5:], '"m_e']))
    call(run, f"--input={path}", f"--output={tmp_path / 'out.csv'}", "--batch_rows=1")
    answers, said = decoded(tmp_path / "out.csv"), capsys.readouterr()
    assert [row["row"] for row in answers] == [str(k) for k in range(1, len(rows) + 1)]
    assert [row["amp"] for row in answers] == amps * 3 and {row["status"] for row in answers} == {"unchecked"}
    named = [int(line) for line in re.findall(rf"{path}:(\d+): ", said.err)]
    assert named == [1, 8, 9, len(rows) + 5] and f"{len(rows)} unchecked; bad lines left out: 4" in said.out


def respelled(text):
    r"""A formula with sequential indices INDEX_0, INDEX_1, ..., without % and spaces: a public spelling."""
    numbers = {}

    def index(match):
        number = numbers.setdefault(match[0], len(numbers))
        return f"\\INDEX_{number}" if "\\" in match[0] else f"INDEX_{number}"

    return re.sub(r"%\\?\w+", index, text).replace(" ", "")


def packed(path, rows, delimiter=","):
    """The rows in a file that is packed as its name says, with CSV's or MARTY's form."""
    text = io.StringIO(newline="")
    if ".txt" in path.name:
        text.writelines(f"Interaction: e to e : diagram : {row['amp']} : {row['sqamp']}\n" for row in rows)
    else:
        writer = csv.DictWriter(text, ["amp", "sqamp"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    pack = gzip.compress if path.suffix == ".gz" else lzma.compress if path.suffix == ".xz" else bytes
    path.write_bytes(pack(text.getvalue().encode("utf-16" if "16" in path.name else "utf-8")))
    return path


@pytest.mark.parametrize("spell", [str, respelled])
@pytest.mark.parametrize(
    "name, delimiter", [("a.csv.gz", ","), ("b.tsv.xz", "\t"), ("c.csv", ";"), ("utf16.csv", ","), ("d.txt", " : ")]
)
def test_files_of_every_kind_have_the_same_answers(run, tmp_path, name, delimiter, spell):
    rows = [{column: spell(row[column]) for column in ("amp", "sqamp")} for row in run[1][:3]]
    path = packed(tmp_path / name, rows, delimiter)
    call(run, f"--input={path}", "--verify")
    answers = decoded(run[0] / "run" / f"{name.split('.')[0]}.predictions.csv")
    assert [(row["row"], row["prediction"], row["sqamp"], row["status"]) for row in answers] == [
        (str(k), row["sqamp"], row["sqamp"], "verified") for k, row in enumerate(run[1][:3], 1)
    ]


def test_more_files_than_one_are_refused(run, tmp_path):
    path = write_csv(tmp_path / "my file.csv", run[1][:1])
    for names, count in ((f"'{path}' '{path}'", 2), (f"{path} x", 3), ("''  x", 2), (" ", 0)):
        with pytest.raises(InputError, match=rf"input: got {count} files in .*, wanted one"):
            call(run, f"--input={names}")
    with pytest.raises(InputError, match="No closing quotation"):
        call(run, "--input='x y")


def test_the_input_is_never_overwritten(run, tmp_path):
    path = write_csv(tmp_path / "in.csv", [{"amp": run[1][0]["amp"]}])
    with pytest.raises(InputError, match="no earlier output"):
        call(run, f"--input={path}", f"--output={path}")
    path.write_text(f'row,amp,prediction\n1,"{run[1][0]["amp"]}",2\n')
    with pytest.raises(InputError, match="is the input itself"):
        call(run, f"--input={path}", f"--output={path}")


@pytest.mark.parametrize("name", ["best.pt", "config.py", "train.csv"])
def test_nothing_but_earlier_predictions_is_overwritten(run, tmp_path, name):
    path = tmp_path / name
    path.write_text("mine")
    with pytest.raises(InputError, match="no earlier output"):
        call(run, f"--output={path}")
    assert path.read_text() == "mine"


def test_half_a_checkpoint_is_named(run, tmp_path):
    whole = (run[0] / "run" / "best.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match="half.pt"):
        main([f"--ckpt={tmp_path / 'half.pt'}"])


def test_a_checkpoint_of_another_vocabulary_is_refused(run, tmp_path):
    state = checkpoint.load(run[0] / "run" / "best.pt")
    state["vocabulary"]["tgt"] = state["vocabulary"]["tgt"][1:]
    checkpoint.save(tmp_path / "other.pt", state)
    with pytest.raises(InputError, match="vocabulary"):
        main([f"--ckpt={tmp_path / 'other.pt'}"])


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--batch_rows=0", "batch_rows: got 0, wanted at least 1"),
        ("--output=/", "output: / is a folder"),
        ("--temperature=0", "temperature: got 0.0"),
        ("--top_p=0", "top_p: got 0.0"),
        ("--beam_size=0", "beam_size: got 0"),
        ("--samples=100000", "samples: got 100000, wanted at most 1000"),
        ("--amp=", "--amp=: nothing stands there"),
        ("--fallback", "fallback: needs --verify"),
        ("--length_penalty=114", "length_penalty: got 114.0, wanted at most 10"),
        ("--dtype=int4", "dtype: got 'int4'"),
        ("--dtype=fp16", "dtype: fp16 needs a GPU"),
    ],
)
def test_settings_that_cannot_work(run, flag, message):
    with pytest.raises(InputError, match=message):
        call(run, flag)


def test_settings_that_say_nothing_are_named_and_a_file_without_amplitudes_ends_with_1(run, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("amp\n2*e^4*(s_12 + m_e^2)\n")
    flags = [f"--input={tmp_path / 'in.csv'}", f"--output={tmp_path / 'out.csv'}"]
    assert call(run, *flags, "--beam_size=7", "--temperature=2") == 1
    said = capsys.readouterr()
    assert "1 unreadable" in said.out and "note: beam_size says nothing without --beam" in said.err
    assert "note: temperature says nothing without --samples" in said.err
    with pytest.raises(InputError, match="^amp: one amplitude"):
        call(run, "--amp=e", *flags)
    loaded = load(run[0] / "run" / "best.pt", "cpu")
    for wrong, message in ((dict(batch_rows=0), "batch_rows"), (dict(samples=-1), "samples"),
                           (dict(samples=2, temperature=0), "temperature"), (dict(facts={}), "facts")):
        with pytest.raises(InputError, match=message):
            list(decode(loaded, ["e"], **wrong))


@pytest.mark.parametrize("name", ["beam_size", "samples"])
@pytest.mark.parametrize("limit", ["memory", "time"])
def test_more_candidates_than_fit_are_refused_with_a_number_that_works(run, tmp_path, monkeypatch, name, limit):
    if limit == "memory":
        monkeypatch.setattr(script, "memory_of", lambda device: 2e8)
    else:
        monkeypatch.setattr(script, "SPEED", {"cpu": 1e7})
    flags = ["--beam" if name == "beam_size" else "--batch_rows=64", f"--output={tmp_path / 'out.csv'}", "--max_rows=2"]
    with pytest.raises(
        InputError, match=rf"{name}: got 900, wanted at most .* s a row .* GB for 2 rows together"
    ) as error:
        call(run, *flags, f"--{name}=900")
    assert not list(tmp_path.iterdir())
    works = int(re.search(rf"--{name}=(\d+) works", str(error.value))[1])
    assert 10 <= works < 300
    call(run, *flags, f"--{name}={works}")
    assert len(decoded(tmp_path / "out.csv")) == 2
    with pytest.raises(InputError, match="wanted at most"):
        call(run, *flags, f"--{name}={works + 1}")


def test_the_largest_length_penalty_is_no_overflow(run, tmp_path):
    call(run, "--beam", "--length_penalty=10", f"--output={tmp_path / 'out.csv'}")  # prefers the longest answers
    assert all(math.isfinite(float(row["logprob"])) and row["prediction"] for row in decoded(tmp_path / "out.csv"))


def test_the_code_that_makes_answers_is_in_the_fingerprint(run, loaded, tmp_path, monkeypatch, capsys):
    """An edit of one file of it: half a run of the version before is not continued, which stderr says."""
    def copy(root, changed=None):
        for path in [path for pattern in script.CODE for path in script.ROOT.glob(pattern)]:
            (root / path.relative_to(script.ROOT)).parent.mkdir(parents=True, exist_ok=True)
            (root / path.relative_to(script.ROOT)).write_bytes(path.read_bytes() + b" " * (path.name == changed))
        return script.code_version(root)

    assert copy(tmp_path / "same") == script.code_version()
    versions = {
        copy(tmp_path / name, name)
        for name in ("tokenizer.py", "generate.py", "generate_terms.py", "model.py", "exact.py", "train.py")
    }
    assert len(versions) == 6 and script.code_version() in versions                         # training makes no answers
    settings = script.load_settings("", script.KEYS, [])
    path = write_csv(tmp_path / "in.csv", run[1])
    mine = script.fingerprint_of(loaded, path, path, settings)
    monkeypatch.setattr(script, "code_version", lambda: "older")
    older = script.fingerprint_of(loaded, path, path, settings)
    (tmp_path / "part").write_text(older + '\n{"row": 1}\n')
    capsys.readouterr()
    with script.hold(tmp_path / "part") as file:
        assert script.cut_part(file, mine, window=1) == 0
    assert "part: made with other settings, data or code; starting again" in capsys.readouterr().err


def test_a_file_name_may_stand_in_quotes(run, tmp_path):
    path = write_csv(tmp_path / "my file.csv", run[1][:1])
    for name in (f"'{path}'", f'"{path}"', path):
        call(run, f"--input={name}", f"--output={tmp_path / 'out.csv'}")
        assert len(decoded(tmp_path / "out.csv")) == 1


# ---------------------------------------------------------------------------------------------------------------------
# One amplitude

def test_one_amplitude_is_answered_with_its_verdict(run, capsys):
    call(run, f"--amp={run[1][2]['amp']}")
    formula, certainty, verdict = capsys.readouterr().out.splitlines()
    assert formula == run[1][2]["sqamp"]
    assert re.fullmatch(
        r"log-probability -0\.\d+ \(probability 9\d\.\d\d%\), least certain token 9\d\.\d\d%", certainty
    )
    assert verdict.startswith("verified")


def test_one_amplitude_in_another_spelling(run, loaded, capsys):
    other = respelled(run[1][2]["amp"]).replace("m_mu^2", "m_mu**2")
    assert other != run[1][2]["amp"] and "%" not in other
    call(run, f"--amp= {other}")
    formula, _, verdict = capsys.readouterr().out.splitlines()
    assert formula == run[1][2]["sqamp"] and verdict.startswith("verified")
    assert [answer.prediction for answer in decode(loaded, [other])] == [run[1][2]["sqamp"]]


def test_one_amplitude_whose_masses_are_not_known(run, monkeypatch, capsys):
    with pytest.raises(InputError, match=r'--amp: .*; not computed: the mass of A.*--masses="A=m"'):
        call(run, f"--amp={HIGGS_A}", "--verify", "--fallback")
    call(run, f"--amp={HIGGS_A}", "--verify", "--fallback", "--masses=A=m_A")
    assert capsys.readouterr().out.splitlines()[1].startswith("computed")


def test_one_amplitude_without_end(run, capsys, monkeypatch):
    monkeypatch.setattr(script, "load", lambda *_: shorter(load(run[0] / "run" / "best.pt"), tgt_max_len=6))
    call(run, f"--amp={run[1][2]['amp']}")
    assert capsys.readouterr().out.splitlines()[2].startswith("unfinished")


def test_one_amplitude_from_standard_input(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(run[1][2]["amp"].encode() + b"\n")))
    call(run, "--amp=-", "--beam")
    formula, certainty, verdict = capsys.readouterr().out.splitlines()
    assert formula == run[1][2]["sqamp"] and "nats ahead of the next" in certainty and verdict.startswith("verified")


def test_one_amplitude_that_the_model_does_not_know_is_computed(run, capsys):
    call(run, f"--amp={run[1][0]['amp'].replace('i*e^2', 'e^2*e^2', 1)}", "--verify", "--fallback")
    formula, verdict = capsys.readouterr().out.splitlines()
    assert verdict.startswith("computed") and "e^8" in formula


@pytest.mark.parametrize(
    "amp, message", [("e^2*(", "--amp: column 6: found the end"), ("x_{i,%a}(p_1)_u", "--amp: the token 'x_{'")]
)
def test_one_amplitude_that_cannot_be_read(run, amp, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(run, f"--amp={amp}")


# ---------------------------------------------------------------------------------------------------------------------
# other notations

def test_one_amplitude_as_a_source_text(run, capsys):
    call(run, f"--amp={run[1][2]['amp']}", "--format=python")
    source = capsys.readouterr().out
    tree = parse(run[1][2]["sqamp"])
    assert re.match(r"# log-probability .*\n# verified: .*\n", source) and document({"f": tree}, "python") in source
    call(run, f"--amp={run[1][2]['amp']}", "--format=latex")
    assert " \\\\\n& ".join(latex_lines(tree)) in capsys.readouterr().out


def test_a_column_in_another_notation(run, tmp_path):
    call(run, "--format=latex", f"--output={tmp_path / 'a.csv'}")
    rows = decoded(tmp_path / "a.csv")
    assert [row["latex"] for row in rows] == [formula(parse(row["prediction"]), "latex") for row in rows]
    call(run, f"--output={tmp_path / 'b.csv'}")
    assert "latex" not in decoded(tmp_path / "b.csv")[0]


def test_an_unknown_notation(run):
    with pytest.raises(InputError, match="format: got 'tex', wanted one of text, latex, sympy"):
        call(run, "--format=tex")


def test_an_answer_is_a_sympy_expression_a_function_and_a_typeset_formula(run, loaded):
    answer, = decode(loaded, run[1][2]["amp"], check=True)
    tree = parse(answer.prediction)
    assert answer.sympy() == to_sympy(tree)
    values = {name: 1.5 for name in answer.function().__signature__.parameters}
    assert answer.function()(**values) == pytest.approx(evaluate(tree, values))
    shown = answer._repr_latex_()
    assert shown.startswith(f"$\\displaystyle {latex_lines(tree)[0]}$ verified, ")
    assert r"$s_{ij} = p_i \cdot p_j$" in shown
    assert answer._replace(status="unverified")._repr_latex_().count("unverified") == 1
    assert answer._replace(prediction="2*")._repr_latex_() is None


def test_a_notebook_shows_the_formula_and_its_verdict(run, loaded):
    """As HTML too: MathML, what the status means, how certain the model is."""
    answer, = decode(loaded, run[1][2]["amp"], check=True)
    shown = answer._repr_html_()
    formula_shown = shown.replace(' displaystyle="true"', "")
    assert mathml.square(answer.prediction) in formula_shown and "verified</b>: equal to the square" in shown
    assert f"least certain token {answer.token_min:.2%}" in shown and "<i>s<sub>ij</sub></i> = " in shown
    assert shown.count("<div") == shown.count("</div>")
    wrong = answer._replace(status="unverified", reason="another <value>")._repr_html_()
    assert "unverified</b>: another &lt;value&gt;" in wrong and "verified</b>: equal" not in wrong
    assert "<code>2*&lt;</code>" in answer._replace(prediction="2*<")._repr_html_()  # no formula: its characters
    nothing, = decode(loaded, "no amplitude")
    assert "unreadable</b>: amp: " in nothing._repr_html_() and "<math" not in nothing._repr_html_()
    assert "computed</b>: the model" in answer._replace(status="computed", rank=0)._repr_html_()
    assert "nobody has compared" in answer._replace(status="unchecked")._repr_html_()


def test_a_text_that_ends_late_has_the_place_of_its_end():
    tokenizer = types.SimpleNamespace(fermions=lambda amp: (), decode_sqamp=lambda ids, fermions: chr(96 + ids[0]))
    cut, other = Hypothesis([5], -0.1, -0.1), Hypothesis([6, EOS], -0.2, -0.2)
    whole = Hypothesis([5, EOS], -0.3, -0.3)
    assert list(script.texts_of(tokenizer, "", [cut, other, whole], False).items()) == [("f", other), ("e", whole)]
