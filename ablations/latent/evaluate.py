"""
How good trained models are, and at what cost: a table of runs, and which of two models is more efficient.

    python ablations/latent/evaluate.py out/latent/n0-seed1337 out/latent/n8-seed1337 [--newest]

Of each run best.pt is evaluated (--newest: last.pt) on all rows of its splits, and on 1,000 products of factors with
one digit more than in training. Writes RUN/scores.json (--newest: scores_newest.json). FLOPs are those of matrix
products, forward and backward (runtime/hardware.py): of one training row, and of the training up to the checkpoint.
"""
import sys
from pathlib import Path
from types import SimpleNamespace

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from ablations.latent.data import SPLITS, encode, factor_range, load_splits
from ablations.latent.padded import validate
from model import Transformer, config_of
from runtime import checkpoint
from runtime.files import InputError, main_guard, write_json
from runtime.hardware import training_flops
from runtime.intervals import wilson
from tokenizer import PAD

LONGER = 1000  # products of longer factors


def main(argv=None):
    words = sys.argv[1:] if argv is None else argv
    folders = [Path(word) for word in words if not word.startswith("-")]
    unknown = [word for word in words if word.startswith("-") and word != "--newest"]
    if unknown or not folders:
        raise InputError(f"{' '.join(unknown) or 'evaluate.py'}: wanted folders of runs, and --newest or nothing")
    scores = [score(folder, "last.pt" if "--newest" in words else "best.pt") for folder in folders]
    print("\n".join(table(scores)))
    if len(scores) > 1:
        print("\n".join(verdicts(scores)))
    return 0


def score(folder, name="best.pt"):
    """Figures of a run as a dictionary; written into its folder as scores.json."""
    path = folder / name
    state = checkpoint.load(path)
    if "rows_per_step" not in state["settings"] or "zero_padded" not in state["settings"]:
        raise InputError(f"{path}: no checkpoint of ablations/latent/train.py")
    settings = SimpleNamespace(**state["settings"])
    model = Transformer(config_of(state))
    model.load_state_dict(state["model"])
    splits = load_splits(settings)
    figures = {"run": folder.name, "n_latent": settings.n_latent, "step": state["step"], "seconds": state["seconds"],
               "parameters": sum(weight.numel() for weight in model.parameters()), "flops": state["flops"]}
    lengths = ((x != PAD).sum(1).numpy() for x in (splits["train"].src, splits["train"].tgt[:, 1:]))
    figures["flops_a_row"] = training_flops(model.config, *lengths) / len(splits["train"].src)
    for split in SPLITS:
        loss, exact = validate(model, splits[split])
        figures |= {f"{split}_rows": len(splits[split].src), f"{split}_loss": loss, f"{split}_exact": exact}
    figures["longer_exact"] = validate(model, longer_rows(settings))[1]
    write_json(folder / ("scores.json" if name == "best.pt" else "scores_newest.json"), figures)
    return figures


def longer_rows(settings):
    """Products whose factors have one digit more than the largest factor of the settings."""
    digits = len(str(factor_range(settings)[1])) + 1
    low, high = 10 ** (digits - 1), 10**digits - 1
    drawn = np.random.default_rng(settings.seed).integers(low, high + 1, (LONGER, 2))
    return encode(drawn, settings.units_first, digits if settings.zero_padded else 0)


def table(scores):
    """Lines of a Markdown table."""
    lines = ["| run | parameters | MFLOP a row | PFLOP of training | s | train | valid | test (95%) | test loss "
             "| longer factors | test per M parameters | test per PFLOP |", "| --- " * 12 + "|"]
    for run in scores:
        low, high = wilson(round(run["test_exact"] * run["test_rows"]), run["test_rows"])
        lines.append(
            f"| {run['run']} | {run['parameters']:,} | {run['flops_a_row'] / 1e6:.2f} | {run['flops'] / 1e15:.4f} "
            f"| {run['seconds']:.0f} | {run['train_exact']:.1%} | {run['valid_exact']:.1%} "
            f"| {run['test_exact']:.1%} ({low:.0%} to {high:.0%}) | {run['test_loss']:.3f} | {run['longer_exact']:.1%} "
            f"| {per_parameter(run):.2f} | {per_flop(run):.0f} |")
    return lines


def per_parameter(run):
    """Exact share of the test rows for each million parameters."""
    return run["test_exact"] / run["parameters"] * 1e6


def per_flop(run):
    """Exact share of the test rows for each PFLOP of training."""
    return run["test_exact"] / run["flops"] * 1e15


def verdicts(scores):
    """Sentences: which run is the most efficient one by parameters, and by FLOPs."""
    lines = []
    for measure, what in ((per_parameter, "million parameters"), (per_flop, "PFLOP of training")):
        best, *others = sorted(scores, key=measure, reverse=True)
        lines.append(f"Most exact test products for each {what}: {best['run']} ({measure(best):.3g}), then "
                     f"{', '.join(f'''{run['run']} ({measure(run):.3g})''' for run in others)}.")
    return lines


if __name__ == "__main__":
    main_guard(main)
