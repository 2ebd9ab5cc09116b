import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.reader import read_rows
from physics.expression import (
    Field,
    Function,
    Negative,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    Tensor,
    expand,
    legs_of,
    parse,
    to_text,
)
from physics.numeric import verify
from physics.spelling import canonical
from runtime.files import InputError
from tokenizer import amp_text, amp_tokens

NAMES = st.sampled_from(["i", "e", "g", "m_e", "m_mu", "s_12", "s_34", "reg_prop", "theta_W", "V_ub", "V_ub^(*)", "eps",
                         "eps(p_1,p_2,p_3,p_4)", "eps(p_2,p_3,p_10,p_12)"])
INDICES = st.sampled_from([r"%\mu_1", r"+%\sigma_165", "%gam_2", "%a_17", "%C_55"])
LEAVES = st.one_of(
    st.builds(Number, st.integers(0, 10**12)),
    st.builds(Symbol, NAMES),
    st.builds(
        lambda name, a, b, c: Tensor(name, (a, b, c)),
        st.sampled_from(["gamma", "T_C_6", "f_SU3"]),
        INDICES,
        INDICES,
        INDICES,
    ),
    st.builds(
        lambda name, a, b: Tensor(name, (a, b)), st.sampled_from(["g", "delta", "gamma_5", "P_L"]), INDICES, INDICES
    ),
    st.builds(lambda leg, index: Tensor(f"p_{leg}", (index,)), st.integers(1, 9), INDICES),
    st.builds(
        lambda name, index, leg, kind, star: Field(name, ("i_3", index), leg, kind, star),
        st.sampled_from(["e", "tt", "A", "nu_e"]),
        INDICES,
        st.integers(1, 12),
        st.sampled_from(["u", "v", ""]),
        st.booleans(),
    ),
)


def _grow(children):
    two = st.lists(children, min_size=2, max_size=4)
    return st.one_of(
        two.flatmap(
            lambda terms: st.builds(
                lambda minus: Sum(tuple(terms), (False, *minus)),
                st.lists(st.booleans(), min_size=len(terms) - 1, max_size=len(terms) - 1),
            )
        ),
        two.flatmap(
            lambda factors: st.builds(
                lambda inverse: Product(tuple(factors), (False, *inverse)),
                st.lists(st.booleans(), min_size=len(factors) - 1, max_size=len(factors) - 1),
            )
        ),
        st.builds(Power, children, children),
        st.builds(Negative, children),
        st.builds(Function, st.sampled_from(["sin", "cos"]), children),
    )


@given(st.recursive(LEAVES, _grow, max_leaves=20))
@settings(max_examples=300)
def test_every_tree_survives_its_own_text(tree):
    assert parse(to_text(tree)) == tree


OTHER_SPELLINGS = {
    "3": "3.0",
    "^": "**",
    "s_12": "s_21",
    "s_34": "s_43",
    "eps(p_1,p_2,p_3,p_4)": "eps( p_1, p_2 ,p_3,p_4 )",
}
OPERANDS = st.sampled_from(["3", "s_12", "s_34", "eps(p_1,p_2,p_3,p_4)", "V_ub^(*)", "m_e", "(-s_12 + e)"])


@given(st.lists(st.tuples(OPERANDS, st.sampled_from(["^", "*", "/", " + ", " - "])), min_size=1, max_size=8))
@settings(max_examples=300)
def test_other_spellings_are_the_same_formula(pairs):
    pieces = [piece for pair in pairs for piece in pair][:-1]
    tree = parse("".join(pieces))
    assert parse("".join(OTHER_SPELLINGS.get(piece, piece) for piece in pieces)) == tree == parse(to_text(tree))


@given(
    st.integers(0, 10**9),
    st.text("0123456789", min_size=1, max_size=12),
    st.sampled_from(["{}", "{}*e", "-{}*e + i", "e*{}", "({})^2", "e^{}"]),
)
def test_decimals_are_fractions(whole, digits, place):
    value = Fraction(f"{whole}.{digits}")
    assert rational_text(parse(place.format(f"{whole}.{digits}"))) == rational_text(
        parse(place.format(value if "^" not in place else f"({value})"))
    )


def rational_text(tree):
    """Text without the parentheses around fractions, which mean nothing in these places."""
    return to_text(tree).replace("(", "").replace(")", "")


def test_decimals_are_exact_and_other_spellings_are_printed_as_marty_has_them():
    for text, printed in (
        ("0.5*e", "1/2*e"),
        ("-0.5*reg_prop + e", "-1/2*reg_prop + e"),
        ("2.0*e", "2*e"),
        ("e/0.25", "e/(1/4)"),
        ("0.5^2", "(1/2)^2"),
        ("2**0.5", "2^(1/2)"),
        ("a*0.10*b", "a*1/10*b"),
        ("e**(-2)", "e^(-2)"),
        ("s_41*s_14", "s_14*s_14"),
        ("s_44 + s_411", "s_44 + s_411"),
        ("eps(p_1, p_2,p_3,p_4)^2", "eps(p_1,p_2,p_3,p_4)^2"),
        ("V_ub^(*)**2", "V_ub^(*)^2"),
    ):
        assert to_text(parse(text)) == to_text(parse(canonical(text))) == printed == to_text(parse(printed))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("2*I*e", "column 3: found .*, expected i, the imaginary unit"),
        ("nan", "column 1: found 'nan', expected a finite number"),
        ("2*inf", "column 3: found 'inf', expected a finite number"),
        ("e^(*)", "column 1: .* expected the conjugate of a symbol named V_"),
        ("eps(p_2,p_1,p_3,p_4)", "column 1: .* expected eps of four different momenta in ascending order"),
        ("eps(p_1,p_1,p_3,p_4)", "ascending"),
        ("1.", "column 2: found '.'"),
        ("1.2.3", "column 4: found '.3'"),
        (".5", "column 1: found '.5'"),
        ("1e5", "column 2: found 'e5'"),
        ("sin((p_3))", "column 6: found 'p_3.*, expected an index after a momentum"),
        ("e^2*p_3", "column 5: found 'p_3', expected an index after a momentum"),
    ],
)
def test_what_is_no_symbol_and_no_number_is_refused_with_a_hint(text, expected):
    with pytest.raises(InputError, match=expected):
        parse(text)


@given(st.text(alphabet="ip_12{}%\\,+-*/^() eAuv*", max_size=40))
@settings(max_examples=500)
def test_any_text_gives_a_tree_or_one_clear_error(text):
    try:
        assert parse(to_text(parse(text))) == parse(text)
    except InputError as error:
        assert str(error).startswith("column ") and "\n" not in str(error) and "expected" in str(error)


def test_every_marty_text_is_printed_as_it_was_read(marty):
    texts = 0
    for path in sorted(marty.glob("*.csv.gz")):
        for _, row in read_rows(path):
            for column in ("amp", "sqamp"):
                assert to_text(parse(row[column])) == row[column]
                texts += 1
    assert texts == 2 * 15874


def test_precedence_is_that_of_algebra():
    assert parse("-a*b^2/c + d") == Sum(
        (
            Negative(Product((Symbol("a"), Power(Symbol("b"), Number(2)), Symbol("c")), (False, False, True))),
            Symbol("d"),
        ),
        (False, False),
    )
    assert parse("a^b^c") == Power(Symbol("a"), Power(Symbol("b"), Symbol("c")))
    assert parse("(-8)*x") == Product((Negative(Number(8)), Symbol("x")), (False, False))
    assert parse("-8*x") == Negative(Product((Number(8), Symbol("x")), (False, False)))


@pytest.mark.parametrize(
    "text, column, expected",
    [
        ("", 1, "a number, a name or '('"),
        ("a +", 4, "a number, a name or '('"),
        ("a)", 2, "an operator or the end"),
        ("(a", 3, "')'"),
        ("a***b", 4, "a number"),
        ("2 3", 3, "an operator"),
        ("a$b", 2, "an operator"),
        ("gamma_{%a,}", 8, "indices"),
        ("e_{i,%g}(p_1)_w", 14, "an operator"),
        ("s_12 + * 3", 8, "a number"),
        ("(a*(b + c)", 11, "')'"),
    ],
)
def test_errors_name_the_column_and_what_was_expected(text, column, expected):
    with pytest.raises(InputError, match=f"^column {column}: ") as error:
        parse(text)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 200_000 + "x" + ")" * 200_000,
        "(a + " * 100_000 + "x" + ")" * 100_000,
        "(" * 100_000,
        "-(a*" * 100_000 + "x" + ")" * 100_000,
        "a^" * 100_000 + "2",
    ],
)
def test_deep_nesting_does_not_overflow_the_stack(text):
    try:
        to_text(parse(text))
        expand(parse(text))
    except InputError as error:
        assert "column" in str(error)


def test_reading_takes_linear_time():
    # counted in tokens, not in seconds: nothing is read twice
    from physics import expression
    calls = []

    class Counting:
        @staticmethod
        def finditer(text):
            for match in TOKEN.finditer(text):
                calls.append(match)
                yield match

    TOKEN, expression.TOKEN = expression.TOKEN, Counting
    try:
        for n in (100, 200):
            calls.clear()
            parse(" + ".join(["2*s_12*(m_e^2 + s_34)"] * n))
            assert len(calls) == 13 * n + 3 * (n - 1)
    finally:
        expression.TOKEN = TOKEN


def test_expanding_multiplies_out_tensors_and_leaves_scalars_alone():
    gamma, e, u = r"gamma_{%\mu_1,%a,%b}", r"e_{i_1,%b}(p_1)_u", r"e_{i_2,%a}(p_2)_u^(*)"
    photon = r"A_{i_3,+%\mu_1}(p_3)^(*)"
    terms = expand(parse(f"2*({gamma} - m_e*{gamma})*{e}*{u}*{photon}/(s_12 + m_e^2)"))
    assert len(terms) == 2
    assert all(len(term.tensors) == 4 for term in terms)
    assert sum(parse("s_12 + m_e^2") == node and inverse for term in terms for node, inverse in term.scalars) == 2
    legs = legs_of(terms)
    assert [(leg.name, leg.number, leg.incoming) for leg in legs] == [("e", 1, True), ("e", 2, False), ("A", 3, False)]


@pytest.mark.parametrize("amp, reason", [
    ("2*s_12", "no external legs"),
    (r"e_{i_1,%a}(p_1)_u*e_{i_3,%a}(p_3)_u^(*)", "expected p_1 to p_2"),
    (r"e_{i_1,%a}(p_1)_u*e_{i_1,%a}(p_1)_u^(*)", "expected p_1 to p_2"),
    (r"e_{i_1,%a}(p_1)_u*e_{i_2,%a}(p_2)_u^(*) + mu_{i_1,%a}(p_1)_u*e_{i_2,%a}(p_2)_u^(*)", "different external legs"),
    (r"e_{i_1,%a}(p_1)_u^(*)*e_{i_2,%a}(p_2)_v", "all legs come in or all go out"),
])
def test_amplitudes_without_sound_legs_are_refused(amp, reason):
    with pytest.raises(InputError, match=reason):
        legs_of(expand(parse(amp)))


def test_legs_may_come_in_any_order():
    legs = legs_of(expand(parse(r"e_{i_1,%a}(p_1)_u^(*)*e_{i_2,%a}(p_3)_u*h(p_2)*h(p_4)^(*)")))
    assert [leg.incoming for leg in legs] == [False, True, True, False]


@pytest.mark.parametrize("amp", ["2/A_{i_1,%a}(p_1)", "A_{i_1,%a}(p_1)^2", "sin(A_{i_1,%a}(p_1))"])
def test_tensors_stand_only_where_they_can_be_multiplied_out(amp):
    with pytest.raises(InputError, match="a tensor or a field stands"):
        expand(parse(amp))


def test_term_order_of_a_sum_does_not_matter_to_its_terms():
    random.seed(3)
    parts = [f"{n}*p_{n}_%a*A_{{i_1,%a}}(p_1)" for n in range(1, 6)]
    shuffled = random.sample(parts, len(parts))
    assert sorted(map(str, expand(parse(" + ".join(parts))))) == sorted(map(str, expand(parse(" + ".join(shuffled)))))


def test_marks_of_legs_survive_their_text():
    for text, kind, mark, starred in (
        ("e_{i_1,%a}(p_1)_u_off^(*)", "u", "off", True),
        ("G_{i_1,%g,+%\\mu}(p_1)_T", "", "T", False),
        ("h(p_1)_off^(*)", "", "off", True),
    ):
        field = parse(text)
        assert (field.kind, field.mark, field.starred) == (kind, mark, starred) and to_text(field) == text


# a row with normalised index names, as public notebooks on such data sets have it
NORMALISED = (
    r"-1/2*i*e^2*gamma_{+\INDEX_0,INDEX_1,INDEX_2}*gamma_{\INDEX_0,INDEX_3,INDEX_4}"
    r"*e_{MOMENTUM_0,INDEX_2}(p_1)_u*e_{MOMENTUM_1,INDEX_4}(p_2)_u"
    r"*e_{MOMENTUM_2,INDEX_1}(p_3)_u^(*)*e_{MOMENTUM_3,INDEX_3}(p_4)_u^(*)/(m_e^2+-s_13+1/2*reg_prop)"
)


def test_spellings_of_earlier_work_are_read():
    assert verify(
        NORMALISED,
        "2*e^4*(m_e^4 + -1/2*m_e^2*s_13 + 1/2*s_14*s_23 + -1/2*m_e^2*s_24 + 1/2*s_12*s_34)"
        "*(m_e^2 + -s_13 + 1/2*reg_prop)^(-2)",
    )
    text = canonical(NORMALISED)
    assert (
        r"gamma_{+%\INDEX_0,%INDEX_1,%INDEX_2}" in text
        and "{MOMENTUM_0,%INDEX_2}" in text
        and "/(m_e^2 + -s_13 + 1/2*reg_prop)" in text
    )
    assert amp_text(*amp_tokens(text)) == text == canonical(text)
    assert (
        parse(r"p_3_\INDEX_0") == Tensor("p_3", (r"\INDEX_0",)) and canonical(r"+-p_3_\INDEX_0"[2:]) == r"p_3_%\INDEX_0"
    )
    with pytest.raises(InputError, match="column 5: found .*, expected an operator or the end"):
        parse("Prod;(;-1/2;i;)")
