"""
Crash-safe shards of intermediate results: part files that are complete or not there, so that a killed run is resumed.

A part file holds one JSON object a line: first a header with the key of the data set, the number of the part and the
SHA-256 of all that follows, then the rows. The parts of one data set lie in one folder. Shard 3/16 consists of the
parts 2, 18, 34, ..., counted from 0.
"""
import hashlib
import itertools
import json
import re
from pathlib import Path

from runtime.files import InputError, atomic_open, write_json

NAMED = 5                    # broken parts that a message names for each shard


def parse_shard(text):
    """'3/16' as (3, 16). Raises InputError."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"shard: got '{text}', wanted K/N with K from 1 to N, such as 3/16")
    return int(match[1]), int(match[2])


def open_folder(folder, facts, shards):
    """
    Make or find the folder of the parts, store the facts there, and print it if parts of other settings lie beside it.

    facts: the settings and the code version that the parts depend on. shards: their number, 1 without shards.
    Raises InputError where the parts are being made in another number of shards.
    """
    others = [other for other in sorted(folder.parent.glob("*/facts.json")) if other.parent != folder]
    if others and not (folder / "facts.json").exists():
        before = difference(facts, read_json(others[-1]))
        print(f"{folder.parent.parent}: begun with {before}; that work is not used, starting anew")
    write_json(folder / "facts.json", facts)
    known = shards_of(folder)
    if known not in (1, shards):
        raise InputError(f"shard: {folder.parent.parent} is being made in {known} shards, not in {shards}; "
                         "go on with these, or name another --data_dir")
    if shards > 1:
        write_json(folder / "shards.json", {"shards": shards})


def shards_of(folder):
    """The number of shards in which the parts are being made; 1 if none is stored."""
    stored = read_json(folder / "shards.json")
    return stored["shards"] if isinstance(stored, dict) and isinstance(stored.get("shards"), int) else 1


def difference(facts, others):
    """The settings in which two sets of facts differ, as text."""
    others = others if isinstance(others, dict) else {}
    changed = []
    for name in dict.fromkeys([*facts, *others]):
        if name != "code" and facts.get(name) != others.get(name):
            changed.append(f"{name}={others.get(name)!r} (now {facts.get(name)!r})")
    return "other settings: " + ", ".join(changed) if changed else "another version of this program"


def part_path(folder, number):
    return folder / f"{number:06d}.part"


def write_part(folder, number, header, rows):
    """Write a part, atomically. header: what else its first line tells; rows: dictionaries."""
    body = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    identity = {"key": folder.name, "part": number, "rows": len(rows), "sha256": hashlib.sha256(body).hexdigest()}
    header = identity | header
    with atomic_open(part_path(folder, number), "wb") as file:
        file.write(json.dumps(header, ensure_ascii=False).encode() + b"\n")
        file.write(body)


def read_part(folder, number):
    """(header, [(offset in the file, row), ...]) of a part, or (None, fault): 'missing', 'damaged' or 'foreign'."""
    try:
        head, _, body = part_path(folder, number).read_bytes().partition(b"\n")
        header = json.loads(head)
        if (header["key"], header["part"]) != (folder.name, number):
            return None, "foreign"
        if hashlib.sha256(body).hexdigest() != header["sha256"]:
            return None, "damaged"
    except FileNotFoundError:
        return None, "missing"
    except (OSError, ValueError, KeyError, TypeError):
        return None, "damaged"
    lines = body.splitlines(keepends=True)
    offsets = itertools.accumulate(map(len, lines), initial=len(head) + 1)
    return header, [(offset, json.loads(line)) for offset, line in zip(offsets, lines)]


def read_row(folder, number, offset):
    """One row of a part, at an offset that read_part told."""
    with open(part_path(folder, number), "rb") as file:
        file.seek(offset)
        return json.loads(file.readline())


def require_parts(folder, facts, count):
    """Raise an InputError that names every shard, or part, that is missing, damaged or foreign among `count` parts."""
    if not (folder / "facts.json").exists():
        others = [difference(facts, read_json(path)) for path in sorted(folder.parent.glob("*/facts.json"))]
        raise InputError(f"{folder.parent.parent}: no shards made with these settings"
                         + "".join(f"; there are some with {other}" for other in others[:1]))
    shards, broken = shards_of(folder), {}
    for number in range(count):
        header, reason = read_part(folder, number)
        if header is None:
            broken.setdefault(number % shards, {}).setdefault(reason, []).append(number)
    extra = [path.name for path in sorted(folder.glob("*.part")) if path.stem.isdigit() and int(path.stem) >= count]
    faults = []
    for shard, reasons in sorted(broken.items()):
        where = f"shard {shard + 1}/{shards}" if shards > 1 else "no shards"
        for reason, numbers in reasons.items():
            names = ", ".join(part_path(Path(), number).name for number in numbers[:NAMED])
            if len(numbers) == len(range(shard, count, shards)):
                faults.append(f"{where}: all its parts {reason}")
            elif len(numbers) > NAMED:
                faults.append(f"{where}: part {names} {reason} and {len(numbers) - NAMED} more")
            else:
                faults.append(f"{where}: part {names} {reason}")
    if extra:
        faults.append(f"{', '.join(extra[:NAMED])} foreign: there are only {count} parts")
    if faults:
        raise InputError(f"{folder}: {'; '.join(faults)}. "
                         "Make these shards again (parts that are right are kept), then merge")


def read_json(path):
    """The content of a JSON file; None where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
