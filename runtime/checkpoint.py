"""
Checkpoints: written whole or not at all, read without running anything in them, found for decoding and resuming.

A checkpoint is a dictionary: version, model (raw weights), ema (their moving average or None), model_config,
vocabulary, settings, and the state of the loop: optimizers, scaler (of fp16), rng (of every rank), step, epoch, batch
(position in the epoch, in micro-batches), losses (since the last line of the log), kind_loss, dealt, skipped,
skipped_lines, bad and rollbacks (see train.py on skipped steps), train_sha256 (of train.csv), best (validation
figures of best.pt), seconds (training time), wandb_id. Those of scst.py have instead start (the weights that
kl_weight compares with), held_out (folders with rows never to learn from), files (SHA-256 of the file learned from and
of --indices), lines and recent (figures of the last steps). Files of a run: ckpt_STEP.pt, last.pt (the newest),
best.pt (the best on the validation split), emergency_STEP.pt (to look into, never resumed from).

A folder that runtime/export.py wrote is read too: it has the weights, the vocabulary and the settings, and no state of
a loop.
"""
import fcntl
import json
import os
import re
import sys
import zipfile
from pathlib import Path

import torch

from runtime.files import InputError, atomic_open

EXPORTED = "model.safetensors"  # the weights in a folder of runtime/export.py
SHIPPED = Path(__file__).resolve().parent.parent / "models" / "symba"  # the model that comes with the scripts
VERSION = 3  # to be raised when train.py can no longer resume older checkpoints
LOOP_STATE = (  # what train.py needs to resume
    "optimizers", "scaler", "rng", "step", "epoch", "batch", "skipped", "bad", "rollbacks", "losses", "kind_loss",
    "dealt", "skipped_lines", "train_sha256", "best", "seconds", "wandb_id")


def save(path, state):
    """Write the dictionary `state`. A process that is killed meanwhile leaves the file that was there before."""
    try:
        with atomic_open(path, "wb") as file:
            torch.save({"version": VERSION} | state, file)
    except (OSError, RuntimeError) as error:
        # where a large tensor does not fit on the disk, torch raises a RuntimeError while it handles the OSError
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise InputError(f"{path}: not written ({cause.strerror}); the checkpoints before it are whole") from None


def save_limited(run_dir, state, save_limit):
    """
    Write ckpt_STEP.pt and last.pt, then remove all but the newest `save_limit` ckpt_STEP.pt (0 keeps them all).

    Those of later steps are removed too: the run has returned to an earlier checkpoint and will write them again.
    """
    newest = Path(run_dir) / f"ckpt_{state['step']}.pt"
    save(newest, state)
    save(Path(run_dir) / "last.pt", state)
    paths = step_files(run_dir)
    earlier = paths[paths.index(newest):]  # with the newest itself
    for path in set(paths) - set(earlier[:save_limit or None]):
        path.unlink()


def load(path):
    """
    The dictionary that `save` wrote, or that of an exported model, on the CPU. path: a checkpoint file, the folder of
    an exported model, or the weights in it. InputError if it is missing, damaged or of another program.
    """
    path = exported(path)
    if path.name == EXPORTED:
        return check_version(path, load_exported(path))
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not compare the checksums
        if damaged is None:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror or error})") from None
    except Exception:  # a damaged zip or pickle raises any of a dozen exceptions
        damaged = path
    if damaged is not None:
        raise InputError(f"{path}: damaged or not a checkpoint; other checkpoints of the run may be whole")
    if not isinstance(state, dict) or not {"version", "model", "model_config", "vocabulary"} <= state.keys():
        raise InputError(f"{path}: not a checkpoint of train.py")
    return check_version(path, state)


def check_version(path, state):
    if type(state["version"]) is not int:
        raise InputError(f"{path}: not a checkpoint of this program: its version is {state['version']!r}")
    if state["version"] > VERSION:
        raise InputError(f"{path}: checkpoint version {state['version']}, this program reads up to {VERSION}")
    return state


def exported(path):
    """The weights in it, if the path is the folder of an exported model; else the path itself."""
    path = Path(path)
    return path / EXPORTED if path.is_dir() else path


def load_exported(path):
    """The dictionary of an exported model. InputError for what is missing or damaged."""
    try:
        from safetensors.torch import load
    except ImportError:
        raise InputError(f"{path}: safetensors is not installed; pip install safetensors") from None
    texts = [path.with_name("config.json"), path.with_name("vocabulary.json")]
    try:
        config, vocabulary = (json.loads(text.read_text(encoding="utf-8")) for text in texts)
        model = load(path.read_bytes())
    except OSError as error:
        where = f"{error.filename}: not readable ({error.strerror})"
        if not texts[0].exists():
            where = f"{path.parent}: not readable (Is a directory)"
            if (best := path.with_name("best.pt")).exists():
                raise InputError(f"{path.parent}: is the folder of a run; its checkpoint is {best}") from None
        raise InputError(f"{where}; the folder of an exported model has {EXPORTED}, config.json and "
                         "vocabulary.json") from None
    except Exception:  # safetensors has errors of its own
        raise InputError(f"{path.parent}: damaged or not an exported model") from None
    if not isinstance(vocabulary, dict) or not all(isinstance(vocabulary.get(side), list) for side in ("src", "tgt")):
        raise InputError(f"{texts[1]}: not the vocabulary.json of an exported model")
    if not isinstance(config, dict) or not {"version", "model_config", "step", "settings"} <= config.keys():
        raise InputError(f"{texts[0]}: not the config.json of an exported model")
    return config | {"model": model, "ema": None, "vocabulary": vocabulary}


def to_resume(run_dir, resume, setting="out_dir"):
    """
    The checkpoint that a run goes on from with --resume; None for a new run. InputError where a new run would meet an
    earlier one; setting: what names the folder.
    """
    if resume:
        return load_newest(run_dir)
    if holds_run(run_dir):
        raise InputError(f"{run_dir}: holds a run already; go on with it by --resume, or name another folder by "
                         f"--{setting}=")
    return None


def load_newest(run_dir):
    """
    last.pt, or where it cannot be read the newest checkpoint of a run that can; None if the run has no checkpoint.

    Names damaged ones on stderr. InputError if all are damaged.
    """
    run_dir = Path(run_dir)
    paths = [path for path in [run_dir / "last.pt", *step_files(run_dir), run_dir / "best.pt"] if path.exists()]
    for path in paths:
        try:
            return load(path)
        except InputError as error:
            print(f"warning: {error}", file=sys.stderr)
    if paths:
        raise InputError(f"{run_dir}: none of its {len(paths)} checkpoints can be read")
    return None


def check_resumable(state, run_dir):
    """InputError if train.py cannot resume from this checkpoint."""
    advice = "--init_from= takes its weights into another --out_dir="
    if "start" in state:
        raise InputError(f"{run_dir}: holds a run of scst.py; name another folder by --out_dir=")
    if state["version"] != VERSION:
        raise InputError(f"{run_dir}: checkpoint version {state['version']} cannot be resumed; {advice}")
    missing = [name for name in LOOP_STATE if name not in state]
    if missing:
        raise InputError(f"{run_dir}: the checkpoint has no state of the loop ({', '.join(missing)} missing); {advice}")


def weights(state):
    """The weights that were validated: the moving average where there is one."""
    return state.get("ema") or state["model"]


def step_files(run_dir):
    """The ckpt_STEP.pt of a run, newest first."""
    steps = {path: re.fullmatch(r"ckpt_(\d+)\.pt", path.name) for path in Path(run_dir).glob("ckpt_*.pt")}
    return sorted((path for path in steps if steps[path]), key=lambda path: int(steps[path][1]), reverse=True)


def holds_run(run_dir):
    return any(Path(run_dir).glob("*.pt"))


def find(settings):
    """
    Path of the checkpoint to decode with: `ckpt` if it is set, else best.pt of out_dir.

    Where neither a config file nor an out_dir was named, best.pt of the newest run of train.py in out/, which stderr
    names. A run that is still training is taken only if there is no other. Where there is no run, the model that comes
    with the scripts. InputError if there is none.
    """
    if settings.ckpt:
        return exported(settings.ckpt)
    path = Path(settings.out_dir) / "best.pt"
    if settings.config_name == "default" and path == Path("out/default/best.pt"):
        path = newest_best(Path("out")) or shipped(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint; train.py makes it, --ckpt=FILE names another")
    return path


def shipped(path):
    """The model that comes with the scripts, which stderr names; `path` where there is none."""
    if not SHIPPED.exists():
        return path
    if os.environ.get("RANK", "0") == "0":
        print(f"out: no run of train.py, so models/{SHIPPED.name} answers, the model that comes with the scripts",
              file=sys.stderr)
    return exported(SHIPPED)


def folder_beside(ckpt):
    """Where files go that were made with a checkpoint: its own folder; out/symba for the model of the scripts."""
    return Path("out") / SHIPPED.name if ckpt.resolve().parent == SHIPPED else ckpt.parent


def newest_best(root):
    """best.pt of the newest run of train.py below a folder, None without one. See `find`."""
    newest, busy = None, []
    for path in sorted(root.rglob("best.pt"), key=lambda path: path.stat().st_mtime, reverse=True):
        if is_of_training(path):
            if not is_locked(path.parent):
                newest = path
                break
            busy.append(path)
    path = newest or next(iter(busy), None)
    if path and os.environ.get("RANK", "0") == "0":
        notes = [f"{other} is of a run that is still training" for other in busy]
        print("; ".join([f"{path}: the newest run of train.py in {root}", *notes]), file=sys.stderr)
    return path


def is_of_training(path):
    """
    Whether a checkpoint is of train.py, not of scst.py or an experiment in ablations/. Reads no weights. A damaged file
    is named on stderr.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return "start" not in state and "format" in state["vocabulary"]
    except Exception:  # as in `load`
        print(f"warning: {path}: damaged or not a checkpoint", file=sys.stderr)
        return False


def is_locked(run_dir):
    """Whether a process writes to this run now: it holds a lock on the folder (`held` in runs.py)."""
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        pass
    finally:
        os.close(folder)
    return False
