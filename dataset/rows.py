"""Rows of a data set: made from processes or checked as they come from files, all of them verified."""
import hashlib
import itertools
import os
import random
import re

import physics.amplitude
import physics.square
from dataset.baseline import canonical_key, kinematics_key, orbit_key, template_key
from dataset.published import off_shell_legs, row_key
from physics.amplitude import process_text, propagators_text
from physics.expression import marked_off_shell
from physics.numeric import verify
from physics.particles import Facts, parse_masses, unknown_masses
from physics.processes import off_shell_choices
from physics.theories import find_theory
from runtime.files import InputError
from tokenizer import amp_tokens, sqamp_tokens

COLUMNS = ["process", "diagram", "theory", "template", "orbit", "amp", "sqamp"]


def make_rows(processes, theory_name, squares, basis, seed, style="factored", off_shell=0, longest=(0, 0)):
    """
    Rows of some processes: {"rows": the right ones, "wrong": reasons why others are not, "left_out": {"amp": number of
    rows with too long an amplitude, "sqamp": with too long a square, "vanishing": of diagrams that are zero, if there
    are any}, "seconds": CPU time of each stage}.

    off_shell: at most this many legs are off their mass shell, in every choice of them that momenta allow.
    longest: most tokens of an amplitude and of a square, without those at start and end; 0: no limit.
    """
    theory, clock = find_theory(theory_name), [cpu_seconds()]
    rows, wrong, left_out = [], [], {"amp": 0, "sqamp": 0}
    for process in processes:
        diagrams = list(physics.amplitude.diagrams(process, theory))
        for off in off_shell_choices(process, off_shell, theory):
            mark = f" off shell: {' '.join(map(str, off))}" if off else ""
            named = []
            for diagram in diagrams:
                amp = physics.amplitude.amplitude(diagram, process, theory, squares == "process", off)
                named.append((propagators_text(diagram) + mark, amp))
            if squares == "process" and named:               # one row: the sum of all diagrams that do not vanish
                named = [pair for pair in named if pair[1] != "0"] or named[:1]
                names, amps = zip(*named)
                named = [(" + ".join(names), " + ".join(amps))]
            for name, amp in named:
                if amp == "0":
                    left_out["vanishing"] = left_out.get("vanishing", 0) + 1
                elif too_long(amp_tokens(amp)[0], longest[0]):
                    left_out["amp"] += 1
                else:
                    rows.append({"process": process_text(process), "diagram": name, "theory": theory.name, "amp": amp})
    clock.append(cpu_seconds())
    masses = unknown_masses(theory)
    facts = [Facts(row["process"], masses) for row in rows]
    squared = physics.square.square_many([row["amp"] for row in rows], basis, style, facts=facts)
    clock.append(cpu_seconds())
    kept = []
    for row, sqamp, known in zip(rows, squared, facts):
        where = f"{row['process']} [{row['diagram']}]"
        if isinstance(sqamp, InputError):
            wrong.append(f"{where}: not squared: {sqamp}")
        elif too_long(sqamp_tokens(sqamp), longest[1]):
            left_out["sqamp"] += 1
        elif verdict := verify(row["amp"], sqamp, seed, facts=known):
            kept.append(row | {"sqamp": sqamp, "crossed": int(verdict.crossed)})
        else:
            wrong.append(f"{where}: {verdict.status}: {verdict.reason}")
    clock.append(cpu_seconds())
    stages = ("amplitudes", "squares", "verification")
    seconds = {stage: after - before for stage, (before, after) in zip(stages, itertools.pairwise(clock))}
    return {"rows": kept, "wrong": wrong, "left_out": left_out, "seconds": seconds}


def check_rows(rows, seed, longest, masses=(), off_shell_marks=False):
    """
    The same of rows from files.

    rows: (path, line number, row), or the reason instead of the row of a bad line, as read_files yields them.
    masses: what the user says about the particles, see physics/particles.py. The rows' process column is believed.
    off_shell_marks: mark the legs in the amplitude that the column `diagram` says are off their mass shells.
    """
    before, kept, wrong, left_out = cpu_seconds(), [], [], {"amp": 0, "sqamp": 0}
    for path, line, row in rows:
        if isinstance(row, str):
            wrong.append(f"{path}:{line}: unreadable: {row}")
            continue
        if off_shell_marks:
            if not row.get("diagram"):
                wrong.append(f"{path}:{line}: unreadable: no column 'diagram', which off_shell_marks needs")
                continue
            if "_off" not in row["amp"]:
                row["amp"] = marked_off_shell(row["amp"], off_shell_legs(row))
        verdict = verify(row["amp"], row["sqamp"], seed, facts=Facts(row.get("process", ""), masses))
        if not verdict:
            wrong.append(f"{path}:{line}: {verdict.status}: {verdict.reason}")
            continue
        try:
            amp, square = amp_tokens(row["amp"])[0], sqamp_tokens(row["sqamp"])
        except InputError as error:                          # right, but spelled as no model of ours can read it
            wrong.append(f"{path}:{line}: no tokens: {error}")
            continue
        if too_long(amp, longest[0]):
            left_out["amp"] += 1
        elif too_long(square, longest[1]):
            left_out["sqamp"] += 1
        else:
            texts = {column: re.sub(r"[\r\n]+", " ", row.get(column, "")) for column in COLUMNS}
            kept.append(texts | {"crossed": int(verdict.crossed)})
    return {"rows": kept, "wrong": wrong, "left_out": left_out, "seconds": {"verification": cpu_seconds() - before}}


def too_long(tokens, most):
    return 0 < most < len(tokens)


def cpu_seconds():
    """CPU time of this process and of the FORM processes that it has waited for."""
    return sum(os.times()[:4])


# ---------------------------------------------------------------------------------------------------------------------
# Keys and index names

def add_keys(row, settings):
    """Add to a row what the splits need: hashes of its keys (see dataset/baseline.py) and its lengths in tokens."""
    amp = row["amp"]
    masses = parse_masses(settings.masses)
    template = template_key(amp, masses)
    exact = canonical_key(amp)
    row["template"] = hashlib.sha256(template.encode()).hexdigest()[:12]
    same = f"{exact} {row['sqamp']}" if settings.input else exact        # rows of files may differ in the square alone
    row["orbit"] = orbit_key(row, masses)
    kinematics = kinematics_key(amp, masses)
    keys = same, exact, template, kinematics, row["orbit"] or kinematics             # finer, where no orbit is known
    row["keys"] = list(map(hash64, keys))
    if settings.split == "published":
        row["keys"][0] = row_key(re.sub(r"_off(?!\w)", "", amp), row["sqamp"], off_shell_legs(row))
    row["tokens"] = [len(amp_tokens(amp)[0]), len(sqamp_tokens(row["sqamp"]))]
    if settings.randomise_indices and not settings.input:
        row["amp"] = randomise_indices(amp, settings.seed)


def hash64(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


LABELS = {                   # index names of amplitude.py -> names that MARTY chooses from
    r"%\mu_": (r"%\mu_", r"%\nu_", r"%\rho_", r"%\sigma_", r"%\tau_", r"%\lambda_"),
    "%a_": ("%alpha_", "%beta_", "%gam_", "%del_", "%eps_", "%eta_"),
    "%C_": ("%A_", "%B_", "%C_", "%D_", "%E_", "%F_", "%G_", "%H_"),
    "%g_": ("%a_", "%b_", "%c_", "%d_", "%e_", "%f_", "%g_", "%h_"),
    "i_": ("i_", "j_", "k_", "l_"),
}
_INDEX = re.compile(r"(%\\?[A-Za-z]+_|(?<=\{)i_)(\d+)")


def randomise_indices(amp, seed):
    """The amplitude with random index names that look like MARTY's; the same text and seed give the same names."""
    rng, names = random.Random(f"{seed} {amp}"), {}

    def rename(match):
        if match[0] not in names:
            while (name := f"{rng.choice(LABELS[match[1]])}{rng.randint(1, 99999)}") in names.values():
                pass
            names[match[0]] = name
        return names[match[0]]

    return _INDEX.sub(rename, amp)
