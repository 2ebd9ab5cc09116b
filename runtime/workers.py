"""An ordered map over worker processes that streams its input and notices a worker that dies."""
import collections
import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from runtime.files import InputError

AHEAD = 16                   # tasks a worker that are read ahead: memory does not grow with the input
PR_SET_PDEATHSIG = 1         # of Linux's prctl
# Forked workers share what is loaded and are there at once. Python 3.14 would start others unless it is asked.
CONTEXT = multiprocessing.get_context("fork") if sys.platform == "linux" else None


def cores():
    """Cores that this process may use, which a job scheduler may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def parallel_map(function, tasks, workers):
    """
    Results of function(task) in the order of the tasks, from `workers` processes (0: one a core). A generator.

    Where it is interrupted or closed early, the processes are killed: a task may take minutes.
    """
    workers = workers or cores()
    tasks, pending = iter(tasks), collections.deque()
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(workers, CONTEXT, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        try:
            for task in tasks:
                pending.append(pool.submit(function, task))
                if len(pending) >= AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise InputError("a worker process was killed (out of memory? fewer --workers need less); start it again, "
                             "what is finished and written is not done anew") from None
        except (KeyboardInterrupt, GeneratorExit):
            for worker in set(multiprocessing.active_children()).difference(others):
                worker.kill()
            raise
        finally:
            for future in pending:
                future.cancel()


@contextlib.contextmanager
def start_workers(workers):
    """
    Executors of one process each, `workers` of them (0: one a core). Similar tasks can share one and its caches.

    The processes start at once, before this one opens files and starts OpenMP's threads, which do not survive a fork.
    They ignore SIGINT, SIGTERM and SIGUSR1, which this process handles, and end with it.
    """
    executors = [
        ProcessPoolExecutor(1, CONTEXT, initializer=_serve, initargs=(os.getpid(),))
        for _ in range(workers or cores())
    ]
    try:
        for started in [executor.submit(int) for executor in executors]:
            started.result()
        yield executors
    finally:
        for executor in executors:
            executor.shutdown(cancel_futures=True)


def _serve(parent):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    _end_with(parent)


def _end_with(parent):
    """Make this worker end with the process that started it, even if that is killed; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:                           # killed before the line above
            os._exit(1)
