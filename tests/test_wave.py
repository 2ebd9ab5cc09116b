"""
The wave experiment: the scan is the loop, a wave travels, models read in pieces what they read at once, the tasks are
those of the literature, runs resume bit for bit, and as an encoder a recurrence keeps to its row.
"""
import ast
import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import test_architecture as architecture
import torch
from repository import ROOT
from tiny import SMALL

import train
from ablations.wave import evaluate as wave_evaluate
from ablations.wave import measure
from ablations.wave import train as wave_train
from ablations.wave.data import TASKS, load_splits, to_tensors, training_rows
from ablations.wave.models import MODELS, Network
from ablations.wave.recurrence import RecurrentMixer, Unitary, Wave, loop, scan, wave
from attention import pack_rows
from bench import wave as bench_wave
from configurator import DEFAULT, load_settings
from model import ModelConfig, Transformer, load_model
from runtime import checkpoint
from runtime.files import InputError
from runtime.hardware import training_flops

TINY = ["--hidden=12", "--channels=3", "--modes=6", "--width=8", "--heads=2", "--states=2", "--layers=2",
        "--batch_rows=4", "--valid_rows=5", "--length=3", "--device=cpu"]
ENCODERS = ("wave", "ssm")


def settings_of(*argv):
    return load_settings("", [], [*TINY, *argv], wave_evaluate.BASE)


def normal(*shape, seed=0, dtype=torch.double):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---------------------------------------------------------------------------------------------------------------------
# The recurrences

@pytest.mark.parametrize("steps", [1, 2, 3, 7, 64, 65])
def test_the_scan_is_the_loop_in_value_and_gradient(steps):
    phase, b = normal(steps, 2, 3).requires_grad_(), normal(steps, 2, 3, dtype=torch.cdouble, seed=1).requires_grad_()
    weight, found = normal(steps, 2, 3, dtype=torch.cdouble, seed=2), []
    for recurrence in (scan, loop):
        h = recurrence(torch.polar(torch.ones_like(phase), phase), b)
        grads = torch.autograd.grad((h * weight).real.sum(), (phase, b), allow_unused=True, materialize_grads=True)
        found.append((h, *grads))
    assert all(torch.allclose(fast, slow, rtol=0, atol=1e-11) for fast, slow in zip(*found))


def test_a_unitary_cell_is_the_same_as_scan_and_as_loop():
    cell, x = Unitary(4, 3, 5).double(), normal(20, 2, 4)
    cell.speed.data.normal_(generator=torch.Generator().manual_seed(3))
    found = []
    for recurrence in (scan, loop):
        h, last = cell(x, recurrence=recurrence)
        found.append((h, torch.view_as_real(last), *torch.autograd.grad(h.square().sum(), list(cell.parameters()))))
    assert all(torch.allclose(fast, slow, rtol=1e-10, atol=1e-10) for fast, slow in zip(*found))


def test_the_wave_operator_has_the_gradients_of_its_formula():
    entering, kernel, state = normal(6, 2, 3), normal(2, 6, seed=1), normal(2, 15, seed=2).abs()
    inputs = [x.requires_grad_() for x in (entering, kernel, state)]

    def formula(entering, kernel, h):
        """Rings as (c, n, B), taps one by one."""
        states, taps = [], kernel.unflatten(1, (3, 2))  # (c, tap, c)
        h = h.unflatten(1, (5, 3))
        for new in entering:
            moved = [torch.cat((h[:, -1:], h[:, :-1]), 1), h, torch.cat((h[:, 1:], h[:, :1]), 1)]  # i - 1, i, i + 1
            h = sum(torch.einsum("oi,inb->onb", taps[:, tap], moved[tap]) for tap in range(3))
            h = torch.cat((h[:, :1] + new[:, None], h[:, 1:]), 1).relu()
            states.append(h.flatten(1))
        return torch.stack(states)

    weight, found = normal(6, 2, 15, seed=3), []
    for function in (wave, formula):
        h = function(*inputs)
        found.append((h, *torch.autograd.grad((h * weight).sum(), inputs)))
    assert all(torch.allclose(fast, slow, rtol=0, atol=1e-11) for fast, slow in zip(*found))


def test_an_input_travels_one_unit_a_step_and_comes_round():
    cell = Wave(2, 3, 8)
    x = torch.zeros(20, 1, 2)
    x[0] = 1
    h = cell(x)[0].unflatten(2, (3, 8))[:, 0]  # (T, c, n)
    entered = cell.inputs.weight.sum(1)
    for step in range(20):
        expected = torch.zeros(3, 8)
        expected[:, step % 8] = entered
        assert torch.allclose(h[step], expected)


def test_the_modes_of_the_unitary_cell_are_such_a_ring():
    """Its ring of 2 n units, whose contents change sign on their way round, by the inverse transform of the modes."""
    cell, n = Unitary(1, 1, 6).double(), 6
    x = torch.zeros(15, 1, 1, dtype=torch.double)
    x[0] = 1
    h = torch.view_as_complex(cell(x)[0].unflatten(2, (n, 2)))[:, 0]  # (T, n)
    angle = torch.pi * (torch.arange(n) + 0.5)[:, None] * torch.arange(2 * n).double() / n
    ring = (h @ torch.exp(-1j * angle)).real / n / cell.inputs.weight.item()  # (T, 2 n)
    expected = torch.zeros(15, 2 * n, dtype=torch.double)
    for step in range(15):
        expected[step, step % (2 * n)] = 1 if step < 2 * n else -1
    assert torch.allclose(ring, expected, atol=1e-5)  # the frequencies were made in fp32


def test_memories_neither_fade_nor_grow_in_10000_steps():
    x = torch.zeros(10_000, 1, 4)
    x[:10] = normal(10, 1, 4, dtype=torch.float).abs()
    for cell in (Wave(4, 2, 16), Unitary(4, 2, 8)):
        h = cell(x)[0].norm(dim=-1)[:, 0]
        assert torch.allclose(h[-1], h[9], rtol=1e-3) and h[9] > 0.1


# ---------------------------------------------------------------------------------------------------------------------
# Models and tasks

@pytest.mark.parametrize("model", MODELS)
def test_a_model_reads_in_pieces_what_it_reads_at_once_and_never_looks_ahead(model):
    torch.manual_seed(0)
    core = MODELS[model](settings_of(f"--model={model}"), 2).double()
    x, state = normal(11, 3, 2), core.initialize(3, torch.device("cpu"))
    whole, _ = core(x, state)
    first, state = core(x[:4], state)
    middle, state = core(x[4:5], state)
    last, _ = core(x[5:], state)
    assert whole.shape == (11, 3, core.width)
    assert torch.allclose(torch.cat((first, middle, last)), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("model", MODELS)
def test_every_weight_of_a_model_is_trained(model):
    torch.manual_seed(0)
    settings = settings_of(f"--model={model}")
    network = Network(settings, 10, 10)
    x, y = to_tensors(*training_rows(settings, {}, 0), 10, "cpu")
    wave_evaluate.losses_of(network(x, len(y)), y).sum().backward()
    none = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert none == []


@pytest.mark.parametrize("length", [0, 3])
def test_copy_asks_for_the_ten_symbols_after_the_pause(length):
    x, y = TASKS["copy"].function(np.random.default_rng(0), 4, settings_of(f"--length={length}"))
    assert x.shape == y.shape == (4, length + 20)
    assert (y[:, -10:] == x[:, :10]).all() and x[:, :10].min() >= 1 and x[:, :10].max() <= 8
    assert (x[:, 10:] == [0] * length + [9] + [0] * 9).all() and not y[:, :-10].any()


def test_adding_sums_the_two_marked_numbers_one_in_each_half():
    x, y = TASKS["adding"].function(np.random.default_rng(0), 50, settings_of("--length=7"))
    assert (x[:, :3, 1].sum(1) == 1).all() and (x[:, 3:, 1].sum(1) == 1).all()
    assert np.allclose((x[..., 0] * x[..., 1]).sum(1, keepdims=True), y)


def test_digits_are_the_whole_data_set_once_and_permuted_ones_have_the_same_pixels(tmp_path):
    pytest.importorskip("sklearn")
    plain, mixed = (load_splits(settings_of(f"--task={task}", f"--data_dir={tmp_path}"))
                    for task in ("digits", "permuted"))
    assert isinstance(plain["train"][0], np.memmap)
    assert [len(plain[split][0]) for split in ("train", "valid", "test")] == [1437, 180, 180]
    images = np.concatenate([x for x, _ in plain.values()])[..., 0]
    assert len(np.unique(images, axis=0)) == len(images) == 1797
    for split in plain:
        assert (np.sort(plain[split][0], axis=1) == np.sort(mixed[split][0], axis=1)).all()
        assert not (plain[split][0] == mixed[split][0]).all() and (plain[split][1] == mixed[split][1]).all()
    settings = settings_of("--task=digits", "--batch_rows=479", f"--data_dir={tmp_path}")
    epoch = np.concatenate([training_rows(settings, plain, step)[0] for step in range(3)])[..., 0]
    assert len(np.unique(epoch, axis=0)) == 1437


# ---------------------------------------------------------------------------------------------------------------------
# Runs

def run(folder, name, *argv):
    return wave_train.main([*TINY, "--max_steps=4", "--log_every=1", "--eval_every=2", "--save_every=2", "--seed=1",
                            f"--data_dir={folder}/data", f"--out_dir={folder}/{name}", *argv])


@pytest.mark.parametrize("task", ["copy", "adding", "permuted"])
def test_one_command_fits_validates_tests_and_predicts(task, tmp_path, one_thread_and_the_usual_signals):
    if task == "permuted":
        pytest.importorskip("sklearn")
    assert run(tmp_path, "run", f"--task={task}", "--model=ssm" if task == "adding" else "--model=wave") == 0
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert sum("loss" in line for line in log) == 4 and sum("valid_exact" in line for line in log) == 2
    report = json.loads((tmp_path / "run/report.json").read_text())
    with open(tmp_path / "run/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (180 if task == "permuted" else 5)
    if task == "permuted":
        assert report["test"]["exact"] == np.mean([row["truth"] == row["prediction"] for row in rows])
    assert "<svg" in (tmp_path / "run/wave.svg").read_text()


def test_a_resumed_run_is_bit_for_bit_the_one_that_was_not_interrupted(tmp_path, one_thread_and_the_usual_signals):
    run(tmp_path, "whole")
    command = [sys.executable, ROOT / "ablations/wave/train.py", *TINY, "--max_steps=4", "--log_every=1",
               "--eval_every=2", "--save_every=2", "--seed=1", f"--data_dir={tmp_path}/data",
               f"--out_dir={tmp_path}/cut", "--resume"]
    original = wave_train.training_rows

    def killed(settings, splits, step):
        if step == 3:
            raise KeyboardInterrupt  # one step after the last checkpoint
        return original(settings, splits, step)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(wave_train, "training_rows", killed)
        run(tmp_path, "cut")
    assert checkpoint.load_newest(tmp_path / "cut")["step"] == 2
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, env={"OMP_NUM_THREADS": "1", "PATH": ""})
    whole, cut = (checkpoint.load(tmp_path / name / "last.pt") for name in ("whole", "cut"))
    assert cut["step"] == 4 and cut["best"] == whole["best"]
    assert all(torch.equal(cut["model"][name], weight) for name, weight in whole["model"].items())
    moments = [[part for state in checkpoint_of["optimizer"]["state"].values() for part in state.values()]
               for checkpoint_of in (whole, cut)]
    assert all(torch.equal(a, b) for a, b in zip(*moments))


def test_first_weights_come_from_another_run(tmp_path, one_thread_and_the_usual_signals):
    run(tmp_path, "first", "--max_steps=1")
    run(tmp_path, "second", "--max_steps=1", "--learning_rate=0", "--seed=2", f"--init_from={tmp_path}/first/last.pt")
    first, second = (checkpoint.load(tmp_path / name / "last.pt")["model"] for name in ("first", "second"))
    assert all(torch.equal(first[name], weight) for name, weight in second.items())
    with pytest.raises(InputError, match="^init_from: .* another shape$"):
        run(tmp_path, "third", "--hidden=13", f"--init_from={tmp_path}/first/last.pt")


@pytest.mark.parametrize("argv, message", [
    (["--model=gru"], "model: got 'gru', wanted wave, identity, lstm, transformer, ssm, mamba"),
    (["--task=multiply"], "task: got 'multiply', wanted copy, adding, digits, permuted"),
    (["--chanels=3"], "command line: unknown setting chanels; did you mean channels?"),
    (["--channels=0"], "channels: got 0, wanted at least 1"), (["--beta2=2"], "beta1, beta2: Invalid beta"),
    (["--model=transformer", "--width=9"], "width: got 9 with 4 heads, wanted a multiple of 8"),
    (["--task=adding", "--length=1"], "length: got 1, wanted at least 2"),
    (["ablations/wave/config/cpy.py"], "no such config file"),
])
def test_a_wrong_model_task_key_or_size_is_one_line(argv, message, tmp_path):
    with pytest.raises(InputError) as error:
        wave_train.main([f"--out_dir={tmp_path}/run", *argv])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_its_own_model_alone(tmp_path, one_thread_and_the_usual_signals):
    run(tmp_path, "run", "--max_steps=1")
    with pytest.raises(InputError, match="hidden: 13 in the settings, 12 in the checkpoint"):
        run(tmp_path, "run", "--hidden=13", "--resume")
    with pytest.raises(InputError, match="run: holds a run already"):
        run(tmp_path, "run")
    checkpoint.save(tmp_path / "other.pt", {"model": {}, "model_config": {}, "vocabulary": {}, "settings": {}})
    with pytest.raises(InputError, match="other.pt: not a checkpoint of ablations/wave/train.py"):
        wave_evaluate.main([f"--ckpt={tmp_path}/other.pt", "--device=cpu"])


@pytest.mark.parametrize("path", sorted((ROOT / "ablations/wave/config").glob("*.py")), ids=lambda path: path.stem)
def test_every_config_of_the_experiment_loads(path):
    wave_evaluate.check_model(load_settings("", [], [str(path)], wave_evaluate.BASE))


def test_the_table_has_the_runs_that_are_there_and_says_which_are_not(tmp_path):
    runs = [one for one in measure.RUNS if one.name.startswith("copy-30")]
    for seed in measure.SEEDS:
        folder = tmp_path / f"{runs[0].name}-{seed}"
        folder.mkdir()
        figures = {"loss": 0.5, "exact": seed / 4, "mse": 1e-7}
        report = {"model": "wave", "parameters": 1234, "step": 400, "seconds": 60.0, "valid": figures, "test": figures}
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "log.jsonl").write_text('{"step": 400, "seconds": 60}\n')
    lines = measure.table_of(runs, tmp_path)
    assert f"{100 * np.mean(measure.SEEDS) / 4:.1f}%" in lines[2] and "1,234" in lines[2]
    assert all("not measured yet" in line for line in lines[3:])


def test_every_run_of_the_tables_has_settings_that_there_are():
    for one in measure.RUNS + measure.AMPLITUDES:
        base = wave_evaluate.BASE if one in measure.RUNS else DEFAULT
        settings = load_settings("", [], [one.config, *one.flags], base)
        assert len({flag.partition("=")[0] for flag in one.flags}) == len(one.flags)
        if one in measure.RUNS:
            wave_evaluate.check_model(settings)


# ---------------------------------------------------------------------------------------------------------------------
# As the encoder of the amplitude model

CHECKS = [
    architecture.test_answers_written_with_the_cache_have_the_probability_that_the_whole_model_gives_them,
    architecture.test_a_row_alone_is_the_row_in_a_batch,
    architecture.test_the_order_of_the_tokens_matters,
    architecture.test_the_copy_for_decoding_computes_the_same,
]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_recurrent_encoder_keeps_what_holds_for_every_architecture(check, encoder, monkeypatch):
    monkeypatch.setitem(architecture.CHOICES, encoder, dict(encoder=encoder))
    check(encoder)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradients_and_checkpoints_of_a_recurrent_encoder(encoder, monkeypatch, tmp_path):
    monkeypatch.setitem(architecture.CHOICES, encoder, dict(encoder=encoder))
    architecture.test_every_weight_is_trained_with_the_same_gradient_in_checkpointed_layers(encoder)
    architecture.test_a_checkpoint_brings_the_architecture_back(encoder, tmp_path)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_state_leaks_between_rows(encoder):
    """The output of a row has no gradient at all from its neighbours, and one from each of its own tokens."""
    torch.manual_seed(0)
    mixer = RecurrentMixer(encoder, 16).double()
    x, lengths = normal(14, 16).abs().requires_grad_(), torch.tensor([3, 1, 6, 4])  # no relu is closed
    y, weight = mixer(x, None, pack_rows(lengths)), normal(14, 16, seed=1)
    for row, (begin, end) in enumerate(zip([0, 3, 4, 10], [3, 4, 10, 14])):
        seen = torch.autograd.grad((y * weight)[begin:end].sum(), x, retain_graph=True)[0].abs().sum(1)
        assert seen[begin:end].min() > 0 and not seen[:begin].any() and not seen[end:].any()
        for here, there in ((begin, end - 1), (end - 1, begin)):  # both ends of a row see each other
            assert torch.autograd.grad((y * weight)[here].sum(), x, retain_graph=True)[0][there].any()
        alone = mixer(x[begin:end], None, pack_rows(lengths[row:row + 1]))
        assert torch.allclose(alone, y[begin:end], rtol=0, atol=1e-12)


def test_a_recurrent_encoder_has_the_weights_of_attention():
    counts = {}
    for encoder in ("attention", *ENCODERS):
        model = Transformer(ModelConfig(**architecture.SIZES | dict(d_model=128, heads=4, encoder=encoder)))
        counts[encoder] = sum(weight.numel() for weight in model.encoder[0].attention.parameters())
    assert counts["attention"] == 4 * 128 ** 2
    assert all(abs(counts[encoder] / counts["attention"] - 1) < 0.05 for encoder in ENCODERS)


def test_flops_of_a_recurrent_encoder():
    """Of "ssm" as torch counts them; the kernel of a wave works on 14 units, three taps, from both ends."""
    from torch.utils.flop_counter import FlopCounterMode
    sizes = architecture.SIZES | dict(d_model=64, d_ff=96)
    model = Transformer(ModelConfig(**sizes, encoder="ssm"), "reference")
    with FlopCounterMode(display=False) as counter:
        architecture.padded(model, torch.full((2, 16), 5), torch.full((2, 1), 5)).sum().backward()
    tokens = np.full(2, 16), np.full(2, 1)
    assert training_flops(model.config, *tokens) == pytest.approx(counter.get_total_flops(), rel=0.03)
    kernel = 2 * 14 * 8 * 24  # of two layers' two directions: 8 channels read 24 numbers at each of 14 units
    weights = 2 * (2 * 64 * 8 + 2 * 14 * 8 * 64 + kernel) - 2 * 4 * 64 ** 2
    difference = training_flops(ModelConfig(**sizes, encoder="wave"), *tokens) - training_flops(model.config, *tokens)
    assert difference == 6 * weights * 32


@pytest.mark.parametrize("encoder", ENCODERS)
def test_training_and_decoding_with_a_recurrent_encoder(encoder, data, tmp_path, one_thread_and_the_usual_signals):
    argv = [f"--data_dir={data}", f"--out_dir={tmp_path}", f"--encoder={encoder}", "--max_steps=4", *SMALL]
    assert train.main(argv) == 0
    model, _, state = load_model(tmp_path / "best.pt", torch.device("cpu"))
    assert model.config.encoder == state["settings"]["encoder"] == encoder
    with pytest.raises(InputError, match=f"encoder: attention in the settings, {encoder} in the checkpoint"):
        train.main([*argv, "--resume", "--max_steps=6", "--encoder=attention"])


def test_the_recurrences_import_no_model_part():
    """model.py imports them, so this would be a circle."""
    tree = ast.parse((ROOT / "ablations/wave/recurrence.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"math", "torch", "torch.nn", "torch.nn.functional", "attention"}


def test_an_encoder_that_there_is_not_is_one_line():
    for change, message in (({"encoder": "gru"}, "encoder: got 'gru', wanted attention, wave, ssm"),
                            ({"encoder": "ssm", "d_model": 12}, "encoder: ssm needs a width that is a multiple of 8")):
        with pytest.raises(InputError, match=message):
            ModelConfig(**architecture.SIZES | change)


def test_the_benchmark_of_lengths_comes_out(monkeypatch, capsys):
    monkeypatch.setattr(bench_wave, "LENGTHS", (4, 8))
    monkeypatch.setattr(bench_wave, "ROUNDS", 1)
    monkeypatch.setattr(bench_wave, "peak_of", lambda device, work: work())  # it takes a while
    bench_wave.main(["--d_model=16", "--heads=2", "--d_ff=16", "--device=cpu"])
    out = capsys.readouterr().out
    assert out.count("attention from") + out.count("not faster than attention") == 2
    assert len([line for line in out.splitlines() if line.split()[:1] in (["4"], ["8"])]) == 4
