"""
Evaluate a run on problems that no training has seen: by level of blotching, and by size of the problem.

    python ablations/blotching/evaluate.py out/blotching/config.py [--val_temp=0]
    python ablations/blotching/evaluate.py --ckpt=FILE.pt
    python ablations/blotching/evaluate.py out/blotching/config.py --problem="3+4*2" --level=5    one answer

Writes report.json beside the checkpoint and prints its table. All runs with the same settings of problems answer the
same problems.
"""
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ablations.blotching.data import blotch_p, count_steps, is_answered, is_right, sample_chains, value
from ablations.blotching.model import load_model, solve
from configurator import check_least, load_settings
from runtime.files import InputError, main_guard, write_json
from runtime.hardware import device_name, find_device
from runtime.intervals import wilson

HERE = Path(__file__).resolve().parent
SETTINGS = ["out_dir", "run_id", "ckpt", "device", "val_batch_size", "val_temp", "test_samples", "test_sizes",
            "problem", "level"]
LEAST = {"val_batch_size": 1, "val_temp": 0, "test_samples": 1, "test_sizes": 0}
LARGER = 2  # sizes up to so many entities more than in training


def main(argv=None):
    settings = load_settings(__doc__, SETTINGS, argv, base=HERE / "config.py")
    check_least(settings, LEAST)
    path = Path(settings.ckpt or Path(settings.out_dir) / "last.pt")
    device = find_device(settings.device)
    model, trained = load_model(path, device)
    if settings.problem:
        print(answer_one(model, trained, settings))
        return 0
    report = {"checkpoint": str(path), "device": device_name(device), "temperature": settings.val_temp,
              "max_ents": trained.max_ents, "by_level": [], "by_size": []}

    def measure(chains, level):
        """Figures of the model's answers to the problems of these chains at a level."""
        rng, answers = np.random.default_rng(level), []
        for first in range(0, len(chains), settings.val_batch_size):
            part = [chain.partition("=")[0] for chain in chains[first:first + settings.val_batch_size]]
            answers += solve(model, trained, part, level, settings.val_temp, rng)
        right = sum(map(is_answered, answers))
        return {"level": level, "blotch_p": blotch_p(trained, level), "problems": len(chains),
                "accuracy": right / len(chains), "interval": wilson(right, len(chains)),
                "all_steps_right": statistics.fmean(map(is_right, answers)),
                "steps": statistics.fmean(map(count_steps, answers)),
                "tokens": statistics.fmean(map(len, answers)),
                "steps_of_solution": statistics.fmean(map(count_steps, chains))}

    chains = sample_chains(trained, settings.test_samples, "test", held_out=True)
    for level in range(trained.n_btokens + 1):
        report["by_level"].append(measure(chains, level))
    sizes = range(2, trained.max_ents + LARGER + 1) if settings.test_sizes else []
    for size in sizes:
        sampler = SimpleNamespace(**vars(trained) | {"max_ents": size, "p_ent": 1.0})
        chains = sample_chains(sampler, settings.test_sizes, f"test {size}", held_out=True)
        for level in sorted({0, trained.n_btokens // 2, trained.n_btokens}):
            report["by_size"].append({"size": size} | measure(chains, level))

    print(f"{'size':>4} {'level':>5} {'problems':>8} {'accuracy':>8}  {'95% interval':>16} {'steps':>6} "
          f"{'solution':>8}")
    for line in report["by_level"] + report["by_size"]:
        low, high = line["interval"]
        print(f"{line.get('size', 'all'):>4} {line['level']:5} {line['problems']:8} {line['accuracy']:8.2%}  "
              f"{f'{low:.2%} to {high:.2%}':>16} {line['steps']:6.2f} {line['steps_of_solution']:8.2f}")
    write_json(path.with_name("report.json"), report)
    return 0


def answer_one(model, trained, settings):
    """The chain of one problem, and what exact arithmetic says about it."""
    number = value(settings.problem)
    if number is None or len(settings.problem) + 3 > trained.seq_len:
        raise InputError(f"problem: got {settings.problem!r}, wanted numbers, +, * and parentheses, such as 3+4*2, at "
                         f"most {trained.seq_len - 3} characters")
    if not 0 <= settings.level <= trained.n_btokens:
        raise InputError(f"level: got {settings.level}, wanted 0 to {trained.n_btokens}")
    chain, = solve(model, trained, [settings.problem], settings.level, settings.val_temp, np.random.default_rng(0))
    if is_right(chain):
        return f"{chain}  every step is right"
    if is_answered(chain):
        return f"{chain}  the answer is right, a step is not"
    return f"{chain}  wrong, the answer is {number}"


if __name__ == "__main__":
    main_guard(main)
