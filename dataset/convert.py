r"""Formulas of a file in the notation of another tool, as one source text.

    python -m dataset.convert FILE [--column=sqamp] [--format=text] [--output=FILE] [--max_rows=10]

FILE is anything that dataset/reader.py reads, such as a data set or predictions.csv (--column=prediction). The formats
are those of physics/formats.py: LaTeX that compiles, SymPy and NumPy source, Mathematica, FORM. The formula of the
k-th readable row is called f_k. Amplitudes (--column=amp) have LaTeX only. A row that is no formula is named on stderr
and left out.
"""
import itertools
import sys

from configurator import check_least, load_settings
from dataset.reader import read_rows, warn
from physics.expression import parse
from physics.formats import check_format, comment, document, formula
from runtime.files import InputError, atomic_open, check_output, is_same_file, main_guard


def convert(path, column, format, max_rows=0):
    """The document of a file's column, see physics/formats.py. InputError if it has no formula."""
    trees = {}
    rows = itertools.islice(read_rows(path, (column,)), max_rows or None)
    for number, (line, row) in enumerate(rows, 1):
        try:
            tree = parse(row[column])
            formula(tree, format)                            # raises for what the format cannot hold
            trees[f"f_{number}"] = tree
        except InputError as error:
            warn(path, line, f"{column}: {error}")
    if not trees:
        raise InputError(f"{path}: no row of column '{column}' can be written as {format}")
    head = "" if format == "text" else comment(f"{path}, column {column}", format) + "\n"
    return head + document(trees, format)


def main():
    paths = [word for word in sys.argv[1:] if not word.startswith("-") and not word.endswith(".py")]
    settings = load_settings(__doc__, ["format", "column", "output", "max_rows"],
                             [word for word in sys.argv[1:] if word not in paths])
    check_format(settings.format)
    check_least(settings, {"max_rows": 0})
    if len(paths) != 1:
        raise InputError(f"got {len(paths)} files, wanted one; usage: python -m dataset.convert FILE --format=latex")
    if settings.output and is_same_file(settings.output, paths[0]):
        raise InputError(f"{settings.output}: is the input itself; name another --output")
    text = convert(paths[0], settings.column, settings.format, settings.max_rows)
    if not settings.output:
        return sys.stdout.write(text) and None
    first = text if settings.format == "text" else text[:text.index("\n")]    # the same formulas, or of the same file
    check_output(settings.output, first)
    with atomic_open(settings.output) as file:
        file.write(text)
    print(settings.output)


if __name__ == "__main__":
    main_guard(main)
