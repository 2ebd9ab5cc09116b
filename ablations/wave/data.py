"""
The tasks: a function each, from settings to sequences and their answers.

A new task is one function here and its line in TASKS. A task that draws its sequences is a function (rng, rows,
settings) -> (x, y). A task with a data set is a function (split) -> (x, y). x: (rows, T) of symbols, uint8, or
(rows, T, inputs) of numbers, float32; y: (rows, answers), the classes, uint8, or numbers, float32, at the last steps
of each sequence.

The validation and the test split, and the whole data set where there is one, are written into data_dir, again where the
function's text has changed, and then memory-mapped. Drawn training batches depend on the seed and the step alone, so a
resumed run sees the same ones.
"""
import hashlib
import inspect
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from runtime.files import InputError, atomic_open

SYMBOLS = 10  # to recall in the copy task
SPLITS = ("train", "valid", "test")


def copy(rng, rows, settings):
    """
    Ten symbols of 1..8, `length` blanks (0), then a 9, with which the ten symbols are due, one at each step. Before
    that the answer is blank. T = length + 20. (Arjovsky et al. 2016, arXiv 1511.06464; after Hochreiter & Schmidhuber)
    """
    symbols = rng.integers(1, 9, (rows, SYMBOLS))
    x = np.zeros((rows, settings.length + 2 * SYMBOLS), np.uint8)
    y = np.zeros_like(x)
    x[:, :SYMBOLS], x[:, -SYMBOLS] = symbols, 9
    y[:, -SYMBOLS:] = symbols
    return x, y


def adding(rng, rows, settings):
    """
    A number of [0, 1) at each step and a mark beside two of them, one in each half; the answer is their sum. Always
    answering 1 has a mean squared error of 1/6. T = length. (Hochreiter & Schmidhuber 1997; Le et al. 2015)
    """
    x = np.zeros((rows, settings.length, 2), np.float32)
    x[..., 0] = rng.random((rows, settings.length))
    half, every = settings.length // 2, np.arange(rows)
    first, second = rng.integers(0, half, rows), rng.integers(half, settings.length, rows)
    x[every, first, 1] = x[every, second, 1] = 1
    return x, (x[every, first, 0] + x[every, second, 0])[:, None]


def digits(split):
    """The 64 pixels of scikit-learn's 1,797 images of digits, row by row, in [0, 1]; the answer is the digit."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("task: the digits need scikit-learn; pip install scikit-learn") from None
    images, answers = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))  # the same splits whatever the seed
    cuts = len(images) * 8 // 10, len(images) * 9 // 10
    chosen = np.split(order, cuts)[SPLITS.index(split)]
    return (images[chosen, :, None] / 16).astype(np.float32), answers[chosen, None].astype(np.uint8)


def permuted(split):
    """The digits with their pixels in one random order, the same for all images: neighbours are far apart."""
    x, y = digits(split)
    return x[:, np.random.default_rng(0).permutation(x.shape[1])], y


class Task(NamedTuple):
    function: object
    drawn: bool  # sequences without end, or a data set?
    inputs: int  # numbers of a step, or symbols
    outputs: int  # classes, or 1 number


TASKS = {"copy": Task(copy, True, 10, 10), "adding": Task(adding, True, 2, 1),
         "digits": Task(digits, False, 1, 10), "permuted": Task(permuted, False, 1, 10)}


def load_splits(settings):
    """{split: (x, y)}, memory-mapped, written first if they are not there; no "train" where it is drawn."""
    task = TASKS[settings.task]
    found = {}
    for number, split in enumerate(SPLITS):
        if task.drawn and split == "train":
            continue
        code = hashlib.sha256(inspect.getsource(task.function).encode()).hexdigest()
        name = f"{settings.task}-{code[:8]}"
        if task.drawn:
            name += f"-{settings.length}-{settings.valid_rows}-{settings.seed}"
        paths = [Path(settings.data_dir) / f"{name}-{split}.{side}.npy" for side in "xy"]
        if not all(path.exists() for path in paths):
            if task.drawn:
                rng = np.random.default_rng([settings.seed, number])
                arrays = task.function(rng, settings.valid_rows, settings)
            else:
                arrays = task.function(split)
            for path, values in zip(paths, arrays):
                with atomic_open(path, "wb") as file:
                    np.save(file, values, allow_pickle=False)
        try:
            found[split] = tuple(np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
        except (OSError, ValueError, EOFError):
            raise InputError(f"{paths[0]}: damaged; remove it, and the next run writes it again") from None
    return found


def training_rows(settings, splits, step):
    """(x, y) of the training batch of a step, arrays."""
    task, rows = TASKS[settings.task], settings.batch_rows
    if task.drawn:
        return task.function(np.random.default_rng([settings.seed, len(SPLITS), step]), rows, settings)
    x, y = splits["train"]
    epoch, batch = divmod(step, max(1, len(x) // rows))
    order = np.random.default_rng([settings.seed, len(SPLITS), epoch]).permutation(len(x))
    chosen = order[batch * rows:(batch + 1) * rows]
    return x[chosen], y[chosen]


def to_tensors(x, y, inputs, device):
    """Arrays of rows as tensors, steps first: x (T, B, inputs), symbols one-hot; y (answers, B)."""
    x, y = torch.from_numpy(np.array(x)).to(device), torch.from_numpy(np.array(y)).to(device)
    if x.dtype == torch.uint8:
        x = F.one_hot(x.long(), inputs).float()
    return x.transpose(0, 1), (y.long() if y.dtype == torch.uint8 else y).t()
