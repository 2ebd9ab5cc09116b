"""A model and a data set that are given away: what is in the folder, and that it is read again."""
import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from repository import ROOT
from tiny import make_run

from dataset.card import DATA, MODEL, claim, exporting, size_category
from decode import decode, load
from evaluate import main
from runtime import checkpoint
from runtime.files import InputError, digest


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(folder of the export, path of the checkpoint, its report, rows)"""
    folder = tmp_path_factory.mktemp("tiny")
    rows = make_run(folder, steps=60)
    ckpt = folder / "run" / "best.pt"
    main([f"--ckpt={ckpt}", "--device=cpu", "--train_rows=0", f"--export={folder / 'given'}"])
    return folder / "given", ckpt, json.loads((folder / "run" / "report.json").read_text()), rows


def head_of(card):
    """The values of a card's YAML, which are JSON."""
    lines = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1].splitlines()
    return {key: json.loads(value) for key, _, value in (line.partition(": ") for line in lines)}


def test_an_exported_model_gives_the_same_answers(exported):
    folder, ckpt, _, rows = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "vocabulary.json"]
    amps = [row["amp"] for row in rows]
    answers = list(decode(load(ckpt, "cpu"), amps))
    for path in (folder, str(folder), folder / "model.safetensors"):
        again = list(decode(load(path, "cpu"), amps))
        assert [answer.prediction for answer in again] == [answer.prediction for answer in answers]
        assert [answer.logprob for answer in again] == [answer.logprob for answer in answers]


def test_scripts_read_an_exported_model(exported, tmp_path, capsys):
    folder, _, report, rows = exported
    moved = shutil.copytree(folder, tmp_path / "model")
    main([f"--ckpt={moved}", "--device=cpu", "--train_rows=0", f"--output={tmp_path / 'r.json'}"])
    again = json.loads((tmp_path / "r.json").read_text())
    assert again["verdicts"] == report["verdicts"] and again["step"] == 60
    import decode as script
    script.main([f"--ckpt={moved}", "--device=cpu", "--max_rows=1"])
    with open(moved / "predictions.csv", newline="") as file:
        assert [row["amp"] for row in csv.DictReader(file)] == [rows[0]["amp"]]


def test_the_moving_average_is_what_is_exported(exported, tmp_path):
    """It was validated; tied weights are two tensors of the file."""
    from runtime.export import export_model
    _, ckpt, report, _ = exported
    state = checkpoint.load(ckpt)
    average = {name: tensor + 1 for name, tensor in state["model"].items()}
    average["twice"] = next(iter(average.values())).T
    export_model(tmp_path / "m", state | {"ema": average}, report)
    found = checkpoint.load(tmp_path / "m")
    assert all(torch.equal(found["model"][name], tensor) for name, tensor in average.items())
    assert found["ema"] is None and found["vocabulary"] == state["vocabulary"]


def test_the_card_of_a_model_has_its_scores(exported):
    folder, _, report, _ = exported
    card = (folder / "README.md").read_text()
    head = head_of(card)
    result = head["model-index"][0]["results"][0]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == pytest.approx(
        {name: report[name] for name in ("sequence_accuracy", "right_physics", "lookup_accuracy", "ceiling")}, abs=1e-6)
    assert head["license"] == "mit" and f"{report['sequence_accuracy']:.2%}" in card
    assert "lookup table of the training rows" in card and "ceiling" in card and "greedy decoding" in card
    for heading in ("Data", "Scores", "Limits", "Licence"):
        assert f"\n## {heading}\n" in card


def test_damaged_exports_are_named(exported, tmp_path):
    for name, text, message in (("vocabulary.json", None, "vocabulary.json: not readable"),
                                ("model.safetensors", b"short", "damaged or not an exported model"),
                                ("config.json", b"{}", "not the config.json of an exported model")):
        folder = shutil.copytree(exported[0], tmp_path / name)
        (folder / name).unlink() if text is None else (folder / name).write_bytes(text)
        with pytest.raises(InputError, match=message):
            load(folder, "cpu")
    folder = shutil.copytree(exported[0], tmp_path / "short")
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary | {"tgt": vocabulary["tgt"][:5]}))
    with pytest.raises(InputError, match="its vocabulary has 5 tgt tokens, its weights are for"):
        load(folder, "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="model.safetensors, config.json and vocabulary.json"):
        load(tmp_path / "empty", "cpu")
    folder = shutil.copytree(exported[0], tmp_path / "newer")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"version": 99}))
    with pytest.raises(InputError, match="checkpoint version 99"):
        load(folder, "cpu")


def test_an_export_that_fails_leaves_the_earlier_one_as_it_was(exported, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "earlier")
    for name in (folder, tmp_path / "first"):
        with pytest.raises(OSError, match="full"):
            with exporting(name, *MODEL) as made:
                (made / "config.json").write_text("half")
                raise OSError("full")
        assert claim(name, *MODEL) == name  # and it can be repeated
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier", "first"]
    for path in exported[0].iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_no_folder_of_a_user_is_overwritten(exported, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    for own in (MODEL, DATA):
        with pytest.raises(InputError, match="exists and is no earlier export"):
            claim(tmp_path / "mine", *own)
        with pytest.raises(InputError, match="exists and is no earlier export"):
            claim(tmp_path / "mine" / "README.md", *own)
        (tmp_path / own[0]).mkdir()  # another program's folder, or a data set of ours that is no export
        (tmp_path / own[0] / own[0]).write_text(json.dumps({"name": "left-pad", own[1]: 1}))
        with pytest.raises(InputError, match="exists and is no earlier export"):
            claim(tmp_path / own[0], *own)
    assert claim(exported[0], *MODEL) == exported[0] and claim(tmp_path / "new" / "one", *MODEL).is_dir()
    predictions = exported[1].with_name("predictions.csv")
    with pytest.raises(InputError, match="no model answers"):
        main([f"--input={predictions}", f"--data_dir={exported[1].parent.parent / 'data'}",
              f"--export={tmp_path / 'x'}", f"--output={tmp_path / 'y.json'}"])
    assert not (tmp_path / "x").exists()


def run_prepare(*flags):
    """In a process of its own: feyngraph's threads do not survive a fork."""
    return subprocess.run([sys.executable, ROOT / "prepare.py", *flags], capture_output=True, text=True)


def test_a_data_set_is_exported_with_its_card(tmp_path):
    flags = ["--processes=e e~ -> mu mu~; e mu -> e mu; e A -> e A; e e -> e e; e e~ -> e e~", "--workers=1",
             f"--data_dir={tmp_path / 'data'}"]
    for export in ([], [f"--export={tmp_path / 'given'}"]):  # a finished data set is exported too
        assert run_prepare(*flags, *export).returncode == 0
    manifest = json.loads((tmp_path / "given" / "manifest.json").read_text())
    card = (tmp_path / "given" / "README.md").read_text()
    head = head_of(card)
    for entry in head["configs"][0]["data_files"]:
        path = tmp_path / "given" / entry["path"]
        name = path.stem
        assert digest(path) == manifest["sha256"][name] and manifest["sha256"][name] in card
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == manifest["rows"][name] and f"| {name}.csv | {len(rows)} |" in card
    assert all(f"| `{column}` |" in card for column in rows[0])
    assert head["license"] == "mit" and head["size_categories"] == ["n<1K"] and "| `seed` | `1337` |" in card
    refused = run_prepare("--shard=1/2", f"--export={tmp_path / 'x'}")
    assert refused.returncode == 2 and "export: of a whole data set" in refused.stderr


def test_size_categories_of_the_hub():
    assert [size_category(rows) for rows in (999, 1000, 123_456, 5_000_000)] == [
        "n<1K", "1K<n<10K", "100K<n<1M", "n>1M"]
