"""Rows of a data set: made from processes or checked as they come from files, all of them verified."""
import hashlib
import itertools
import os
import random
import re

import physics.amplitude
import physics.square
from dataset.baseline import canonical_key, kinematics_key, template_key
from physics.amplitude import process_text
from physics.numeric import verify
from physics.processes import off_shell_choices
from physics.theory import THEORIES
from runtime.files import InputError
from tokenizer import amp_tokens, sqamp_tokens

COLUMNS = ["process", "diagram", "theory", "template", "amp", "sqamp"]


def make_rows(processes, theory_name, squares, basis, seed, style="factored", off_shell=0, longest=(0, 0)):
    """Rows of some processes that are right, the reasons why others are not, how many were too long, CPU seconds spent:
    {"rows": [...], "wrong": [...], "left_out": {"amp": 0, "sqamp": 0}, "seconds": {...}}.

    off_shell: up to so many legs are off their mass shell, in every choice of them that momenta allow.
    longest: most tokens of an amplitude and of a square, without those at start and end; 0: no limit. An amplitude that is too long
    is not squared, a square that is too long not verified.
    """
    theory, clock = THEORIES[theory_name], [cpu_seconds()]
    rows, wrong, left_out = [], [], {"amp": 0, "sqamp": 0}
    for process in processes:
        diagrams = list(physics.amplitude.diagrams(process, theory))
        for off in off_shell_choices(process, off_shell, theory):
            mark = f" off shell: {' '.join(map(str, off))}" * bool(off)
            drawn = [(" ".join(f"{p.particle().name()}({p.momentum_str()})" for p in diagram.propagators()) + mark,
                      physics.amplitude.amplitude(diagram, process, theory, squares == "process", off)) for diagram in diagrams]
            if squares == "process" and drawn:               # one row: the sum of all diagrams
                names, amps = zip(*drawn)
                drawn = [(" + ".join(names), " + ".join(amps))]
            for name, amp in drawn:
                if too_long(amp_tokens(amp)[0], longest[0]):
                    left_out["amp"] += 1
                else:
                    rows.append({"process": process_text(process), "diagram": name, "theory": theory_name, "amp": amp})
    clock.append(cpu_seconds())
    squared = physics.square.square_many([row["amp"] for row in rows], basis, style)
    clock.append(cpu_seconds())
    kept = []
    for row, sqamp in zip(rows, squared):
        where = f"{row['process']} [{row['diagram']}]"
        if isinstance(sqamp, InputError):
            wrong.append(f"{where}: not squared: {sqamp}")
        elif too_long(sqamp_tokens(sqamp), longest[1]):
            left_out["sqamp"] += 1
        elif verdict := verify(row["amp"], sqamp, seed):
            kept.append(row | {"sqamp": sqamp, "crossed": int(verdict.crossed)})
        else:
            wrong.append(f"{where}: {verdict.status}: {verdict.reason}")
    clock.append(cpu_seconds())
    seconds = dict(zip(("amplitudes", "squares", "verification"), (after - before for before, after in itertools.pairwise(clock))))
    return {"rows": kept, "wrong": wrong, "left_out": left_out, "seconds": seconds}


def check_rows(rows, seed, longest):
    """The same of rows (FILE:LINE, row) that were read from files: only the right ones are kept."""
    before, kept, wrong, left_out = cpu_seconds(), [], [], {"amp": 0, "sqamp": 0}
    for place, row in rows:
        verdict = verify(row["amp"], row["sqamp"], seed)
        if not verdict:
            wrong.append(f"{place}: {verdict.status}: {verdict.reason}")
            continue
        if too_long(amp_tokens(row["amp"])[0], longest[0]):
            left_out["amp"] += 1
        elif too_long(sqamp_tokens(row["sqamp"]), longest[1]):
            left_out["sqamp"] += 1
        else:
            kept.append({column: row.get(column, "") for column in COLUMNS} | {"crossed": int(verdict.crossed)})
    return {"rows": kept, "wrong": wrong, "left_out": left_out, "seconds": {"verification": cpu_seconds() - before}}


def too_long(tokens, most):
    return 0 < most < len(tokens)


def cpu_seconds():
    """CPU time of this process and of the FORM processes that it has waited for."""
    return sum(os.times()[:4])


# ---------------------------------------------------------------------------------------------------------------------
# Keys and index names

def add_keys(row, settings):
    """What the splits need to know of a row: hashes of what counts as the same, lengths in tokens."""
    amp = row["amp"]
    template = template_key(amp)
    exact = canonical_key(amp)
    row["template"] = hashlib.sha256(template.encode()).hexdigest()[:12]
    same = f"{exact} {row['sqamp']}" if settings.input else exact        # a row of a file may differ from another in its square alone
    row["keys"] = [hash64(same), hash64(exact), hash64(template), hash64(kinematics_key(amp))]
    row["tokens"] = [len(amp_tokens(amp)[0]), len(sqamp_tokens(row["sqamp"]))]
    if settings.randomise_indices and not settings.input:
        row["amp"] = randomise_indices(amp, settings.seed)


def hash64(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


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
