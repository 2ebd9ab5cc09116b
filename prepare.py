r"""Make a data set: theory -> processes -> diagrams -> amplitudes -> squares, every row verified, split, written as CSV.

    python prepare.py [config/file.py] [--key=value ...]
    python prepare.py config/qed.py --processes="e e~ -> mu mu~; e A -> e A"
    python prepare.py --input="FILE.csv.gz OTHER.txt" --data_dir=data/marty
    python prepare.py config/qed.py --draw="e A -> e A"       only draw the diagrams, as SVG, into data_dir/diagrams

`processes` is "2->2" for every process with so many legs, in every crossing and order of the legs, or a list of processes.
With `input` the rows come from files instead, CSV or MARTY's raw text: checked, those that are wrong named and kept out.
Writes train.csv, valid.csv, test.csv and manifest.json into data_dir. Work that was interrupted goes on where it stopped;
the same settings give the same CSV files, byte for byte, whatever the number of workers.
"""
import collections
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import random
import re
import shutil
import time
from pathlib import Path

from tqdm import tqdm

import physics.amplitude
import physics.square
from configurator import load_settings
from files import InputError, atomic_open, main_guard, read_rows, write_json, write_rows
from lookup import canonical_key, lookup_scores, template_key
from parallel import parallel_map
from physics.amplitude import parse_process, process_text
from physics.theory import THEORIES, conserved_charges
from verify import verify

KEYS = ["theory", "processes", "squares", "basis", "split", "valid_fraction", "test_fraction", "randomise_indices", "input", "draw", "data_dir", "seed", "workers"]
COLUMNS = ["process", "diagram", "theory", "template", "amp", "sqamp"]
CHUNK = 64                   # processes, or rows of a file, in one piece of work: one FORM program, one file of finished rows
SHOWN = 20                   # wrong rows named at the end
FORMAT = 2                   # of the data set; raise it when the same settings give other rows


# ---------------------------------------------------------------------------------------------------------------------
# Processes

def list_processes(text, theory):
    """Processes named by the setting `processes`, in a fixed order."""
    counts = re.fullmatch(r"\s*([1-9])\s*->\s*([1-9])\s*", text)
    if counts:
        return enumerate_processes(theory, int(counts[1]), int(counts[2]))
    return list(dict.fromkeys(parse_process(part, theory) for part in text.split(";") if part.strip()))


def enumerate_processes(theory, n_in, n_out):
    """All ordered (incoming, outgoing) with equal conserved charges; some of them have no diagram."""
    charges = conserved_charges(theory)

    def by_charge(n):
        table = collections.defaultdict(list)
        for names in itertools.product(theory.particles, repeat=n):
            table[tuple(round(float(x), 6) + 0.0 for x in sum(charges[name] for name in names))].append(names)
        return table

    incoming, outgoing = by_charge(n_in), by_charge(n_out)
    return [(before, after) for charge, group in incoming.items() for before in group for after in outgoing.get(charge, ())]


# ---------------------------------------------------------------------------------------------------------------------
# Rows

def make_rows(processes, theory_name, squares, basis, seed):
    """Rows of some processes, the reasons why any is not right, CPU seconds spent: {"rows": [...], "wrong": [...], "seconds": {...}}."""
    theory, clock = THEORIES[theory_name], [cpu_seconds()]
    rows = []
    for process in processes:
        drawn = [(" ".join(f"{p.particle().name()}({p.momentum_str()})" for p in diagram.propagators()),
                  physics.amplitude.amplitude(diagram, process, theory, squares == "process")) for diagram in physics.amplitude.diagrams(process, theory)]
        if squares == "process" and drawn:                   # one row: the sum of all diagrams
            names, amps = zip(*drawn)
            drawn = [(" + ".join(names), " + ".join(amps))]
        rows += [{"process": process_text(process), "diagram": name, "theory": theory_name, "amp": amp} for name, amp in drawn]
    clock.append(cpu_seconds())
    squared = physics.square.square_many([row["amp"] for row in rows], basis)
    clock.append(cpu_seconds())
    wrong = []
    for row, result in zip(rows, squared):
        row["sqamp"] = str(result)
        verdict = verify(row["amp"], row["sqamp"], seed)
        if not verdict:
            wrong.append(f"{row['process']} [{row['diagram']}]: {result if isinstance(result, InputError) else verdict.reason}")
    clock.append(cpu_seconds())
    seconds = dict(zip(("amplitudes", "squares", "verification"), (after - before for before, after in itertools.pairwise(clock))))
    return {"rows": rows, "wrong": wrong, "seconds": seconds}


def check_rows(rows, seed):
    """The same of rows (FILE:LINE, row) that were read from files: only the right ones are kept."""
    before, kept, wrong = cpu_seconds(), [], []
    for place, row in rows:
        verdict = verify(row["amp"], row["sqamp"], seed)
        if verdict:
            kept.append({column: row.get(column, "") for column in COLUMNS})
        else:
            wrong.append(f"{place}: {verdict.status}: {verdict.reason}")
    return {"rows": kept, "wrong": wrong, "seconds": {"verification": cpu_seconds() - before}}


def cpu_seconds():
    """CPU time of this process and of the FORM processes that it has waited for."""
    return sum(os.times()[:4])


def read_inputs(text):
    for path in text.split():
        for line, row in read_rows(path):
            yield f"{path}:{line}", row


def _work(task):
    path, function, *arguments = task
    if read_json(path) is None:
        write_json(path, function(*arguments))
    return len(arguments[0])


def read_json(path):
    """What the file holds; None where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def work(items, function, arguments, workers, folder):
    """function(chunk, *arguments) for every chunk of the items, in parallel; each answer is a file in `folder`, and chunks that are
    there already are not made again. Yields the answers in the order of the items."""
    def tasks():
        for k in itertools.count():
            chunk = list(itertools.islice(items, CHUNK))
            if not chunk:
                return
            yield folder / f"{k:06d}.json", function, chunk, *arguments

    items, count = iter(items), 0
    with tqdm(unit=" items", disable=None) as progress:
        for done in parallel_map(_work, tasks(), workers):
            progress.update(done)
            count += 1
    for k in range(count):
        yield read_json(folder / f"{k:06d}.json")


LABELS = {                   # what amplitude.py writes -> what MARTY draws from
    r"%\mu_": (r"%\mu_", r"%\nu_", r"%\rho_", r"%\sigma_", r"%\tau_", r"%\lambda_"),
    "%a_": ("%alpha_", "%beta_", "%gam_", "%del_", "%eps_", "%eta_"),
    "%C_": ("%A_", "%B_", "%C_", "%D_", "%E_", "%F_", "%G_", "%H_"),
    "%g_": ("%a_", "%b_", "%c_", "%d_", "%e_", "%f_", "%g_", "%h_"),
    "i_": ("i_", "j_", "k_", "l_"),
}
_INDEX = re.compile(r"(%\\?[A-Za-z]+_|(?<=\{)i_)(\d+)")


def randomise_indices(amp, seed):
    """The amplitude with other index names, drawn as MARTY's look; the same text and seed give the same names."""
    rng, names = random.Random(f"{seed} {amp}"), {}

    def rename(match):
        if match[0] not in names:
            while (name := f"{rng.choice(LABELS[match[1]])}{rng.randint(1, 99999)}") in names.values():
                pass
            names[match[0]] = name
        return names[match[0]]

    return _INDEX.sub(rename, amp)


# ---------------------------------------------------------------------------------------------------------------------
# Splits

def split_rows(rows, settings):
    """{"train": rows, "valid": rows, "test": rows}, drawn with the seed.

    "random": amplitude by amplitude. "template": rows that are equal up to particle and index names stay together, so that
    nothing like a test row was seen in training; whole templates are drawn until a split has its share.
    """
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["template"] if settings.split == "template" else canonical_key(row["amp"])].append(row)
    order = list(groups.values())
    random.Random(settings.seed).shuffle(order)
    splits = {"test": [], "valid": [], "train": []}
    for name, share in (("test", settings.test_fraction), ("valid", settings.valid_fraction)):
        while order and len(splits[name]) < round(share * len(rows)):
            splits[name] += order.pop()
    splits["train"] = [row for group in order for row in group]
    return {name: splits[name] for name in ("train", "valid", "test")}


# ---------------------------------------------------------------------------------------------------------------------

def draw(text, theory, folder):
    """One SVG sheet with all tree diagrams of each process of a list; prints the files."""
    for process in list_processes(text, theory):
        drawn = physics.amplitude.diagrams(process, theory)
        if not len(drawn):
            print(f"{process_text(process)}: no tree diagram in {theory.name}")
            continue
        path = folder / "diagrams" / f"{process_text(process).replace(' -> ', '_to_').replace(' ', '_')}.svg"
        with atomic_open(path) as file:
            file.write(drawn.draw(list(range(len(drawn)))))
        print(f"{path}: {len(drawn)} diagram{'s' * (len(drawn) > 1)}")


def check(settings):
    if settings.theory not in THEORIES:
        raise InputError(f"theory: got '{settings.theory}', wanted one of {', '.join(THEORIES)}")
    for key, known in (("split", ("random", "template")), ("squares", ("diagram", "process")), ("basis", ("all", "independent"))):
        if getattr(settings, key) not in known:
            raise InputError(f"{key}: got '{getattr(settings, key)}', wanted '{known[0]}' or '{known[1]}'")
    if not (settings.valid_fraction >= 0 and settings.test_fraction >= 0 and settings.valid_fraction + settings.test_fraction < 1):
        raise InputError("valid_fraction and test_fraction: wanted at least 0 each and less than 1 together")


def sha256_of(path):
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None


def fingerprint(settings):
    """What the rows depend on, as a dictionary, and its hash."""
    facts = {key: getattr(settings, key) for key in KEYS if key not in ("data_dir", "workers", "draw")} | {"format": FORMAT}
    facts["input_sha256"] = [sha256_of(path) for path in settings.input.split()]
    return facts, hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def main():
    settings = load_settings(__doc__, KEYS)
    check(settings)
    started, folder = time.time(), Path(settings.data_dir)
    if settings.draw:
        return draw(settings.draw, THEORIES[settings.theory], folder)
    facts, key = fingerprint(settings)
    manifest_path = folder / "manifest.json"
    if manifest_path.exists():
        manifest = read_json(manifest_path)
        if not isinstance(manifest, dict) or manifest.get("fingerprint") != key:
            raise InputError(f"{folder} holds a data set made with other settings; name another --data_dir or delete that folder")
        for name, digest in manifest["sha256"].items():
            if not (folder / f"{name}.csv").exists() or sha256_of(folder / f"{name}.csv") != digest:
                raise InputError(f"{folder}/{name}.csv is not what this program wrote; delete that folder to make the data set again")
        print(f"{folder} is complete already")
        print(manifest["summary"])
        return
    parts = folder / ".parts" / key
    if not parts.exists() and any((folder / f"{name}.csv").exists() for name in ("train", "valid", "test")):
        raise InputError(f"{folder} holds CSV files that this program did not finish; name another --data_dir or delete them")

    if settings.input:
        items, function, arguments = read_inputs(settings.input), check_rows, (settings.seed,)
    else:
        items = list_processes(settings.processes, THEORIES[settings.theory])
        if not items:
            raise InputError(f"processes: '{settings.processes}' names no process of {settings.theory}")
        function, arguments = make_rows, (settings.theory, settings.squares, settings.basis, settings.seed)
    parts.mkdir(parents=True, exist_ok=True)
    rows, wrong, seconds, seen = [], [], collections.Counter(), set()
    made = 0
    for chunk in work(items, function, arguments, settings.workers, parts):
        wrong += chunk["wrong"]
        seconds.update(chunk["seconds"])
        made += len(chunk["rows"])
        for row in chunk["rows"]:
            same = canonical_key(row["amp"]), settings.input and row["sqamp"]
            if same not in seen:                             # equal up to index names
                seen.add(same)
                row["template"] = hashlib.sha256(template_key(row["amp"]).encode()).hexdigest()[:12]
                if settings.randomise_indices and not settings.input:
                    row["amp"] = randomise_indices(row["amp"], settings.seed)
                rows.append(row)
    print(*wrong[:SHOWN], sep="\n", end="\n" if wrong else "")
    if wrong and not settings.input:
        raise InputError(f"{len(wrong)} of {made} rows are not verified; nothing was written")
    if wrong:
        print(f"{len(wrong)} rows are wrong or unreadable and were kept out")
    if not rows:
        raise InputError(f"{settings.input}: no row is right" if settings.input else
                         f"processes: none of '{settings.processes}' has a tree diagram in {settings.theory}")

    splits = split_rows(rows, settings)
    for name, part in splits.items():
        write_rows(folder / f"{name}.csv", COLUMNS, part)
    summary = f"{len(rows)} rows: {', '.join(f'{len(part)} {name}' for name, part in splits.items())}, all verified"
    write_json(manifest_path, {
        "fingerprint": key, "summary": summary, "settings": facts,
        "rows": {name: len(part) for name, part in splits.items()}, "verified": len(rows),
        "processes": len({row["process"] for row in rows}), "templates": len({row["template"] for row in rows}),
        "duplicates_removed": made - len(rows), "wrong": len(wrong),
        "lookup_accuracy": lookup_scores(splits["train"], splits["test"]),
        "ms_per_row_per_core": {name: round(1000 * value / made, 4) for name, value in seconds.items()},
        "wall_seconds": round(time.time() - started, 2), "workers": settings.workers or os.cpu_count(),
        "sha256": {name: sha256_of(folder / f"{name}.csv") for name in splits},
        "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in ("feyngraph", "form-bin", "numpy")}},
    })
    shutil.rmtree(folder / ".parts")
    if made > len(rows):
        print(f"{made - len(rows)} rows stand twice and were left out")
    for name, part in splits.items():
        if not part:
            print(f"note: {folder}/{name}.csv is empty, and train.py needs rows in it: more processes, or a larger {name}_fraction")
    print(f"{folder}: CPU time a row: {', '.join(f'{name} {1000 * value / made:.2f} ms' for name, value in seconds.items())}")
    print(summary)


if __name__ == "__main__":
    main_guard(main)
