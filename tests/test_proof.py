"""The judge in prime fields: arithmetic, points, and verdicts beside those in floating point and rational numbers."""

import itertools
import math
import random

import numpy as np
import pytest
from exact import equal
from fuzz import mutants
from hypothesis import given
from hypothesis import strategies as st
from test_verify import ELECTRON_MUON, SQUARE

from dataset.reader import read_rows
from physics import exact as proof
from physics.amplitude import amplitudes, parse_process
from physics.exact import POINTS, prove
from physics.expression import marked_off_shell, parse
from physics.matrices import read_amplitude
from physics.numeric import verify
from physics.particles import roles_of
from physics.square import square
from physics.theory import THEORIES
from prepare import list_processes, make_rows
from runtime.files import InputError


def primes(count):
    rng = np.random.default_rng(3)
    return [proof.draw_prime(rng) for _ in range(count)]


def test_primes_are_drawn_from_all_that_are_1_modulo_24():
    drawn = primes(200)
    assert all(2**24 < p < 2**25 and p % 24 == 1 and all(p % divisor for divisor in range(2, 5793)) for p in drawn)
    assert len(set(drawn)) > 195 and min(drawn) < 1.1 * 2**24 and max(drawn) > 1.9 * 2**24
    assert [n for n in range(100) if proof.is_prime(n)] == [n for n in range(2, 100) if all(n % k for k in range(2, n))]


@given(st.sampled_from(primes(20)), st.integers(1, 2**24), st.integers(-2000, 2000))
def test_the_field_has_inverses_powers_and_roots(P, x, n):
    I, field = proof.root(-1, P), proof.prime_fields([P] * POINTS)
    node = parse(f"x^({n})")
    assert np.all(field.power(node, np.full(2 * POINTS, x), None) == pow(x, n, P))
    assert np.all(field.divide(np.full(2 * POINTS, n), np.int64(x)) == n * pow(x, -1, P) % P)
    assert proof.root(x * x, P) in (x, P - x)
    assert (proof.root(x, P) is None) == (pow(x, (P - 1) // 2, P) == P - 1)
    assert I * I % P == P - 1


@pytest.mark.parametrize("P", primes(3))
@pytest.mark.parametrize("conjugate", [False, True])
def test_gamma_and_gell_mann_matrices_obey_their_algebras(P, conjugate):
    field, point = (
        proof.prime_fields(primes(3)[:1] * 3 + [P]),
        POINTS * (1 + conjugate) - 1,
    )  # the second half of the points has -i for i
    i = P - proof.root(-1, P) if conjugate else proof.root(-1, P)
    up, down, unit = field.gamma_up[point], field.gamma_down[point], field.dirac["unit"][point]
    for mu in range(4):
        for nu in range(4):
            expected = 2 * unit * (mu == nu)
            assert np.array_equal((up[mu] @ down[nu] + down[nu] @ up[mu]) % P, expected)
    assert np.array_equal(field.dirac["gamma_5"][point], i * up[0] % P @ up[1] % P @ up[2] % P @ up[3] % P)
    T, f = (field.colour[name][point] for name in "Tf")
    products = np.einsum("aij,bjk->abik", T, T) % P
    assert np.array_equal(
        (products - products.swapaxes(0, 1)) % P, np.einsum("abc,cik->abik", f, T) % P * i % P
    )  # [Ta, Tb] = i fabc Tc
    assert np.array_equal(np.einsum("abii->ab", products) * 2 % P, np.eye(8))


@pytest.mark.parametrize(
    "theory, process",
    [("qed", "e e~ -> mu mu~"), ("ew", "mu -> e nu_e~ nu_mu"), ("qcd", "G G -> u u~ G"), ("ew", "Z -> e e~")],
)
def test_momenta_are_on_their_shells_and_conserved(theory, process):
    _, fields, names = read_amplitude(amplitudes(parse_process(process, THEORIES[theory]), THEORIES[theory])[0])
    roles, P = roles_of(fields, names), primes(1)[0]
    values, momenta = proof.random_point(fields, roles, names, np.random.default_rng(1), P)
    assert not (sum(p if comes_in else -p for comes_in, p in zip(roles.incoming, momenta)) % P).any()
    for mass, p in zip(roles.masses, momenta):
        assert proof.dot(p, p, P) == values[mass][0] ** 2 % P


@pytest.mark.parametrize(
    "theory, legs, squares, count",
    [
        ("qed", "2->2", "diagram", 12),
        ("qed", "2->3", "diagram", 3),
        ("qcd", "2->2", "process", 6),
        ("qcd", "2->3", "diagram", 1),
        ("ew", "1->2", "diagram", 8),
        ("ew", "2->2", "diagram", 8),
        ("ew", "2->2", "process", 3),
    ],
)
def test_what_was_made_is_proven_and_twice_as_much_is_not(theory, legs, squares, count):
    processes = random.Random(3).sample(list_processes(legs, THEORIES[theory]), count)
    rows = make_rows(processes, theory, squares, "all", 0)["rows"]
    assert rows
    for row in rows:
        assert prove(row["amp"], row["sqamp"]), row
        assert not prove(row["amp"], f"2*({row['sqamp']})")


def test_marked_legs_are_proven():
    qcd = THEORIES["qcd"]
    for amp in (
        marked_off_shell(ELECTRON_MUON, {3}),
        " + ".join(amplitudes(parse_process("G G -> u u~", qcd), qcd, whole=True)),
    ):
        sqamp = square(amp)
        assert "_off" in amp or "_T" in amp
        assert prove(amp, sqamp) and not prove(amp, sqamp + " + s_12^2")


@pytest.mark.parametrize("file, step", [("qed-2to2", 9), ("qcd-2to2", 9), ("qed-2to2-offshell", 500)])
def test_martys_rows_are_proven(marty, file, step):
    for _, row in list(read_rows(marty / f"{file}.csv.gz"))[::step]:
        assert prove(row["amp"], row["sqamp"])


def test_mutants_are_judged_as_rational_arithmetic_judges_them(marty):
    rng, counts = random.Random(4), {True: 0, False: 0}
    for _, row in list(read_rows(marty / "qed-2to2.csv.gz"))[::12]:
        masses = roles_of(read_amplitude(row["amp"]).fields, ()).masses
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

        def integers(self, low, high, *shape):
            if low > 1:  # the candidates for a prime
                return self.generator.integers(low, high)
            return proof.root(-1, high) if self.bad and not shape else self.generator.integers(low, high, *shape)

    proof._points_at.cache_clear()
    monkeypatch.setattr(proof.np.random, "default_rng", Singular)
    assert prove(ELECTRON_MUON, SQUARE, seed=5) and not prove(ELECTRON_MUON, SQUARE + " + m_e^4", seed=5)
    proof._points_at.cache_clear()


@pytest.mark.parametrize(
    "tiny", ["*(1 + 1/10^12)", " + 10^(-30)", "+ (e/(9 + e^9))^90", " + (m_e*m_mu/(4 + m_e*m_mu))^300"]
)
def test_what_is_too_small_for_floating_point_is_not_too_small_here(tiny):
    assert verify(ELECTRON_MUON, SQUARE + tiny)
    assert not prove(ELECTRON_MUON, SQUARE + tiny)


def proven(amp, text):
    try:
        return prove(amp, text)
    except InputError:
        return False


def test_what_vanishes_modulo_one_prime_is_not_proven():
    """33554137 = 2^25 - 295 is a prime that is 1 modulo 24, and 8 * 4194267 that less 1: x^(p - 1) = 1 modulo p."""
    assert verify(ELECTRON_MUON, f"{SQUARE} + (2^25 - 295)/10^30")  # too small for floating point
    for text in (f"{SQUARE} + (2^25 - 295)/10^30", f"{SQUARE}*(e^8)^4194267", f"{SQUARE} + ((e^8)^4194267 - 1)/10^30"):
        assert not proven(ELECTRON_MUON, text)


def vanishing(rng, p):
    """A text that is small, not zero, and zero modulo p."""
    a, k = rng.choice([a for a in range(2, 2000) if (p - 1) % a == 0]), rng.randint(100, 2000)
    inverse = next(n for n in itertools.count(3) if math.gcd(n, p - 1) == 1 and rng.random() < 0.1)
    return rng.choice(
        [
            f"(2^25 - {2**25 - p})/10^{rng.randint(20, 60)}",
            f"{rng.randint(2, 10**6)}*(2^25 - {2**25 - p})/10^{rng.randint(40, 60)}",
            f"(2^25 - {2**25 - p})*(2^24 + {p - 2**24 - 1} + 1)*e*m_e/10^60",
            f"({p % 4096} + 4096*{p // 4096})*s_12/10^30",
            f"((e^{a})^{(p - 1) // a} - 1)/10^30",
            f"((m_e^{inverse})^{pow(inverse, -1, p - 1)} - m_e)/10^30",
            f"(2^{k} - {pow(2, k, p) % 4096} - 4096*{pow(2, k, p) // 4096})/10^700/10^700",
            f"((1/3^{k})*{pow(3, k, p) % 4096} + {pow(3, k, p) // 4096}*4096/3^{k} - 1)/10^30",
        ]
    )


def test_a_thousand_texts_that_vanish_modulo_a_prime_are_not_proven():
    rng, drawn = random.Random(7), primes(50)
    for _ in range(1000):
        text = vanishing(rng, rng.choice(drawn))
        assert not proven(ELECTRON_MUON, f"{SQUARE} + {text}"), text


def test_the_size_of_a_candidate_is_an_upper_bound_of_its_degree_and_is_limited():
    assert proof.size(parse("e^4*s_12*(m_e^2 + s_34)^(-2)/3")) == (
        6,
        10,
    )  # degree 4 + 2; twice degree 2 and 2 bits for two terms, and 2 bits
    assert proof.size(parse("1/e + 1/m_e")) == (4, 2)  # (m_e + e)/(e*m_e)
    for text in ("(e^1000)^1000", "2^70000", "((9^99)^99)^99", "*".join(["e^9000"] * 8)):
        with pytest.raises(InputError, match="no proof"):
            prove(ELECTRON_MUON, f"{SQUARE} + {text}")


def test_other_spellings_are_proven():
    for text in (
        f"({SQUARE})*(e*m_e)^900/e^900*m_e^(-900)",
        SQUARE.replace("1/4*", "2^(1/2)*2^(1/2)/8*"),
        f"{SQUARE}*4^(1/2)/2",
        f"{SQUARE}*5^(1/2)*5^(-1/2)",
        f"{SQUARE}*(6^(1/2) - 2^(1/2)*3^(1/2) + 1)",
        f"{SQUARE}*(350^(1/2) - 5*2^(1/2)*7^(1/2) + 1)",
        f"{SQUARE}*(1 + 11^(1/2))*(11^(3/2) - 11)/110",
        f"{SQUARE}*(sin(theta_W)^2 + cos(theta_W)^2)",
    ):
        assert prove(ELECTRON_MUON, text)


@pytest.mark.parametrize("root", ["2^(1/2)", "5^(1/2)", "6^(1/2)", "7^(1/2)", "11^(1/2)", "35^(1/2)", "9973^(1/2)"])
def test_a_coupling_with_a_root_is_squared_and_proven(root):
    amp, number = f"{root}*{ELECTRON_MUON}", root.removesuffix("^(1/2)")
    for sqamp in (f"{number}*{SQUARE}", square(amp)):
        assert verify(amp, sqamp) and prove(amp, sqamp)
        for wrong in (f"{root}*{sqamp}", f"{sqamp} + 10^(-30)*{root}", f"-{sqamp}", SQUARE):
            assert not prove(amp, wrong)
    odd = f"(1 + {root})*{ELECTRON_MUON}"
    assert prove(odd, f"({number} + 1 + 2*{root})*{SQUARE}") and not prove(odd, f"({number} + 1 - 2*{root})*{SQUARE}")


@pytest.mark.parametrize(
    "text, message",
    [
        (f"{SQUARE}/(s_12 - s_34 + m_e^2 - m_mu^2)", "division by zero"),
        (f"{SQUARE}*s_12^(1/2)", "a root of something else"),
        (f"{SQUARE}*(-5)^(1/2)", "a root of something else"),
        (f"{SQUARE}*2^(1/3)", "a root of something else"),
        (SQUARE + "".join(f" + {n}^(1/2)" for n in (5, 7, 11, 13, 17)), "more than 4 primes"),
        (f"{SQUARE}^m_e", "an exponent"),
        (f"{SQUARE}*s_19", "s_19 names a momentum"),
        (f"{SQUARE} + {2**24}/10^60", "a number of 8 digits"),
        (f"{SQUARE}*m_e^{2**24}", "a huge exponent"),
        (f"{SQUARE}*sin(m_e)", "an angle"),
    ],
)
def test_what_cannot_be_proven_is_an_error(text, message):
    with pytest.raises(InputError, match=message):
        prove(ELECTRON_MUON, text)
