"""
Settings of every script: config/default.py, then a config file, then the command line.

    python SCRIPT.py [config/file.py] [--key=value ...]

A config file holds plain Python assignments: `name = value`, where the value is a literal, a setting from above
or from config/default.py, or arithmetic on these, such as `d_ff = 4 * d_model`. It is parsed and never run: a typo or a
downloaded file can only set a known setting to a value of its own type. The command line comes after the file:
--d_model=64 does not change the d_ff that the file has computed.
"""
import ast
import difflib
import math
import operator
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

from runtime.files import InputError

CHOICES = {  # settings that are one of a few words, whichever script reads them
    "schedule": ("cosine", "linear", "constant", "one-cycle"), "optimizer": ("adamw", "muon"),
    "compile": ("auto", "on", "off"), "wandb_mode": ("disabled", "offline", "online"),
    "attention": ("auto", "varlen", "sdpa", "reference"), "squares": ("diagram", "process"),
    "basis": ("all", "independent"),
}

ROOT = Path(__file__).resolve().parent
DEFAULT = ROOT / "config" / "default.py"

ARITHMETIC = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
}  # no power: 9**9**9 would hang
LARGEST = 10**18  # result of arithmetic: squaring a number line after line would hang too
NEVER_EMPTY = {"input", "ckpt", "amp", "compare", "plot", "init_from"}  # after --name=
WANTED = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def load_settings(usage, keys, argv=None, base=None, config=None):
    """
    Settings of a script from default.py, the config file and the flags in `argv` (sys.argv[1:] if None).

    usage: the script's docstring, for --help. keys: names of the settings that the script reads; --help and the table
    on stderr show these. base: file of an experiment with further settings, and other defaults of those in default.py.
    config: the config file where `argv` names none.
    Returns a namespace with every key of these files, data_dir and out_dir filled in, and `config_name`, the stem of
    the config file. Raises InputError for an argument or a line that is wrong.
    """
    argv = sys.argv[1:] if argv is None else argv
    defaults = read_config(DEFAULT)
    if base:
        defaults |= read_config(Path(base))
    if "--help" in argv or "-h" in argv:
        print_help(usage, keys, defaults, base)
        raise SystemExit(0)

    files = [word for word in argv if not word.startswith("-")] or [config] * bool(config)
    if len(files) > 1:
        raise InputError(f"one config file at most, got {' and '.join(files)} (settings are written --key=value)")
    values = dict(defaults)
    config_name = "default"
    if files:
        path = find_config(files[0])
        values |= read_config(path, defaults)
        # the settings file of a run, out/NAME/config.py, keeps the run's name
        config_name = path.resolve().parent.name if path.stem == "config" else path.stem
        if path.stem == "config" and values["run_id"] and values["run_id"] == Path(values["out_dir"]).name:
            values["out_dir"] = str(Path(values["out_dir"]).parent)  # the run_id is added below
    for word in argv:
        if word.startswith("-"):
            name, value = read_flag(word, defaults)
            values[name] = value
            if keys and name not in keys and not (name == "run_id" and "out_dir" in keys):  # which becomes part of it
                print(f"note: --{name} says nothing to this script; --help lists what does", file=sys.stderr)

    for name, least, most in (("seed", 0, 2**32 - 1), ("workers", 0, 1024)):
        if not least <= values[name] <= most:
            raise InputError(f"{name}: got {values[name]}, wanted {least} to {most}")
    for name in CHOICES.keys() & keys:
        if values[name] not in CHOICES[name]:
            raise InputError(f"{name}: got {values[name]!r}, wanted {', '.join(CHOICES[name])}")
    values["data_dir"] = values["data_dir"] or f"data/{config_name}"
    values["out_dir"] = values["out_dir"] or f"out/{config_name}"
    run_id = values["run_id"]
    if "/" in run_id or run_id.startswith("."):
        raise InputError(f"run_id: got {run_id!r}, wanted the name of a folder")
    if run_id:
        values["out_dir"] += f"/{run_id}"
    settings = SimpleNamespace(**values, config_name=config_name)
    print_table(settings, keys, defaults, source=files[0] if files else "defaults")
    return settings


def check_least(settings, least):
    """InputError for a setting below its least value; least: {name: value}."""
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted at least {value}")


def check_sampling(settings):
    """InputError unless temperature, top_k and top_p are such that tokens can be sampled."""
    check_least(settings, {"top_k": 0})
    if settings.temperature <= 0:
        raise InputError(f"temperature: got {settings.temperature}, wanted more than 0")
    if not 0 < settings.top_p <= 1:
        raise InputError(f"top_p: got {settings.top_p}, wanted more than 0 and at most 1")


def settings_text(settings):
    """The settings as the text of a config file that gives the same settings again."""
    comments = read_comments()
    of_experiment = vars(settings).keys() - comments.keys() - {"config_name"}
    comments |= {name: "of this experiment" for name in sorted(of_experiment)}
    lines = [f"{name} = {getattr(settings, name)!r}  # {comment}" for name, comment in comments.items()]
    return '"""Settings of a run, as resolved; a valid config file."""\n' + "\n".join(lines) + "\n"


def find_config(name):
    """Path of a config file, relative to the working directory or else to this repository."""
    if not name.endswith(".py"):
        raise InputError(f"{name}: a config file ends in .py; settings are written --key=value, such as "
                         "--input=FILE.csv or --ckpt=FILE.pt")
    for path in (Path(name), ROOT / name):
        if path.is_file():
            return path
    folder = next((folder for folder in (Path(name).parent, ROOT / Path(name).parent)
                   if folder.resolve() != ROOT and any(folder.glob("*.py"))), DEFAULT.parent)
    known = {path.stem: f"config/{path.name}" if folder == DEFAULT.parent else str(path)
             for path in sorted(folder.glob("*.py"))}
    close = difflib.get_close_matches(Path(name).stem, known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"there are {', '.join(known.values())}"
    raise InputError(f"{name}: no such config file; {hint}")


def read_config(path, defaults=None):
    """
    The assignments of a config file as a dictionary, in order. With `defaults`, each name must be one of its keys and
    each value of the type found there. Raises InputError as FILE:LINE.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8-sig"))
    except SyntaxError as error:
        raise InputError(f"{path}:{error.lineno or 1}: not valid Python: {error.msg}") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:  # unreadable, not text, nested too deep
        raise InputError(f"{path}: not a readable config file: {error or type(error).__name__}") from None

    values = {}
    for statement in tree.body:
        where = f"{path}:{statement.lineno}"
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):  # docstring
                continue
            case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                pass
            case _:
                raise InputError(f"{where}: a config file holds only comments and lines `name = value`")
        try:
            value = evaluate(expression, (defaults or {}) | values)
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise InputError(f"{where}: {name}: {error}") from None
        values[name] = check(name, value, defaults, where) if defaults else value
    return values


def evaluate(node, names):
    """Value of a literal, of a name in the dictionary `names`, or of simple arithmetic on numbers."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Name(id=name):
            raise ValueError(f"no setting {name} to compute it from; {nearest(name, names)}")
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = number(evaluate(operand, names))
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            value = ARITHMETIC[type(op)](number(evaluate(left, names)), number(evaluate(right, names)))
            if abs(value) > LARGEST:
                raise ValueError(f"arithmetic beyond {LARGEST:.0e}")
            return value
    raise ValueError("wanted a plain value: a number, a setting from above, arithmetic on these, text in quotes, "
                     "True or False")


def number(value):
    if type(value) not in (int, float):
        raise ValueError(f"arithmetic is for numbers only, got {value!r}")
    return value


def read_flag(word, defaults):
    """Name and value of a flag `--key=value`, or of `--key` for True."""
    name, equals, text = word.removeprefix("--").partition("=")
    where = "command line"
    if not word.startswith("--"):
        raise InputError(f"{where}: {word}: settings are written --key=value")
    if name not in defaults:
        check(name, text, defaults, where)
    kind = type(defaults[name])
    if not equals:
        if kind is not bool:
            raise InputError(f"{where}: --{name} needs a value: write --{name}=VALUE, {WANTED[kind]}")
        return name, True
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        value = text
    if kind is str and not (isinstance(value, str) and text.count(text[:1]) == 2):
        value = text  # --output=2024 is a file called 2024, and --input="'a b' 'c d'" are two
    if name in NEVER_EMPTY and not value:  # such as an unset variable of a shell
        raise InputError(f"{where}: --{name}=: nothing stands there")
    if kind is str and value.startswith("~/"):
        value = os.path.expanduser(value)  # the shell does so at the beginning of a word only
    return name, check(name, value, defaults, where)


def check(name, value, defaults, where):
    """`value` in the type that `defaults` has for `name`; InputError for an unknown name or a wrong type."""
    if name not in defaults:
        raise InputError(f"{where}: unknown setting {name}; {nearest(name, defaults)}")
    kind = type(defaults[name])
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < sys.float_info.max else math.inf
    if type(value) is not kind:
        raise InputError(f"{where}: {name}: got {value!r}, wanted {WANTED[kind]}, such as {defaults[name]!r}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{where}: {name}: got {value}, wanted a finite number")
    return value


def nearest(name, known):
    """What to say about a setting that is not known."""
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "config/default.py lists them all"


def read_comments(path=None):
    """Comment of each setting in a file, by name. path: None is default.py."""
    comments = {}
    for line in (path or DEFAULT).read_text(encoding="utf-8").splitlines():
        name, equals, rest = line.partition(" = ")
        if equals and name.isidentifier():
            comments[name] = rest.partition("  # ")[2]
    return comments


def print_help(usage, keys, defaults, base=None):
    comments = read_comments()
    if base:
        comments |= read_comments(Path(base))
    width = max(len(f"--{name}={defaults[name]!r}") for name in keys)
    print((usage or "").strip())
    print("\nsettings (with their defaults):")
    for name in keys:
        print(f"  {f'--{name}={defaults[name]!r}':{width}}  {comments[name]}")


def print_table(settings, keys, defaults, source):
    """The settings that the script reads, in columns, on stderr: stdout is for results."""
    cells = []
    for name in keys:
        value = getattr(settings, name)
        cells.append(f"{'*' if value != defaults[name] else ' '}{name} = {value!r}")
    short = [cell for cell in cells if len(cell) < 36]  # a long path gets a line of its own
    width = max(map(len, short), default=0) + 2
    rows = math.ceil(len(short) / max(1, shutil.get_terminal_size((110, 24)).columns // width))
    print(f"settings from {source} (* differs from the default):", file=sys.stderr)
    lines = ["".join(f"{cell:{width}}" for cell in short[row::rows]).rstrip() for row in range(rows)]
    print(*[cell for cell in cells if cell not in short], *lines, sep="\n", file=sys.stderr)
