import pathlib
import signal
import sys

import hypothesis
import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MARTY = ROOT.parent / "shared" / "marty"

# the same examples each time, however slow the machine is, and no folder of them
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def marty():
    """Folder with files that MARTY wrote; tests that need it skip where it is absent."""
    if not MARTY.is_dir():
        pytest.skip("no MARTY files beside this repository")
    return MARTY


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder with a made-up data set on which a small model trains in a second."""
    from tiny import make_data
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def one_thread_and_the_usual_signals():
    torch.set_num_threads(1)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
