"""Running FORM (Vermaseren, arXiv math-ph/0010025): a list of expressions in, each one's terms out."""
import functools
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from runtime.files import InputError

PROLOGUE = """#-
Off statistics;
Format nospaces;
Format 250;
"""


@functools.lru_cache
def executable():
    """Path of the `form` program: beside this Python (pip install form-bin) or on PATH."""
    found = shutil.which("form", path=sysconfig.get_path("scripts")) or shutil.which("form")
    if not found:
        raise InputError("the program 'form' was not found; pip install form-bin==5.0.2")
    return found


def run(declarations, expressions, statements, timeout):
    """Terms of each expression, as lists of texts such as `-4*x0^2*s1x2`, after the statements; from one FORM process, in which the
    expressions are R0, R1, ...

    timeout in seconds. Raises InputError if FORM reports an error or takes longer.
    """
    program = PROLOGUE + declarations
    program += "".join(f"Local R{k} = {_wrapped(expression)};\n" for k, expression in enumerate(expressions))
    program += f"{statements}Print +s;\n.end\n"
    with tempfile.TemporaryDirectory(prefix="form-") as folder:
        try:
            Path(folder, "program.frm").write_text(program)
            done = subprocess.run([executable(), "-q", "-t", folder, "program.frm"], cwd=folder, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise InputError(f"FORM took more than {timeout} s") from None
        except OSError as error:                             # a full disk, a machine that starts no more processes
            raise InputError(f"FORM was not started: {error.filename or folder}: {error.strerror}") from None
    if done.returncode:
        message = next((line for line in done.stdout.splitlines() if "-->" in line or "rror" in line), done.stdout[-200:])
        raise InputError(f"FORM failed: {' '.join(message.split())}")
    answers = []
    for line in done.stdout.splitlines():
        line = line.strip()
        if line.startswith("R") and "=" in line:
            answers.append([])
            line = line.split("=", 1)[1]
        line = line.rstrip(";").rstrip("\\")
        if not line or line == "0":
            continue
        if not answers:
            continue                                         # a message before the first expression
        terms = answers[-1]
        if terms and (line[0] not in "+-" or terms[-1][-1] in "(^*"):       # FORM broke a long term
            terms[-1] += line
        else:
            terms.append(line)
    if len(answers) != len(expressions):
        raise InputError(f"FORM answered {len(answers)} of {len(expressions)} expressions")
    return answers


def _wrapped(expression, width=2000):
    """FORM reads lines of limited length; break after operators."""
    lines = []
    while len(expression) > width:
        cut = max(expression.rfind("*", 0, width), expression.rfind("+", 0, width)) + 1
        if not cut:
            raise InputError(f"a number or name of more than {width} characters")
        lines.append(expression[:cut])
        expression = expression[cut:]
    return "\n".join([*lines, expression])
