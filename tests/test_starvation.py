"""
Rows of a rare kind are learned: they come in fair mixtures, no skipped step can starve them, and who starves is
named.
"""

import itertools

import numpy as np
import pytest
import torch
from tiny import log_of, made_up_rows, run, write_csv

import train
from runtime import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread_and_the_usual_signals")


def rare_rows():
    """Rows of another kind of process, with longer amplitudes and tokens that no other row has."""
    for a, k in itertools.product(("e", "mu", "t"), range(2, 7)):
        amp = (
            r"i*g^2*p_3_%\nu_1*p_4_%\nu_2*p_1_%\nu_3*gamma_{+%\nu_1,%a_1,%a_3}*gamma_{+%\nu_2,%a_3,%a_4}"
            r"*gamma_{+%\nu_3,%a_4,%a_2}"
            r"*gamma_{%\tau_1,%a_5,%a_6}*A_{i_3,+%\tau_1}(p_1)*A_{k_3,+%\tau_2}(p_2)"
            rf"*{a}_{{l_3,%a_1}}(p_3)_u^(*)*{a}_{{j_5,%a_2}}(p_4)_v/(s_1{k} + -3/5*reg_prop)"
        )
        yield {
            "amp": amp,
            "sqamp": f"13/3*g^6*m_W^6*m_Z^4*(17*M_1^2*M_2^4*x_1^3*x_2^5*m_{a}^6 + 11*M_3^6*M_4^8*x_3^7*x_4^9 "
            "+ 19*M_5^3*x_5^4)*(M_6^2 + M_7^3 + -3/5*M_8^4)^(-3)",
        }


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """285 rows, 15 of them (5%) of the rare kind; every row is in both splits."""
    folder, rows = tmp_path_factory.mktemp("rare"), []
    for copy in range(1, 7):
        for row in made_up_rows():
            rows.append(
                {
                    "amp": row["amp"].replace("-1/2*i", f"-{copy}/7*i"),
                    "sqamp": row["sqamp"].replace("2*", f"{copy}*", 1),
                }
            )
    for split in ("train", "valid"):
        write_csv(folder / f"{split}.csv", rows + list(rare_rows()))
    return folder


FLAGS = [
    "--d_model=48",
    "--d_ff=96",
    "--dropout=0",
    "--batch_tokens=512",
    "--max_steps=200",
    "--eval_every=100",
    "--eval_rows=0",
    "--save_every=100",
]


def test_a_rare_kind_of_row_is_learned_with_the_default_settings(rare, tmp_path, capsys):
    """
    With batches of like length and spikes judged by the median loss 270 rows of the common kind were right, and none
    of these.
    """
    assert run(rare, tmp_path, *FLAGS, "--max_steps=300") == 0
    last = [line for line in log_of(tmp_path) if "valid_exact" in line][-1]
    assert {kind: of_kind["rows"] for kind, of_kind in last["valid_by_kind"].items()} == {
        "A A -> f f~": 15,
        "f f~ -> f f~": 270,
    }
    assert all(of_kind["exact"] > 0.9 for of_kind in last["valid_by_kind"].values())
    assert last["train_by_kind"]["A A -> f f~"] == {"rows": 8, "exact": 1.0}
    assert {length: of_length["rows"] for length, of_length in last["valid_by_length"].items()} == {
        "8-15": 90,
        "16-31": 195
    }
    printed = capsys.readouterr().out
    assert (
        "A A -> f f~" in printed
        and printed.splitlines()[0].split() == "kind of process valid exact train exact".split()
    )


def test_a_skipped_row_comes_back_at_once_in_another_mixture_and_is_then_learned_from(rare, tmp_path, monkeypatch):
    """Every step counts as a spike: even then a row is skipped at most every second time that it comes."""
    seen = []

    def collate(packed, samples, collate=train.collate):
        if not torch.is_inference_mode_enabled():
            seen.append(set(samples.tolist()))
        return collate(packed, samples)

    monkeypatch.setattr(train, "collate", collate)
    flags = [
        *FLAGS,
        "--max_steps=30",
        "--loss_spike=0.0001",
        "--bad_steps=0",
        "--eval_every=1000",
        "--eval_train_rows=0",
    ]
    assert run(rare, tmp_path, *flags) == 0
    skipped = [line["step"] - 1 for line in log_of(tmp_path) if line.get("event") == "skipped"]
    assert len(skipped) > 5
    for step, next_skipped in itertools.pairwise(skipped):
        assert next_skipped - step in (3, 4)  # two or three steps have its rows and those of the step after it
        again = set().union(*seen[step + 1:next_skipped])
        assert seen[step] <= again and seen[step + 1] & seen[step] and seen[step + 2] & seen[step]
        assert seen[step] != seen[step + 1] and len(again) > len(seen[step])


def test_rows_whose_gradient_is_not_finite_twice_wait_for_the_next_epoch(rare, tmp_path, monkeypatch):
    """The first time they come back at once, mixed with the next ones; the second time they do not."""
    seen = []

    def collate(packed, samples, *room, collate=train.collate):
        if not torch.is_inference_mode_enabled():
            seen.append(set(samples.tolist()))
        return collate(packed, samples, *room)

    def token_losses(logits, truth, smoothing=0.0, whole=train.token_losses):
        bad = not torch.is_inference_mode_enabled() and len(seen) <= 4
        return whole(logits, truth, smoothing) * (torch.nan if bad else 1)

    monkeypatch.setattr(train, "collate", collate)
    monkeypatch.setattr(train, "token_losses", token_losses)
    assert run(rare, tmp_path, *FLAGS, "--max_steps=20", "--bad_steps=0", "--eval_every=1000") == 0
    skipped = [line["step"] - 1 for line in log_of(tmp_path) if line.get("event") == "skipped"]
    later = set().union(*seen[max(skipped) + 1:12])
    assert skipped == [0, 1, 2, 3] and seen[0] <= seen[1] | seen[2] | seen[3]
    assert not seen[skipped[-1]] & later


@pytest.mark.parametrize("dtype, rooms", [("fp32", 0), ("bf16", 1)])
def test_batches_have_one_shape_in_bf16(rare, tmp_path, monkeypatch, dtype, rooms):
    given = []

    def collate(packed, samples, *room, collate=train.collate):
        if not torch.is_inference_mode_enabled():
            given.append(len(room))
        return collate(packed, samples, *room)

    monkeypatch.setattr(train, "collate", collate)
    assert run(rare, tmp_path, *FLAGS, f"--dtype={dtype}", "--max_steps=2", "--eval_every=1000") == 0
    assert given == [rooms, rooms]


def test_the_log_and_the_last_line_name_the_skipped_rows(rare, tmp_path, capsys):
    assert (
        run(rare, tmp_path, *FLAGS, "--max_steps=7", "--loss_spike=0.0001", "--eval_every=7", "--eval_train_rows=0")
        == 0
    )
    events = [line for line in log_of(tmp_path) if line.get("event") == "skipped"]
    assert events[0]["step"] == 1 and len(events) in (2, 3)
    lines = [set(event["rows"]) for event in events]
    known = {f"{rare}/train.csv:{line}" for line in range(2, 287)}
    assert all(rows and rows <= known for rows in lines) and all(
        event["expected_loss"] >= train.FLOOR for event in events
    )
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{len(events)} steps were skipped") and f"{rare}/train.csv:" in last and "(1 x)" in last


def test_a_spike_is_judged_by_what_rows_of_its_kinds_cost_before(rare, tmp_path, monkeypatch):
    """A batch of a kind that is not learned yet costs a hundred times what the others do, and is no spike."""
    def one_kind(packed, batch_tokens, seed):
        kind = packed.kind[packed.row]
        groups = [
            np.flatnonzero(kind == number) for number in np.argsort(np.bincount(kind))[::-1]
        ]  # the rare kind comes last
        return [group[first : first + 15] for group in groups for first in range(0, len(group), 15)]

    monkeypatch.setattr(train, "mixed_batches", one_kind)
    assert run(rare, tmp_path, *FLAGS, "--max_steps=95", "--eval_every=1000", "--eval_train_rows=0") == 0
    losses = {line["step"]: line["loss"] for line in log_of(tmp_path) if "loss" in line}
    assert losses[76] > 10 * max(
        0.1, np.median([losses[step] for step in range(60, 76)])
    )  # the fourth batch of the rare kind
    assert checkpoint.load(tmp_path / "last.pt")["skipped"] == 0


def test_a_kind_that_starves_is_named(rare, tmp_path, monkeypatch, capsys):
    """Rare rows whose targets are drawn anew for every batch are never learned."""
    generator = np.random.default_rng(0)

    def collate(packed, samples, collate=train.collate):
        batch = collate(packed, samples)
        rare = torch.from_numpy(packed.kind[packed.row[samples]] == list(packed.kinds).index("A A -> f f~"))[
            batch.targets.row
        ]
        batch.truth[rare] = torch.from_numpy(generator.integers(3, 50, int(rare.sum())))
        return batch

    monkeypatch.setattr(train, "collate", collate)
    assert run(rare, tmp_path, *FLAGS) == 0
    said = capsys.readouterr().err
    assert "warning: 'A A -> f f~' is not learned: 0% of its training rows are right" in said
    assert "'f f~ -> f f~' is not learned" not in said
