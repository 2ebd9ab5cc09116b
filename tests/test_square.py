r"""Squares of amplitudes with everything that the grammar has, against sums over explicit states.

`explicit` shares only the reader of texts with the squarer. It takes chiral Dirac matrices, spinors and polarisation
vectors of given momenta, sums every index by one einsum and adds up |M|^2 state by state.
"""
import csv
import itertools
import math
import random
import re

import numpy as np
import pytest

from physics import exact
from physics.expression import (
    Field,
    Function,
    Negative,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    epsilon_legs,
    expand,
    fold,
    names_in,
    parse,
)
from physics.numeric import verify
from physics.particles import Facts, parse_masses
from physics.rational import rational, reduced
from physics.square import square, square_many
from runtime.files import InputError

PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
ZERO, ONE = np.zeros((2, 2)), np.eye(2)
GAMMA = np.array(
    [np.block([[ZERO, ONE], [ONE, ZERO]])] + [np.block([[ZERO, sigma], [-sigma, ZERO]]) for sigma in PAULI]
)  # index up
GAMMA_5 = 1j * GAMMA[0] @ GAMMA[1] @ GAMMA[2] @ GAMMA[3]
METRIC = np.diag([1.0, -1, -1, -1])


def gell_mann():
    """T^a, (8, 3, 3)."""
    matrices = np.zeros((8, 3, 3), complex)
    for n, pair in ((0, (0, 1)), (3, (0, 2)), (5, (1, 2))):
        for k in range(2):
            matrices[n + k][np.ix_(pair, pair)] = PAULI[k]
    matrices[2], matrices[7] = np.diag([1, -1, 0]), np.diag([1, 1, -2]) / math.sqrt(3)
    return matrices / 2


T = gell_mann()
F = -2j * (np.einsum("aij,bjk,cki->abc", T, T, T) - np.einsum("bij,ajk,cki->abc", T, T, T))
TENSORS = {
    "gamma": ("LDD", GAMMA),
    "gamma_5": ("DD", GAMMA_5),
    "P_L": ("DD", (np.eye(4) - GAMMA_5) / 2),
    "P_R": ("DD", (np.eye(4) + GAMMA_5) / 2),
    "g": ("LL", METRIC),
    "T": ("ACC", T),
    "f": ("AAA", F),
}
SIZE = {"L": 4, "D": 4, "C": 3, "A": 8}


def scalar(tree, values):
    def visit(node, arguments):
        if type(node) is Number:
            return node.value
        if type(node) is Symbol:
            return values[node.name]
        if type(node) is Negative:
            return -arguments[0]
        if type(node) is Sum:
            return sum(-term if minus else term for term, minus in zip(arguments, node.minus))
        if type(node) is Product:
            return math.prod(
                (1 / factor if inverse else factor for factor, inverse in zip(arguments, node.inverse)), start=1
            )
        if type(node) is Function:
            return getattr(np, node.name)(arguments[0])
        assert type(node) is Power
        return complex(arguments[0]) ** arguments[1]
    return fold(tree, visit)


def kinds_of(tensor):
    """Kinds of the summed indices of a tensor or field; None for a delta."""
    if type(tensor) is Field:
        return ("CD" if tensor.kind else "AL")[-len(tensor.indices) + 1:] if len(tensor.indices) > 1 else ""
    name = "T" if re.fullmatch(r"T_C_\d+", tensor.name) else "f" if tensor.name == "f_SU3" else tensor.name
    return "L" if name.startswith("p_") else None if name == "delta" else TENSORS[name][0]


def explicit(amp, values, momenta, masses):
    """Sum of |M|^2 over all states. momenta: (legs, 4), contravariant; masses: numbers, 0 for a massless vector too."""
    total = 0
    for term in expand(parse(amp)):
        factor = math.prod(
            (1 / scalar(node, values) if inverse else scalar(node, values) for node, inverse in term.scalars), start=1
        )
        summed = {
            tensor: [i.lstrip("+") for i in (tensor.indices[1:] if type(tensor) is Field else tensor.indices)]
            for tensor in term.tensors
        }
        kind_of = {index: kind for tensor, indices in summed.items() if kinds_of(tensor) is not None
                   for index, kind in zip(indices, kinds_of(tensor))}
        deltas = [indices for tensor, indices in summed.items() if kinds_of(tensor) is None]
        for a, b in deltas * len(deltas):
            kind_of |= {one: kind_of[other] for one, other in ((a, b), (b, a)) if other in kind_of}
        letters, seen, operands, out = itertools.count(), {}, [], []

        def axes(indices):
            """A letter for each index. The metric or a unit matrix joins the two letters of a repeated index."""
            here = []
            for index in indices:
                here.append(next(letters))
                if index in seen:
                    operands.extend(
                        [METRIC if kind_of[index] == "L" else np.eye(SIZE[kind_of[index]]), [seen[index], here[-1]]]
                    )
                seen[index] = here[-1]
            return here

        fields = sorted((tensor for tensor in term.tensors if type(tensor) is Field), key=lambda field: field.leg)
        for tensor in term.tensors:
            if type(tensor) is not Field:
                indices = summed[tensor]
                if tensor.name.startswith("p_"):
                    array = momenta[int(tensor.name[2:]) - 1]
                elif tensor.name == "delta":
                    array = METRIC if kind_of[indices[0]] == "L" else np.eye(SIZE[kind_of[indices[0]]])
                else:
                    array = TENSORS["T" if tensor.name[:2] == "T_" else "f" if tensor.name == "f_SU3" else tensor.name][
                        1
                    ]
                operands += [array, axes(indices)]
        signs = []
        for field in fields:
            here = axes(summed[field])
            if len(field.indices) > 1:
                states, sign = states_of(field, momenta[field.leg - 1], masses[field.leg - 1])
                state = next(letters)
                operands += [states, [state, here[-1]]]
                out.append(state)
                signs.append(sign)
            out += here[:-1]
        total = total + factor * np.einsum(*operands, out, optimize=True)
    weights = np.abs(total)**2                               # axes: of each leg its state and its colour
    for axis, sign in enumerate(signs_by_axis(fields, signs)):
        weights = weights * np.reshape(sign, [-1 if k == axis else 1 for k in range(weights.ndim)])
    return weights.sum()


def signs_by_axis(fields, signs):
    signs = iter(signs)
    for field in fields:
        if len(field.indices) > 1:
            yield next(signs)
        if len(field.indices) > 2:
            yield np.ones(SIZE["C" if field.kind else "A"])


def states_of(field, p, mass):
    """Spinors or polarisation vectors (states, 4) and the sign of each in the sum over states."""
    if field.kind:
        slash = np.einsum("m,mab->ab", METRIC @ p, GAMMA)
        sizes, vectors = np.linalg.eigh(
            (slash + (mass if field.kind == "u" else -mass) * np.eye(4)) @ GAMMA[0]
        )  # sum of u u^dagger
        assert (sizes > -1e-9 * p[0]).all()
        spinors = (vectors * np.sqrt(np.maximum(sizes, 0))).T
        return (spinors.conj() @ GAMMA[0] if field.starred else spinors), np.ones(4)
    if not mass:
        return np.eye(4), -METRIC.diagonal()
    sizes, vectors = np.linalg.eigh(-METRIC + np.outer(p, p) / mass**2)
    return (vectors * np.sqrt(np.abs(sizes))).T, np.sign(sizes)


def point(incoming, masses, seed):
    """Random momenta (legs, 4) with one or two incoming legs. The mass of one alone is what comes out."""
    rng = np.random.default_rng(seed)
    momenta = np.zeros((len(masses), 4))
    total = np.zeros(4)
    for k, mass in enumerate(masses):
        if k not in incoming:
            space = rng.normal(size=3)
            momenta[k] = math.sqrt(mass**2 + space @ space), *space
            total += momenta[k]
    if len(incoming) == 1:
        momenta[incoming[0]] = total
        return momenta
    a, b = (masses[k] for k in incoming)
    whole = math.sqrt(total @ METRIC @ total)
    assert whole > a + b
    size = math.sqrt((whole**2 - (a + b)**2) * (whole**2 - (a - b)**2)) / (2 * whole)
    space = rng.normal(size=3)
    space *= size / np.linalg.norm(space)
    energy = math.sqrt(a**2 + size**2)                       # boosted from the rest frame of the total momentum
    boosted = (energy * total[0] + space @ total[1:]) / whole
    momenta[incoming[0]] = boosted, *(space + (boosted + energy) / (total[0] + whole) * total[1:])
    momenta[incoming[1]] = total - momenta[incoming[0]]
    return momenta


def check(amp, incoming, masses, states, facts=Facts(), basis="all", seed=1):
    """Check the square of amp against the explicit one and return it.

    masses: symbols of the legs, "" if massless. states: what the sum is divided by.
    """
    sqamp = square(amp, basis, facts=facts)
    rng = random.Random(seed)
    names = sorted(names_in(parse(amp)) | names_in(parse(sqamp)) | set(filter(None, masses)))
    values = {name: rng.uniform(0.5, 1.5) for name in names}
    values |= {
        name: complex(values[name], rng.uniform(0.5, 1.5))
        for name in names
        if name.startswith("V_") and not name.endswith("^(*)")
    }
    values |= {
        name: values.setdefault(name[:-4], complex(1, rng.uniform(0.5, 1.5))).conjugate()
        for name in names
        if name.endswith("^(*)")
    }
    values |= {name: 0.2 * values[name] for name in names if name.startswith("m_")} | {"i": 1j}
    numbers = [values.get(mass, 0.0) for mass in masses]
    momenta = point(incoming, numbers, seed)
    if len(incoming) == 1:
        numbers[incoming[0]] = values[masses[incoming[0]]] = math.sqrt(
            momenta[incoming[0]] @ METRIC @ momenta[incoming[0]]
        )
    values |= {f"s_{j}{k}": momenta[j - 1] @ METRIC @ momenta[k - 1]
               for j, k in itertools.combinations_with_replacement(range(1, len(masses) + 1), 2)}
    values |= {
        name: np.linalg.det(momenta[[k - 1 for k in epsilon_legs(name)]]) for name in names if epsilon_legs(name)
    }
    expected, found = explicit(amp, values, momenta, numbers) / states, scalar(parse(sqamp), values)
    assert found == pytest.approx(expected, rel=1e-9), sqamp
    assert expected > 1e-12
    return sqamp


# ---------------------------------------------------------------------------------------------------------------------
# Epsilon tensors

LINE = (
    r"p_{}_%\mu_1*gamma_{{+%\mu_1,%a_1,%c_1}}*P_L_{{%c_1,%a_2}}*nu_e_{{i_1,%a_2}}(p_1)_u*nu_e_{{i_2,%a_1}}(p_2)_v^(*)"
    r"*h(p_3)^(*)*S(p_4)^(*)*X(p_5)^(*)"
)
CHIRAL = f"{LINE.format(3)} + i*{LINE.format(4)}"
SCALARS = Facts(process="nu_e nu_e~ -> h S X", masses=parse_masses("S=m_S X=0"))
SCALAR_MASSES = ["", "", "m_h", "m_S", ""]


@pytest.mark.parametrize("basis", ["all", "independent"])
@pytest.mark.parametrize(
    "amp",
    [
        CHIRAL,
        f"{LINE.format(5)} - i*{LINE.format(3)}",
        f"(2 + 3*i)*{LINE.format(3)} + (1 - i)*s_34*{LINE.format(5)}",
        CHIRAL.replace("P_L", "P_R"),
        f"V_1*{LINE.format(3)} + V_2^(*)*{LINE.format(4)}",
        f"{LINE.format(3)}/(2*s_34 - m_Z^2 + i*m_Z*Gamma_Z) + {LINE.format(4)}/(2*s_45 - m_Y^2 + i*m_Y*Gamma_Y)",
    ],
)
def test_a_chiral_amplitude_with_a_relative_phase_keeps_its_epsilon_tensor(amp, basis):
    sqamp = check(amp, (0, 1), SCALAR_MASSES, 4, SCALARS, basis)
    assert set(re.findall(r"eps\([^)]*\)", sqamp)) == {"eps(p_1,p_2,p_3,p_4)"}               # of five legs there is one


def test_the_square_of_the_shared_chiral_case():
    assert (
        square(CHIRAL, facts=SCALARS)
        == "-1/2*(2*eps(p_1,p_2,p_3,p_4) + m_S^2*s_12 + m_h^2*s_12 + (-2)*s_13*s_23 + (-2)*s_14*s_24)"
    )
    assert "eps" not in square(f"{LINE.format(3)} + 2*{LINE.format(4)}", facts=SCALARS)  # relatively real: it cancels


def test_epsilon_tensors_in_amplitudes():
    """Two of them, or one and a chiral trace, are a Gram determinant; beside a number the symbol stays."""
    assert "eps" not in check(f"eps(p_1,p_2,p_3,p_4)*{LINE.format(3)}", (0, 1), SCALAR_MASSES, 4, SCALARS)
    check(f"eps(p_1,p_2,p_3,p_5)*{LINE.format(3)} + s_12*s_34*i*{LINE.format(4)}", (0, 1), SCALAR_MASSES, 4, SCALARS)
    assert "eps" in check(f"(eps(p_1,p_2,p_4,p_5) + s_12*s_34)*{LINE.format(3)}", (0, 1), SCALAR_MASSES, 4, SCALARS)
    assert (
        square(r"(eps(p_1,p_2,p_3,p_4) + s_12)*h(p_1)*h(p_2)*h(p_3)^(*)*h(p_4)^(*)") == "1/2*s_12^2"
    )  # four legs have none


def test_products_of_chiral_lines_and_open_epsilon_indices():
    """Two lines with gamma_5 exchange a vector of complex mass with q q / m^2; the emitted photon makes five legs."""
    amp = (
        r"(p_5_%\mu_3*gamma_{+%\mu_3,%a_1,%a_5}*gamma_{%\mu_2,%a_5,%a_2}*P_L_{%a_2,%a_3}"
        r" + 2*i*V_1*gamma_{%\mu_2,%a_1,%a_3}*(s_12))*gamma_{+%\mu_1,%a_3,%a_4}"
        r"*gamma_{%\mu_1,%b_1,%b_2}*P_R_{%b_2,%b_3}*e_{i_1,%a_4}(p_1)_u*e_{i_2,%a_1}(p_2)_v^(*)"
        r"*mu_{i_3,%b_1}(p_3)_u^(*)*mu_{i_4,%b_3}(p_4)_v*A_{i_5,+%\mu_2}(p_5)^(*)/(m_Z^2 + (-2)*s_34 + i*Gamma_Z*m_Z)"
    )
    check(amp, (0, 1), ["m_e", "m_e", "m_mu", "m_mu", ""], 4)


# ---------------------------------------------------------------------------------------------------------------------
# Widths, complex couplings, roots, decimals

LEFT = r"gamma_{+%\mu_1,%a_1,%c_1}*P_L_{%c_1,%a_2}*gamma_{%\mu_1,%a_3,%a_4}"
LEGS = r"e_{i_2,%a_1}(p_2)_v^(*)*e_{i_1,%a_2}(p_1)_u*mu_{i_3,%a_3}(p_3)_u^(*)*mu_{i_4,%a_4}(p_4)_v"
MUONS = ["m_e", "m_e", "m_mu", "m_mu"]
PHOTON = rf"gamma_{{+%\mu_1,%a_1,%a_2}}*gamma_{{%\mu_1,%a_3,%a_4}}*{LEGS}/(m_e^2 + s_12)"


@pytest.mark.parametrize("basis", ["all", "independent"])
@pytest.mark.parametrize(
    "amp",
    [
        f"i*e^2*{LEFT}*{LEGS}/(m_e^2 + s_12 + -1/2*m_Z^2 + 1/2*i*Gamma_Z*m_Z)",
        f"i*e^2*{LEFT}*{LEGS}/(i*m_e^2 + i*s_12 - i/2*m_Z^2 - 1/2*Gamma_Z*m_Z)^2",
        f"{PHOTON} + (1 + 2*i)*{LEFT}*{LEGS}/(m_e^2 + s_12 + -1/2*m_Z^2 + 1/2*i*Gamma_Z*m_Z)",
        f"{PHOTON} + {LEFT}*{LEGS}/(m_e^2 + s_12 + -1/2*m_Z^2 + i*Gamma_Z*m_Z)"
        f" + 3*{LEFT}*{LEGS}/(s_13 + i*Gamma_X)/(s_12 - i*Gamma_Z)",
        f"V_1*{PHOTON} + V_2^(*)*{LEFT}*{LEGS}/(s_12 + V_2*m_e^2)",
        f"{PHOTON} + V_ud^2*V_ud^(*)*{LEFT}*{LEGS}/(s_12 + V_ud + 2*V_ud^(*))",
        f"V_ud*V_us^(*)^2*{LEFT}*{LEGS}",
        f"V_ud*{PHOTON} + V_us*{LEFT}*{LEGS}",
        f"(2^(1/2) + 3^(1/2)*e + 1/6^(1/2))*{PHOTON} + (4/27)^(-1/2)*i*2^(3/2)*{LEFT}*{LEGS}",
        f"0.125*{PHOTON} + 2.50*e**2*{LEFT}*{LEGS}",
        f"{PHOTON}/(1 + i) + 1/(2^(1/2)*2^(1/2) + e)*{LEFT}*{LEGS}",
    ],
)
def test_squares_with_complex_numbers(amp, basis):
    check(amp, (0, 1), MUONS, 4, basis=basis)


def test_the_square_of_a_resonance_has_a_real_denominator():
    sqamp = square(f"{LEFT}*{LEGS}/(2*s_12 + -m_Z^2 + i*Gamma_Z*m_Z)")
    assert sqamp.endswith("*(Gamma_Z^2*m_Z^2 + m_Z^4 + (-4)*m_Z^2*s_12 + 4*s_12^2)^(-1)") and not re.search(
        r"(?<!\w)i(?!\w)", sqamp
    )
    assert square(f"{LEFT}*{LEGS}/(i*2*s_12 + -i*m_Z^2 - Gamma_Z*m_Z)") == sqamp             # the same but for a phase


def test_couplings_named_V_are_complex_and_others_are_not():
    amp = f"V_ub*{LEFT}*{LEGS}"
    assert square(amp).startswith("4*V_ub*V_ub^(*)*") and square(amp.replace("V_ub", "W_ub")).startswith("4*W_ub^2*")
    assert square(amp.replace("V_ub", "V_ub^(*)")) == square(amp)


def test_roots_have_one_text():
    squares = {
        square(f"{root}*({PHOTON})")
        for root in ("6^(1/2)", "2^(1/2)*3^(1/2)", "24^(1/2)/2", "(3/2)^(1/2)*2", "6/6^(1/2)", "6^(-1/2)*6")
    }
    assert len(squares) == 1
    assert "2^(1/2)*3^(1/2)*" in square(f"(6^(1/2) + 1)*({PHOTON})") and "5^(1/2)" in square(f"(20^0.5 + 1)*({PHOTON})")


# ---------------------------------------------------------------------------------------------------------------------
# Tensors and legs

@pytest.mark.parametrize(
    "amp",
    [
        rf"g_{{%\mu_1,%\mu_2}}*gamma_{{+%\mu_1,%a_1,%a_2}}*gamma_{{+%\mu_2,%a_3,%a_4}}*{LEGS}",
        rf"(g_{{%\mu_1,+%\mu_2}}*gamma_{{+%\mu_1,%a_1,%a_2}}*gamma_{{%\mu_2,%a_3,%a_4}}"
        rf" + g_{{%\mu_8,+%\mu_8}}*gamma_5_{{%a_1,%a_2}}*gamma_5_{{%a_3,%a_4}})*{LEGS}",
        r"(gamma_{%\mu_1,%a_1,%b_1}*gamma_5_{%b_1,%a_2}*p_3_+%\mu_1 + e*i*delta_{%a_1,%a_2})"
        rf"*delta_{{%a_3,%b_3}}*delta_{{%b_3,%a_4}}*{LEGS}",
        r"(gamma_{%\mu_1,%a_1,%a_2}*g_{+%\mu_1,%\mu_2}*delta_{+%\mu_2,%\mu_3}*p_3_+%\mu_3*delta_{%a_3,%a_4}"
        rf" + s_12*gamma_5_{{%a_1,%a_2}}*delta_{{%a_4,%a_3}})*{LEGS}",
    ],
)
def test_metrics_deltas_and_gamma_5(amp):
    check(amp, (0, 1), MUONS, 4)
    check(amp, (0, 1), MUONS, 4, basis="independent", seed=2)


@pytest.mark.parametrize("joined", ["Z_{{i_1,%{}}}(p_2)^(*)*Z_{{i_2,+%{}}}(p_3)^(*)",
                                    "Z_{{i_1,%{}}}(p_2)^(*)*Z_{{i_2,%nu_1}}(p_3)^(*)*g_{{%{},%nu_1}}",
                                    "e_{{i_2,%{}}}(p_2)_u^(*)*e_{{i_3,%{}}}(p_3)_v"])
@pytest.mark.parametrize("name", ["mu_1", r"\mu_1"])
def test_an_index_is_lorentz_or_dirac_by_its_leg_with_or_without_a_backslash(joined, name):
    amp = "2*i*k*h(p_1)*" + joined.format(name, name)
    assert verify(amp, square(amp)) and exact.prove(amp, square(amp))


QUARKS = (
    r"T_C_{n}_{{%g_1,%C_1,%C_2}}*T_C_{n}_{{%g_2,%C_2,%C_3}}*p_3_%\mu_1*gamma_{{+%\mu_1,%a_1,%a_2}}"
    r"*u_{{i_1,%C_3,%a_2}}(p_1)_u*u_{{i_2,%C_1,%a_1}}(p_2)_v^(*)"
    r"*G_{{i_3,%g_1,+%\mu_2}}(p_3)^(*)*G_{{i_4,%g_2,%\mu_2}}(p_4)^(*)"
)


@pytest.mark.parametrize(
    "amp",
    [
        QUARKS.format(n=6),
        QUARKS.format(n=123),
        QUARKS.format(n=10)
        .replace("*p_3", r"*delta_{%C_3,%C_4}*delta_{%g_1,%g_3}*p_3")
        .replace("_3,%C_3,", "_3,%C_4,")
        .replace("1,%C_3", "1,%C_4")
        .replace("3,%g_1,", "3,%g_3,"),
        QUARKS.format(n=10)
        + " + i*e*"
        + QUARKS.format(n=10).replace(
            "T_C_10_{%g_1,%C_1,%C_2}*T_C_10_{%g_2,%C_2,%C_3}", "delta_{%C_1,%C_3}*delta_{%g_1,%g_2}"
        ),
    ],
)
def test_generators_of_any_number_and_colour_deltas(amp):
    check(amp, (0, 1), ["m_u", "m_u", "", ""], 4 * 9 * 2)


def test_legs_in_any_order_of_momenta():
    """The decay mu -> e nu nu~ with the muon as the third leg, and 2 -> 3 with incoming legs 2 and 5."""
    muon = (r"gamma_{+%\mu_1,%a_1,%a_2}*P_L_{%a_2,%a_3}*gamma_{%\mu_1,%a_4,%a_5}*P_L_{%a_5,%a_6}"
            r"*nu_mu_{i_2,%a_1}(p_2)_u^(*)*mu_{i_1,%a_3}(p_3)_u*e_{i_3,%a_4}(p_1)_u^(*)*nu_e_{i_4,%a_6}(p_4)_v")
    assert check(muon, (2,), ["m_e", "", "m_mu", ""], 2) == "8*s_12*s_34"
    amp = (r"(p_3_%\mu_1*gamma_{+%\mu_1,%a_1,%a_2} + i*p_4_%\mu_1*gamma_{+%\mu_1,%a_1,%b_2}*P_L_{%b_2,%a_2})"
           r"*e_{i_1,%a_2}(p_5)_u*e_{i_2,%a_1}(p_1)_u^(*)*h(p_2)*h(p_3)^(*)*h(p_4)^(*)")
    for basis in ("all", "independent"):
        check(amp, (4, 1), ["m_e", "m_h", "m_h", "m_h", "m_e"], 2 * 2, basis=basis)
    assert "eps" in square(amp)


@pytest.mark.parametrize(
    "amp, reason",
    [
        (f"C_{{%a_1,%a_2}}*gamma_5_{{%a_3,%a_4}}*{LEGS}", "charge conjugation matrix C: Majorana"),
        (r"gamma_5_{%a,%b}*N_{i_1,%a}(p_1)_u*N_{i_2,%b}(p_2)_u*h(p_3)^(*)", "0 starred and 2 plain spinors.*Majorana"),
        (r"delta_{%x,%x}*e_{i_1,%a}(p_1)_u*e_{i_2,%a}(p_2)_u^(*)", "summed over its own index"),
        (f"(((7^100)^100)^100)^100*{PHOTON}", "a power too large"),
        (f"(e + g + h + k)^100*{PHOTON}", "a power too large"),
        (
            r"p_1_%C*u_{i_1,%C,%a}(p_1)_u*u_{i_2,%D,%a}(p_2)_u^(*)*G_{i_3,%D,%m}(p_3)^(*)*p_2_%m",
            "index %C is a Lorentz index and a quark colour index",
        ),
        (r"g_{%a,%b}*e_{i_1,%a}(p_1)_u*e_{i_2,%b}(p_2)_u^(*)", "index %a is a Lorentz index and a Dirac index"),
        (r"delta_{%a,%b}*e_{i_1,%a}(p_1)_u*e_{i_2,%a}(p_2)_u^(*)*p_1_%b", "a delta joins %a, a Dirac index, and %b"),
        (r"e_{i_1}(p_1)_u*e_{i_1}(p_2)_u^(*)", "expected a label, .*a Dirac or Lorentz index"),
        (QUARKS.format(n=6).replace("T_C_6_", "T_"), "unknown tensor T with 3 indices"),
        (f"I*{PHOTON}", "found 'I.*', expected i, the imaginary unit"),
        (f"nan*{PHOTON}", "found 'nan.*', expected a finite number"),
        (f"e^(*)*{PHOTON}", "the conjugate of a symbol named V_"),
        (f"eps(p_1,p_2,p_3,p_5)*{PHOTON}", "names a momentum that no leg carries"),
        (f"1/(s_12 + eps(p_1,p_2,p_3,p_4))*{PHOTON}", "epsilon tensor in a denominator"),
        (f"2^(1/3)*{PHOTON}", "only square roots"),
        (f"s_12^(1/2)*{PHOTON}", "only numbers have roots"),
        (f"(-2)^(1/2)*{PHOTON}", "the square root of -2"),
        (f"100000000003^(1/2)*{PHOTON}", "the square root of 100000000003"),
        (r"gamma_5_{%a,%b}*h(p_1)^(*)*h(p_2)^(*)*h(p_3)^(*)", "all legs"),
    ],
)
def test_what_is_outside_is_refused_by_one_line_that_names_it(amp, reason):
    amp = amp.replace("N_{", "nu_e_{")
    with pytest.raises(InputError, match=reason) as error:
        square(amp)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# Public files of other programs

@pytest.mark.parametrize(
    "file, masses",
    [
        ("W-W-final", ""),
        ("generator-T_C_6", ""),
        ("scalar-named-A", "A=m_A A0=m_A0"),
        ("mass-named-m", "e=m mu=M"),
        ("weyl-names", "e_L=m_e mu_R=m_mu"),
        ("starstar", ""),
        ("s_41-order", ""),
        ("float", ""),
        ("zero-by-chirality", ""),
        ("marty-1to2", ""),
    ],
)
def test_public_rows_have_the_square_that_is_written_there(marty, file, masses):
    path = marty.parent / "cases" / f"{file}.csv"
    if not path.exists():
        pytest.skip("no public cases beside this repository")
    with open(path, newline="") as lines:
        rows = list(csv.DictReader(lines))
    facts = [Facts(masses=parse_masses(masses))] * len(rows)
    for row, sqamp in zip(rows, square_many([row["amp"] for row in rows], facts=facts)):
        assert reduced(rational(parse(str(sqamp)))) == reduced(rational(parse(row["sqamp"])))


def test_what_the_text_does_not_say_is_asked_for():
    """Masses of unknown particles, and which of two complex scalars is the antiparticle; each row has its own facts."""
    scalars = (r"p_3_%\mu_1*gamma_{+%\mu_1,%a_1,%a_2}*e_{i_1,%a_2}(p_1)_u*e_{i_2,%a_1}(p_2)_v^(*)"
               "*Hp(p_3)^(*)*Hp(p_4)^(*)")
    masses = parse_masses("Hp=m_H")
    nothing, no_process, distinct, twins = square_many(
        [scalars] * 4,
        facts=[
            Facts(),
            Facts(masses=masses),
            Facts("e e~ -> Hp Hp~", masses),
            Facts("e e~ -> Hp Hp", masses),
        ],
    )
    assert "the mass of Hp(p_3), a scalar, is not known" in str(nothing)
    assert "particles or antiparticles" in str(no_process)
    assert rational(parse(distinct)) == {term: 2 * value for term, value in rational(parse(twins)).items()}


def test_a_particle_may_have_a_name_of_the_photon_and_a_mass():
    """The mass follows name and kind: a scalar A has the mass that the user says, a vector A is the photon."""
    amp = r"e_{i_1,%a}(p_1)_u*e_{i_2,%a}(p_2)_v^(*)*A(p_3)^(*)*h(p_4)^(*)*s_34"
    heavy, light = (square(amp, "independent", facts=Facts(masses=parse_masses(f"A={mass}"))) for mass in ("m_A", "0"))
    assert "m_A" in heavy and "m_A" not in light
