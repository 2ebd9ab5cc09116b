"""Files of the field, and bug reports about them: each with the verdict that the facts in it allow."""
import collections
import random
import re

import pytest
from conftest import MARTY
from test_verify import command

from dataset.reader import read_files
from physics.exact import prove
from physics.expression import epsilon_legs, names_in, parse
from physics.numeric import verify
from physics.particles import Facts, parse_masses
from physics.square import square
from runtime.files import InputError

CASES = MARTY.parent / "cases"
RIGHT = {
    "W-W-final.csv": 1, "big-cancellation.csv": 1, "float.csv": 2, "generator-T_C_6.csv": 1,
    "leading-blank-line.txt": 1, "marty-1to2.csv": 54, "no-percent.csv": 2, "no-spaces.csv": 2, "outer-spaces.csv": 2,
    "public-INDEX-rows.csv": 2, "s_41-order.csv": 1, "scalar-named-A.csv": 2, "semicolon.csv": 2, "starstar.csv": 2,
    "zero-by-chirality.csv": 1,
}
UNTIL_SAID = {  # rows that miss a mass: (what the reason says, the setting with which they are right)
    "gluon-A_C.csv": ('--masses="A_C=m", or "A_C=0"', "A_C=0"),
    "mass-named-m.csv": ('--masses="e=M" or --masses="mu=M"', "e=m mu=M"),
    "weyl-names.csv": ('--masses="e_L=m"', "e_L=m_e mu_R=m_mu"),
}
UNREADABLE = {  # (numbers of the lines, what the reason says)
    "sympy-I.csv": ((2, 3), "expected i, the imaginary unit"),
    "sympy-I-false-right.csv": ((2,), "expected i, the imaginary unit"),
    "trailing-comma.csv": ((2, 3), "3 cells, the header has 2"),
}
REFUSED = {"duplicate-column.csv": "the column 'amp' stands there more than once", "headerless.csv": "no header"}
OTHERS = {"marty-error-line.txt", "epsilon-i.amp.txt"}


def path_of(name):
    if not (CASES / name).is_file():
        pytest.skip("no cases beside this repository")
    return CASES / name


def judged(path, masses=""):
    """[(line number, status, reason, row)] of a file, as verify.py reads and judges it."""
    verdicts = []
    for _, line, row in read_files([path]):
        if isinstance(row, str):
            verdicts.append((line, "unreadable", row, None))
        else:
            facts = Facts(row.get("process", ""), parse_masses(masses))
            verdicts.append((line, *verify(row["amp"], row["sqamp"], facts=facts)[:2], row))
    return verdicts


def statuses(verdicts):
    return collections.Counter(status for _, status, *_ in verdicts)


def test_every_case_has_its_verdict_here():
    names = [path.name for path in CASES.glob("*")]
    assert not names or sorted(names) == sorted({*RIGHT, *UNTIL_SAID, *UNREADABLE, *REFUSED, *OTHERS})


@pytest.mark.parametrize("name", RIGHT)
def test_right(name):
    verdicts = judged(path_of(name))
    assert statuses(verdicts) == {"right": RIGHT[name]}, verdicts
    rng = random.Random(1)
    for _, _, _, row in rng.sample(verdicts, min(3, len(verdicts))):
        facts = Facts(row.get("process", ""))
        assert prove(row["amp"], row["sqamp"], facts=facts)
        assert verify(row["amp"], f"{row['sqamp']} + 1/7*e^4", facts=facts).status in ("wrong", "unreadable")
        wrong = f"{row['sqamp']} + 1/10^8" if row["sqamp"] == "0" else f"(1 + 1/10^8)*({row['sqamp']})"
        verdict = verify(row["amp"], wrong, facts=facts)
        assert verdict.status == "wrong" or "a massless particle cannot decay" in verdict.reason


@pytest.mark.parametrize("name", UNTIL_SAID)
def test_unreadable_until_the_masses_are_said(name):
    hint, masses = UNTIL_SAID[name]
    for line, status, reason, _ in judged(path_of(name)):
        assert (line, status) == (2, "unreadable") and hint in reason
    assert statuses(judged(path_of(name), masses)) == {"right": 1}
    wrong = " ".join(f"{particle}=m_other" for particle, _ in parse_masses(masses))
    assert "right" not in statuses(judged(path_of(name), wrong))


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_with_line_and_reason(name):
    lines, hint = UNREADABLE[name]
    verdicts = judged(path_of(name))
    assert tuple(line for line, *_ in verdicts) == lines
    assert all(status == "unreadable" and hint in reason for _, status, reason, _ in verdicts)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name):
    path = path_of(name)
    with pytest.raises(InputError, match=REFUSED[name]) as error:
        judged(path)
    assert str(error.value).startswith(f"{path}:1: ") and "\n" not in str(error.value)


def test_an_error_message_between_the_rows_is_named_and_the_rows_are_judged():
    verdicts = judged(path_of("marty-error-line.txt"))
    assert statuses(verdicts) == {"right": 18, "unreadable": 1}
    assert [line for line, status, *_ in verdicts if status == "unreadable"] == [6]


@pytest.mark.parametrize("name", ["marty-error-line.txt", "weyl-names.csv", "headerless.csv"])
def test_the_command_says_the_same(name):
    done = command(path_of(name), "--workers=1")
    last = (done.stdout.splitlines() or [""])[-1]
    expected = {"marty-error-line.txt": (1, "18 right, 0 wrong, 1 unreadable"),
                "weyl-names.csv": (1, "0 right, 0 wrong, 1 unreadable"), "headerless.csv": (2, "")}
    assert (done.returncode, last) == expected[name] and "Traceback" not in done.stderr


def test_an_epsilon_tensor_is_squared_and_verified_and_missed():
    amp = path_of("epsilon-i.amp.txt").read_text().strip()
    facts = Facts("nu_e nu_e~ -> h S X", parse_masses("h=m_h S=m_S X=m_X"))
    sqamp = square(amp, facts=facts)
    epsilons = [name for name in names_in(parse(sqamp)) if epsilon_legs(name)]
    assert epsilons and verify(amp, sqamp, facts=facts) and prove(amp, sqamp, facts=facts)
    without = re.sub("|".join(map(re.escape, epsilons)), "0", sqamp)
    for wrong in (without, f"2*({sqamp}) - ({without})"):
        assert verify(amp, wrong, facts=facts).status == "wrong" and not prove(amp, wrong, facts=facts)
    assert verify(amp, sqamp).status == "unreadable"  # whose masses h, S and X have nobody says
