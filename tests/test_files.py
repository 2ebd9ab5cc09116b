import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from dataset.reader import read_rows
from runtime.files import InputError, atomic_open, check_output, write_json, write_rows


def test_rows_come_with_the_line_they_start_on(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('amp,sqamp,note\na,b,c\na,d,"a\nwith a line break"\n\ne,f,g\n')
    assert [(line, *row.values()) for line, row in read_rows(path)] == [
        (2, "a", "b", "c"),
        (3, "a", "d", "a\nwith a line break"),
        (6, "e", "f", "g"),
    ]


def test_gzip_and_plain_read_alike(tmp_path):
    plain, packed = tmp_path / "rows.csv", tmp_path / "rows.csv.gz"
    write_rows(plain, ["amp", "sqamp"], [{"amp": f"a{k}", "sqamp": 'é,"'} for k in range(1000)])
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read_rows(plain)) == list(read_rows(packed))


def stop(path, line, reason):
    raise InputError(f"{path}:{line}: {reason}")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", ":1: the file is empty"),
        (b"amp\nx\n", ":1: no column 'sqamp'"),
        (b"amp,sqamp\na\n", ":2: 1 cells"),
        (b"amp,sqamp\na,b\na,b,c\n", ":3: 3 cells"),
        (b"amp,sqamp\n\xff\xfe,b\n", "not readable"),
        (b'amp,sqamp\n"a,b\n', "not readable"),
        (b"amp,sqamp\na,b\x00\nx", ":"),
    ],
)
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


def test_a_file_that_breaks_off_does_not_hide_the_verdicts_on_others(tmp_path):
    rows = "amp,sqamp\n" + "e^2,e^4\n" * 3000
    (tmp_path / "good.csv").write_text("amp,sqamp\nx,y\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(rows.encode())[:-20])
    names = [str(tmp_path / name) for name in ("good.csv", "cut.csv.gz", "good.csv")]
    command = [sys.executable, "verify.py", *names, "--workers=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "cut.csv.gz" in done.stdout and "unreadable" in done.stdout.splitlines()[-1]
    done = subprocess.run([sys.executable, "verify.py", names[0], "gone.csv"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.endswith("error: gone.csv: no such file\n")


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


FULL = """
import resource, signal, sys
from runtime.files import main_guard
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file may grow: writing fails as on a full disk
def main():
    {}
main_guard(main)
"""


@pytest.mark.parametrize(
    "call",
    [
        "from runtime.files import write_rows; write_rows('{path}', ['amp'], [{{'amp': 'x' * 9999}}])",
        "from runtime.files import write_json; write_json('{path}', ['x' * 9999])",
        "from dataset.shards import write_part; import pathlib\n"
        "    write_part(pathlib.Path('{path}'), 1, {{}}, [{{'amp': 'x' * 9999}}])",
        "from physics import form; form.tempfile.tempdir = '{folder}'; form.run('Symbol x;' + '*' * 9999, [], '', 9)",
        "from runtime.files import writing\n"
        "    with writing('{path}'), open('{path}', 'w') as file: file.write('x' * 9999)",
    ],
)
def test_a_full_disk_is_told_with_the_path(tmp_path, call):
    path = tmp_path / "file"
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(call.format(path=path, folder=tmp_path))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and re.fullmatch(rf"error: .*{tmp_path}\S+: File too large\n", done.stderr), done.stderr


@pytest.mark.parametrize("error, message", [
    ("MemoryError()", "error: out of memory; a smaller model"),
    ("RuntimeError(\"DefaultCPUAllocator: can't allocate memory: you tried 4 TB\")", "--batch_tokens"),
    ("type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory.')", "(CUDA out of memory.)")])
def test_too_little_memory_is_one_line(error, message):
    script = f"from runtime.files import main_guard\ndef main():\n    raise {error}\nmain_guard(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_closed_standard_output_is_no_error():
    script = "from runtime.files import main_guard\nmain_guard(lambda: print('x'))"
    done = subprocess.run(f"{sys.executable} -c \"{script}\" >&-", shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: is a folder or a device"):
        check_output(tmp_path / "pipe", "row")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_full_standard_output_is_told(tmp_path):
    for count in (1, 10**6):
        script = f"from runtime.files import main_guard\nmain_guard(lambda: print('x' * {count}))"
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-c", script], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process that its parent ended")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_end_with_their_parent_whatever_pythons_start_method(method):
    """Python 3.14 starts workers by a server process, whose death they would wait for."""
    script = f"""
import multiprocessing, os, sys, time
from runtime.workers import parallel_map
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    print(*parallel_map(eval, ["__import__('os').getppid()"], 1), os.getpid(), flush=True)
    for _ in parallel_map(exec, ["import os, time; print(os.getpid(), flush=True); time.sleep(60)"], 1): pass
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    parent, own = process.stdout.readline().split()
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while (alive := os.path.exists(f"/proc/{worker}")) and time.monotonic() < until:
        time.sleep(0.02)
    if alive:
        os.kill(worker, signal.SIGKILL)
    assert parent == own and not alive


def test_an_interrupt_ends_workers_in_the_middle_of_long_tasks():
    """Also one that catches the signal, as training does to write a checkpoint, and would begin with the next task."""
    task = "import signal, time; signal.signal(2, print); print('begun', flush=True); time.sleep(60)"
    script = f"""
from runtime.workers import parallel_map
for _ in parallel_map(exec, [{task!r}] * 3, 1): pass
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    process.stdout.readline()
    try:
        os.killpg(process.pid, signal.SIGINT)                # as Ctrl-C does
        assert process.wait(timeout=20) == -signal.SIGINT
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_link_stays_a_link_and_a_device_stays_what_it_is(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with atomic_open(tmp_path / "link") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="is a folder or a device"):
            atomic_open(place).__enter__()
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(InputError, match="is a pipe or a device"):
        next(read_rows(tmp_path / "pipe"))


def test_a_quote_that_is_never_closed_is_given_up_after_a_while(tmp_path):
    """Each line opens a quote; 8,000 of them took a minute when each read the rest of the file."""
    path = tmp_path / "rows.csv"
    path.write_text("amp,sqamp\n" + 'a","b\n' * 8_000 + "c,d\n")
    bad = []
    rows = list(read_rows(path, on_bad=lambda *where: bad.append(where)))
    assert [row["amp"] for _, row in rows] == ["c"] and len(bad) == 8_000
    assert "a quote that is still open after 1000 lines" in bad[0][2]


def test_any_name_of_a_file_can_be_written_and_said(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "names.json", {"name": name, "arrow": "→"})
    assert json.loads((tmp_path / "names.json").read_text()) == {"name": name, "arrow": "→"}
    code = "from runtime.files import main_guard, InputError\ndef main(): raise InputError('2→2')\nmain_guard(main)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 2 and done.stderr == "error: 2\\u21922\n"
