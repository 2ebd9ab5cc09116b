"""From the squared amplitude of a whole 2 -> 2 process to its cross section, in the centre of mass.

    d sigma / d Omega = |M|^2 / (64 pi^2 s) * |p_out| / |p_in|        (Peskin & Schroeder (4.84))

|M|^2 is averaged over initial and summed over final states, as everywhere here. For n identical outgoing particles it
holds 1/n!, so that the total cross section is the integral over all angles. Energies and masses are in GeV.
"""
import math

import numpy as np

from physics.theory import THEORIES
from runtime.files import InputError

NANOBARN = 0.3893793721e6    # (hbar c)^2 in nb GeV^2 (PDG)
ALPHA = 1 / 137.035999177    # at zero momentum (CODATA 2022)
ALPHA_STRONG = 0.118         # at m_Z; it does not run here
# Masses in GeV (PDG 2024); of the light quarks MS-bar masses. In QED t is the tau and tt the top, in QCD t is the top.
QUARKS = {"m_u": 2.16e-3, "m_d": 4.70e-3, "m_s": 93.5e-3, "m_c": 1.273, "m_b": 4.183}
LEPTONS = {"m_e": 0.51099895e-3, "m_mu": 0.1056583755}
TAU, TOP = 1.77693, 172.57
W, Z = 80.369, 91.188        # cos(theta_W) = m_W / m_Z, else amplitudes of W and Z grow with the energy
VALUES = {
    "qed": LEPTONS | QUARKS | {"m_t": TAU, "m_tt": TOP, "e": math.sqrt(4 * math.pi * ALPHA)},
    "qcd": QUARKS | {"m_t": TOP, "g": math.sqrt(4 * math.pi * ALPHA_STRONG)},
    "ew": LEPTONS | QUARKS | {"m_tau": TAU, "m_t": TOP, "m_W": W, "m_Z": Z, "m_h": 125.20, "theta_W": math.acos(W / Z),
                              "e": math.sqrt(4 * math.pi * ALPHA)},
}
FARTHEST = 20.0              # |y| up to which cos(theta) = tanh(y) is integrated: 1 - |cos| = 1e-17
PANELS, NODES = 40, 12       # Gauss-Legendre in y
TAIL = 2                     # panels at each end that must not matter, else the integral diverges


def masses_of(process, theory, values):
    """Masses of the four legs in GeV. InputError unless two particles go to two."""
    if [len(side) for side in process] != [2, 2]:
        raise InputError("a cross section is computed for two particles that go to two, such as 'e e~ -> mu mu~'")
    symbols = [THEORIES[theory].particles[name].mass for side in process for name in side]
    return [values[symbol] if symbol else 0.0 for symbol in symbols]


def threshold(masses):
    """Least energy in the centre of mass, GeV."""
    return max(masses[0] + masses[1], masses[2] + masses[3])


def uncounted_states(process, theory):
    """
    By what a cross section from a row's |M|^2 is to be multiplied: what rows do not count as nature does.

    Rows average over two helicities of an incoming neutrino, which has one; and quarks of qed and ew have one colour
    instead of three. InputError for more than two such quarks, as the colours of two lines of quarks interfere.
    """
    incoming, outgoing = ([THEORIES[theory].particles[name] for name in side] for side in process)
    neutrinos = sum(particle.name.startswith("nu_") for particle in incoming)
    before, after = (sum(particle.colour == 1 and particle.charge.denominator == 3 for particle in side)
                     for side in (incoming, outgoing))
    if before + after > 2:
        raise InputError(f"quarks have no colour in {theory}; a cross section of four of them needs it, see "
                         "--theory=qcd")
    return 2**neutrinos * (3 / 3**before if before + after else 1)   # one sum over colours, 1/3 for each average


def poles(square, energies, masses, values):
    """Masses, {name: GeV}, at which the cross section is infinite within these energies: of particles without width."""
    lowest, highest = min(energies), max(energies)
    found = {}
    for name in ("m_W", "m_Z", "m_h", "m_t"):
        if lowest <= values.get(name, 0) <= highest:
            near = values[name] * (1 + np.array([1e-6, 1e-4]))
            closer, farther = differential(square, near, 0.5, masses, values)
            if closer > 100 * farther:                                            # 1e4 times at a pole
                found[name] = values[name]
    return found


def _size(energy, one, other):
    """Momentum of two particles of these masses in their centre of mass."""
    return np.sqrt((energy**2 - (one + other)**2) * (energy**2 - (one - other)**2)) / (2 * energy)


def invariants(energy, y, masses):
    """{s_ij: p_i.p_j} at cos(theta) = tanh(y), the angle between particles 1 and 3.

    E E' - p p' cos(theta) is computed without cancellation, so that forward scattering keeps its digits.
    """
    m = [np.longdouble(mass) for mass in masses]
    size_in, size_out = _size(energy, m[0], m[1]), _size(energy, m[2], m[3])
    sizes = [size_in, size_in, size_out, size_out]
    energies = [np.sqrt(mass**2 + size**2) for mass, size in zip(m, sizes)]
    less, more = 2 / (1 + np.exp(2 * y)), 2 / (1 + np.exp(-2 * y))                # 1 - cos(theta), 1 + cos(theta)

    def across(i, j, deviation):
        (a, b), (p, q) = (energies[i], energies[j]), (sizes[i], sizes[j])
        return ((m[i] * b)**2 + (p * m[j])**2) / (a * b + p * q) + p * q * deviation

    products = {"s_12": (energy**2 - m[0]**2 - m[1]**2) / 2, "s_34": (energy**2 - m[2]**2 - m[3]**2) / 2,
                "s_13": across(0, 2, less), "s_24": across(1, 3, less),
                "s_14": across(0, 3, more), "s_23": across(1, 2, more)}
    return {name: product + 0 * y for name, product in products.items()}


def differential(square, energy, y, masses, values):
    """d sigma / d Omega in nb/sr. energy (GeV) and y, where cos(theta) = tanh(y), are arrays that broadcast.

    square: a function of the symbols of |M|^2 such as formats.to_function makes; reg_prop is set to 0.
    values: of couplings and masses.
    """
    energy, y = np.asarray(energy, np.longdouble), np.asarray(y, np.longdouble)
    known = values | invariants(energy, y, masses) | {"reg_prop": 0.0}
    missing = [name for name in square.__signature__.parameters if name not in known]
    if missing:
        raise InputError(f"no value is known for {', '.join(missing)}")
    squared = square(**{name: known[name] for name in square.__signature__.parameters})
    flux = _size(energy, masses[2], masses[3]) / _size(energy, masses[0], masses[1])
    return np.real(squared) * flux / (64 * np.pi**2 * energy**2) * NANOBARN


def total(square, energies, masses, values, max_cos=1.0):
    """Cross sections in nb at energies (GeV), integrated over |cos(theta)| < max_cos and all azimuths.

    InputError where the integral diverges, as that of Bhabha scattering does without a cut.
    """
    farthest = np.arctanh(max_cos) if max_cos < math.tanh(FARTHEST) else FARTHEST
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    edges = np.linspace(-farthest, farthest, PANELS + 1)
    half = edges[1:, None] - edges[:-1, None]
    y = (edges[:-1, None] + half * (nodes + 1) / 2).ravel()                       # (PANELS * NODES,)
    measure = (half / 2 * weights).ravel() / np.cosh(y)**2                        # d cos(theta) = dy / cosh(y)^2
    density = 2 * np.pi * differential(square, np.asarray(energies)[:, None], y, masses, values) * measure
    by_panel = np.asarray(density, float).reshape(len(density), PANELS, NODES).sum(axis=2)
    result = by_panel.sum(axis=1)
    tail = by_panel[:, :TAIL].sum(axis=1) + by_panel[:, -TAIL:].sum(axis=1)
    if max_cos == 1 and not np.all(np.abs(tail) < 1e-3 * np.abs(result)):
        raise InputError("the total cross section diverges where particles go straight on; --max_cos=0.95 leaves out "
                         "all angles with a larger |cos(theta)|")
    return result


# ---------------------------------------------------------------------------------------------------------------------
# Textbook formulas for QED's total cross sections in nb, with all masses. s = energy^2.

def pair_production(s, m, charge, other, other_charge):
    """f f~ -> F F~ by one photon: Peskin & Schroeder (5.13), with the mass of f too. 4 pi alpha^2 / (3 s) at high s."""
    velocities = np.sqrt((1 - 4 * other**2 / s) / (1 - 4 * m**2 / s))
    return (4 * np.pi * (ALPHA * charge * other_charge)**2 / (3 * s) * velocities
            * (1 + 2 * m**2 / s) * (1 + 2 * other**2 / s) * NANOBARN)


def compton(s, m, charge):
    """f A -> f A: Klein and Nishina, Z. Phys. 52 (1929) 853, with the photon's energy in the rest frame of f."""
    x = (s - m**2) / m**2                                    # 2 k, twice the photon's energy in units of m
    k = x / 2
    logarithm = np.log1p(x)
    bracket = (1 + k) / k**3 * (2 * k * (1 + k) / (1 + x) - logarithm) + logarithm / (2 * k) - (1 + 3 * k) / (1 + x)**2
    return 2 * np.pi * (ALPHA * charge**2)**2 / m**2 * bracket * NANOBARN


def pair_of_photons(s, m, charge):
    """A A -> f f~: Breit and Wheeler, Phys. Rev. 46 (1934) 1087."""
    beta = np.sqrt(1 - 4 * m**2 / s)
    bracket = (3 - beta**4) * np.log((1 + beta) / (1 - beta)) - 2 * beta * (2 - beta**2)
    return 2 * np.pi * (ALPHA * charge**2)**2 / s * bracket * NANOBARN


def annihilation(s, m, charge):
    """f f~ -> A A: Dirac, Proc. Camb. Phil. Soc. 26 (1930) 361; by detailed balance from pair_of_photons."""
    return pair_of_photons(s, m, charge) / (2 * (1 - 4 * m**2 / s))


def textbook(process, theory, values):
    """(name of the formula, function of s) for the total cross section of a QED process, None for others."""
    if theory != "qed":
        return None
    particles = [THEORIES[theory].particles[name] for side in process for name in side]
    fermions = [particle for particle in particles if particle.twice_spin == 1]
    if not fermions:
        return None
    first, last = fermions[0], fermions[-1]
    one = values[first.mass], float(first.charge)
    names = [particle.name for particle in particles]
    pair_in, pair_out = (a.antiparticle == b.name and a.twice_spin == 1 for a, b in (particles[:2], particles[2:]))
    if pair_in and pair_out and first.mass != last.mass:
        other = values[last.mass], float(last.charge)
        return "one photon, with masses (Peskin & Schroeder (5.13))", lambda s: pair_production(s, *one, *other)
    if pair_in and names[2:] == ["A", "A"]:
        return "Dirac 1930", lambda s: annihilation(s, *one)
    if pair_out and names[:2] == ["A", "A"]:
        return "Breit and Wheeler 1934", lambda s: pair_of_photons(s, *one)
    if names.count("A") == 2 and names[:2].count("A") == 1:
        return "Klein and Nishina 1929", lambda s: compton(s, *one)
    return None
