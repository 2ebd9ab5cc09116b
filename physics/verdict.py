"""
Is an answer the square of its amplitude, and are two answers the same function? Floating point first, then a proof.

decode.py, evaluate.py and rewards.py all judge by these functions.
"""
from physics.exact import equal, prove
from physics.expression import UNCOMPUTABLE, parse
from physics.matrices import names_beside, read_roles
from physics.numeric import same, verify
from physics.particles import NO_FACTS

NEARLY = "equal to the square in floating point, but not exactly"


def doubt_of(amp, sqamp, facts=NO_FACTS):
    """
    Why sqamp is not known to be the square of amp; "" if it is.

    Floating point turns away nearly all that is wrong, exact arithmetic then proves the rest. Where there is no proof,
    the reason begins with "no proof".
    """
    verdict = verify(amp, sqamp, facts=facts)
    if not verdict:
        return verdict.reason or verdict.status
    try:
        return "" if prove(amp, sqamp, facts=facts) else NEARLY
    except UNCOMPUTABLE as error:
        return f"no proof: {str(error).removeprefix('no proof: ') or type(error).__name__}"


def missing_fact(amp, sqamps, facts):
    """
    What nobody knows of the legs of an amplitude, so that none of these squares of it can be judged; "" if it is known.

    The mass of a particle may be known beside a square that names it, m_X for the particle X.
    """
    reason = ""
    for sqamp in sqamps:
        try:
            names = names_beside(amp, parse(sqamp))
        except UNCOMPUTABLE:
            names = frozenset()
        try:
            read_roles(amp, names, facts)
            return ""
        except UNCOMPUTABLE as error:
            reason = reason or str(error) or type(error).__name__
    return reason


def are_equal(amp, text, other, facts=NO_FACTS):
    """Whether two texts are the same function of the amplitude's symbols: at the same random points, then proven."""
    try:
        return same(amp, text, other, facts=facts) and equal(amp, text, other, facts=facts)
    except UNCOMPUTABLE:
        return False
