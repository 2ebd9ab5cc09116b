"""The card of a data set, in the format of the Hugging Face hub: YAML for the hub, Markdown for people."""
import contextlib
import csv
import json
import os
import shutil
import tempfile
from pathlib import Path

from dataset.shards import read_json
from physics.theory import THEORIES
from runtime.files import InputError, atomic_open, digest

SPLITS = {"train": "train", "validation": "valid", "test": "test"}  # the hub's names and ours
COLUMNS = {
    "process": "incoming and outgoing particles, `e e~ -> mu mu~`; in files of other programs their own text",
    "diagram": "the propagators of the diagram with their momenta, `A(p1+p2)`",
    "theory": "the theory, as prepare.py's setting `theory` names it, a file without its folder and ending",
    "template": "rows with the same value differ in the names of indices and particles only",
    "orbit": "rows with the same value differ in names, in the order and sides of the legs and in a factor",
    "amp": "the amplitude, in MARTY's grammar",
    "sqamp": "its square, summed over spins, polarisations and colours, averaged over those that come in",
}
LOOKUP = {"exact": "up to index names", "renamed": "up to particle names too",
          "rescaled": "up to the number in front too", "relabelled": "up to the order and sides of the legs too"}
DATA, MODEL = ("manifest.json", "fingerprint"), ("config.json", "model_config")  # what shows an export, see `claim`
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def export_data(folder, data_dir):
    """Write a finished data set with its card."""
    with exporting(folder, *DATA) as made:
        for name in ("train.csv", "valid.csv", "test.csv", "manifest.json"):
            with open(Path(data_dir) / name, "rb") as source, atomic_open(made / name, "wb") as target:
                shutil.copyfileobj(source, target)
        with atomic_open(made / "README.md") as file:
            file.write(data_card(Path(folder).absolute().name, made))


@contextlib.contextmanager
def exporting(folder, own, key):
    """
    A folder to write an export into, whose files then take their places in `folder`, the JSON file `own` as the last.
    What fails or is killed before leaves an earlier export as it was. See `claim`.
    """
    folder = claim(folder, own, key)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
        yield Path(made)
        for name in sorted(os.listdir(made), key=own.__eq__):
            os.replace(Path(made) / name, folder / name)


def claim(folder, own, key):
    """
    The folder as a Path, made if need be. InputError if it holds anything but an earlier export, known by its card and
    by the key in its JSON file `own`.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder.is_dir() and (not os.listdir(folder) or is_export(folder, own, key))):
        raise InputError(f"export: {folder} exists and is no earlier export; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_export(folder, own, key):
    try:
        content = json.loads((folder / own).read_text(encoding="utf-8"))
        return (folder / "README.md").read_bytes().startswith(b"---\n") and key in content
    except (OSError, ValueError, TypeError):
        return False


def yaml(head):
    """The head of a card. JSON is YAML, so each value is written as JSON."""
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
    return "\n".join(["---", *lines, "---", ""])


def table(head, lines):
    lines = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def lookup_table(shares):
    """Markdown of what a lookup table of the training rows scores. shares: {kind of table: share}"""
    return table(["amplitudes are equal", "share"],
                 [[LOOKUP.get(kind, kind), f"{share:.1%}"] for kind, share in shares.items()])


def data_card(name, folder):
    """Markdown of a data set's card. InputError where the folder has no manifest of prepare.py."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}/manifest.json: not readable; prepare.py writes it")
    settings, rows = manifest["settings"], sum(manifest["rows"].values())
    head = {"tags": ["physics", "scattering-amplitudes"], "size_categories": [size_category(rows)],
            "configs": [{"config_name": "default", "data_files": [
                {"split": split, "path": f"{file}.csv"} for split, file in SPLITS.items()]}]}
    if not settings["input"]:
        head = {"license": "mit"} | head
    licence = "The rows come from files of others, and so does their licence." if settings["input"] else "MIT."
    with open(folder / "train.csv", encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    files = table(["file", "rows", "SHA-256"], [
        [f"{file}.csv", f"{manifest['rows'][file]:,}", f"`{digest(folder / f'{file}.csv')}`"]
        for file in SPLITS.values()])
    kinds = table(["kind", "rows", "tokens of an amplitude", "tokens of a square"], [
        [f"`{kind}`", f"{figures['rows']:,}", *(f"{lengths['mean']}, at most {lengths['max']}" for lengths in (
            figures["amp_tokens"], figures["sqamp_tokens"]))]
        for kind, figures in manifest["kinds"].items() if figures["rows"]])
    made = table(["setting", "value"], [[f"`{key}`", f"`{value!r}`"] for key, value in settings.items()])
    return f"""{yaml(head)}
# {name}

{rows:,} tree-level scattering amplitudes of {origin(settings)} with their squares. Every row is verified: amplitude and
square agree at random momenta, with explicit Dirac and colour matrices that the program that made them does not use.

{files}

Split `{settings["split"]}`, seed {settings["seed"]}. A model must be better than a lookup table of the training rows.
The table finds equal amplitudes, and so scores on the test rows:

{lookup_table(manifest["lookup_accuracy"])}

## Columns

{table(["column", "meaning"], [[f"`{column}`", COLUMNS.get(column, "")] for column in columns])}

## Kinds of rows

{kinds}

## How it was made

{made}

## Licence

{licence}
"""


def origin(settings):
    if settings["input"]:
        return "files of others"
    return f"`{settings['processes']}` in {theory_title(settings['theory'])}"


def theory_title(name):
    return name.upper() if name in THEORIES else f"`{name}`"


def size_category(rows):
    return next((name for limit, name in SIZES if rows < limit), "n>1M")


def read_manifest(data_dir):
    """The content of a data set's manifest.json, None where there is none."""
    manifest = read_json(Path(data_dir) / "manifest.json")
    needed = {"rows", "settings", "sha256", "kinds", "lookup_accuracy"}
    return manifest if isinstance(manifest, dict) and needed <= manifest.keys() else None
