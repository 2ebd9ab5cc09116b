"""What scripts and disk say to each other: CSV rows in, atomic files out, one clear line when something is wrong."""
import contextlib
import csv
import hashlib
import json
import os
import pathlib
import sys
import tempfile

csv.field_size_limit(2**24)          # QCD 2->3 amplitudes are longer than the csv module's default of 128 KiB


class InputError(Exception):
    """Something in the user's input is wrong; the message is one line: where, what is wrong, what is expected."""


def main_guard(main):
    """Run a script's main(); an InputError becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    try:
        sys.exit(main())
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except BrokenPipeError:          # `python verify.py FILE | head`: the reader has gone, which is no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:         # a folder that cannot be written, a full disk
        sys.stderr.write(f"error: {error.filename or 'file'}: {error.strerror or error}\n")
        sys.exit(2)


def digest(path):
    """SHA-256 of a file, as text. InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None


@contextlib.contextmanager
def atomic_open(path, mode="w"):
    """Write a file so that it is either complete under its name or not there: temp file beside it, fsync, rename."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)                  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)                                 # the rename itself must survive a power cut
        finally:
            os.close(folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def check_output(path, beginning):
    """Refuse to overwrite a file that does not begin as the files do that the caller writes: a data set, a checkpoint, the input."""
    try:
        with open(path, "rb") as file:
            if not file.read(len(beginning)) == beginning.encode():
                raise InputError(f"{path}: exists and is no earlier output of this script; name another --output")
    except FileNotFoundError:
        pass


def write_json(path, data):
    """Write `data` as indented JSON, atomically."""
    with atomic_open(path) as file:
        json.dump(data, file, indent=2, ensure_ascii=False)
        file.write("\n")


def write_rows(path, columns, rows):
    """Write dictionaries as a CSV file with the given columns, atomically; returns how many rows were written."""
    count = 0
    with atomic_open(path) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            count += 1
    return count
