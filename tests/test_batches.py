"""
Batches: every row once, within the budget, each a fair sample of the data; what collate packs; rows dealt anew; rows
to validate with.
"""

import os
import random

import numpy as np
import pytest
import torch
from tiny import padded_batch

import batches
from batches import (
    choose_rows,
    collate,
    deal_anew,
    lengths,
    load_split,
    longest_batch,
    mixed_batches,
    padded_batches,
    room_for,
)
from dataset.vocabulary import build_vocabulary
from runtime.files import InputError
from tokenizer import BOS, PAD, Tokenizer

BHABHA = (
    r"i*e^2*gamma_{+%\sigma_1,%x_1,%x_2}*gamma_{%\sigma_1,%x_3,%x_4}*e_{i_3,%x_2}(p_1)_u*e_{k_3,%x_1}(p_2)_v^(*)"
    r"*e_{l_3,%x_3}(p_3)_u^(*)*e_{i_5,%x_4}(p_4)_v/(s_12 + reg_prop)"
)
RARE = BHABHA.replace(
    "*e_{l_3,%x_3}(p_3)_u^(*)*e_{i_5,%x_4}(p_4)_v", r"*A_{l_3,%\sigma_1}(p_3)^(*)*A_{i_5,+%\sigma_2}(p_4)^(*)"
)


@pytest.fixture
def packed(tmp_path):
    """40 rows of different lengths, two of them of another kind."""
    rows = [(RARE if k in (7, 21) else BHABHA, " + ".join(["8*s_14*s_23"] * (k % 7 + 1))) for k in range(40)]
    (tmp_path / "train.csv").write_text("amp,sqamp\n" + "".join(f'"{amp}",{sqamp}\n' for amp, sqamp in rows))
    return load_split(tmp_path, "train", Tokenizer(build_vocabulary(tmp_path / "train.csv")), 512, 512)


def test_batches_hold_every_row_once_within_the_budget(packed):
    tokens = lengths(packed, np.arange(40)).sum(0)
    src, tgt = lengths(packed, np.arange(40))
    drawn = mixed_batches(packed, 300, 1)
    assert sorted(np.concatenate(drawn).tolist()) == list(range(40))
    assert all(len(rows) == 1 or tokens[rows].sum() <= 300 for rows in drawn) and len(drawn) < 1.5 * tokens.sum() / 300
    assert [len(rows) for rows in mixed_batches(packed, 1, 1)] == [1] * 40  # every row is over the budget
    drawn = padded_batches(packed, 300, np.arange(40))
    assert sorted(np.concatenate(drawn).tolist()) == list(range(40))
    assert all(len(rows) == 1 or (src[rows].max() + tgt[rows].max()) * len(rows) <= 300 for rows in drawn)
    assert (np.diff((src + tgt)[np.concatenate(drawn)]) >= 0).all()


def test_the_longest_batch_fits_into_the_room_of_all_others(tmp_path):
    """Also where the longest rows have far more target tokens than their share of the others' batches."""
    rows = [(BHABHA, " + ".join(["8*s_14*s_23"] * (40 if k in (7, 21, 30) else 1))) for k in range(40)]
    (tmp_path / "train.csv").write_text("amp,sqamp\n" + "".join(f'"{amp}",{sqamp}\n' for amp, sqamp in rows))
    packed = load_split(tmp_path, "train", Tokenizer(build_vocabulary(tmp_path / "train.csv")), 512, 512)
    samples, room = longest_batch(packed, 600), room_for(packed, 600)
    src, tgt = lengths(packed, samples)
    assert src.sum() <= room.src and tgt.sum() <= room.tgt and tgt.max() == lengths(packed, np.arange(40))[1].max()
    batch = collate(packed, samples, room)
    assert batch.src.shape == (room.src,) and batch.truth.shape == (room.tgt,)


def test_batches_follow_the_seed(packed):
    runs = [[rows.tolist() for rows in mixed_batches(packed, 300, seed)] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_every_batch_is_a_fair_sample(packed):
    """
    Over many epochs the first batch has rows of every length in their shares: to four standard deviations of
    counting.
    """
    target = lengths(packed, np.arange(40))[1]
    counts = np.zeros(target.max() + 1)
    epochs = 300
    for epoch in range(epochs):
        np.add.at(counts, target[mixed_batches(packed, 400, [0, epoch])[0]], 1)
    size = counts.sum()
    for length in set(target.tolist()):
        share = (target == length).mean()
        assert abs(counts[length] - share * size) < 4 * (share * size) ** 0.5 + 0.1 * share * size


def test_rows_dealt_anew_are_the_same_rows_in_another_mixture(packed):
    before = mixed_batches(packed, 300, 1)[:4]
    after = deal_anew(packed, before, 300, [1, 2])
    assert sorted(np.concatenate(after)) == sorted(np.concatenate(before)) and 4 <= len(after) <= 5
    assert all(set(rows) != set(others) for rows in after for others in before)
    assert all(lengths(packed, rows).sum() <= 300 for rows in after)
    assert [rows.tolist() for rows in after] == [rows.tolist() for rows in deal_anew(packed, before, 300, [1, 2])]


def test_rare_kinds_are_among_the_rows_to_validate_with(packed):
    assert sorted(packed.kinds) == ["f f~ -> A A", "f f~ -> f f~"]
    for seed in range(20):
        chosen, more = choose_rows(packed, 10, seed)
        both = np.concatenate([chosen, more])
        assert len(chosen) == 10 and len(set(both)) == len(both)
        assert {7, 21} <= set(both.tolist())
    chosen, more = choose_rows(packed, 0, 0)
    assert sorted(chosen) == list(range(40)) and not len(more)


def test_collate_packs_and_frames(packed):
    rows = np.array(random.Random(0).sample(range(40), 5))
    batch = collate(packed, rows)
    assert batch.src.dtype == batch.tgt.dtype == batch.truth.dtype == torch.int64
    src, tgt = padded_batch(packed, rows)
    for k, row in enumerate(rows):
        src_row = packed.src[packed.src_start[row] : packed.src_start[row + 1]].tolist()
        tgt_row = [BOS] + packed.tgt[packed.tgt_start[row] : packed.tgt_start[row + 1]].tolist()
        assert src[k].tolist() == src_row + [PAD] * (src.shape[1] - len(src_row))
        assert tgt[k].tolist() == tgt_row + [PAD] * (tgt.shape[1] - len(tgt_row))
        assert batch.src[batch.sources.row == k].tolist() == src_row
        assert batch.tgt[batch.targets.row == k].tolist() == tgt_row[:-1]
        assert batch.truth[batch.targets.row == k].tolist() == tgt_row[1:]
    assert packed.line.tolist() == list(range(2, 42))


def test_another_lexer_does_not_find_the_cache_of_this_one(packed, tmp_path, monkeypatch):
    """The cache's name depends on the code that made it: a changed lexer would read stale ids in silence."""
    made = {path.name for path in (tmp_path / ".cache").iterdir()}
    for path in [path for pattern in batches.CODE for path in batches.HERE.glob(pattern)]:
        copy = tmp_path / "code" / path.relative_to(batches.HERE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(batches, "HERE", tmp_path / "code")
    tokenizer = Tokenizer(build_vocabulary(tmp_path / "train.csv"))
    load_split(tmp_path, "train", tokenizer, 512, 512)
    assert {path.name for path in (tmp_path / ".cache").iterdir()} == made
    (tmp_path / "code" / "physics" / "normal_form.py").write_text("# another spelling")
    load_split(tmp_path, "train", tokenizer, 512, 512)
    assert len(list((tmp_path / ".cache").iterdir())) == 2 * len(made)
    for path in (tmp_path / ".cache").iterdir():  # after a month nobody needs them
        os.utime(path, (0, 0))
    (tmp_path / "code" / "physics" / "normal_form.py").write_text("# a third one")
    load_split(tmp_path, "train", tokenizer, 512, 512)
    assert len(list((tmp_path / ".cache").iterdir())) == len(made)


def test_a_line_that_is_no_row_stops_a_training(packed, tmp_path):
    """prepare.py writes none; skipped in silence it would be a row that is never learned."""
    tokenizer = Tokenizer(build_vocabulary(tmp_path / "train.csv"))
    with open(tmp_path / "train.csv", "a") as file:
        file.write("cut off\n")
    for read in (lambda: build_vocabulary(tmp_path / "train.csv"),
                 lambda: load_split(tmp_path, "train", tokenizer, 512, 512)):
        with pytest.raises(InputError, match=r"train.csv:42: 1 cells"):
            read()
