"""physics/normal_form.py: one text for every spelling of an amplitude, and no other amplitude."""
import random
import re

import pytest
from tiny import write_csv

from dataset.baseline import canonical_key
from dataset.reader import read_rows
from dataset.rows import randomise_indices
from dataset.vocabulary import build_vocabulary
from physics.amplitude import amplitudes, parse_process
from physics.normal_form import normal
from physics.numeric import verify
from physics.particles import Facts
from physics.processes import choose_processes
from physics.square import square, square_many
from physics.theory import THEORIES
from runtime.files import InputError
from tokenizer import Tokenizer

U = "e_{i_1,%a_2}(p_1)_u*e_{i_3,%a_1}(p_3)_u^(*)*A_{i_2,%\\mu_1}(p_2)*A_{i_4,%\\mu_2}(p_4)^(*)"
PROCESSES = [("qed", "e A -> e A"), ("qed", "e e~ -> A A"), ("qed", "A A -> mu mu~"), ("qed", "e e~ -> e e~"),
             ("qcd", "u G -> u G"), ("qcd", "u u~ -> G G"), ("qcd", "G G -> s s~"), ("qcd", "u u~ -> d d~"),
             ("qcd", "u d -> u d"), ("ew", "e e~ -> W W~"), ("ew", "u d~ -> W h"), ("ew", "mu -> e nu_mu nu_e~"),
             ("qed", "e e~ -> mu mu~ A"), ("general", "Fa1 Vo1 -> Fa1 Vo1"), ("general", "Fa1 Fa1~ -> Va1 Va1")]


def diagrams_of(name, process):
    return amplitudes(parse_process(process, THEORIES[name]), THEORIES[name])


@pytest.mark.parametrize("name, process", PROCESSES)
def test_the_square_stays_the_same(name, process):
    """Judged by explicit matrices. The normal form of a normal form is itself."""
    for amp in diagrams_of(name, process):
        text = normal(amp)
        assert verify(text, square(amp, facts=Facts(process)), facts=Facts(process))
        assert normal(text) == text


def test_every_marty_row_on_shell_has_the_text_of_one_of_our_diagrams(marty):
    """
    MARTY simplifies by the Dirac equation, writes f^abc T^c as commutators and T^a T^a as deltas; we do not. Its
    particles t and tt of QED, the tau and the top, are other names of ours.
    """
    for name, count in (("qed", 190), ("qcd", 132)):
        theory, texts = THEORIES[name], set()
        rows = [row for _, row in read_rows(marty / f"{name}-2to2.csv.gz")]
        assert len(rows) == count
        for process in choose_processes("2->2", theory, 0, 0):
            texts.update(canonical_key(normal(amp)) for amp in amplitudes(process, theory))
        for number, row in enumerate(rows):
            text = normal(row["amp"])
            assert canonical_key(text) in texts
            assert number % 16 or verify(text, row["sqamp"])


@pytest.mark.parametrize("one, other", [
    # pslash u = m u, and the anticommutator before it
    (f"(p_1_%\\rho_1*gamma_{{%\\mu_2,%a_1,%a_3}}*gamma_{{%\\rho_1,%a_3,%a_4}}*gamma_{{%\\mu_1,%a_4,%a_2}}*{U} + "
     f"m_e*gamma_{{%\\mu_2,%a_1,%a_3}}*gamma_{{%\\mu_1,%a_3,%a_2}}*{U})/(s_12 + 1/2*reg_prop)",
     f"2*p_1_%\\mu_1*gamma_{{%\\mu_2,%a_1,%a_2}}*{U}/(s_12 + 1/2*reg_prop)"),
    # momentum conservation: p_4 = p_1 + p_2 - p_3
    (f"p_4_%\\mu_1*gamma_{{%\\mu_2,%a_1,%a_2}}*{U}",
     f"(p_1_%\\mu_1 + p_2_%\\mu_1 - p_3_%\\mu_1)*gamma_{{%\\mu_2,%a_1,%a_2}}*{U}"),
    # the order of factors and of terms, and the phase
    (f"-i*(2*p_1_%\\mu_1*gamma_{{%\\mu_2,%a_1,%a_2}} + p_3_%\\mu_1*gamma_{{%\\mu_2,%a_1,%a_2}})*{U}",
     f"gamma_{{%\\mu_2,%a_1,%a_2}}*{U}*(p_3_%\\mu_1 + 2*p_1_%\\mu_1)")])
def test_spellings_of_one_amplitude(one, other):
    assert normal(one) == normal(other)


def test_other_amplitudes_have_other_texts():
    """Diagrams whose squares differ have different normal forms."""
    for name in ("qed", "qcd"):
        theory = THEORIES[name]
        amps = [amp for process in choose_processes("2->2", theory, 60, 1) for amp in amplitudes(process, theory)]
        squares = {}
        for amp, text in zip(amps, square_many(amps, "independent")):
            squares.setdefault(normal(amp), set()).add(text)
        assert len(squares) > 30 and all(len(texts) == 1 for texts in squares.values())


@pytest.mark.parametrize("name, process", PROCESSES[:4])
def test_index_names_and_orders_of_factors_do_not_matter(name, process):
    rng = random.Random(1)
    for amp in diagrams_of(name, process):
        text = normal(amp)
        assert normal(randomise_indices(amp, 5)) == text
        front, body, below = re.fullmatch(r"(.*?)\((.*)\)(/\(.*\))", amp).groups() if "(" in amp[:20] else ("", amp, "")
        if below:
            terms = body.split(" + ")
            rng.shuffle(terms)
            assert normal(f"{front}({' + '.join(terms)}){below}") == text


def test_the_tokenizer_reads_the_normal_form_if_its_vocabulary_says_so(tmp_path):
    amp = diagrams_of("qed", "e A -> e A")[0]
    path = write_csv(tmp_path / "rows.csv", [{"amp": amp, "sqamp": square(amp)}])
    plain, normalised = (Tokenizer(build_vocabulary(path, normal_form=choice)) for choice in (False, True))
    assert normalised.encode_amp(amp)[0] == normalised.encode_amp(normal(amp))[0]
    assert len(plain.encode_amp(amp)[0]) > len(normalised.encode_amp(amp)[0])  # the Dirac equation was used


@pytest.mark.parametrize("amp, said", [
    ("e*m_e", "no external legs"), ("e_{i_1,%a_2}(p_1)_u*(", "expected"),
    ("gamma_{%\\mu_1,%a_1,%a_2}*e_{i_1,%a_2}(p_1)_u*e_{i_2,%a_1}(p_2)_u^(*)", "occurs 1 times"),
    (f"gamma_{{%\\mu_1,%a_1,%a_2}}*p_1_%\\mu_2*{U}/(e - e)", "division by zero"),
    ("g_{%\\mu_1}*h(p_1)*h(p_2)^(*)", "unknown tensor g with 1 indices"), ("e(p_1)_u*h(p_2)^(*)", "expected a label"),
    ("gamma_{%\\mu_1,%a_1}*e_{i_1,%a_1}(p_1)_u*A_{i_2,%\\mu_1}(p_2)^(*)", "unknown tensor gamma"),
    ("*".join([U, *(f"p_4_%\\mu_{k}*gamma_{{%\\mu_{k},%a_{k - 1},%a_{k}}}" for k in range(3, 19))]).replace(
        "%a_2}(p_1)", "%a_18}(p_1)").replace("%a_1}(p_3)", "%a_2}(p_3)") + "*p_1_%\\mu_1*p_1_%\\mu_2",
     "more than 20,000 terms")])
def test_what_is_no_amplitude_is_an_error(amp, said):
    with pytest.raises(InputError, match=said):
        normal(amp)
