"""Where the repository is, and which files are part of it."""
import subprocess
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IGNORED = {"__pycache__", ".git", ".venv", ".pytest_cache", ".hypothesis", "data", "out", "wandb"}


def tracked(pattern="*"):
    """Paths of the files that git tracks, from the root of the repository: "train.py", "physics/form.py", ...

    Files that git does not know, such as somebody's copy of a script, are not listed. `*` also matches `/`. Where git
    cannot tell, as in an unpacked archive, all files count but those in IGNORED folders.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]
    if listed.returncode != 0:
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        names = [path.as_posix() for path in paths if not IGNORED & set(path.parts)]
    return sorted(name for name in names if fnmatch(name, pattern))
