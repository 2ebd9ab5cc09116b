"""What is wrong with a wrong square."""
import pytest

from physics.mistakes import KINDS, mistake
from runtime.files import InputError

TRUTH = "2*e^4*(m_e^4 + -1/2*m_e^2*s_14 + 1/2*s_13*s_24)*(m_e^2 + -s_23 + 1/2*reg_prop)^(-2)"


@pytest.mark.parametrize("old, new, kind", [
    ("m_e^4 + -1/2*m_e^2*s_14 + 1/2*s_13*s_24", "1/2*s_24*s_13 + -1/2*s_14*m_e^2 + m_e^4", None),
    ("s_23", "s_13", "propagators"),
    ("^(-2)", "^(-1)", "propagators"),
    ("2*e^4", "4*e^4", "factor"),
    ("2*e^4", "-2*e^4", "factor"),
    ("2*e^4", "2*e^2*m_e^2", "factor"),
    ("-1/2", "1/2", "signs"),
    ("-1/2", "-1/4", "coefficients"),
    (" + 1/2*s_13*s_24", "", "missing terms"),
    ("2*e^4*(m_e^4 + -1/2*m_e^2*s_14", "8*e^4*(m_e^4", "missing terms"),
    ("m_e^4", "m_e^4 + s_12*s_34", "added terms"),
    ("s_24", "s_23", "other terms"),
    (TRUTH, "0", "missing terms"),
])
def test_the_kind_of_a_mistake(old, new, kind):
    assert TRUTH.count(old) == 1
    assert mistake(TRUTH.replace(old, new), TRUTH) == kind and (kind is None or kind in KINDS)


def test_an_answer_where_the_truth_is_zero_has_terms_too_many():
    assert mistake("s_12", "0") == "added terms"


def test_what_is_no_rational_function_has_no_kind():
    for text in ("1/0", "(1 + m_e)^(1/2)", "gamma_{%a"):
        with pytest.raises(InputError):
            mistake(text, "e^2")
