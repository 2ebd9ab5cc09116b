"""
Ranks: torchrun starts one process for each device, all with the same program. A plain `python` is the only rank.

The ranks exchange gradients through torch's DistributedDataParallel (nccl between GPUs, gloo between CPUs). In each
step they exchange a few numbers through `gather`, so that all take the same decisions: whether the step is good,
whether a signal asks to stop.
"""
import contextlib
import datetime
import io
import os
import signal
import sys
from typing import NamedTuple

import torch
import torch.distributed as dist

from runtime.files import InputError
from runtime.hardware import find_device


PATIENCE = datetime.timedelta(days=7)  # of a rank that is done, for the others; one that dies is noticed at once


class World(NamedTuple):
    rank: int  # 0 writes the files and lines of a training run
    size: int
    device: torch.device  # of this rank


@contextlib.contextmanager
def join(device):
    """
    The World of this process, from the environment variables that torchrun sets.

    device: the setting; "auto" and "cuda" mean the GPU of this rank. InputError where there are fewer GPUs than ranks,
    or where another rank ends.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if size == 1:
        yield World(0, 1, find_device(device))
        return
    on_gpu = torch.cuda.is_available() and device in ("auto", "cuda")
    if on_gpu and local >= torch.cuda.device_count():
        raise InputError(f"device: {local + 1} ranks on a machine with {torch.cuda.device_count()} GPUs; "
                         "torchrun --nproc-per-node=gpu fits")
    device = find_device(f"cuda:{local}" if on_gpu else device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World(rank, size, device)
        wait(World(rank, size, device))  # torchrun kills the others when one ends, and rank 0 may still be writing
    except RuntimeError as error:
        if "by peer" in str(error):  # gloo says "connection closed by peer" when a rank has ended
            raise InputError(f"rank {rank}: another rank has ended, see its message; the same command goes on, "
                             "of train.py and scst.py with --resume") from None
        raise
    finally:
        dist.destroy_process_group()


def leave(world, code):
    """
    End this process at once if there are several ranks.

    In a normal exit of Python, a thread of gloo that frees its last tensor would abort the process.
    """
    if world.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def gather(world, tensor):
    """The tensors of all ranks, (size, ...), the same on every rank. tensor: (...), of one shape on all ranks."""
    if world.size == 1:
        return tensor[None]
    rows = [torch.empty_like(tensor) for _ in range(world.size)]
    dist.all_gather(rows, tensor)
    return torch.stack(rows)


def sum_gradients(world, model):
    """Replace the gradients of every rank by their sum over the ranks."""
    weights = list(model.parameters())
    for weight in weights:
        if weight.grad is None:  # this rank had no row with a gradient
            weight.grad = torch.zeros_like(weight)
    if world.size > 1:
        flat = torch.cat([weight.grad.flatten() for weight in weights])
        dist.all_reduce(flat)
        for weight, part in zip(weights, flat.split([weight.numel() for weight in weights])):
            weight.grad.copy_(part.view_as(weight))


def wait(world):
    """Barrier: wait until every rank has called this."""
    gather(world, torch.zeros(1))


@contextlib.contextmanager
def first_alone(world):
    """Context that rank 0 runs first: the other ranks then read from disk what it has written."""
    if world.rank > 0:
        wait(world)
    yield
    if world.rank == 0:
        wait(world)


def quiet(silent):
    """Context that drops what is written to stderr, if `silent`: only one of several ranks prints."""
    return contextlib.redirect_stderr(io.StringIO()) if silent else contextlib.nullcontext()


def catch_signals(parent):
    """
    Returns a function that gives the number of the signal that has asked this process to stop, 0 if there is none.

    SIGINT, SIGTERM (kill, preemption) and SIGUSR1 (SLURM's warning) are recorded, so that the loop can end between two
    steps. The second signal of a kind kills. A rank whose torchrun was killed counts as terminated, because it would
    write into the same files as the next run. parent: id of the process that started this one, read at the start of the
    script, as torchrun may have ended by now.
    """
    caught, under_torchrun = [], "TORCHELASTIC_RUN_ID" in os.environ

    def note(number, frame):
        caught.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, note)

    def asked_to_stop():
        if under_torchrun and os.getppid() != parent:
            return int(signal.SIGTERM)
        return int(caught[0]) if caught else 0
    return asked_to_stop
