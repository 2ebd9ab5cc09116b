"""Feynman rules of vertices without fermions: the structures that theory.py names, as terms for amplitude.py.

A function gets the bosons at the vertex in the order of the vertex's particle list and a counter of dummy indices.
Its terms are (coefficient, scalars, tensors) as amplitude.py describes them.
"""
import itertools
from fractions import Fraction
from typing import NamedTuple


class End(NamedTuple):
    """A boson at a vertex."""
    mu: tuple                   # its Lorentz index
    colour: tuple               # its colour index
    flow: dict                  # momentum that it brings into the vertex, {leg from 0: sign}
    vector: bool
    transverse: bool  # a leg whose momentum vanishes on its index
    longitudinal: bool  # of its propagator only the part q q / m^2 is taken: the vertex is contracted with the flow


def _three_vectors(ends, fresh):
    """g^mu nu (k - p)^rho + g^nu rho (p - q)^mu + g^rho mu (q - k)^nu, with momenta k, p, q that flow in.

    Source: Peskin & Schroeder, appendix A.1. Contracted with q_rho that is (p^2 - k^2) g^mu nu + k^mu k^nu - p^mu p^nu.
    """
    third = next((n for n, end in enumerate(ends) if end.longitudinal), None)
    if third is not None:
        k, p = ends[third - 2], ends[third - 1]
        terms = []
        for (squared, other), sign in (((p, k), 1), ((k, p), -1)):
            for (i, a), (j, b) in itertools.product(squared.flow.items(), repeat=2):
                dummy = rf"%\mu_{next(fresh)}"
                terms += [(Fraction(sign * a * b), [], [("g", k.mu, p.mu), ("p", i, dummy), ("p", j, dummy)]),
                          (Fraction(-sign * a * b), [], [("p", i, squared.mu), ("p", j, other.mu)])]
        return _with_momenta(terms, (k, p))
    terms = []
    for third, q in enumerate(ends):
        k, p = ends[third - 2], ends[third - 1]
        terms += [(Fraction(c), [], [("g", k.mu, p.mu), ("p", leg, q.mu)])
                  for leg, c in _difference(k, p, q.transverse).items() if c]
    return terms


def _scalar_current(ends, fresh):
    """(k_2 - k_1)^mu, the momenta of the two scalars that flow in, the first one of the vertex's list subtracted.

    With ("S~", "S", "V") that is (p + p')^mu of S with the momentum p in and p' out: Peskin & Schroeder, problem 9.1,
    and Denner, arXiv 0709.1075, appendix A: VSS. Contracted with q = -k_1 - k_2 it is k_1^2 - k_2^2.
    """
    (first, second), (vector,) = ([end for end in ends if end.vector == kind] for kind in (False, True))
    if vector.longitudinal:
        terms = []
        for end, sign in ((first, 1), (second, -1)):
            for (i, a), (j, b) in itertools.product(end.flow.items(), repeat=2):
                dummy = rf"%\mu_{next(fresh)}"
                terms.append((Fraction(sign * a * b), [], [("p", i, dummy), ("p", j, dummy)]))
        return terms
    return [(Fraction(c), [], [("p", leg, vector.mu)])
            for leg, c in _difference(second, first, vector.transverse).items() if c]


def _difference(k, p, transverse):
    """
    The momentum k - p of two ends, {leg: coefficient}. transverse: what it is contracted with, of momentum q, vanishes
    on q = -(k + p), so that k - p = 2 k + q = -(2 p + q) may be 2 k or -2 p, the shorter of them.
    """
    if transverse:
        shorter, twice = (k, 2) if len(k.flow) <= len(p.flow) else (p, -2)
        return {leg: twice * sign for leg, sign in shorter.flow.items()}
    return {leg: k.flow.get(leg, 0) - p.flow.get(leg, 0) for leg in {**k.flow, **p.flow}}


def _with_momenta(terms, ends):
    """The terms times the momentum of each longitudinal end."""
    for end in ends:
        if end.longitudinal:
            terms = [(c * sign, scalars, [*tensors, ("p", leg, end.mu)])
                     for c, scalars, tensors in terms for leg, sign in end.flow.items()]
    return terms


def _three_gluons(ends, fresh):
    """-i f^abc [g^mu nu (k - p)^rho + ...]: the rule is g f^abc [...] (Peskin & Schroeder, appendix A.1)."""
    colours = ("f_SU3", *(end.colour for end in ends))
    return [(scale, [("i", 3)], [colours, *tensors]) for scale, _, tensors in _three_vectors(ends, fresh)]


def _four_vectors(ends, fresh):
    """2 g^mu nu g^rho sigma - g^mu rho g^nu sigma - g^mu sigma g^nu rho (Denner, arXiv 0709.1075, appendix A: VVVV)."""
    mu, nu, rho, sigma = (end.mu for end in ends)
    return _with_momenta(
        [
            (Fraction(2), [], [("g", mu, nu), ("g", rho, sigma)]),
            (Fraction(-1), [], [("g", mu, rho), ("g", nu, sigma)]),
            (Fraction(-1), [], [("g", mu, sigma), ("g", nu, rho)]),
        ],
        ends,
    )


def _metric(ends, fresh):
    """g^mu nu between the two vectors of a vertex, whatever scalars there are."""
    vectors = [end for end in ends if end.vector]
    return _with_momenta([(Fraction(1), [], [("g", *(end.mu for end in vectors))])], vectors)


def _number(ends, fresh):
    """1: scalars alone."""
    return [(Fraction(1), [], [])]


def _four_gluons(ends, fresh):
    """-i g^2 [f^abe f^cde (g^mu rho g^nu sigma - g^mu sigma g^nu rho) + two permutations].

    Source: Peskin & Schroeder, appendix A.1.
    """
    mu, colour = [end.mu for end in ends], [end.colour for end in ends]
    terms = []
    for a, b, c, d in ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2)):
        dummy = f"%g_{next(fresh)}"
        colours = [("f_SU3", colour[a], colour[b], dummy), ("f_SU3", colour[c], colour[d], dummy)]
        terms.append((Fraction(-1), [], [*colours, ("g", mu[a], mu[c]), ("g", mu[b], mu[d])]))
        terms.append((Fraction(1), [], [*colours, ("g", mu[a], mu[d]), ("g", mu[b], mu[c])]))
    return terms


# those of fermions are products of 'gamma', 'P_L' or 'P_R' and 'T', 'unit' is none of them
STRUCTURES = {
    "f": _three_gluons,
    "ff": _four_gluons,
    "VVV": _three_vectors,
    "VVVV": _four_vectors,
    "SSV": _scalar_current,
    "metric": _metric,
    "number": _number,
}
