"""
Ranks: torchrun starts one process a device, all with the same program; a plain `python` is a world of one.

Between ranks go the gradients (by torch's DistributedDataParallel: nccl between GPUs, gloo between CPUs) and, through `gather`,
a few numbers a step by which every rank takes the same decision: was the step good, is somebody asked to stop.
"""
import contextlib
import io
import os
import signal
import sys
from typing import NamedTuple

import torch
import torch.distributed as dist

from runtime.files import InputError
from runtime.hardware import find_device


class World(NamedTuple):
    rank: int  # 0 writes every file and every line
    size: int
    device: torch.device  # of this rank


@contextlib.contextmanager
def join(device):
    """The World of this process, from the variables that torchrun sets. `device`: the setting; "auto" and "cuda" are this rank's GPU."""
    rank, size, local = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    if size == 1:
        yield World(0, 1, find_device(device))
        return
    on_gpu = torch.cuda.is_available() and device in ("auto", "cuda")
    if on_gpu and local >= torch.cuda.device_count():
        raise InputError(f"device: {local + 1} ranks on a machine with {torch.cuda.device_count()} GPUs; torchrun --nproc-per-node=gpu fits")
    device = find_device(f"cuda:{local}" if on_gpu else device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank, size, device)
        wait(World(rank, size, device))  # torchrun kills the others when one ends, and rank 0 may still be writing
    except RuntimeError as error:
        if "by peer" in str(error):  # gloo's word for a rank that is gone
            raise InputError(f"rank {rank}: another rank has ended, see its message; --resume goes on") from None
        raise
    finally:
        dist.destroy_process_group()


def leave(world, code):
    """End one of several ranks at once: while Python takes itself down, a thread of gloo that lets go of its last tensor would abort it."""
    if world.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def gather(world, tensor):
    """A CPU tensor of every rank, of the same shape on each: (size, ...), the same on all ranks."""
    if world.size == 1:
        return tensor[None]
    rows = [torch.empty_like(tensor) for _ in range(world.size)]
    dist.all_gather(rows, tensor)
    return torch.stack(rows)


def sum_gradients(world, model):
    """Replace the gradients of every rank by their sum over the ranks."""
    weights = list(model.parameters())
    for weight in weights:
        if weight.grad is None:  # this rank had nothing to learn from
            weight.grad = torch.zeros_like(weight)
    if world.size > 1:
        flat = torch.cat([weight.grad.flatten() for weight in weights])
        dist.all_reduce(flat)
        for weight, part in zip(weights, flat.split([weight.numel() for weight in weights])):
            weight.grad.copy_(part.view_as(weight))


def wait(world):
    """Until every rank is here."""
    gather(world, torch.zeros(1))


@contextlib.contextmanager
def first_alone(world):
    """Rank 0 goes through the block before the others, who find on disk what it has made."""
    if world.rank > 0:
        wait(world)
    yield
    if world.rank == 0:
        wait(world)


def quiet(silent):
    """Context in which nothing reaches stderr, if `silent`: of several ranks one speaks."""
    return contextlib.redirect_stderr(io.StringIO()) if silent else contextlib.nullcontext()


def catch_signals(parent):
    """
    A function that says which signal has asked this process to stop: its number, 0 while there is none.

    SIGINT, SIGTERM (kill, preemption) and SIGUSR1 (SLURM's warning) are noted, so that the loop can end between two steps; the same
    signal again kills. A rank whose torchrun was killed counts as terminated: it would write where the next run does.
    parent: process id of what started this process, read at its start, as torchrun may be gone by now.
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
