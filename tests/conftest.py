import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MARTY = ROOT.parent / "shared" / "marty"


@pytest.fixture(scope="session")
def marty():
    """Folder with files that MARTY wrote; tests that need it skip where it is absent."""
    if not MARTY.is_dir():
        pytest.skip("no MARTY files beside this repository")
    return MARTY
