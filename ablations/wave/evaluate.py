"""
Test and predict with a trained model, and draw its hidden state over time.

    python ablations/wave/evaluate.py OUT/config.py [--ckpt=OUT/best.pt]

Writes beside the checkpoint: report.json (figures of the validation and the test split), predictions.csv (a line for
each test sequence) and wave.svg (the hidden state while the model reads one test sequence).
"""
import os
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch is imported; the project's train.py says why
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # import from the repository, which has its own evaluate.py

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from ablations.wave.data import SYMBOLS, TASKS, load_splits, to_tensors
from ablations.wave.models import MODELS, Network
from configurator import check_least, load_settings
from runtime import checkpoint
from runtime.files import InputError, main_guard, write_json, write_rows
from runtime.hardware import find_device
from runtime.pictures import pyplot_without_screen

BASE = Path(__file__).with_name("config") / "default.py"
MODEL_SETTINGS = ["model", "task", "length", "hidden", "channels", "modes", "slowest", "states", "width",
                  "layers", "heads"]
ROWS = 100  # sequences that are scored together


def check_model(settings):
    """InputError for a model, a task or a size that there is not."""
    for name, known in (("model", MODELS), ("task", TASKS)):
        if getattr(settings, name) not in known:
            raise InputError(f"{name}: got {getattr(settings, name)!r}, wanted {', '.join(known)}")
    if settings.model == "transformer" and settings.width % (2 * settings.heads):
        raise InputError(f"width: got {settings.width} with {settings.heads} heads, wanted a multiple of "
                         f"{2 * settings.heads}")
    check_least(settings, {"length": 2 if settings.task == "adding" else 0} | dict.fromkeys(MODEL_SETTINGS[3:], 1))


def load_state(path):
    """The checkpoint of a run of this experiment, a dictionary."""
    state = checkpoint.load(path)
    if "task" not in state.get("settings", {}):
        raise InputError(f"{path}: not a checkpoint of ablations/wave/train.py")
    return state


def make_network(settings):
    task = TASKS[settings.task]
    return Network(settings, task.inputs, task.outputs)


def losses_of(answers, y):
    """Cross-entropy of classes (nats), squared error of numbers. answers: (steps, B, outputs); y: (steps, B) -> same"""
    if y.is_floating_point():
        return (answers[..., 0] - y).square()
    return F.cross_entropy(answers.flatten(0, 1), y.flatten(), reduction="none").view_as(y)


@torch.no_grad()
def read(network, task, x, y, device):
    """Answers (steps, rows, outputs) of the network to all rows, and the truth (steps, rows)."""
    network.eval()
    answers, truths = [], []
    for start in range(0, len(x), ROWS):
        some, truth = to_tensors(x[start:start + ROWS], y[start:start + ROWS], task.inputs, device)
        answers.append(network(some, len(truth)).cpu())
        truths.append(truth.cpu())
    network.train()
    return torch.cat(answers, dim=1), torch.cat(truths, dim=1)


def score(network, task, x, y, device):
    """
    Figures of a split: `loss`; `exact`, the share of the sequences with every answer right (of numbers: within 0.04);
    `mse`, the mean squared error: of numbers, or of the probabilities of all classes against 0 and 1, in the copy task
    at the ten symbols alone.
    """
    answers, truth = read(network, task, x, y, device)
    losses = losses_of(answers, truth)
    if truth.is_floating_point():
        right, squared = losses < 0.04 ** 2, losses
    else:
        right = answers.argmax(-1) == truth
        squared = (answers.double().softmax(-1) - F.one_hot(truth, task.outputs))[-SYMBOLS:].square()
    return {"loss": losses.mean().item(), "exact": right.all(0).double().mean().item(), "mse": squared.mean().item()}


def evaluate(path, device):
    """report.json, predictions.csv and wave.svg beside a checkpoint."""
    state = load_state(path)
    settings, folder = SimpleNamespace(**state["settings"]), Path(path).parent
    check_model(settings)
    task, splits, network = TASKS[settings.task], load_splits(settings), make_network(settings)
    network.load_state_dict(state["model"])
    network.to(device)

    figures = {split: score(network, task, *splits[split], device) for split in ("valid", "test")}
    answers, truth = read(network, task, *splits["test"], device)
    texts = answers[..., 0] if truth.is_floating_point() else answers.argmax(-1)  # (steps, rows)
    rows = [{"row": row, "truth": " ".join(f"{value:g}" for value in truth[:, row].tolist()[-SYMBOLS:]),
             "prediction": " ".join(f"{value:g}" for value in texts[:, row].tolist()[-SYMBOLS:])}
            for row in range(truth.shape[1])]
    write_rows(folder / "predictions.csv", ["row", "truth", "prediction"], rows)
    draw_state(network, to_tensors(*(side[:1] for side in splits["test"]), task.inputs, device)[0], settings,
               folder / "wave.svg")
    parameters = sum(weight.numel() for weight in network.parameters())
    write_json(folder / "report.json", {
        "model": settings.model, "task": settings.task, "length": settings.length, "seed": settings.seed,
        "parameters": parameters, "step": state["step"], "seconds": state["seconds"], **figures})
    print(f"{folder}: test loss {figures['test']['loss']:.3g}, exact {figures['test']['exact']:.2%}, mean squared "
          f"error {figures['test']['mse']:.3g}")


@torch.no_grad()
def ring_of(network, x):
    """
    The hidden state over time as an image (units, T). x: (T, 1, inputs)

    wave: the ring of the channel that holds most at the end. ssm: the ring of which the first channel of its first
    layer has the modes, by the inverse transform of the frequencies at the start of training. Other models: their
    features.
    """
    core = network.core
    features, _ = core(x, core.initialize(1, x.device))  # (T, 1, width)
    if hasattr(core, "units"):
        rings = features.unflatten(2, (core.channels, core.units))[:, 0]  # (T, c, n)
        return rings[:, rings[-1].sum(1).argmax()].t()
    if hasattr(core, "recurrences") and hasattr(core.recurrences[0], "cell"):
        layer = core.recurrences[0].cell
        inside = core.inputs(x)
        inside = inside + core.mlps[0](core.norms[0](inside))
        states, _ = layer(core.norms[1](inside))  # (T, 1, 2 c n)
        h = states.unflatten(2, (layer.channels, layer.modes, 2))[:, 0, 0]  # (T, n, 2)
        n = layer.modes
        mode, unit = torch.arange(n, device=h.device), torch.arange(2 * n, device=h.device)
        angle = torch.pi * (mode + 0.5)[:, None] * unit / n  # (n, 2 n)
        return (h[..., 0] @ angle.cos() + h[..., 1] @ angle.sin()).t() / n
    return features[:, 0].t()


def draw_state(network, x, settings, path):
    plt = pyplot_without_screen("svg", "wave", 8)
    image = ring_of(network, x).cpu().numpy()
    figure, (above, below) = plt.subplots(2, 1, figsize=(6, 3.6), sharex=True, height_ratios=(1, 4),
                                          layout="constrained")
    above.imshow(x[:, 0].cpu().numpy().T, aspect="auto", cmap="Greys", interpolation="nearest")
    above.set(ylabel="input", title=f"{settings.model}, {settings.task}, length {settings.length}")
    bound = np.quantile(np.abs(image), 0.995) or 1.0  # a few large numbers would hide the others
    below.imshow(image, aspect="auto", cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest",
                 origin="lower")
    below.set(xlabel="step", ylabel="unit of the hidden state")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(argv=None):
    settings = load_settings(__doc__, ["ckpt", "out_dir", "device"], argv, BASE)
    evaluate(settings.ckpt or Path(settings.out_dir) / "best.pt", find_device(settings.device))
    return 0


if __name__ == "__main__":
    main_guard(main)
