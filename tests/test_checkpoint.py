"""Checkpoints: whole or not there, damage is named and never loaded, the right one is found."""

import os
import pickle
import resource
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from model import ModelConfig, Transformer, load_model
from runtime import checkpoint, runs
from runtime.files import InputError
from tokenizer import FORMAT, SPECIALS

SIZES = dict(
    src_vocab=5,
    tgt_vocab=4,
    src_max_len=8,
    tgt_max_len=8,
    d_model=8,
    heads=2,
    encoder_layers=1,
    decoder_layers=1,
    d_ff=8,
    dropout=0.1,
)
VOCABULARY = {"format": FORMAT, "rename_particles": False, "src": SPECIALS + ["a", "b"], "tgt": SPECIALS + ["c"]}


def state(step=0):
    torch.manual_seed(step)
    model = Transformer(ModelConfig(**SIZES))
    return {"model": model.state_dict(), "model_config": asdict(model.config), "vocabulary": VOCABULARY, "step": step}


def same(a, b):
    return a["step"] == b["step"] and all(torch.equal(a["model"][name], b["model"][name]) for name in b["model"])


def damage(path, how):
    whole = path.read_bytes()
    if how == "flipped":
        at = whole.index(checkpoint.load(path)["model"]["head.weight"].numpy().tobytes())
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    else:
        path.write_bytes(whole[: {"empty": 0, "start": 100, "half": len(whole) // 2, "end": len(whole) - 5}[how]])


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint.save(tmp_path / "run" / "last.pt", state(7))
    loaded = checkpoint.load(tmp_path / "run" / "last.pt")
    assert same(loaded, state(7))
    assert loaded["vocabulary"] == VOCABULARY and loaded["version"] == checkpoint.VERSION


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    checkpoint.save(tmp_path / "last.pt", state(1))
    with pytest.raises(Exception):
        checkpoint.save(tmp_path / "last.pt", state(2) | {"settings": lambda: None})
    assert os.listdir(tmp_path) == ["last.pt"]
    assert same(checkpoint.load(tmp_path / "last.pt"), state(1))


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="last.pt: not written .No space left on device"):
        checkpoint.save(tmp_path / "last.pt", state())


def test_a_full_disk_is_the_same_line_for_a_large_tensor(tmp_path):
    """Where a tensor does not fit into torch's buffer, torch raises a RuntimeError while it closes the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, hard))  # the kernel lets no file grow beyond
    try:
        with pytest.raises(InputError, match="last.pt: not written .File too large"):
            checkpoint.save(tmp_path / "last.pt", {"large": torch.zeros(2**20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", ["empty", "start", "half", "end", "flipped"])
def test_a_damaged_checkpoint_is_one_line_that_names_it(tmp_path, how):
    checkpoint.save(tmp_path / "last.pt", state())
    damage(tmp_path / "last.pt", how)
    with pytest.raises(InputError, match="last.pt: damaged") as error:
        checkpoint.load(tmp_path / "last.pt")
    assert "\n" not in str(error.value)


def test_what_is_no_checkpoint_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="gone.pt: not readable .No such file"):
        checkpoint.load(tmp_path / "gone.pt")
    with pytest.raises(InputError, match="not readable .Is a directory"):
        checkpoint.load(tmp_path)
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(InputError, match="text.pt: damaged or not a checkpoint"):
        checkpoint.load(tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="list.pt: not a checkpoint of train.py"):
        checkpoint.load(tmp_path / "list.pt")
    checkpoint.save(tmp_path / "other.pt", state() | {"version": "1.0"})
    with pytest.raises(InputError, match="other.pt: not a checkpoint of this program"):
        checkpoint.load(tmp_path / "other.pt")
    checkpoint.save(tmp_path / "best.pt", state())
    with pytest.raises(InputError, match="is the folder of a run; its checkpoint is .*best.pt"):
        checkpoint.load(tmp_path)
    checkpoint.save(tmp_path / "new.pt", state() | {"version": 99})
    with pytest.raises(InputError, match="version 99"):
        checkpoint.load(tmp_path / "new.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save(state() | {"settings": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "evil.pkl"):
        with pytest.raises(InputError):
            checkpoint.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("limit, steps", [(1, [30]), (2, [30, 20]), (0, [30, 20, 10, 9])])
def test_only_the_newest_checkpoints_are_kept(tmp_path, limit, steps):
    for step in (9, 10, 20, 30):
        checkpoint.save_limited(tmp_path, state(step), limit)
    assert sorted(os.listdir(tmp_path)) == sorted(["last.pt", *(f"ckpt_{step}.pt" for step in steps)])
    assert [path.name for path in checkpoint.step_files(tmp_path)] == [f"ckpt_{step}.pt" for step in steps]
    assert same(checkpoint.load(tmp_path / "last.pt"), state(30))


def test_old_checkpoints_go_only_after_the_new_one_is_safe(tmp_path, monkeypatch):
    checkpoint.save_limited(tmp_path, state(1), 1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("ckpt_2.pt", "last.pt"):

        def fail(path, state, save=checkpoint.save):
            if path.name == name:
                raise InputError("disk full")
            save(path, state)

        with monkeypatch.context() as patch, pytest.raises(InputError):
            patch.setattr(checkpoint, "save", fail)
            checkpoint.save_limited(tmp_path, state(2), 1)
        assert all(path.exists() and path.read_bytes() == content for path, content in before.items())


def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_ones_named(tmp_path, capsys):
    assert checkpoint.load_newest(tmp_path) is None and checkpoint.load_newest(tmp_path / "gone") is None
    for step in (9, 10):
        checkpoint.save_limited(tmp_path, state(step), 2)
    assert same(checkpoint.load_newest(tmp_path), state(10))
    assert capsys.readouterr().err == ""
    damage(tmp_path / "last.pt", "half")
    assert same(checkpoint.load_newest(tmp_path), state(10))
    damage(tmp_path / "ckpt_10.pt", "flipped")
    assert same(checkpoint.load_newest(tmp_path), state(9))
    warnings = capsys.readouterr().err
    assert "last.pt" in warnings and "ckpt_10.pt" in warnings and "ckpt_9.pt" not in warnings
    damage(tmp_path / "ckpt_9.pt", "empty")
    with pytest.raises(InputError, match="none of its 3 checkpoints can be read"):
        checkpoint.load_newest(tmp_path)


def settings(ckpt="", out_dir="out/default", config_name="default"):
    return SimpleNamespace(ckpt=ckpt, out_dir=out_dir, config_name=config_name)


def test_the_checkpoint_to_decode_with_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "models" / "symba")
    with pytest.raises(InputError, match="out/default/best.pt: no such checkpoint; train.py makes it"):
        checkpoint.find(settings())
    for age, name in enumerate(["new", "default", "old"]):
        checkpoint.save(tmp_path / "out" / name / "best.pt", state())
        os.utime(tmp_path / "out" / name / "best.pt", (1e9 - age, 1e9 - age))
    assert str(checkpoint.find(settings())) == "out/new/best.pt"
    assert str(checkpoint.find(settings(out_dir="out/old", config_name="old"))) == "out/old/best.pt"
    assert str(checkpoint.find(settings(out_dir="out/old"))) == "out/old/best.pt"
    assert str(checkpoint.find(settings(ckpt="out/old/last.pt"))) == "out/old/last.pt"
    with pytest.raises(InputError, match="out/none/best.pt: no such checkpoint"):
        checkpoint.find(settings(out_dir="out/none", config_name="none"))


def test_without_a_run_the_model_that_comes_with_the_scripts_is_found(tmp_path, monkeypatch):
    """What is made with it goes to out/, not into the program's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "models" / "symba")
    checkpoint.SHIPPED.mkdir(parents=True)
    (checkpoint.SHIPPED / checkpoint.EXPORTED).touch()
    shipped = checkpoint.find(settings())
    assert shipped == checkpoint.SHIPPED / checkpoint.EXPORTED
    assert str(checkpoint.folder_beside(shipped)) == "out/symba"
    assert str(checkpoint.folder_beside(shipped.relative_to(tmp_path))) == "out/symba"  # --ckpt=models/symba
    with pytest.raises(InputError, match="out/mine/best.pt: no such checkpoint"):
        checkpoint.find(settings(out_dir="out/mine", config_name="mine"))
    checkpoint.save(tmp_path / "out" / "mine" / "best.pt", state())
    found = checkpoint.find(settings())
    assert str(found) == "out/mine/best.pt" and str(checkpoint.folder_beside(found)) == "out/mine"


def test_of_all_runs_the_newest_of_train_py_is_found_and_named(tmp_path, monkeypatch, capsys):
    """
    Not the SCST run that started from it, nor one of an experiment in ablations/, nor a damaged file, nor a run that is
    still training where another one has ended.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "models" / "symba")
    checkpoint.save(tmp_path / "out/latent/best.pt", state() | {"vocabulary": {"src": [], "tgt": []}})
    names = ["one/scst", "busy", "damaged", "one", "two"]
    for age, name in enumerate(names):
        path = tmp_path / "out" / name / "best.pt"
        checkpoint.save(path, state() | ({"start": {}} if "scst" in name else {}))
        if name == "damaged":
            damage(path, "half")
        os.utime(path, (1e9 - age, 1e9 - age))
    with runs.held("out/busy"):
        assert str(checkpoint.find(settings())) == "out/one/best.pt"
        said = capsys.readouterr().err
        assert (
            "out/one/best.pt: the newest run of train.py in out; out/busy/best.pt is of a run that is still training"
            in said
        )
        assert "warning: out/damaged/best.pt: damaged" in said and "scst" not in said
        for name in ("one", "two"):
            (tmp_path / "out" / name / "best.pt").unlink()
        assert str(checkpoint.find(settings())) == "out/busy/best.pt"
        assert "out/busy/best.pt is of a run that is still training" in capsys.readouterr().err
    assert str(checkpoint.find(settings())) == "out/busy/best.pt"
    assert "still training" not in capsys.readouterr().err
    (tmp_path / "out/busy/best.pt").unlink()
    with pytest.raises(InputError, match="out/default/best.pt: no such checkpoint"):
        checkpoint.find(settings())


def test_the_model_comes_from_the_checkpoint_alone(tmp_path):
    checkpoint.save(tmp_path / "best.pt", state(3))
    model, tokenizer, loaded = load_model(tmp_path / "best.pt", torch.device("cpu"))
    assert not model.training
    assert asdict(model.config) == asdict(ModelConfig(**SIZES))
    assert same({"model": model.state_dict(), "step": loaded["step"]}, state(3))
    assert tokenizer.vocabulary == VOCABULARY


@pytest.mark.parametrize(
    "change",
    [
        {"model_config": SIZES | {"d_ff": 9}},
        {"model_config": {}},
        {"model": {}},
        {"vocabulary": {}},
        {"model_config": SIZES | {"kind": "rnn"}},
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_clear_line(tmp_path, change):
    checkpoint.save(tmp_path / "best.pt", state() | change)
    with pytest.raises(InputError, match="best.pt: ") as error:
        load_model(tmp_path / "best.pt", torch.device("cpu"))
    assert "\n" not in str(error.value)
