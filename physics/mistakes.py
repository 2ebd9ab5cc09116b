"""What is wrong with a wrong square: the kind of its difference from the true one."""
from physics.expression import parse
from physics.polynomial import common_powers, monomial
from physics.rational import rational, reduced
from runtime.files import InputError

KINDS = ("propagators", "factor", "signs", "coefficients", "missing terms", "added terms", "other terms")


def mistake(answer, truth):
    """
    How an answer differs from the truth, both texts of squares: one of KINDS, None if they are equal.

        propagators     its terms stand over other denominators
        factor          a multiple of the truth: a number, couplings or masses in front
        signs           a multiple of it but for some signs
        coefficients    a multiple of it but for some numbers
        missing terms   a multiple of it but for some terms, which are not there
        added terms     a multiple of it but for some terms, which should not be there
        other terms     anything else

    InputError where a text is no rational function (physics/rational.py).
    """
    try:
        answer, truth = (reduced(rational(parse(text))) for text in (answer, truth))
    except ZeroDivisionError:
        raise InputError("a division by 0") from None
    if answer == truth:
        return None
    if not answer or not truth:
        return "added terms" if answer else "missing terms"
    if denominators(answer) != denominators(truth):
        return "propagators"
    kind = difference(answer, truth)
    if kind == "other terms":  # for want of a power in front, or for one too many?
        kind = difference(without_common_factor(answer), without_common_factor(truth))
    return kind


def difference(answer, truth):
    """The kind of a mistake of terms that stand over the same propagators."""
    common = answer.keys() & truth.keys()
    ratios = {answer[term] / truth[term] for term in common}
    if common == answer.keys() == truth.keys():
        if len(ratios) == 1:
            return "factor"
        return "signs" if len({abs(ratio) for ratio in ratios}) == 1 else "coefficients"
    if len(ratios) == 1 and common == answer.keys():
        return "missing terms"
    if len(ratios) == 1 and common == truth.keys():
        return "added terms"
    return "other terms"


def denominators(polynomial):
    """The sets of propagators that stand below the polynomial's terms."""
    return {tuple(factor for factor in term if factor[0].startswith("(")) for term in polynomial}


def without_common_factor(polynomial):
    """The polynomial without the powers of couplings, masses and other symbols that all its terms have in common."""
    powers = [dict(term) for term in polynomial]
    least = common_powers(powers)
    return {monomial({symbol: power.get(symbol, 0) - least[symbol] for symbol in least}): value
            for power, value in zip(powers, polynomial.values())}
