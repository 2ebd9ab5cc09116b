"""The folder of a run: locked by one process, whole on a full disk, listed, plotted, logged at Weights & Biases."""
import fcntl
import json
import os
import resource
import shutil
import struct
import sys
import types

import pytest
import torch
from tiny import SMALL, assert_same_run, log_of, run

import train
from configurator import load_settings
from runtime import checkpoint, runs
from runtime.files import InputError
from runtime.hardware import peak_flops

pytestmark = pytest.mark.usefixtures("one_thread_and_the_usual_signals")


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """A run of 20 steps, with every checkpoint."""
    torch.set_num_threads(1)
    out_dir = tmp_path_factory.mktemp("out") / "straight"
    assert run(data, out_dir, "--max_steps=20", "--save_limit=0") == 0
    return out_dir


def test_a_second_process_waits_for_the_run_and_then_says_who_has_it(straight, monkeypatch, capsys):
    folder = os.open(straight, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    monkeypatch.setattr(runs, "PATIENCE", 1)
    before = (straight / "log.jsonl").stat().st_mtime_ns
    with pytest.raises(InputError, match="straight: another process trains there; stop it, or name"):
        train.main([str(straight / "config.py"), "--resume", "--max_steps=30"])
    assert "waiting up to 1 s" in capsys.readouterr().err and (straight / "log.jsonl").stat().st_mtime_ns == before
    os.close(folder)
    assert train.main([str(straight / "config.py"), "--resume"]) == 0


def test_a_new_run_is_held_while_it_runs(data, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "PATIENCE", 0)

    def second_process(*_):
        with pytest.raises(InputError, match="another process trains there"), runs.held(tmp_path / "run"):
            pass
        raise InputError("tried")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="tried"):
        patch.setattr(train, "load_split", second_process)
        run(data, tmp_path / "run", "--max_steps=1")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/run: no run can be written there .Not a directory"):
        run(data, tmp_path / "file" / "run", "--max_steps=1")


def test_a_full_disk_is_one_clear_line_and_costs_the_steps_since_the_last_checkpoint(data, straight, tmp_path):
    later = shutil.ignore_patterns("last.pt", "ckpt_20.pt", "ckpt_15.pt", "best.pt")
    shutil.copytree(straight, tmp_path / "run", ignore=later)
    size = (straight / "ckpt_10.pt").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0.5, 0.999):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(room * size), hard))  # the kernel lets no file grow beyond
        try:
            with pytest.raises(InputError, match=r"(ckpt_15|best).pt: not written \(File too large\); "
                                                 "the checkpoints before it are whole"):
                train.main([str(straight / "config.py"), f"--out_dir={tmp_path}/run", "--resume"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in (tmp_path / "run").glob("*.pt")) == ["ckpt_10.pt", "ckpt_5.pt"]
    assert train.main([str(straight / "config.py"), f"--out_dir={tmp_path}/run", "--resume"]) == 0
    assert_same_run(straight, tmp_path / "run")


def test_resume_best_goes_on_from_the_best_and_gives_up_what_came_after(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    shutil.copy(straight / "ckpt_10.pt", tmp_path / "run" / "best.pt")
    flags = [f"--out_dir={tmp_path}/run", "--resume_best", "--max_steps=12"]
    assert train.main([str(straight / "config.py"), *flags]) == 0
    assert [path.name for path in checkpoint.step_files(tmp_path / "run")] == ["ckpt_12.pt", "ckpt_10.pt", "ckpt_5.pt"]
    assert [line["step"] for line in log_of(tmp_path / "run") if "loss" in line] == list(range(1, 13))
    assert "resume_best = False" in (tmp_path / "run" / "config.py").read_text()
    with pytest.raises(InputError, match="best.pt: not readable"):
        train.main([str(straight / "config.py"), f"--out_dir={tmp_path}/none", "--resume_best"])


def test_resume_best_has_given_up_the_later_checkpoints_before_its_first_step(straight, tmp_path, monkeypatch):
    shutil.copytree(straight, tmp_path / "run")
    shutil.copy(straight / "ckpt_10.pt", tmp_path / "run" / "best.pt")

    def killed(parent):
        raise InputError("killed")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="killed"):
        patch.setattr(train, "catch_signals", killed)
        train.main([str(straight / "config.py"), f"--out_dir={tmp_path}/run", "--resume_best"])
    assert checkpoint.load_newest(tmp_path / "run")["step"] == 10
    assert [path.name for path in checkpoint.step_files(tmp_path / "run")] == ["ckpt_10.pt", "ckpt_5.pt"]
    assert train.main([str(straight / "config.py"), f"--out_dir={tmp_path}/run", "--resume"]) == 0
    assert_same_run(straight, tmp_path / "run")


def test_ranks_that_see_different_checkpoints_or_none_end_before_they_train(data, straight, tmp_path, monkeypatch):
    new = [f"--data_dir={data}", f"--out_dir={tmp_path}/run", *SMALL]
    for seen_there, flags in (15, [str(straight / "config.py"), "--max_steps=30"]), (20, new):
        monkeypatch.setattr(train, "gather", lambda world, here: torch.stack([here, torch.tensor(seen_there)]))
        with pytest.raises(InputError, match="the ranks see different checkpoints there"):
            train.main([*flags, "--resume"])


def test_a_run_id_names_one_run_of_several_of_a_config(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    assert load_settings("", ["seed"], ["mine.py", "--run_id=a"]).out_dir == "out/mine/a"
    assert train.main(["mine.py", f"--data_dir={data}", *SMALL, "--run_id=a", "--max_steps=10"]) == 0
    given = load_settings("", ["seed"], ["out/mine/a/config.py"])
    assert (given.out_dir, given.run_id) == ("out/mine/a", "a")
    assert str(checkpoint.find(load_settings("", ["seed"], ["mine.py", "--run_id=a"]))) == "out/mine/a/best.pt"
    assert str(checkpoint.find(load_settings("", ["seed"], []))) == "out/mine/a/best.pt"  # the newest
    assert load_settings("", ["seed"], ["out/mine/a/config.py", "--run_id=b"]).out_dir == "out/mine/b"
    assert load_settings("", ["seed"], ["mine.py", "--run_id=mine"]).out_dir == "out/mine/mine"
    for name in ("a/b", "..", "."):
        with pytest.raises(InputError, match="run_id: got"):
            load_settings("", ["seed"], ["mine.py", f"--run_id={name}"])


def test_all_runs_are_listed_the_newest_first_with_step_best_and_age(straight, tmp_path, capsys, monkeypatch):
    shutil.copytree(straight, tmp_path / "out" / "old" / "deep")
    shutil.copytree(straight, tmp_path / "out" / "new")
    (tmp_path / "out" / "new" / "log.jsonl").write_text(
        '{"step": 7, "loss": 1.0}\n{"step": 10, "valid_loss": 0.5, "valid_exact": 0.25}\n'
        '{"step": 20, "valid_loss": 0.6, "valid_exact": 0.25}\n{"step": 2')
    os.utime(tmp_path / "out" / "old" / "deep" / "log.jsonl", (1e9, 1e9))
    monkeypatch.chdir(tmp_path)
    train.main(["--list"])
    header, new, old = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["run", "step", "of"]
    assert new.split()[:6] == ["out/new", "20", "20", "25.00%", "0.5000", "10"] and new.endswith(" s ago")
    assert old.split()[0] == "out/old/deep" and old.endswith(" days ago")
    with pytest.raises(InputError, match="gone: no runs there"):
        train.main(["--list", "--out_dir=gone"])


def test_curves_of_runs_are_drawn_as_one_png(straight, tmp_path):
    pytest.importorskip("matplotlib")
    assert train.main([f"--plot={straight} {straight}", f"--output={tmp_path}/new/two.png"]) == 0
    png = (tmp_path / "new" / "two.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and min(struct.unpack(">II", png[16:24])) > 500
    assert train.main([f"--plot={straight}"]) == 0 and (straight / "plot.png").exists()
    (straight / "plot.png").unlink()
    with pytest.raises(InputError, match="gone: no log.jsonl of a run there"):
        train.main(["--plot=gone"])
    (tmp_path / "notes.csv").write_text("mine")
    with pytest.raises(InputError, match="notes.csv: exists and is no earlier output"):
        train.main([f"--plot={straight}", f"--output={tmp_path}/notes.csv"])


class FakeRun:
    def __init__(self, id):
        self.id, self.lines = id or "made1", []

    def define_metric(self, *names, **kind):
        assert names == ("*",) and kind == {"step_metric": "step"}

    def log(self, line):
        self.lines.append(line)

    def finish(self):
        self.lines.append({"step": "end"})


@pytest.fixture
def fake_wandb(monkeypatch):
    """A stand-in for the module, with what was asked of it."""
    module = types.ModuleType("wandb")
    module.started = []

    def init(**given):
        module.started.append((given, FakeRun(given["id"])))
        return module.started[-1][1]

    module.init, module.Error, module.Settings = init, OSError, dict
    module.Table = lambda columns, data: (columns, data)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_weights_and_biases_gets_the_log_and_a_resumed_run_goes_on_there(data, tmp_path, fake_wandb):
    flags = ["--wandb_mode=offline", "--wandb_project=mine", "--max_steps=10"]
    run(data, tmp_path / "run", *flags)
    run(data, tmp_path / "run", *flags, "--resume", "--max_steps=12")
    (first, one), (second, other) = fake_wandb.started
    assert (first["id"], second["id"]) == (None, "made1") and first["resume"] == "allow"
    assert (first["mode"], first["project"], first["name"]) == ("offline", "mine", "run")
    assert first["config"]["d_model"] == 16
    assert [line["step"] for line in one.lines if "loss" in line] == list(range(1, 11))
    assert [line["step"] for line in other.lines if "loss" in line] == [11, 12]
    figures = {"loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu", "memory_gb", "skipped"}
    assert figures <= set(one.lines[0])
    assert one.lines[-1] == other.lines[-1] == {"step": "end"}
    validation = one.lines[-2]
    columns, rows = validation["samples"]
    assert columns == ["sqamp", "prediction"] and len(rows) == 2 and all(row[0].startswith("2*e^4*") for row in rows)
    logged = log_of(tmp_path / "run")[10]
    assert logged["samples"][0]["sqamp"] == rows[0][0] and logged["valid_loss"] == validation["valid_loss"]


def test_wrong_or_missing_weights_and_biases_is_one_line(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    assert run(data, tmp_path / "none", "--max_steps=1") == 0
    messages = {"offline": "wandb_mode: Weights & Biases is not installed; pip install wandb",
                "on": "wandb_mode: got 'on', wanted"}
    for mode, message in messages.items():
        with pytest.raises(InputError, match=message):
            run(data, tmp_path / mode, f"--wandb_mode={mode}", "--max_steps=1")
        assert not (tmp_path / mode).exists()


@pytest.mark.parametrize("name, peak", [
    ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12),
    ("NVIDIA L4", 121e12), ("NVIDIA L40S", 362e12), ("Tesla V100-SXM2-32GB", 125e12), ("NVIDIA GH200 480GB", 989e12),
    ("NVIDIA L40", None), ("NVIDIA RTX A4000", None), ("NVIDIA RTX A1000", None), ("NVIDIA GB200", None),
    ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None)])
def test_a_peak_is_that_of_the_very_device_or_not_known(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda"), torch.bfloat16) == peak
    assert peak_flops(torch.device("cuda"), torch.float32) is None


def test_a_full_disk_at_a_line_of_the_log_names_the_file_and_the_remedy(tmp_path):
    record = runs.open_log(load_settings("", ["seed"], [f"--out_dir={tmp_path}"]), 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(InputError, match=r"log.jsonl: not written \(File too large\); make room, "
                                             "then --resume goes on"):
            for step in range(10):
                record(step, 0.5, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [line["step"] for line in runs.read_log(tmp_path)] == [0, 1]


def test_log_lines_are_json_without_nan(tmp_path):
    record = runs.open_log(load_settings("", ["seed"], [f"--out_dir={tmp_path}"]), 0)
    record(3, 1.23456, {"loss": float("nan"), "grad_norm": float("inf"), "skipped": 2})
    line = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert line == {"step": 3, "seconds": 1.235, "loss": None, "grad_norm": None, "skipped": 2}
