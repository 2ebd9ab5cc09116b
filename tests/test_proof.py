"""The judge in a prime field: its field, its points, its verdicts beside those of verify.py and of rational arithmetic."""
import random

import numpy as np
import pytest
from exact import equal
from hypothesis import given
from hypothesis import strategies as st
from test_verify import ELECTRON_MUON, SQUARE, mutants

from dataset.reader import read_rows
from physics import exact as proof
from physics.amplitude import amplitudes, parse_process
from physics.exact import COLOURS, TABLES, I, P, prove
from physics.expression import expand, legs_of, marked_off_shell, names_in, parse
from physics.numeric import mass_of, verify
from physics.square import square
from physics.theory import THEORIES
from prepare import list_processes, make_rows
from runtime.files import InputError


@given(st.integers(1, P - 1), st.integers(-2000, 2000))
def test_the_field_has_inverses_powers_and_roots(x, n):
    assert proof.power(x, n) == pow(x, n, P)
    assert proof.root(x * x) in (x, P - x)
    assert (proof.root(x) is None) == (pow(x, (P - 1) // 2, P) == P - 1)
    assert I * I % P == P - 1


@pytest.mark.parametrize("i", [I, P - I])
def test_gamma_and_gell_mann_matrices_obey_their_algebras(i):
    up, down = TABLES[i].gamma_up, TABLES[i].gamma_down
    for mu in range(4):
        for nu in range(4):
            expected = 2 * TABLES[i].unit * (mu == nu)
            assert np.array_equal((up[mu] @ down[nu] + down[nu] @ up[mu]) % P, expected)
    T, f = COLOURS[i]["T"], COLOURS[i]["f"]
    products = np.einsum("aij,bjk->abik", T, T) % P
    assert np.array_equal((products - products.swapaxes(0, 1)) % P, np.einsum("abc,cik->abik", f, T) % P * i % P)     # [Ta, Tb] = i fabc Tc
    assert np.array_equal(np.einsum("abii->ab", products) * 2 % P, np.eye(8))


@pytest.mark.parametrize("theory, process", [("qed", "e e~ -> mu mu~"), ("ew", "mu -> e nu_e~ nu_mu"), ("qcd", "G G -> u u~ G"), ("ew", "Z -> e e~")])
def test_momenta_are_on_their_shells_and_conserved(theory, process):
    tree = parse(amplitudes(parse_process(process, THEORIES[theory]), THEORIES[theory])[0])
    legs = legs_of(expand(tree))
    values, momenta = proof.random_point(legs, names_in(tree), np.random.default_rng(1))
    assert not (sum(p if leg.incoming else -p for leg, p in zip(legs, momenta)) % P).any()
    for leg, p in zip(legs, momenta):
        assert proof.dot(p, p) == values[mass_of(leg.name)] ** 2 % P


@pytest.mark.parametrize("theory, legs, squares, count", [
    ("qed", "2->2", "diagram", 12), ("qed", "2->3", "diagram", 3), ("qcd", "2->2", "process", 6), ("qcd", "2->3", "diagram", 1), ("ew", "1->2", "diagram", 8),
    ("ew", "2->2", "diagram", 8), ("ew", "2->2", "process", 3)])
def test_what_was_made_is_proven_and_twice_as_much_is_not(theory, legs, squares, count):
    processes = random.Random(3).sample(list_processes(legs, THEORIES[theory]), count)
    rows = make_rows(processes, theory, squares, "all", 0)["rows"]
    assert rows
    for row in rows:
        assert prove(row["amp"], row["sqamp"]), row
        assert not prove(row["amp"], f"2*({row['sqamp']})")


def test_marked_legs_are_proven():
    qcd = THEORIES["qcd"]
    for amp in (marked_off_shell(ELECTRON_MUON, {3}), " + ".join(amplitudes(parse_process("G G -> u u~", qcd), qcd, whole=True))):
        sqamp = square(amp)
        assert "_off" in amp or "_T" in amp
        assert prove(amp, sqamp) and not prove(amp, sqamp + " + m_e^4")


@pytest.mark.parametrize("file, step", [("qed-2to2", 9), ("qcd-2to2", 9), ("qed-2to2-offshell", 500)])
def test_martys_rows_are_proven(marty, file, step):
    for _, row in list(read_rows(marty / f"{file}.csv.gz"))[::step]:
        assert prove(row["amp"], row["sqamp"])


def test_mutants_are_judged_as_rational_arithmetic_judges_them(marty):
    rng, counts = random.Random(4), {True: 0, False: 0}
    for _, row in list(read_rows(marty / "qed-2to2.csv.gz"))[::12]:
        masses = [mass_of(leg.name) for leg in legs_of(expand(parse(row["amp"])))]
        for kind, text in mutants(row["sqamp"], rng):
            verdict = prove(row["amp"], text)
            assert verdict == equal(parse(text), parse(row["sqamp"]), masses), (kind, text)
            counts[verdict] += 1
    assert counts[False] > 50


def test_a_singular_point_is_drawn_again(monkeypatch):
    """1 + tangent^2 = 0 for a tangent of i: no sine and no cosine there."""
    class Singular:
        def __init__(self, seed):
            self.generator = np.random.Generator(np.random.PCG64(7))
            self.bad = seed[0] == 5

        def integers(self, *arguments):
            return self.generator.integers(*arguments) if not self.bad or len(arguments) > 2 else I

    proof._points_at.cache_clear()
    monkeypatch.setattr(proof.np.random, "default_rng", Singular)
    assert prove(ELECTRON_MUON, SQUARE, seed=5) and not prove(ELECTRON_MUON, SQUARE + " + m_e^4", seed=5)
    proof._points_at.cache_clear()


@pytest.mark.parametrize("tiny", ["*(1 + 1/10^12)", " + 10^(-30)", "+ (e/(9 + e^9))^90", " + (m_e*m_mu/(4 + m_e*m_mu))^300"])
def test_what_is_too_small_for_floating_point_is_not_too_small_here(tiny):
    assert verify(ELECTRON_MUON, SQUARE + tiny)
    assert not prove(ELECTRON_MUON, SQUARE + tiny)


def test_other_spellings_are_proven():
    for text in (f"({SQUARE})*(e*m_e)^900/e^900*m_e^(-900)", SQUARE.replace("1/4*", "2^(1/2)*2^(1/2)/8*"), f"{SQUARE}*(sin(theta_W)^2 + cos(theta_W)^2)"):
        assert prove(ELECTRON_MUON, text)


@pytest.mark.parametrize("text, message", [
    (f"{SQUARE}/(s_12 - s_34 + m_e^2 - m_mu^2)", "division by zero"), (f"{SQUARE}*5^(1/2)", "a root of something else"), (f"{SQUARE}^m_e", "an exponent"),
    (f"{SQUARE}*s_19", "s_19 names a momentum"), (f"{SQUARE} + {P}/10^60", "a number of 8 digits"), (f"{SQUARE}*m_e^{P - 1}", "a huge exponent"),
    (f"{SQUARE}*4^(1/2)/2", "a root of something else"), (f"{SQUARE}*sin(m_e)", "an angle")])
def test_what_cannot_be_proven_is_an_error(text, message):
    with pytest.raises(InputError, match=message):
        prove(ELECTRON_MUON, text)
