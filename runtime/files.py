"""Files are written whole or not at all, and what is wrong is told in one line. dataset/reader.py reads rows."""
import contextlib
import csv
import errno
import hashlib
import json
import os
import pathlib
import sys
import tempfile

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)             # a full disk, a used-up quota, a file that may not grow


class InputError(Exception):
    """Something in the user's input is wrong; the message is one line: where, what is wrong, what is expected."""


def main_guard(main, own_help=False):
    """
    Run a script's main(); an InputError becomes one line on stderr and exit code 2, Ctrl-C exit code 130. --help prints
    the script's docstring, unless load_settings or, with own_help, main() does.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:                       # closed by the caller, as `>&-` does
            setattr(sys, name, open(os.devnull, "w"))
        getattr(sys, name).reconfigure(errors="backslashreplace")        # a terminal may not have all letters
    script = sys.modules["__main__"]
    try:
        asks = not {"--help", "-h"}.isdisjoint(sys.argv)
        if asks and not own_help and not hasattr(script, "load_settings"):
            code = print(script.__doc__.strip())
        else:
            code = main()
        sys.stdout.flush()
        sys.exit(code)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except BrokenPipeError:          # `python verify.py FILE | head`: the reader has gone, which is no error of ours
        _drop_output()
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.stderr.write("error: out of memory; a smaller model, a smaller --batch_tokens or --batch_rows, or "
                         f"--checkpoint_layers need less ({str(error).splitlines()[0] if str(error) else 'RAM'})\n")
        sys.exit(2)
    except OSError as error:         # a folder that cannot be written, a full disk
        name = error.filename
        if name is None and error.errno in FULL:             # of our own files the name is known, see `writing`
            name = "standard output"
            _drop_output()
        sys.stderr.write(f"error: {name or 'a file'}: {error.strerror or error}\n")
        sys.exit(2)


def is_out_of_memory(error):
    """Is it Python's own error, or torch's for a GPU or a CPU? torch is not imported here."""
    return (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            or isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _drop_output():
    """Send what standard output still holds nowhere: Python tries to write it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def digest(path):
    """SHA-256 of a file, as text. InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None


@contextlib.contextmanager
def writing(path):
    """Add the path to an OSError that names no file, such as that of a full disk; `main_guard` shows it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def atomic_open(path, mode="w"):
    """Write a file that is complete under its name or not there: a temporary file beside it, fsync, rename."""
    path = pathlib.Path(os.path.realpath(path))              # a link stays a link
    if path.exists() and not path.is_file():                 # renaming would replace a device such as /dev/stdout
        raise InputError(f"{path}: is a folder or a device, a file is expected")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with writing(path), os.fdopen(handle, mode, **text) as file:
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


def check_output(path, beginning, suffix=""):
    """
    InputError if the file exists and does not begin with `beginning`, text or bytes, as the caller's files do; for a
    folder or a device too, and for a name that does not end in `suffix`.
    """
    if not str(path).endswith(suffix):
        raise InputError(f"output: got {path}, wanted a name that ends in {suffix}")
    beginning = beginning.encode() if isinstance(beginning, str) else beginning
    if os.path.exists(path) and not os.path.isfile(path):    # to read from a pipe would wait for ever
        raise InputError(f"{path}: is a folder or a device, a file is expected")
    try:
        with open(path, "rb") as file:
            if file.read(len(beginning)) != beginning:
                raise InputError(f"{path}: exists and is no earlier output of this script; name another --output")
    except FileNotFoundError:
        pass


def is_same_file(path, other):
    """Do both paths exist and name one file?"""
    path, other = pathlib.Path(path), pathlib.Path(other)
    return path.exists() and other.exists() and path.samefile(other)


def write_json(path, data):
    """Write `data` as indented JSON, atomically."""
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    with atomic_open(path, "wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # of a file's name that is no UTF-8: JSON's own escapes


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
