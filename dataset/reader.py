"""Reads rows of amplitudes and squares, for every script: CSV with a header, or MARTY's raw text, plain or packed.

A bad line is named, and reading goes on. The columns `amp` and `sqamp` come in the spelling of physics/spelling.py.
"""
import bz2
import codecs
import collections
import contextlib
import csv
import gzip
import io
import itertools
import lzma
import os
import re
import shlex
import sys
import zipfile
import zlib
from pathlib import Path

from physics.spelling import canonical
from runtime.files import InputError

csv.field_size_limit(2**24)  # QCD 2->3 amplitudes are longer than the csv module's default of 128 KiB

DELIMITERS = ",;\t"
HEADER_LINES = 100  # the header is one of the first so many lines
MOST_LINES = 1000  # of a row with line breaks within quotes
FORMULAS = ("amp", "sqamp")  # columns that hold a formula
ALIASES = {"amplitude": "amp", "squared_amplitude": "sqamp"}
KNOWN_COLUMNS = {*FORMULAS, *ALIASES, "process", "diagram", "theory", "template", "prediction"}  # in capitals too
UNDECODABLE = "not readable: bytes that are no UTF-8 text (iconv -f latin1 -t utf-8 FILE > NEW converts Latin-1)"
RAW_LINE = "Interaction: IN to OUT : DIAGRAM : AMP : SQAMP"
# RuntimeError: an encrypted zip
READ_ERRORS = (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)

PACKED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
BYTE_ORDER_MARKS = (  # that of UTF-32 first: it begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)
CONVERT = "python -c \"import pandas; pandas.{}.to_csv('rows.csv', index=False)\" converts it"
OTHER_FORMATS = (  # (pattern of the first bytes, what such a file is, how to make a CSV file of it)
    (rb"\s*[\[{]", "a JSON file", CONVERT.format("read_json('{path}')")),
    (rb"PAR1", "a Parquet file", CONVERT.format("read_parquet('{path}')")),
    (rb"\x80[\x02-\x05]|\(?[dl]p\d|[\]}]q\0|c[\w.]+\n\w+\n", "a pickle",
     CONVERT.format("DataFrame(pandas.read_pickle('{path}'))") + ", and runs any code in it: only if you trust it"),
    (rb"\x93NUMPY", "a NumPy array",
     CONVERT.format("DataFrame(__import__('numpy').load('{path}'), columns=['amp', 'sqamp'])")),
    (rb"\x89HDF\r\n", "an HDF5 file", CONVERT.format("read_hdf('{path}')")),
    (rb"ARROW1", "a Feather file", CONVERT.format("read_feather('{path}')")),
    (rb"\xd0\xcf\x11\xe0", "an Excel file", CONVERT.format("read_excel('{path}')")),
    (rb"SQLite format 3\0", "an SQLite database",
     "sqlite3 -header -csv '{path}' 'select amp, sqamp from TABLE' converts it"),
    (rb"\x28\xb5\x2f\xfd", "packed with zstd", "zstd -d '{path}' unpacks it"),
    (rb"7z\xbc\xaf", "a 7-zip archive", "7z x '{path}' unpacks it"),
    (rb"Rar!", "a RAR archive", "unrar x '{path}' unpacks it"),
    (rb".{257}ustar", "a tar archive", "tar xf '{path}' unpacks it"),
    (rb"%PDF", "a PDF document", "a CSV file with the columns amp, sqamp is expected"),
    (rb"\s*<", "a web page or XML", "download the file itself (on GitHub: Raw)"),
    (rb"version https://git-lfs", "a pointer of Git LFS", "git lfs pull fetches the file"),
)
IN_ZIP = (  # (pattern of a member's name, what such an archive is, how to make a CSV file of it)
    (r"\[Content_Types\]\.xml", "an Excel file", CONVERT.format("read_excel('{path}')")),
    (r".*\.npy", "a NumPy archive", CONVERT.format("DataFrame(dict(__import__('numpy').load('{path}')))")),
    (r".*data\.pkl", "a checkpoint of PyTorch", "a CSV file with the columns amp, sqamp is expected"),
)


class NoRows(InputError):
    """Every line of a file is bad."""


def warn(path, line, reason):
    """What read_rows does with a bad line unless it is told otherwise: one line on stderr."""
    sys.stderr.write(f"{path}:{line}: {reason}\n")


def refuse(path, line, reason):
    """The same for a file that must not have bad lines."""
    raise InputError(f"{path}:{line}: {reason}")


def read_rows(path, required=FORMULAS, on_bad=warn):
    """
    Stream the rows of a file as pairs (number of the row's first line, counted from 1; {column: text}).

    The file is CSV with a header, delimited by comma, semicolon or tab, or MARTY's raw text, a line
    `Interaction: IN to OUT : DIAGRAM : AMP : SQAMP` a row. It may be packed by gzip, bzip2, xz or zip, in UTF-8 or
    UTF-16. `amp` and `sqamp` come in canonical spelling. Empty lines are skipped. For any other line that is no row,
    on_bad(path, line number, reason) is called, and reading goes on.

    Raises InputError for a file that is missing, cut off or of another format, for a missing required column, for a
    duplicate column, and where every line is bad.
    """
    first_bad, found, number = None, False, 0

    def bad(line, reason):
        nonlocal first_bad, number
        first_bad, number = first_bad or f"{path}:{line}: {reason}", line
        on_bad(path, line, reason)

    with _open_text(path) as file:
        try:
            for number, row in _read(path, file, required, bad):
                for column in FORMULAS:
                    if column in row:
                        row[column] = canonical(row[column])
                if any(row.values()):
                    found = True
                    yield number, row
                else:
                    bad(number, "all cells are empty")
        except READ_ERRORS as error:
            raise InputError(f"{path}:{number + 1}: not readable as CSV ({error or type(error).__name__})") from None
    if first_bad and not found:
        raise NoRows(f"{first_bad}; no line of the file is a row")


def read_files(paths):
    """
    (path, line number, row) of several files; for a bad line the reason, a text, instead of the row. InputError where a
    file breaks off, after the bad lines before that.
    """
    bad = []
    for path in paths:
        broken = None
        try:
            for line, row in read_rows(path, on_bad=lambda *where: bad.append(where)):
                yield from bad
                bad.clear()
                yield path, line, row
        except InputError as error:
            broken = error
        yield from bad
        bad.clear()
        if broken and not isinstance(broken, NoRows):  # the bad lines say that there is none
            raise broken


# ---------------------------------------------------------------------------------------------------------------------
# Bytes -> text

@contextlib.contextmanager
def _open_text(path):
    """The text of a file, unpacked and decoded; bytes that are no text become U+FFFD. InputError for other formats."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, a CSV file is expected")
    if not path.is_file():
        raise InputError(f"{path}: is a pipe or a device, which cannot be read twice; save it to a file first")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
            start = file.peek(512)[:512]
            unpack = next((unpack for mark, unpack in PACKED if start.startswith(mark)), None)
            if start.startswith((b"PK\3\4", b"PK\5\6")):
                file = stack.enter_context(_open_member(path, stack.enter_context(zipfile.ZipFile(file))))
            elif unpack:
                file = stack.enter_context(unpack(file))
            start = file.peek(512)[:512]
        except READ_ERRORS as error:
            raise InputError(f"{path}:1: not readable as CSV ({error or type(error).__name__})") from None
        _refuse_other_formats(path, start)
        yield io.TextIOWrapper(file, _encoding(start), errors="replace", newline="")


def _open_member(path, archive):
    """The one file of a zip archive."""
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    for pattern, what, advice in IN_ZIP:
        if any(re.fullmatch(pattern, name) for name in names):
            raise InputError(f"{path}: is {what}; {advice.format(path=path)}")
    if len(names) != 1:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise InputError(f"{path}: a zip archive of {len(names)} files ({shown}), one is expected; "
                         f"unzip '{path}' unpacks it")
    return archive.open(names[0])


def _refuse_other_formats(path, start):
    for pattern, what, advice in OTHER_FORMATS:
        if re.match(pattern, start, re.DOTALL):
            raise InputError(f"{path}: is {what}; {advice.format(path=path)}")


def _encoding(start):
    """UTF-8 unless a byte-order mark, or zeros beside the letters of the header, say otherwise."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return encoding
    even, odd = start[:16:2], start[1:16:2]
    if odd and not any(odd) and all(even):
        return "utf-16-le"
    if odd and not any(even) and all(odd):
        return "utf-16-be"
    return "utf-8-sig"


# ---------------------------------------------------------------------------------------------------------------------
# Text -> rows

def _read(path, file, required, bad):
    """(line number, row) of the text of a file, as it stands there."""
    lines = enumerate(file, 1)
    head = []
    for number, text in itertools.islice(lines, HEADER_LINES):
        if text.lstrip().startswith("Interaction:"):
            rows = _raw_rows(itertools.chain([(number, text)], lines), bad)
            break
        delimiter, columns = _header(text, required)
        if columns:
            repeated = [name for name, count in collections.Counter(columns).items() if name and count > 1]
            if repeated:
                raise InputError(f"{path}:{number}: the column '{repeated[0]}' stands there more than once; "
                                 "rename or delete the others")
            rows = _csv_rows(lines, delimiter, columns, next(csv.reader([text], delimiter=delimiter)), bad)
            break
        head.append((number, text))
    else:
        raise InputError(_no_header(path, head, required))
    for number, text in head:
        if text.strip("\r\n"):
            bad(number, "stands before the header")
    yield from rows


def _header(text, required):
    """(delimiter, names of the columns) of a header with the required ones; (None, None) for any other line."""
    for delimiter in DELIMITERS:
        columns = _columns(text, delimiter, required)
        if columns and set(required) <= set(columns):
            return delimiter, columns
    return None, None


def _columns(text, delimiter, required=()):
    """Names of columns in a line: without spaces around them, known ones in small letters, `amplitude` as `amp`."""
    try:
        names = [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter), [])]
    except csv.Error:
        return []
    for k, name in enumerate(names):
        known = name.lower().replace(" ", "_")
        if known in KNOWN_COLUMNS or known in required:
            names[k] = known
    return [name if ALIASES.get(name, name) in names else ALIASES.get(name, name) for name in names]


def _no_header(path, head, required):
    """Why none of the first lines is a header."""
    head = [(number, text.strip()) for number, text in head if text.strip()]
    if not head:
        return f"{path}:1: the file is empty, a header with the columns {', '.join(required)} is expected"
    for number, text in head:
        for delimiter in DELIMITERS:
            columns = _columns(text, delimiter, required)
            missing = [name for name in required if name not in columns]
            if len(missing) < len(required) or "amp" in columns:
                return f"{path}:{number}: no column '{missing[0]}' among {', '.join(columns)}"
    number, text = head[0]
    if re.search(r"\(p_\d+\)", text):
        header = ",".join(required)
        return f"{path}:{number}: a row, but no header; put the line {header} before it (sed -i '1i {header}' '{path}')"
    shown = "".join(character if character.isprintable() else "?" for character in text[:60])
    return (f"{path}:{number}: no column '{required[0]}' in '{shown}'; "
            f"a CSV file with the columns {', '.join(required)} is expected")


def _raw_rows(lines, bad):
    """Rows of MARTY's raw text."""
    for number, text in lines:
        cells = [cell.strip() for cell in text.split(" : ")]
        if len(cells) == 4 and cells[0].startswith("Interaction:") and not _has_undecodable(text):
            cells[0] = cells[0].removeprefix("Interaction:").strip()
            yield number, dict(zip(("process", "diagram", *FORMULAS), cells))
        elif text.strip("\r\n"):
            bad(number, UNDECODABLE if _has_undecodable(text) else f"not '{RAW_LINE}'")


def _csv_rows(lines, delimiter, columns, names, bad):
    """
    Rows of CSV text after its header, which has these names of columns.

    A row may have line breaks within quotes. Where such a row is bad, only its first line is given up, and reading goes
    on with the second: after a missing quote the next rows are not lost.
    """
    again, record = collections.deque(), []  # (line number, text): to be read once more; of the row that is being read

    def texts():
        while line := again.popleft() if again else next(lines, None):
            record.append(line)
            if len(record) > MOST_LINES:
                raise csv.Error(f"a quote that is still open after {MOST_LINES} lines")
            yield line[1]

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while True:
        record.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"not readable as CSV ({error})"
            reader = csv.reader(texts(), delimiter=delimiter, strict=True)     # the first one may be at the file's end
        else:
            if len(record) == 1 and len(cells) == len(columns) and record[0][1].isascii() and cells != names:
                yield record[0][0], dict(zip(columns, cells))          # as nearly every line is
                continue
            if not cells:
                continue
            fault = _fault(cells, record, columns, names)
        if fault:
            bad(record[0][0], fault)
            again.extendleft(reversed(record[1:]))
        else:
            yield record[0][0], dict(zip(columns, cells))


def _fault(cells, record, columns, names):
    """Why these cells, of the lines in `record`, are no row; None if they are one."""
    if any(_has_undecodable(text) for _, text in record):
        return UNDECODABLE
    if len(cells) != len(columns):
        blank = len(record) == 1 and record[0][1].isspace()
        return "a line of blanks" if blank else f"{len(cells)} cells, the header has {len(columns)}"
    return "the header once more" if cells == names else None


def _has_undecodable(text):
    return not text.isascii() and "\ufffd" in text


# ---------------------------------------------------------------------------------------------------------------------

def count_lines(path):
    """Number of lines of a file, for the total of a progress bar; None where it cannot be counted."""
    try:
        with _open_text(path) as file:
            return sum(1 for _ in file)
    except READ_ERRORS:
        return None  # read_rows will say what is wrong, and where


def file_names(text):
    """
    The names in a setting such as `input`, separated by spaces; one with spaces in it stands in quotes, or alone.

    Raises InputError for a quote that is not closed.
    """
    if os.path.exists(text):
        return [text]
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"input: {text} cannot be read ({error}); "
                         "expected file names, those with spaces in quotes") from None
