import gzip
import os

import pytest

from dataset.reader import read_rows
from runtime.files import InputError, atomic_open, write_rows


def test_rows_come_with_the_line_they_start_on(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('amp,sqamp,note\na,b,c\na,d,"a\nwith a line break"\n\ne,f,g\n')
    assert [(line, *row.values()) for line, row in read_rows(path)] == [(2, "a", "b", "c"), (3, "a", "d", "a\nwith a line break"), (6, "e", "f", "g")]


def test_gzip_and_plain_read_alike(tmp_path):
    plain, packed = tmp_path / "rows.csv", tmp_path / "rows.csv.gz"
    write_rows(plain, ["amp", "sqamp"], [{"amp": f"a{k}", "sqamp": "é,\""} for k in range(1000)])
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read_rows(plain)) == list(read_rows(packed))


def stop(path, line, reason):
    raise InputError(f"{path}:{line}: {reason}")


@pytest.mark.parametrize("content, reason", [
    (b"", ":1: the file is empty"), (b"amp\nx\n", ":1: no column 'sqamp'"), (b"amp,sqamp\na\n", ":2: 1 cells"), (b"amp,sqamp\na,b\na,b,c\n", ":3: 3 cells"),
    (b"amp,sqamp\n\xff\xfe,b\n", "not readable"), (b'amp,sqamp\n"a,b\n', "not readable"), (b"amp,sqamp\na,b\x00\nx", ":"),
])
def test_broken_files_are_named_with_their_line(tmp_path, content, reason):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(read_rows(path, on_bad=stop))
    assert str(error.value).startswith(str(path)) and reason in str(error.value) and "\n" not in str(error.value)


def test_truncated_gzip_is_an_error_and_no_short_file(tmp_path):
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"amp,sqamp\n" + os.urandom(3000).hex().encode() + b",b\n")[:-700])
    with pytest.raises(InputError, match="not readable as CSV"):
        list(read_rows(path))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), atomic_open(path) as file:
        file.write("half of what was to be wri")
        file.flush()
        assert path.read_text() == "before"
        raise RuntimeError
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["file.txt"]
    with atomic_open(path) as file:
        file.write("after")
    assert path.read_text() == "after" and os.listdir(tmp_path) == ["file.txt"]
