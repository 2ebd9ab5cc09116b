import random
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from exact import equal
from fuzz import mutants

from dataset.reader import read_rows
from physics import matrices
from physics import numeric as judge
from physics.amplitude import amplitudes, parse_process
from physics.expression import expand, legs_of, parse
from physics.matrices import read_amplitude
from physics.numeric import verify
from physics.particles import roles_of
from physics.square import square
from physics.theory import THEORIES

ELECTRON_MUON = (
    r"1/2*i*e^2*gamma_{+%\mu_1,%a_1,%a_2}*gamma_{%\mu_1,%a_3,%a_4}*e_{i_2,%a_1}(p_2)_v^(*)*e_{i_1,%a_2}(p_1)_u"
    r"*mu_{i_3,%a_3}(p_3)_u^(*)*mu_{i_4,%a_4}(p_4)_v/(m_e^2 + s_12 + 1/2*reg_prop)"
)
SQUARE = (
    "1/4*e^4*(16*m_e^2*m_mu^2 + 8*m_mu^2*s_12 + 8*s_14*s_23 + 8*s_13*s_24 + 8*m_e^2*s_34)"
    "*(m_e^2 + s_12 + 1/2*reg_prop)^(-2)"
)  # MARTY's, and Peskin & Schroeder (5.10) with the electron's mass kept


# -- the judge's own parts against definitions


def test_dirac_matrices_obey_their_algebra():
    for mu in range(4):
        for nu in range(4):
            anticommutator = (
                matrices.GAMMA_UP[mu] @ matrices.GAMMA_UP[nu] + matrices.GAMMA_UP[nu] @ matrices.GAMMA_UP[mu]
            )
            assert np.allclose(anticommutator, 2 * matrices.METRIC[mu, nu] * np.eye(4))
    assert np.allclose(matrices.GAMMA_5 @ matrices.GAMMA_5, np.eye(4))
    assert np.allclose(matrices.CHIRAL["P_L"] @ matrices.CHIRAL["P_R"], 0)


def test_colour_matrices_generate_su3():
    t = matrices.COLOUR
    assert np.allclose(np.einsum("aij,bji->ab", t, t), np.eye(8) / 2)  # tr TaTb = 1/2
    assert np.allclose(np.einsum("aij,ajk->ik", t, t), 4 / 3 * np.eye(3))  # C_F
    assert np.allclose(np.einsum("aij,bjk,akl,bli->", t, t, t, t), -2 / 3)
    assert np.allclose(t, t.conj().swapaxes(1, 2))


@pytest.mark.parametrize("process", ["e e~ -> mu mu~", "A mu -> A mu", "e e~ -> mu mu~ A", "e e -> e e A"])
def test_random_momenta_are_physical(process):
    names = process.split()
    fields = read_amplitude(amplitudes(parse_process(process, THEORIES["qed"]), THEORIES["qed"])[0]).fields
    values, momenta = judge.random_point(fields, roles_of(fields, {"e"}), {"e"}, np.random.default_rng(5), 50)
    n_in = names.index("->")
    assert np.allclose(momenta[:n_in].sum(0), momenta[n_in:].sum(0))
    assert (momenta[..., 0] > 0).all()
    for field, momentum in zip(fields, momenta):
        mass = 0 if field.name == "A" else values["m_" + field.name]
        assert np.allclose(momentum**2 @ matrices.METRIC.diagonal(), mass**2)


def test_momenta_leave_the_mass_shell_where_the_text_says_so():
    fields = read_amplitude(ELECTRON_MUON).fields
    values, momenta = judge.random_point(fields, roles_of(fields, {"s_33"}), {"s_33"}, np.random.default_rng(5), 50)
    squares = momenta**2 @ matrices.METRIC.diagonal()
    assert np.allclose(squares[[0, 1, 3]], [values["m_e"] ** 2, values["m_e"] ** 2, values["m_mu"] ** 2])
    assert np.allclose(squares[2], values["s_33"]) and not np.isclose(squares[2], values["m_mu"] ** 2).any()


# -- verdicts


def test_a_right_row_and_its_respelling_are_right():
    assert verify(ELECTRON_MUON, SQUARE)
    assert verify(ELECTRON_MUON, SQUARE.replace("1/4*e^4*(16*", "2*e^4*(2*").replace("8*", ""))
    # p_1 . p_4 = p_2 . p_3 on the shell for equal masses in each pair
    assert verify(ELECTRON_MUON, SQUARE.replace("s_14*s_23", "s_14^2").replace("s_13*s_24", "s_13^2"))


@pytest.mark.parametrize(
    "old, new",
    [
        ("16*m_e", "-16*m_e"),
        ("1/4*", "1/2*"),
        ("^(-2)", "^(-1)"),
        ("s_14*s_23", "s_12*s_23"),
        ("8*m_mu^2*s_12 + ", ""),
        ("8*m_mu^2*s_12", "8*m_e^2*s_12"),
        ("e^4", "e^2"),
        ("reg_prop", "2*reg_prop"),
    ],
)
def test_a_mutated_row_is_wrong_and_both_values_are_told(old, new):
    verdict = verify(ELECTRON_MUON, SQUARE.replace(old, new, 1))
    assert verdict.status == "wrong" and "the amplitude gives" in verdict.reason and "sqamp gives" in verdict.reason
    assert float(re.search("the amplitude gives ([^,]+),", verdict.reason)[1]) > 0


@pytest.mark.parametrize(
    "amp, sqamp, reason",
    [
        (ELECTRON_MUON, "e^4*(", "column 6"),
        (ELECTRON_MUON[:-5], SQUARE, "column"),
        (ELECTRON_MUON, "", "column 1"),
        (ELECTRON_MUON, "s_15", "no leg carries"),
        (ELECTRON_MUON, "p_1_%a", "where a number is expected"),
        (ELECTRON_MUON.replace("gamma_{%", "gimma_{%"), SQUARE, "unknown tensor gimma"),
        (ELECTRON_MUON.replace("%a_4", "%a_5", 1), SQUARE, "occurs 1 times"),
        (ELECTRON_MUON, "s_12^9999", "exponent"),
        ("2*e^2", SQUARE, "no external legs"),
        (ELECTRON_MUON, "9^9^9^9", "exponent"),
        (ELECTRON_MUON, "1/0", "division"),
    ],
)
def test_what_cannot_be_read_is_unreadable_and_says_why(amp, sqamp, reason):
    verdict = verify(amp, sqamp)
    assert verdict.status == "unreadable" and reason in verdict.reason


@pytest.mark.parametrize("process", ["G G -> u u~", "u d -> u d"])
def test_an_index_of_two_kinds_is_unreadable(process):
    """Each tensor in turn becomes one with indices of other kinds."""
    amp = amplitudes(parse_process(process, THEORIES["qcd"]), THEORIES["qcd"])[-1]
    for old, new in (("T_C_10_{", "gamma_{"), ("gamma_{", "T_C_10_{"), ("gamma_{", "f_SU3_{")):
        for found in re.finditer(re.escape(old), amp):
            verdict = verify(amp[:found.start()] + new + amp[found.end():], "g^4")
            assert verdict.status == "unreadable" and re.search("index .* is a .* index and a", verdict.reason)


def test_nothing_true_of_nan_or_infinity_passes():
    assert not verify(ELECTRON_MUON, "1/(s_12 - s_12)")
    assert not verify(ELECTRON_MUON, "(s_12 - s_12)/(s_12 - s_12)")


# -- real data


def test_every_row_of_marty_is_right(marty):
    """All on-shell and QCD rows, and every 20th of the off-shell set; `python verify.py` runs all 15,874."""
    for name, step in (("qed-2to2", 1), ("qcd-2to2", 1), ("qed-2to2-offshell", 20)):
        for line, row in list(read_rows(marty / f"{name}.csv.gz"))[::step]:
            verdict = verify(row["amp"], row["sqamp"])
            assert verdict, f"{name}:{line}: {verdict.reason}"


def check_mutants(rows, rng):
    """(mutants, identities): verify calls a mutant wrong exactly if it differs from the truth in exact arithmetic."""
    count = identities = 0
    for row in rows:
        truth = parse(row["sqamp"])
        masses = ["" if leg.name in ("A", "G") else "m_" + leg.name for leg in legs_of(expand(parse(row["amp"])))]
        for kind, text in mutants(row["sqamp"], rng):
            same = equal(truth, parse(text), masses)
            verdict = verify(row["amp"], text)
            assert verdict.status == ("right" if same else "wrong"), (kind, row["amp"], row["sqamp"], text, verdict)
            count, identities = count + 1, identities + same
    return count, identities


def test_mutated_squares_of_marty_are_called_wrong(marty):
    rng = random.Random(11)
    rows = [
        row
        for name, step in (("qed-2to2", 1), ("qed-2to2-offshell", 60))
        for _, row in list(read_rows(marty / f"{name}.csv.gz"))[::step]
    ]
    count, identities = check_mutants(rows, rng)
    assert count > 1500 and identities < count / 10


# -- the command


def command(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "verify.py", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_command_counts_and_names_the_failing_lines(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        f'amp,sqamp\n"{ELECTRON_MUON}",{SQUARE}\n'
        f'"{ELECTRON_MUON}",{SQUARE.replace("1/4", "1/3")}\n"{ELECTRON_MUON}",e^4*(\n'
    )
    done = command(path, "--workers=1")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "1 right, 1 wrong, 1 unreadable"
    assert f"{path}:3: wrong" in done.stdout and f"{path}:4: unreadable" in done.stdout
    path.write_text(f'amp,sqamp\n"{ELECTRON_MUON}",{SQUARE}\n')
    done = command(path, "--workers=1")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 right, 0 wrong, 0 unreadable")


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "no such file"),
        ("", "empty"),
        ("amp,square\na,b\n", "no column 'sqamp'"),
    ],
)
def test_command_refuses_broken_files_in_one_line(tmp_path, content, reason):
    path = tmp_path / "rows.csv"
    if content is not None:
        path.write_text(content)
    done = command(path, "--workers=1")
    assert done.returncode == 2 and reason in done.stderr and str(path) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "line, reason", [("a,b,c", "3 cells"), ('"a,b', "not readable as CSV"), (" ", "a line of blanks"), (",", "empty")]
)
def test_command_names_a_malformed_line_and_judges_the_others(tmp_path, line, reason):
    path = tmp_path / "rows.csv"
    path.write_text(f'amp,sqamp\n"{ELECTRON_MUON}",{SQUARE}\n{line}\n"{ELECTRON_MUON}",{SQUARE}\n')
    done = command(path, "--workers=1")
    assert done.returncode == 1 and f"{path}:3: unreadable: " in done.stdout and reason in done.stdout
    assert done.stdout.splitlines()[-1] == "2 right, 0 wrong, 1 unreadable"
    path.write_text(f"amp,sqamp\n{line}\n")
    done = command(path, "--workers=1")
    assert done.returncode == 1 and reason in done.stdout and "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1] == "0 right, 0 wrong, 1 unreadable"


# fourteen Lorentz indices stay open along the first half of a fermion line: 4^14 components
MANY_OPEN = "*".join([
    *(f"gamma_{{%\\mu_{k % 14},%a_{k},%a_{k + 1}}}" for k in range(28)),
    "e_{i_1,%a_28}(p_1)_u*e_{i_2,%a_0}(p_2)_u^(*)*h(p_3)*h(p_4)^(*)"])


@pytest.mark.parametrize(
    "amp, sqamp",
    [
        (ELECTRON_MUON + "/10^200", "s_12/10^200/10^200"),
        ("h(p_1)*h(p_2)", "1"),
        (ELECTRON_MUON, "sin(" + "9" * 400 + ")*e"),
        (ELECTRON_MUON, "9" * 5000),
        (ELECTRON_MUON, "\u0661\u0666"),
        (ELECTRON_MUON + "*p_x_{%a}*p_x_{%a}", SQUARE),
        (ELECTRON_MUON.replace("p_4", "p_" + "9" * 5000), SQUARE),
        ("*".join([f"({ELECTRON_MUON.split('*')[2]} + e)"] * 30) + "*" + ELECTRON_MUON, SQUARE),
        (ELECTRON_MUON, "-(" * 30000 + "e" + ")" * 30000 + "^e"),
        (ELECTRON_MUON, "e^theta_W^(10^9)"),
        (MANY_OPEN, SQUARE),
        (f"{ELECTRON_MUON}*{'*'.join(f'delta_{{%a_{k},%a_{k + 1}}}' for k in range(1000, 1400))}", SQUARE),
        (ELECTRON_MUON, "e^i + (s_12 - s_12)^i + 2^(3*i)"),
        ("", ""),
    ],
)
def test_absurd_text_is_never_right_and_never_a_traceback(amp, sqamp):
    assert verify(amp, sqamp).status in ("unreadable", "wrong")


@pytest.mark.parametrize("process", ["tau -> tau A A", "nu_e -> nu_e nu_mu nu_mu~", "tau A A -> tau"])
def test_particles_that_cannot_radiate_on_their_mass_shell_are_judged_crossed(process):
    """Real momenta would leave no energy to what is radiated. With three legs crossing does not help: a row is refused
    unless it holds off the mass shell."""
    amp = amplitudes(parse_process(process, THEORIES["ew"]), THEORIES["ew"])[0]
    assert verify(amp, square(amp)) and verify(amp, "e^2").status == "wrong"
    (tau,) = amplitudes(parse_process("tau -> tau A", THEORIES["ew"]), THEORIES["ew"])
    assert verify(tau, "e^2").status == "unreadable" and "cannot decay" in verify(tau, "e^2").reason


def test_a_photon_on_its_mass_shell_does_not_decay():
    decay = r"e*gamma_{%\mu_1,%a_1,%a_2}*A_{i_1,+%\mu_1}(p_1)*e_{i_2,%a_1}(p_2)_u^(*)*e_{i_3,%a_2}(p_3)_v"
    assert "massless particle cannot decay" in verify(decay, "e^2").reason
    assert verify(decay, "2*e^2*(2*m_e^2 + s_11)")  # off its mass shell it does: 4 e^2 (s_11 + 2 m^2) over two states


def test_a_decay_without_real_momenta_is_judged_with_one_product_coming_in():
    """e -> e mu mu~ is e mu -> e mu crossed by hand: p_2 -> -p_4, p_3 -> p_2, p_4 -> p_3, a sign for the fermion, and
    no average over it."""
    qed = THEORIES["qed"]
    (scattering,) = amplitudes(parse_process("e mu -> e mu", qed), qed)
    assert verify(
        scattering,
        "2*e^4*(2*m_e^2*m_mu^2 - m_mu^2*s_13 - m_e^2*s_24 + s_14*s_23 + s_12*s_34)/(m_e^2 - s_13 + 1/2*reg_prop)^2",
    )
    (decay,) = amplitudes(parse_process("e -> e mu mu~", qed), qed)
    right = (
        "(-4)*e^4*(2*m_e^2*m_mu^2 - m_mu^2*s_12 + m_e^2*s_34 - s_13*s_24 - s_14*s_23)/(m_e^2 - s_12 + 1/2*reg_prop)^2"
    )
    assert verify(decay, right)
    for wrong in ("4" + right[4:], right.replace("- s_13*s_24", "+ s_13*s_24"), right.replace("s_34", "s_24")):
        assert verify(decay, wrong).status == "wrong"


if __name__ == "__main__":  # PYTHONPATH=. python tests/test_verify.py: the check of docs/data.md, some 13,000 mutants
    from conftest import MARTY

    rows = [
        row
        for name, step in (("qed-2to2", 1), ("qed-2to2-offshell", 7))
        for _, row in list(read_rows(MARTY / f"{name}.csv.gz"))[::step]
    ]
    print(
        "{} mutants, {} of them true identities; verify.py is right about each".format(
            *check_mutants(rows, random.Random(5))
        )
    )
