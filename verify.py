r"""Is each `sqamp` the square of its `amp`?

    python verify.py FILE.csv[.gz] ... [--workers=2] [--seed=1337] [--masses="e=m mu=M A_em=0"]

For our files, MARTY's or anybody's. Right is what agrees at random points to a relative 1e-9 (physics/numeric.py);
where rounding may decide, the exact proof does (physics/exact.py). `decode.py --verify` also proves its answers. A
column `process` is used where there is one. --masses says the masses of particles that the files do not say (0:
massless).
Exit code 0 if every row is right, 1 if any is wrong or unreadable.
"""

import collections
import itertools
import sys

from tqdm import tqdm

from configurator import load_settings
from dataset.reader import count_lines, read_files
from physics.numeric import verify
from physics.particles import Facts, parse_masses
from runtime.files import InputError, main_guard
from runtime.workers import parallel_map

CHUNK = 64  # rows that a worker process gets at a time
SHOWN = 10  # failing rows shown at the end


def _verify_rows(task):
    """(path, line number, status, reason) of each row; a row that is a text is the reason why it cannot be read."""
    rows, seed, masses = task
    judged = []
    for path, line, row in rows:
        status, reason = "unreadable", row
        if not isinstance(row, str):
            facts = Facts(row.get("process", ""), masses)
            status, reason, *_ = verify(row["amp"], row["sqamp"], seed, facts=facts)
        judged.append((path, line, status, reason))
    return judged


def rows_of(paths):
    """(path, line number, row or why it is none) of the files; a file that breaks off is a bad line where it does."""
    for path in paths:
        line = 0
        try:
            for _, line, row in read_files([path]):
                yield path, line, row
        except InputError as error:
            if not line:
                raise
            yield path, line + 1, str(error).removeprefix(f"{path}:{line + 1}: ")


def main():
    paths = [argument for argument in sys.argv[1:] if not argument.startswith("-") and not argument.endswith(".py")]
    settings = load_settings(
        __doc__, ["workers", "seed", "masses"], [argument for argument in sys.argv[1:] if argument not in paths]
    )
    if not paths:
        raise InputError("no file to verify; usage: python verify.py FILE.csv[.gz] ...")
    lines = [count_lines(path) for path in paths] if sys.stderr.isatty() else [None]     # for the progress bar
    masses = parse_masses(settings.masses)
    rows = rows_of(paths)
    tasks = ((chunk, settings.seed, masses) for chunk in iter(lambda: list(itertools.islice(rows, CHUNK)), []))
    counts, failures = collections.Counter(), []
    with tqdm(total=None if None in lines else sum(lines) - len(lines), unit=" rows", disable=None) as progress:
        for verdicts in parallel_map(_verify_rows, tasks, settings.workers):
            progress.update(len(verdicts))
            for path, line, status, reason in verdicts:
                counts[status] += 1
                if status != "right" and len(failures) < SHOWN:
                    failures.append(f"{path}:{line}: {status}: {reason}")
    if not counts:
        raise InputError(f"{' '.join(paths)}: no rows to verify")
    print(*failures, sep="\n", end="\n" if failures else "")
    print(f"{counts['right']} right, {counts['wrong']} wrong, {counts['unreadable']} unreadable")
    return 0 if counts["right"] == sum(counts.values()) else 1


if __name__ == "__main__":
    main_guard(main)
