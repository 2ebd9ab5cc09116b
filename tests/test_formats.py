"""Formulas in other notations have the values of the trees that they were written from."""
import itertools
import re
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from repository import ROOT
from roundtrip import differences_in_form, differences_of_square, differs_as_latex, read_latex, run

from dataset.convert import convert
from dataset.reader import read_rows
from physics.amplitude import amplitudes, parse_process
from physics.expression import names_in, parse
from physics.formats import (
    FORMATS,
    annotated,
    comment,
    document,
    formula,
    formula_or_empty,
    identifiers,
    to_function,
    to_sympy,
)
from physics.latex import latex_name, latex_text, to_latex
from physics.numeric import evaluate
from physics.processes import list_processes
from physics.square import square_many
from physics.theory import THEORIES
from runtime.files import InputError

PAIR = "2*e^4*(2*m_e^2*m_mu^2 + m_mu^2*s_12 + s_14*s_23 + s_13*s_24 + m_e^2*s_34)*(m_e^2 + s_12 + 1/2*reg_prop)^(-2)"
QED = THEORIES["qed"]


def differences(texts):
    """{text: notations in which it is another function}"""
    found = {text: differences_of_square(text, seed) for seed, text in enumerate(texts)}
    for k in differences_in_form(list(texts)):
        found[texts[k]].append("form")
    return {text: notations for text, notations in found.items() if notations}


def amplitudes_of(theory, *processes):
    table = THEORIES[theory]
    return [amp for process in processes for amp in amplitudes(parse_process(process, table), table)]


# ---------------------------------------------------------------------------------------------------------------------
# what the formulas look like

def test_a_square_in_all_notations():
    tree = parse(PAIR)
    assert formula(tree, "text") == PAIR
    assert formula(tree, "latex") == (
        r"\frac{2 e^{4} \left(2 m_{e}^{2} m_{\mu}^{2} + m_{\mu}^{2} s_{12} + s_{14} s_{23} + s_{13} s_{24} + "
        r"m_{e}^{2} s_{34}\right)}{\left(m_{e}^{2} + s_{12} + \frac{\epsilon}{2}\right)^{2}}")
    assert formula(tree, "sympy") == formula(tree, "python") == (
        "2*e**4*(2*m_e**2*m_mu**2 + m_mu**2*s_12 + s_14*s_23 + s_13*s_24 + m_e**2*s_34)"
        "/(m_e**2 + s_12 + reg_prop/2)**2")
    assert formula(tree, "mathematica") == (
        "2*e^4*(2*me^2*mmu^2 + mmu^2*s12 + s14*s23 + s13*s24 + me^2*s34)/(me^2 + s12 + regprop/2)^2")
    assert formula(tree, "form") == (
        "2*e^4*(2*me^2*mmu^2 + mmu^2*p1.p2 + p1.p4*p2.p3 + p1.p3*p2.p4 + me^2*p3.p4)"
        "*den(me^2 + p1.p2 + 1/2*regprop)^2")


def test_an_amplitude_as_in_papers():
    annihilation, = amplitudes_of("qed", "e e~ -> mu mu~")
    assert to_latex(parse(annihilation)) == (
        r"\frac{i e^{2}}{2 \left(m_{e}^{2} + s_{12} + \frac{\epsilon}{2}\right)} "
        r"\bar{v}_{e}(p_{2}) \gamma^{\nu} u_{e}(p_{1}) \bar{u}_{\mu}(p_{3}) \gamma_{\nu} v_{\mu}(p_{4})")
    compton = amplitudes_of("qed", "e A -> e A")[0]
    assert to_latex(parse(compton)) == (
        r"-\frac{i e^{2}}{2 \left(s_{12} + \frac{\epsilon}{2}\right)} \left("
        r"\bar{u}_{e}(p_{3}) \gamma^{\mu} {p\!\!\!/}_{1} \gamma^{\nu} u_{e}(p_{1}) "
        r"\varepsilon_{\gamma}{}_{\nu}(p_{2}) \varepsilon^{*}_{\gamma}{}_{\mu}(p_{4}) + "
        r"\bar{u}_{e}(p_{3}) \gamma^{\mu} {p\!\!\!/}_{2} \gamma^{\nu} u_{e}(p_{1}) "
        r"\varepsilon_{\gamma}{}_{\nu}(p_{2}) \varepsilon^{*}_{\gamma}{}_{\mu}(p_{4}) + "
        r"m_{e} \bar{u}_{e}(p_{3}) \gamma^{\mu} \gamma^{\nu} u_{e}(p_{1}) "
        r"\varepsilon_{\gamma}{}_{\nu}(p_{2}) \varepsilon^{*}_{\gamma}{}_{\mu}(p_{4})\right)")
    three_gluons, = (to_latex(parse(amp)) for amp in amplitudes_of("qcd", "u u~ -> G G") if "f_SU3" in amp)
    assert r"T^{a}_{i j} f^{b c a} \bar{v}^{i}_{u}(p_{2})" in three_gluons


def test_names_in_latex():
    names = {"m_e": "m_{e}", "m_mu": r"m_{\mu}", "m_nu_e": r"m_{\nu_{e}}", "s_12": "s_{12}", "theta_W": r"\theta_{W}",
             "reg_prop": r"\epsilon", "epsilon": r"\varepsilon", "m_tt": r"m_{\mathrm{tt}}", "V_ub": "V_{ub}",
             "V_ub^(*)": "V_{ub}^{*}", "M": "M", "a__b": r"\mathrm{a\_\_b}"}
    assert {name: latex_name(name) for name in names} == names


def test_a_symbol_that_a_language_reserves_gets_another_name():
    names = {"lambda", "lambda_", "numpy", "E", "m_e", "me", "i", "V_ub", "V_ub^(*)", "s_12"}
    for format in ("python", "sympy", "mathematica", "form"):
        called = identifiers(names, format)
        assert len(set(called.values())) == len(called)
        assert called.keys() == names - {"i"} - (set() if format == "form" else {"V_ub^(*)"})
    assert identifiers(names, "python")["lambda"] not in ("lambda", "lambda_")
    assert identifiers(names, "mathematica")["E"] != "E"


# ---------------------------------------------------------------------------------------------------------------------
# values

def test_every_square_of_the_quickstart_set():
    """Up to the names of the fermions, which differ in their masses only."""
    amps = [amp for process in list_processes("2->2", QED) for amp in amplitudes(process, QED)]
    squares = square_many(amps)
    assert len(squares) == 1188
    patterns = {}
    for square in squares:
        masses = list(dict.fromkeys(re.findall(r"m_\w+", square)))
        patterns.setdefault(re.sub(r"m_\w+", lambda match: f"m_{masses.index(match[0])}", square), square)
    assert 50 < len(patterns) < 200
    assert differences(list(patterns.values())) == {}


def test_amplitudes_of_the_quickstart_set():
    """All that have other structures: the other fermions' differ in names alone."""
    processes = [process for process in list_processes("2->2", QED)
                 if all(name.rstrip("~") in ("e", "mu", "u", "A") for name in itertools.chain(*process))]
    amps = [amp for process in processes[::2] for amp in amplitudes(process, QED)]
    assert len(amps) > 50
    assert {amp: why for amp in amps if (why := differs_as_latex(amp))} == {}


ELECTROWEAK = "nu_e e~ -> W h", "e e~ -> W W~", "mu -> e nu_e~ nu_mu", "W W~ -> Z h"
STRONG = "u u~ -> G G", "u d -> u d", "G G -> G G"


def test_weak_and_strong_amplitudes_and_squares():
    amps = amplitudes_of("ew", *ELECTROWEAK) + amplitudes_of("qcd", *STRONG)
    assert {amp: why for amp in amps if (why := differs_as_latex(amp))} == {}
    assert differences([text for text in square_many(amps) if isinstance(text, str)]) == {}


@pytest.mark.parametrize("index, joined, inserted", [
    (r"%C_1", r"%C_99", r"delta_{%C_1,%C_99}"), (r"%g_1", r"%g_99", r"delta_{%g_99,%g_1}"),
    (r"%a_1", r"%a_99", r"delta_{%a_1,%a_99}"), (r"%\mu_1", r"%\mu_99", r"g_{%\mu_1,%\mu_99}"),
    (r"%\mu_1", r"%\mu_99", r"delta_{+%\mu_99,%\mu_1}"),
])
def test_metrics_and_deltas_are_carried_out(index, joined, inserted):
    amp = amplitudes_of("qcd", "u d -> u d")[0]
    first, second, rest = re.split(rf"{re.escape(index)}(?=[,}}])", amp)
    amp = f"{first}{index}{second}{joined}{rest}".replace("*gamma", f"*{inserted}*gamma", 1)
    assert differs_as_latex(amp) == ""


def test_a_text_from_anywhere_cannot_end_a_comment():
    for format, end in (("python", "\n"), ("sympy", "\n"), ("latex", "\n"), ("form", "\n"), ("mathematica", "*)")):
        source = annotated(f"2*{end} import os", format, [f"unverified: {end} import os"])
        first, second = source.splitlines()
        assert all(line.startswith(comment("", format)[0]) for line in (first, second))
        if format == "mathematica":
            assert source.count("*)") == 2 and second.endswith("*)")


def test_legs_off_shell_and_transverse_gluons():
    qcd = THEORIES["qcd"]
    amps = amplitudes(parse_process("u G -> u G", qcd), qcd, whole=True)
    amps += amplitudes(parse_process("e A -> e A", QED), QED, off_shell=(1, 4))
    assert all("_T" in amp or "_off" in amp for amp in amps)
    assert {amp: why for amp in amps if (why := differs_as_latex(amp))} == {}


@pytest.mark.parametrize("name", ["qed-2to2-offshell", "qed-2to2", "qcd-2to2"])
def test_files_of_marty(marty, name):
    every = 700 if "offshell" in name else 9
    rows = [row for _, row in itertools.islice(read_rows(marty / f"{name}.csv.gz"), 0, None, every)]
    assert len(rows) > 10
    assert differences(list(dict.fromkeys(row["sqamp"] for row in rows))) == {}
    assert {row["amp"]: why for row in rows if (why := differs_as_latex(row["amp"]))} == {}


ODD = [
    "-(a - b) - -c + (d + (e - f))*(-g)", "a - 1*(b - c)", "a - (b - c)^2", "-1*(b + c)/d", "x/y/z*w/(a*b)",
    "(x^2)^3*(x^(-2))^(-1) + (2*x)^(-2) + ((a + b)^2)^(-1)", "x^0 + 1", "(2/3)^3*x - 3/4", "5", "-1/2",
    "123456789012345678901234567890*x/3", "2*E*N*lambda*I2*f_1*f*p1*numpy*m_e*me*C", "a__b*epsilon*reg_prop*nu*mu*m_mu",
    "i*V_ub*V_ub^(*) + V_ub^(*)^2*eps(p_1,p_2,p_3,p_4)*i^3/i + s_33", "sin(theta_W)^2*cos(theta_W)/tan(theta_W)",
    "2^(1/2)*x + 3^(-1/2) + 2^(3/2)", "1/(1 + 1/(1 + x/(2 + s_12)))",
]


@pytest.mark.parametrize("text", ODD)
def test_formulas_of_every_form(text):
    assert differences([text]) == {}


NAMES = ["x", "m_e", "s_12", "i", "V_ub", "V_ub^(*)", "reg_prop", "lambda"]
SMALL = st.integers(0, 12).map(str) | st.sampled_from(NAMES)


def larger(inside):
    return (st.tuples(inside, st.sampled_from(["+", "-", "*", "/"]), inside).map("({0[0]}) {0[1]} ({0[2]})".format)
            | st.tuples(inside, st.integers(-3, 3)).map("({0[0]})^({0[1]})".format)
            | inside.map("-({})".format) | inside.map("sin({})".format))


@settings(max_examples=60)
@given(st.recursive(SMALL, larger, max_leaves=8))
def test_random_formulas(text):
    try:
        assert differences_of_square(text) == []
    except (InputError, ZeroDivisionError, OverflowError):   # a division by zero, a sine of something enormous
        assume(False)


def test_a_text_that_is_no_formula():
    assert formula_or_empty("2*s_12*", "latex") == formula_or_empty("1/0", "mathematica") == ""
    assert formula_or_empty("2*s_12", "latex") == "2 s_{12}"
    assert annotated("2*", "python", ["unverified"]).startswith("# unverified\n# no formula: 2*: column 3")
    assert annotated("2*", "text", ["unverified"]) == "2*\nunverified\n"


def test_long_formulas_have_several_lines_in_a_notebook():
    assert latex_text(parse("x"), "verified") == r"$\displaystyle x$ verified"
    long = latex_text(parse(" + ".join(f"m_{k}*s_12" for k in range(60))), "computed")
    assert long.startswith(r"$\displaystyle \begin{aligned} & m_{0}") and long.count(r"\\ &") > 2
    assert long.endswith(r"\end{aligned}$ computed, $s_{ij} = p_i \cdot p_j$")


@pytest.mark.parametrize("broken", [PAIR.replace("2*e", "3*e"), PAIR.replace("s_14*s_23", "s_13*s_23"),
                                    PAIR.replace("(-2)", "(-1)"), PAIR.replace("m_e^2*s_34", "-m_e^2*s_34")])
def test_the_readers_see_a_difference(broken):
    """The value of a wrong formula, read back from LaTeX, is another one."""
    names = names_in(parse(PAIR))
    at = {name: mpmath.mpf(k + 2) / 7 for k, name in enumerate(sorted(names))}
    right, wrong = (evaluate(parse(read_latex(to_latex(parse(text)), names)), {k: float(v) for k, v in at.items()})
                    for text in (PAIR, broken))
    assert abs(right - wrong) > 1e-6 * abs(right)
    assert right == pytest.approx(evaluate(parse(PAIR), {k: float(v) for k, v in at.items()}))


@pytest.mark.parametrize("old, new", [
    (r"\gamma^{\mu} {p\!\!\!/}_{1}", r"{p\!\!\!/}_{1} \gamma^{\mu}"),
    (r"{p\!\!\!/}_{2}", r"{p\!\!\!/}_{4}"), (" + m", " - m"),
    (r"u_{e}(p_{1})", r"v_{e}(p_{1})"), (r"\gamma^{\nu} u_{e}", r"\gamma^{\nu} P_{L} u_{e}"),
])
def test_the_reader_of_amplitudes_sees_a_difference(monkeypatch, old, new):
    amp = amplitudes_of("qed", "e A -> e A")[0]
    assert differs_as_latex(amp) == "" and old in to_latex(parse(amp))
    monkeypatch.setattr("roundtrip.to_latex", lambda tree: to_latex(tree).replace(old, new))
    monkeypatch.setattr("roundtrip.latex_lines", lambda tree: [to_latex(tree).replace(old, new)])
    assert differs_as_latex(amp)


# ---------------------------------------------------------------------------------------------------------------------
# SymPy, NumPy

def test_a_sympy_expression_is_built_of_symbols_with_plain_names():
    expression = to_sympy(parse("1/3*s_12^2*2^(1/2)/(m_e^2 + i*V_ub^(*))"))
    s, m, v = sympy.symbols("s_12 m_e V_ub")
    assert expression == sympy.Rational(1, 3) * s**2 * sympy.sqrt(2) / (m**2 + sympy.I * sympy.conjugate(v))
    assert to_sympy(parse(PAIR)).subs({"s_12": 3}).free_symbols == {
        sympy.Symbol(name) for name in names_in(parse(PAIR)) - {"s_12"}}


def test_a_function_takes_arrays_and_numbers():
    f = to_function(parse("m_e^2*s_12^(-1) + e"))
    assert list(f.__signature__.parameters) == ["e", "m_e", "s_12"]
    assert np.allclose(f(s_12=np.array([1, 2, 4]), m_e=2, e=np.array([[0], [1]])), [[4, 2, 1], [5, 3, 2]])
    assert f(s_12=2, m_e=2, e=0) == 2 and isinstance(f(s_12=2, m_e=2, e=0), float)
    with pytest.raises(TypeError, match="m_e"):
        f(s_12=1, e=1)
    with pytest.raises(TypeError, match="s_13"):
        f(s_12=1, e=1, m_e=1, s_13=1)
    assert "s_12 = p_1.p_2" in f.__doc__


def test_a_complex_coupling_makes_a_function_complex():
    f = to_function(parse("V_ub*V_ub^(*) + eps(p_1,p_2,p_3,p_4)"))
    assert f(V_ub=3 + 4j, eps_1234=1.0) == 26


def test_deep_nesting_needs_no_recursion():
    text = "sin(" * 3000 + "x" + ")" * 3000
    assert formula(parse(text), "mathematica").startswith("Sin[Sin[Sin[")
    assert formula(parse("-(" * 3000 + "a + b" + ")" * 3000), "python") == "a + b"


# ---------------------------------------------------------------------------------------------------------------------
# what cannot be written

@pytest.mark.parametrize("format", [format for format in FORMATS if format not in ("text", "latex")])
def test_an_amplitude_is_no_formula_of_other_tools(format):
    with pytest.raises(InputError, match="text and LaTeX only"):
        formula(parse(amplitudes_of("qed", "e e~ -> mu mu~")[0]), format)


@pytest.mark.parametrize("text, message", [
    ("1/0", "division by zero"), ("0^(-1)", "division by zero"), ("x/(1 - 1)", "division by zero"),
    ("x^2000", "exponent above 1000"), ("((2^1000)^1000)^1000", "more than 30,000 digits"),
])
def test_what_is_no_number(text, message):
    for write in (to_latex, to_function, to_sympy):
        with pytest.raises(InputError, match=message):
            write(parse(text))


def test_dirac_indices_that_do_not_close():
    amp = amplitudes_of("qed", "e e~ -> mu mu~")[0]
    with pytest.raises(InputError, match="Dirac"):
        to_latex(parse(amp.replace("%a_2", "%a_9", 1)))


# ---------------------------------------------------------------------------------------------------------------------
# documents and files

def test_documents_define_their_symbols_once():
    trees = {"f_1": parse(PAIR), "f_2": parse("reg_prop*s_12*x")}
    latex = document(trees, "latex")
    assert latex.count(r"s_{ij} = p_i \cdot p_j") == 1 and latex.count("\nf_{") == 2
    python = run(document(trees, "python"))
    assert python["f_2"](reg_prop=2, s_12=3, x=5) == 30
    assert document(trees, "python").count("s_12 = p_1.p_2") == 1
    assert run(document(trees, "sympy"))["f_2"] == to_sympy(trees["f_2"])
    assert "f2 = regprop*s12*x;" in document(trees, "mathematica")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('amp,sqamp\nx,2*s_12\nx,2*\nx,m_e^2\n')
    return path


def test_a_column_of_a_file(file, capsys):
    functions = run(convert(file, "sqamp", "python"))
    assert functions["f_1"](s_12=2) == 4 and functions["f_3"](m_e=3) == 9 and "f_2" not in functions
    assert f"{file}:3: sqamp: column 3" in capsys.readouterr().err


def test_the_command(file, tmp_path):
    def command(*arguments):
        return subprocess.run([sys.executable, "-m", "dataset.convert", *map(str, arguments)], cwd=ROOT,
                              capture_output=True, text=True)

    done = command(file, "--format=latex", f"--output={tmp_path / 'rows.tex'}")
    assert done.returncode == 0 and "f_{1} ={}& 2 s_{12}\n" in (tmp_path / "rows.tex").read_text()
    before = file.read_text()
    for arguments, message in (((file, f"--output={file}"), "is the input itself"),
                               ((file, "--max_rows=-1"), "max_rows: got -1"),
                               ((file, "--format=tex"), "format: got 'tex', wanted one of text, latex"),
                               ((), "got 0 files, wanted one"), ((file, "--column=square"), "square")):
        done = command(*arguments)
        assert done.returncode == 2 and message in done.stderr.splitlines()[-1]
    assert file.read_text() == before
    (tmp_path / "notes.txt").write_text("mine")
    for format in ("text", "latex"):
        done = command(file, f"--format={format}", f"--output={tmp_path / 'notes.txt'}")
        assert "is no earlier output of this script" in done.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"
    done = command(file, "--format=latex", f"--output={tmp_path / 'rows.tex'}")
    assert done.returncode == 0  # its own may be rewritten
