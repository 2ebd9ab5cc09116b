"""Greedy decoding is what the model says, token for token; every row gets an answer and an honest status."""
import csv
import gzip
import random
import re

import pytest
import torch
from tiny import make_run, write_csv

import checkpoint
import decode as script
from decode import COLUMNS, decode, load, main, pad
from files import InputError
from generate import greedy
from model import ModelConfig, Transformer
from tokenizer import BOS, EOS, Tokenizer, build_vocabulary


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
        ids.append(model(src[None], torch.tensor([ids]))[0, -1].argmax().item())
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
    model = Transformer(ModelConfig(src_vocab=len(tokens.vocabulary["src"]), tgt_vocab=len(tokens.vocabulary["tgt"]), src_max_len=512, tgt_max_len=512,
                                    d_model=32, heads=2, encoder_layers=2, decoder_layers=2, d_ff=64, dropout=0.0)).eval()
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
            scores = loaded.model(row[None], torch.tensor([[BOS] + ids[:-1]]))[0].log_softmax(-1)
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
    assert [answer["status"] for answer in answers] == ["unchecked", "unreadable", "unreadable", "unreadable", "unchecked"]
    assert list(answers[0]) == COLUMNS and answers[1]["prediction"] == answers[1]["logprob"] == ""
    said = capsys.readouterr()
    column = len(amps[1]) + 2
    assert f"{path}:3: amp: column {column}: found '&'" in said.err
    assert re.search(rf"{path}:4: amp: the token 'zeta_{{'", said.err)
    assert f"{path}:5: amp: column 1: found the end of the text" in said.err
    assert "5 rows: 2 unchecked, 3 unreadable" in said.out


def test_max_rows(run, tmp_path):
    call(run, f"--output={tmp_path / 'out.csv'}", "--max_rows=2")
    assert len(decoded(tmp_path / "out.csv")) == 2


@pytest.mark.parametrize("text, message", [
    (b"", "in.csv:1: the file is empty"),
    (b"amp\n", "in.csv:2: no rows"),
    (b"ampl,sqamp\n1,2\n", "in.csv:1: no column 'amp'"),
    (b"amp,sqamp\n1\n", "in.csv:2: 1 cells"),
    (b"amp\n\xff\xfe\n", "in.csv:1: not readable as CSV"),
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


def test_a_row_with_too_few_cells_late_in_the_file_overwrites_nothing(run, tmp_path):
    (tmp_path / "in.csv").write_text('amp,x\n"m_e",1\nm_e\n')
    (tmp_path / "out.csv").write_text("row,amp,prediction,kept")
    with pytest.raises(InputError, match="in.csv:3: 1 cells"):
        call(run, f"--input={tmp_path / 'in.csv'}", f"--output={tmp_path / 'out.csv'}")
    assert (tmp_path / "out.csv").read_text() == "row,amp,prediction,kept"


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


@pytest.mark.parametrize("flag, message", [("--batch_rows=0", "batch_rows: got 0, wanted at least 1"), ("--output=/", "output: / is a folder")])
def test_settings_that_cannot_work(run, flag, message):
    with pytest.raises(InputError, match=message):
        call(run, flag)


# ---------------------------------------------------------------------------------------------------------------------
# One amplitude

def test_one_amplitude_is_answered_with_its_verdict(run, capsys):
    call(run, f"--amp={run[1][2]['amp']}")
    formula, certainty, verdict = capsys.readouterr().out.splitlines()
    assert formula == run[1][2]["sqamp"]
    assert re.fullmatch(r"log-probability -0\.\d+ \(probability 9\d\.\d\d%\)", certainty)
    assert verdict.startswith("verified")


def test_one_amplitude_without_end(run, capsys, monkeypatch):
    monkeypatch.setattr(script, "load", lambda *_: shorter(load(run[0] / "run" / "best.pt"), tgt_max_len=6))
    call(run, f"--amp={run[1][2]['amp']}")
    assert capsys.readouterr().out.splitlines()[2].startswith("unfinished")


@pytest.mark.parametrize("amp, message", [("e^2*(", "--amp: column 6: found the end"), ("x_{i,%a}(p_1)_u", "--amp: the token 'x_{'")])
def test_one_amplitude_that_cannot_be_read(run, amp, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(run, f"--amp={amp}")
