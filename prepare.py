r"""
Make a data set: theory -> processes -> diagrams -> amplitudes -> squares, every row verified, split, written as CSV.

    python prepare.py [config/file.py] [--key=value ...]
    python prepare.py config/qed.py --processes="e e~ -> mu mu~; e A -> e A; 1->3"
    python prepare.py --input="FILE.csv.gz OTHER.txt" --data_dir=data/marty      check and split rows of files
    python prepare.py config/marty_qed.py                     the public MARTY rows in their published split
    python prepare.py --theory=random:0-199 --sample=60 --data_dir=data/random200  200 theories, at most 60 of each
    python prepare.py --theory=my_theory.py --data_dir=data/my_theory              your own, see docs/my_theory.md
    python prepare.py config/qed.py --draw="e A -> e A"       only draw the diagrams, as SVG, into data_dir/diagrams,
                                                              with amplitude and square under each
    python prepare.py config/qcd.py --shard=3/16              make shard 3 of 16, on any machine that sees data_dir
    python prepare.py config/qcd.py --merge                   join the 16; a missing or damaged one is named
    python prepare.py config/qed.py --export=FOLDER           also write it with a card, as the Hugging Face hub has it

`processes` is a list of processes; "2->2" stands for all with two incoming and two outgoing legs. `processes` and
`sample` hold for each theory.
With `input` the rows come from files, CSV or MARTY's raw text; a name with spaces in it stands in quotes of its own.
Each row is checked; wrong and unreadable ones are named in data_dir/wrong.txt and left out. `masses` says what a file
does not: --masses="e=m A_em=0".
Writes train.csv, valid.csv, test.csv and manifest.json into data_dir. An interrupted run is resumed where it stopped.
The same settings give the same CSV files, byte for byte, with any number of workers or shards.
"""
import array
import collections
import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import platform
import random
import shutil
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import physics.form
import physics.rational
import physics.square
from configurator import load_settings
from dataset.baseline import every_nth, lookup_scores
from dataset.card import DATA, claim, export_data
from dataset.published import published_split
from dataset.reader import file_names, read_files
from dataset.rows import COLUMNS, add_keys, check_rows, cpu_seconds, make_rows
from dataset.shards import (
    difference,
    open_folder,
    parse_shard,
    read_json,
    read_part,
    read_row,
    require_parts,
    write_part,
)
from physics.amplitude import process_text
from physics.drawing import sheet
from physics.particles import masses_text, parse_masses, unknown_masses
from physics.processes import check_cost, choose_processes, count_diagrams, list_processes
from physics.theories import find_theory, theory_names
from runtime import runs
from runtime.files import InputError, atomic_open, digest, main_guard, write_json, write_rows
from runtime.workers import cores, parallel_map

KEYS = [
    "theory", "processes", "sample", "squares", "basis", "style", "off_shell", "longest_amp", "longest_sqamp", "split",
    "valid_fraction", "test_fraction", "randomise_indices", "files", "input", "off_shell_marks", "masses", "draw",
    "shard", "merge", "max_diagrams", "data_dir", "seed", "workers", "export",
]
# settings that no row depends on
OF_ONE_RUN = {"data_dir", "workers", "draw", "shard", "merge", "max_diagrams", "files", "export"}
SPLIT_BY = ("random", "template", "kinematics", "orbit")
CHUNK = 64                   # diagrams, or rows of a file, in one part: one FORM program, one file of finished rows
BLOCK = 500                  # test rows that the lookup table answers at a time
SHOWN = 20                   # wrong rows named at the end
MOST_DRAWN = 1000            # diagrams that are drawn
FORMAT = 5                   # of the data set; raise it when the same settings give other rows


# ---------------------------------------------------------------------------------------------------------------------
# The parts of the work

def plan_parts(settings):
    """(number of rows, kind such as "2->3", theory, processes or rows of files) of every part of the work, in order."""
    if settings.input:
        rows = read_files(file_names(settings.input))
        for chunk in iter(lambda: list(itertools.islice(rows, CHUNK)), []):
            yield len(chunk), "files", "", chunk
        return
    names = theory_names(settings.theory)
    if len(names) > 1:
        print(f"{len(names):,} theories with at most {most_diagrams(settings, names):,} diagrams", flush=True)
    for name in names:
        theory = find_theory(name)
        chosen = choose_processes(settings.processes, theory, settings.sample, settings.seed, settings.off_shell)
        if len(names) == 1 and not chosen:
            limit = f", or none with at most sample={settings.sample} diagrams" if settings.sample else ""
            raise InputError(f"processes: none of '{settings.processes}' has a tree diagram in {settings.theory} "
                             f"and momenta that allow it{limit}")
        check_gluons(chosen, theory, settings)
        if len(names) == 1:
            print(check_cost(chosen, theory, settings.max_diagrams, settings.squares), flush=True)
        for kind, group in itertools.groupby(chosen, key=lambda process: f"{len(process[0])}->{len(process[1])}"):
            chunk, size = [], 0
            for process in group:
                chunk.append(process)
                size += chosen[process]
                if size >= CHUNK:
                    yield size, kind, name, chunk
                    chunk, size = [], 0
            if chunk:
                yield size, kind, name, chunk


def most_diagrams(settings, names):
    """An upper bound of the number of diagrams of several theories."""
    return len(names) * settings.sample * len(list(filter(str.strip, settings.processes.split(";"))))


def check_gluons(chosen, theory, settings):
    """InputError where the square of a whole process with legs off their shell would not be gauge invariant."""
    if settings.squares == "process" and settings.off_shell:
        for process in chosen:
            if sum(theory.particles[name].colour == 8 for name in itertools.chain(*process)) > 1:
                raise InputError(
                    f"off_shell: '{process_text(process)}' with squares='process' has gluons with transverse "
                    "polarisations, and with a leg off its mass shell its amplitude is not gauge invariant: the square "
                    "would depend on the choice of these polarisations; use --off_shell=0, --squares=diagram or "
                    "processes of at most one gluon")


def make_part(task):
    """
    Make one part unless it is there already; returns the number of its rows and why any of them is not right.

    A part of rows that we make is stored only if all of them are right. Otherwise a new run makes it again.
    """
    folder, number, (size, kind, theory, items), settings = task
    header, _ = read_part(folder, number)
    if header is None:
        longest = settings.longest_amp, settings.longest_sqamp
        if settings.input:
            done = check_rows(items, settings.seed, longest, parse_masses(settings.masses), settings.off_shell_marks)
        else:
            done = make_rows(items, theory, settings.squares, settings.basis, settings.seed,
                             settings.style, settings.off_shell, longest)
        before = cpu_seconds()
        if done["wrong"] and not settings.input:
            return size, done["wrong"]
        for row in done["rows"]:
            add_keys(row, settings)
        done["seconds"]["keys"] = cpu_seconds() - before
        header = {"kind": kind, **{name: done[name] for name in ("wrong", "left_out", "seconds")}}
        write_part(folder, number, header, done["rows"])
    return size, header["wrong"]


# ---------------------------------------------------------------------------------------------------------------------
# The whole data set: rows stay in the part files, some 160 bytes of each are held in memory

def collect(folder, count, duplicates=False):
    """
    The index of all rows, without duplicates unless asked for, {column: array}, and the header of each part.

    Columns: `part` and `offset` (where the row is stored), `key` (equal for duplicates), `random`, `template`,
    `kinematics`, `orbit` (hashes for that split), `amp` and `sqamp` (lengths in tokens), `crossed`.
    """
    columns = {name: array.array("Q") for name in ("part", "offset", "key", *SPLIT_BY, "amp", "sqamp", "crossed")}
    headers = []
    for number in range(count):
        header, rows = read_part(folder, number)
        if header is None:                                   # somebody deletes while we read
            raise InputError(f"{folder}: part {number} is {rows}; run again")
        headers.append(header)
        for offset, row in rows:
            for column, value in zip(columns.values(), (number, offset, *row["keys"], *row["tokens"], row["crossed"])):
                column.append(value)
    columns = {name: np.array(column, np.uint64) for name, column in columns.items()}
    if not duplicates:
        kept = np.sort(np.unique(columns["key"], return_index=True)[1])      # the first of each
        columns = {name: column[kept] for name, column in columns.items()}
    return columns, headers


def split_rows(groups, settings, few=False):
    """
    {"train": row numbers, "valid": ..., "test": ...}, drawn with the seed: whole groups, until a split has its share.

    groups: one value a row; rows of equal value come into one split. They are hashes of the amplitude up to index names
    (split "random"), up to particle names too ("template"), up to the number in front as well ("kinematics"), or up to
    a relabelling of the legs ("orbit"). few: of few groups one may be most of the rows, so a split gets only those
    that fit into its share, or the smallest one.
    """
    _, first, group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)                                # groups in the order of their first row
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    rows = np.argsort(rank[group], kind="stable")            # group after group
    ends = np.cumsum(sizes[order])
    shuffled = array.array("q", range(len(order)))
    random.Random(settings.seed).shuffle(shuffled)
    chosen = {"test": array.array("q"), "valid": array.array("q"), "train": array.array("q")}

    def give(k, name):
        chosen[name].extend(rows[ends[k] - sizes[order[k]]:ends[k]].tolist())

    for name, share in (("test", settings.test_fraction), ("valid", settings.valid_fraction)):
        room = round(share * len(groups))
        if few:
            for k in _that_fit(shuffled[::-1], sizes[order], room)[:len(shuffled) - 1]:      # one is left for training
                shuffled.remove(k)
                give(k, name)
            continue
        while len(shuffled) > 1 and len(chosen[name]) < room:
            give(shuffled.pop(), name)
    for k in shuffled:
        give(k, "train")
    return {name: np.array(chosen[name], np.int64) for name in ("train", "valid", "test")}


def _that_fit(groups, sizes, room):
    """The first of these groups that have room together; where none has, the smallest one."""
    chosen = []
    for k in groups:
        if sizes[k] <= room:
            chosen.append(k)
            room -= sizes[k]
    return chosen or ([min(groups, key=sizes.__getitem__)] if groups and room > 0 else [])


def load_rows(folder, columns, numbers):
    for number in numbers:
        row = read_row(folder, int(columns["part"][number]), int(columns["offset"][number]))
        yield {column: row[column] for column in COLUMNS}


def lookup_accuracy(folder, columns, splits, workers, masses=()):
    """lookup_scores of the test split, block by block, each with the training rows that can answer one of its rows."""
    train, test = splits["train"], splits["test"]
    newest = {}                                              # of the training rows with one key the last one counts
    for split in SPLIT_BY:
        keys, last = np.unique(columns[split][train][::-1], return_index=True)
        newest[split] = keys, len(train) - 1 - last

    def tasks():
        for block in np.split(test, range(BLOCK, len(test), BLOCK)):
            needed = [last[np.isin(keys, columns[split][block])] for split, (keys, last) in newest.items()]
            answers = train[np.unique(np.concatenate(needed))]
            rows = ({name: columns[name][chosen] for name in ("part", "offset")} for chosen in (answers, block))
            yield folder, masses, every_nth(len(test)), *rows

    scores = collections.Counter()
    for count, of_block in parallel_map(_lookup_block, tasks(), workers):
        scores.update({kind: share * count for kind, share in of_block.items()})
    return {kind: score / max(len(test), 1) for kind, score in scores.items()}


def _lookup_block(task):
    folder, masses, step, *indices = task
    train, test = (list(load_rows(folder, columns, range(len(columns["part"])))) for columns in indices)
    scores = lookup_scores(train, test, masses, step)
    physics.rational.rational.cache_clear()                    # of every square compared: hundreds of MB of long ones
    return len(test), scores


def statistics(columns, headers):
    """
    {kind: figures} for the manifest: rows, orbits, rows of impossible decays, which were verified with a leg crossed,
    rows left out, tokens of amplitudes and squares, CPU milliseconds a row.
    """
    kinds = np.array([header["kind"] for header in headers])
    table = {}
    for kind in dict.fromkeys(kinds.tolist()):
        of_kind = kinds[columns["part"].astype(np.int64)] == kind
        parts = [header for header in headers if header["kind"] == kind]
        made, seconds = sum(header["rows"] for header in parts), sum_up(parts, "seconds")
        lengths = {f"{name}_tokens": columns[name][of_kind] for name in ("amp", "sqamp") if of_kind.any()}
        table[kind] = {
            "rows": int(of_kind.sum()),
            "orbits": len(np.unique(columns["orbit"][of_kind])),
            "crossed": int(columns["crossed"][of_kind].sum()),
            "left_out": sum_up(parts, "left_out"),
            **{name: {"mean": round(float(n.mean()), 1), "max": int(n.max())} for name, n in lengths.items()},
            "ms_per_row_per_core": {name: round(1000 * value / max(made, 1), 4) for name, value in seconds.items()},
        }
    return table


def sum_up(headers, name):
    total = collections.Counter()
    for header in headers:
        total.update(header[name])
    return total


def finish(folder, parts, count, facts, settings, started):
    """Split and write the rows of all parts."""
    columns, headers = collect(parts, count, duplicates=settings.split == "published")
    wrong = [line for header in headers for line in header["wrong"]]
    made, rows = sum(header["rows"] for header in headers), len(columns["part"])
    left_out = sum_up(headers, "left_out")
    (folder / "wrong.txt").unlink(missing_ok=True)           # of an earlier state of the files
    if wrong:                                                # of files: rows that we made are all right
        with atomic_open(folder / "wrong.txt") as file:
            file.writelines(f"{line}\n" for line in wrong)
        print(*wrong[:SHOWN], f"{len(wrong)} rows are wrong or unreadable and were kept out; {folder}/wrong.txt names "
              "each", sep="\n")
    if settings.input and not made and not wrong and not any(left_out.values()):
        raise InputError(f"{settings.input}: has no rows")
    if not rows:
        raise InputError(f"{settings.input}: no row is right" if settings.input and not any(left_out.values()) else
                         f"no row is left: {left_out['amp']} amplitudes and {left_out['sqamp']} squares are too long, "
                         f"{left_out['vanishing']} diagrams vanish")
    if settings.split == "published":
        splits, missing = published_split(columns["key"])
        check_published(splits, missing, rows)
    else:
        splits = split_rows(columns[settings.split], settings, few=settings.split == "orbit")
    for name, numbers in splits.items():
        write_rows(folder / f"{name}.csv", COLUMNS, load_rows(parts, columns, numbers))
    counts = {name: len(numbers) for name, numbers in splits.items()}
    shares = ", ".join(f"{count} {name}" for name, count in counts.items())
    summary = f"{sum(counts.values())} rows: {shares}, all verified"
    kinds = statistics(columns, headers)
    write_json(folder / "manifest.json", {
        "fingerprint": fingerprint(facts), "summary": summary, "settings": facts,
        "rows": counts, "verified": rows,
        "templates": len(np.unique(columns["template"])), "kinematics": len(np.unique(columns["kinematics"])),
        "orbits": len(np.unique(columns["orbit"])),
        "orbits_by_split": {name: len(np.unique(columns["orbit"][numbers])) for name, numbers in splits.items()},
        "duplicates_removed": made - rows, "wrong": len(wrong), "left_out": left_out, "kinds": kinds,
        "lookup_accuracy": lookup_accuracy(parts, columns, splits, settings.workers, parse_masses(settings.masses)),
        "wall_seconds": round(time.time() - started, 2), "workers": settings.workers or cores(),
        "sha256": {name: digest(folder / f"{name}.csv") for name in splits},
        "versions": versions(),
    })
    clean_up(folder)
    if made > rows:
        print(f"{made - rows} rows stand twice and were left out")
    for column, setting in (("amp", "longest_amp"), ("sqamp", "longest_sqamp")):
        if left_out[column]:
            longest = getattr(settings, setting)
            print(f"{left_out[column]} rows were left out: {column} has more than {setting}={longest} tokens")
    if left_out.get("vanishing"):
        print(f"{left_out['vanishing']} diagrams vanish and have no row")
    for name, numbers in splits.items():
        if not len(numbers):
            reader = "evaluate.py" if name == "test" else "train.py"
            print(f"note: {folder}/{name}.csv is empty, and {reader} needs rows in it: "
                  f"more processes, another split, or a larger {name}_fraction")
    for kind, figures in kinds.items():
        if figures["rows"]:
            print(f"{folder}: {describe(kind, figures)}")
    print(summary)


def check_published(splits, missing, rows):
    """InputError where none of the rows is in the published split; a note where it is not complete."""
    found = sum(map(len, splits.values()))
    if not found:
        raise InputError(f"split: none of the {rows} rows is in the published split, which is of MARTY's public "
                         "QED 2->2 rows (docs/data.md says where they are)")
    if missing:
        print(f"note: {missing} rows of the published split are missing, so its published figures do not compare")
    if rows > found:
        print(f"{rows - found} rows are not in the published split, or stand more often than there, and were left out")


def describe(kind, figures):
    """One line about the rows of a kind."""
    crossed = ""
    if figures["crossed"]:
        crossed = f" ({figures['crossed']} of impossible decays: verified with a product crossed)"
    tokens = {name: figures[f"{name}_tokens"] for name in ("amp", "sqamp")}
    lengths = ", ".join(f"{name} {length['mean']} tokens (at most {length['max']})" for name, length in tokens.items())
    times = ", ".join(f"{name} {value:.2f}" for name, value in figures["ms_per_row_per_core"].items())
    return f"{kind}: {figures['rows']} rows{crossed}; {lengths}; CPU ms a row: {times}"


def clean_up(folder):
    """Remove the parts of a finished data set, and what killed runs left of half-written files."""
    shutil.rmtree(folder / ".parts", ignore_errors=True)
    for name in ("train.csv", "valid.csv", "test.csv", "manifest.json", "wrong.txt"):
        for stray in folder.glob(f".{name}.*"):
            stray.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------

def draw(text, theory, folder):
    """
    Draw all tree diagrams of a list of processes, with amplitude and square under each, one SVG sheet a process.
    InputError for too many diagrams, and for none.
    """
    counts = {process: count_diagrams(process, theory) for process in list_processes(text, theory)}
    total = sum(counts.values())
    if total > MOST_DRAWN:
        raise InputError(f"draw: '{text}' has {total:,} diagrams; at most {MOST_DRAWN:,} are drawn")
    if not total:
        raise InputError(f"draw: '{text}' has no tree diagram in {theory.name}")
    for process, count in counts.items():
        if not count:
            print(f"{process_text(process)}: no tree diagram in {theory.name}")
            continue
        path = folder / "diagrams" / f"{process_text(process).replace(' -> ', '_to_').replace(' ', '_')}.svg"
        with atomic_open(path) as file:
            file.write(sheet(process, theory))
        print(f"{path}: {count} diagram{'s' if count > 1 else ''}")


def check(settings):
    names = theory_names(settings.theory)
    if len(names) == 1:
        settings.theory = names[0]                           # without spaces around it
    if len(names) == 1 and not settings.input:
        find_theory(settings.theory)                         # raises for a file with errors
    if len(names) > 1 and settings.draw:
        raise InputError(f"draw: of one theory, such as --theory={names[0]}")
    if len(names) > 1 and settings.sample < 1:
        raise InputError("sample: got 0, wanted the most diagrams of each of several theories, such as --sample=60")
    if len(names) > 1 and most_diagrams(settings, names) > settings.max_diagrams:
        raise InputError(f"theory: {len(names):,} theories with up to {most_diagrams(settings, names):,} diagrams are "
                         f"more than max_diagrams={settings.max_diagrams:,}: a smaller --sample, or raise the limit")
    choices = {
        "split": (*SPLIT_BY, "published"), "style": tuple(physics.square.STYLES),
    }
    for key, known in choices.items():
        if getattr(settings, key) not in known:
            raise InputError(f"{key}: got '{getattr(settings, key)}', wanted {' or '.join(map(repr, known))}")
    fractions = settings.valid_fraction, settings.test_fraction
    if min(fractions) < 0 or sum(fractions) >= 1:
        raise InputError("valid_fraction and test_fraction: wanted at least 0 each and less than 1 together")
    for key, least in (("sample", 0), ("off_shell", 0), ("longest_amp", 0), ("longest_sqamp", 0), ("max_diagrams", 1)):
        if getattr(settings, key) < least:
            raise InputError(f"{key}: got {getattr(settings, key)}, wanted {least} or more")
    if settings.export and (settings.shard or settings.draw):
        raise InputError("export: of a whole data set; --shard and --draw make none")
    if settings.shard and settings.merge:
        raise InputError("shard and merge: one after the other, --shard=K/N for each K, then --merge")
    if not settings.input and not settings.processes.strip(" ;"):
        raise InputError(f"processes: '{settings.processes}' names no process of {settings.theory}")
    if not settings.input and (settings.split == "published" or settings.off_shell_marks):
        raise InputError("split='published' and off_shell_marks: of MARTY's rows in files, --input=FILE or files")
    if parse_masses(settings.masses) and not settings.input:
        raise InputError("masses: of particles in files, --input=FILE; rows made from processes have the theory's")


def facts_of(settings):
    """What the rows depend on, as a dictionary."""
    facts = {key: getattr(settings, key) for key in KEYS if key not in OF_ONE_RUN} | {"format": FORMAT}
    for name in ("masses", "off_shell_marks"):               # an older data set has no such setting, and is the same
        if not facts[name]:
            del facts[name]
    if settings.theory.endswith(".py") and not settings.input:
        facts["theory_sha256"] = digest(settings.theory)
    return facts | {"input_sha256": [digest(path) for path in file_names(settings.input)]}


def fingerprint(facts):
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def code_version():
    """Hash of the code that makes the rows: parts that another version made are not used."""
    here = Path(__file__).resolve().parent
    paths = [here / name for name in ("prepare.py", "tokenizer.py", "notation.py", "runtime/files.py")]
    paths += sorted(here.glob("dataset/*.py")) + sorted(here.glob("physics/*.py"))
    return fingerprint([digest(path) for path in paths] + [versions()])


def versions():
    found = {"python": platform.python_version()}
    for name in ("feyngraph", "form-bin", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:      # FORM may come from elsewhere, see physics/form.py
            found[name] = None
    return found


def is_complete(folder, facts):
    """Whether the data set is there, as it was written. InputError where another one, or a user's file, is there."""
    if not (folder / "manifest.json").exists():
        present = any((folder / f"{name}.csv").exists() for name in ("train", "valid", "test"))
        if present and not (folder / ".parts").exists():
            raise InputError(f"{folder} holds CSV files that this program did not finish; "
                             "name another --data_dir or delete them")
        return False
    manifest = read_json(folder / "manifest.json")
    needed = {"fingerprint", "settings", "sha256", "summary"}
    if not isinstance(manifest, dict) or not needed <= manifest.keys() or not isinstance(manifest["sha256"], dict):
        raise InputError(f"{folder}/manifest.json is damaged; delete that folder")
    if manifest["fingerprint"] != fingerprint(facts):
        raise InputError(f"{folder} holds a data set made with {difference(facts, manifest['settings'])}; "
                         "name another --data_dir or delete that folder")
    for name, known in manifest["sha256"].items():
        if not (folder / f"{name}.csv").exists() or digest(folder / f"{name}.csv") != known:
            raise InputError(f"{folder}/{name}.csv is not what this program wrote; "
                             "delete that folder to make the data set again")
    print(f"{folder} is complete already")
    print(manifest["summary"])
    clean_up(folder)
    return True


def main():
    settings = load_settings(__doc__, KEYS)
    settings.input = settings.input or settings.files
    check(settings)
    if settings.theory.endswith(".py") and not settings.input:           # what a user would say of these rows in a file
        settings.masses = masses_text(unknown_masses(find_theory(settings.theory)))
    if settings.export:
        claim(settings.export, *DATA)
    make(settings)
    if settings.export:
        export_data(settings.export, settings.data_dir)


def make(settings):
    started, folder = time.time(), Path(settings.data_dir)
    if settings.draw:
        return draw(settings.draw, find_theory(settings.theory), folder)
    shard, shards = parse_shard(settings.shard) if settings.shard else (1, 1)
    facts = facts_of(settings)
    # shards write beside each other, all else alone: a second program waits, and finds what the first has made
    with contextlib.nullcontext() if settings.shard else runs.held(folder, "data_dir", "makes a data set"):
        if not is_complete(folder, facts):
            make_parts(settings, folder, facts, shard, shards, started)


def make_parts(settings, folder, facts, shard, shards, started):
    """Make the parts of the data set, or those of a shard, and finish it if all are there."""
    with_code = facts | {"code": code_version()}
    parts = folder / ".parts" / fingerprint(with_code)
    plan = enumerate(plan_parts(settings))
    if settings.merge:
        count = sum(1 for _ in plan)
        require_parts(parts, with_code, count)
        return finish(folder, parts, count, facts, settings, started)

    if not settings.input:
        physics.form.executable()                            # raises where there is none
    first = next(plan, None)                                 # raises for wrong settings before anything is written
    open_folder(parts, with_code, shards)
    plan = itertools.chain([first] if first else [], plan)
    tasks = ((parts, number, part, settings) for number, part in plan if number % shards == shard - 1)
    count = asked = wrong = 0
    with tqdm(unit=" rows", disable=None) as progress:
        for size, reasons in parallel_map(make_part, tasks, settings.workers):
            progress.update(size)
            if not settings.input:                           # those of files are named at the end
                for reason in reasons[:max(SHOWN - wrong, 0)]:
                    progress.write(reason)
            count, asked, wrong = count + 1, asked + size, wrong + len(reasons)
    if wrong and not settings.input:
        raise InputError(f"{wrong} of {asked} rows are not squared or not verified; no data set was written, "
                         "and a new run tries these again")
    if settings.shard:
        print(f"shard {shard}/{shards}: {count} parts in {parts}, {wrong} rows wrong")
        return
    finish(folder, parts, count, facts, settings, started)


if __name__ == "__main__":
    main_guard(main)
