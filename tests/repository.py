"""Where the repository is, and which files are part of it."""
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tracked(pattern="*"):
    """Paths of the files that git tracks, from the root of the repository: "train.py", "physics/form.py", ...

    Files that git does not know, such as somebody's copy of a script, are not listed. `*` also matches `/`.
    """
    listed = subprocess.run(["git", "ls-files", "-z", pattern], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in listed.stdout.split("\0") if name and (ROOT / name).exists())
