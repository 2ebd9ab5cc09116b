r"""From a squared amplitude to the cross section: a plot and CSV files with units.

    python cross_section.py "e e~ -> mu mu~"                            with the newest run's model
    python cross_section.py "e A -> e A" config/NAME.py --beam          with the model of that run
    python cross_section.py "e e~ -> e e~" --energies=1:200 --max_cos=0.95

The process has two particles on each side; --theory says whose they are. |M|^2 is the square of the sum of all its
diagrams, interference included. The model squares that amplitude, and its answer is used if it is verified. FORM's
square stands beside it, and the textbook's formula where there is one. Quarks count with three colours and
neutrinos with one helicity, though rows of qed and ew have it otherwise. W, Z, Higgs and top have no width, so that a
curve has a pole where one of them is made in the s channel. A run that has
learned --squares=process knows sums of diagrams. Without any run the model in models/ is asked; without a verified
answer the curves are FORM's alone.

Energies are those of the centre of mass in GeV, --energies=LOWEST:HIGHEST; the masses and couplings are in
physics/cross_section.py. Where the exchange of a massless particle makes the total diverge, --max_cos leaves out the
angles around the beam. Written are --output=FILE.csv (default: cross_section/PROCESS.csv), with

    energy_GeV, form_nb, model_nb, textbook_nb        the total cross section

FILE.angles.csv with cos_theta and the differential cross section in nb/sr at the highest energy, theta between
particles 1 and 3, and FILE.png with both. From Python: physics/cross_section.py.
"""
import sys
from pathlib import Path

import numpy as np

from configurator import check_least, load_settings
from decode import decode, load
from physics.amplitude import amplitudes, parse_process, process_text
from physics.cross_section import (
    VALUES,
    differential,
    masses_of,
    poles,
    textbook,
    threshold,
    total,
    uncounted_states,
)
from physics.expression import parse
from physics.formats import to_function
from physics.particles import Facts
from physics.square import STYLES, square
from physics.theory import THEORIES
from runtime import checkpoint
from runtime.files import InputError, atomic_open, check_output, main_guard, write_rows
from runtime.pictures import pyplot_without_screen

KEYS = ["theory", "basis", "style", "out_dir", "ckpt", "beam", "beam_size", "energies", "max_cos", "output", "device",
        "dtype"]
POINTS = 60  # energies, evenly spaced in their logarithm
ANGLES = 181  # cosines of the scattering angle
NAMES = {"form": "FORM's square", "model": "the model's square, verified", "textbook": "textbook"}


def ask_model(amp, process, settings):
    """The model's verified square of an amplitude; "" and a line on stderr if there is none."""
    try:
        ckpt = checkpoint.find(settings)
    except InputError as error:
        if settings.ckpt or settings.config_name != "default":
            raise
        print(f"no model: {error}", file=sys.stderr)
        return ""
    loaded = load(ckpt, settings.device, settings.dtype)
    beam_size = settings.beam_size if settings.beam else 1
    answer, = decode(loaded, amp, beam_size=beam_size, check=True, facts=Facts(process))
    print(f"the model's answer ({ckpt}): {answer.status}{': ' if answer.reason else ''}{answer.reason}")
    return answer.prediction if answer.status == "verified" else ""


def read_energies(text, least):
    """POINTS energies in GeV from "LOWEST:HIGHEST"; where it is empty from 5% above the threshold to 20 times it."""
    if not text and not least:
        raise InputError("energies: all particles are massless, so say which, such as --energies=10:1000 (GeV)")
    try:
        lowest, highest = map(float, text.split(":")) if text else (1.05 * least, 20 * least)
    except ValueError:
        raise InputError(f"energies: got {text!r}, wanted LOWEST:HIGHEST in GeV, such as 10:200") from None
    if not least < lowest < highest < np.inf:
        raise InputError(f"energies: got {text!r}, wanted two that ascend, above the threshold of {least:.6g} GeV")
    return np.geomspace(lowest, highest, POINTS)


def plot(energies, totals, cosines, angular, title, output):
    """Draw the total cross section against energy and the differential one against the angle into a PNG file."""
    pyplot = pyplot_without_screen("agg")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    styles = {"form": dict(color="C0", linewidth=5, alpha=0.5), "model": dict(color="C1", linewidth=1.8),
              "textbook": dict(color="black", linestyle="none", marker=".", markevery=3)}
    for name, values in totals.items():
        left.plot(energies, values, label=NAMES[name], **styles[name])
    for name, values in angular.items():
        right.plot(cosines, values, label=NAMES[name], **styles[name])
    left.set(xscale="log", yscale="log", xlabel="energy in the centre of mass (GeV)", ylabel=r"$\sigma$ (nb)",
             title=title)
    if energies[-1] > 10 * energies[0]:
        left.tick_params(axis="x", which="minor", labelbottom=False)  # the decades are enough
    right.set(xlabel=r"$\cos\theta$", ylabel=r"$d\sigma / d\Omega$ (nb/sr)",
              title=f"{title} at {energies[-1]:.4g} GeV")
    right.set_ylim(bottom=0)
    if max(map(np.max, angular.values())) > 50 * min(map(np.min, angular.values())):
        right.set(yscale="log")
    for axis in (left, right):
        axis.legend()
        axis.grid(alpha=0.3)
    with atomic_open(output, "wb") as file:
        figure.savefig(file, dpi=110, format="png")
    pyplot.close(figure)


def main(argv=None):
    words = sys.argv[1:] if argv is None else argv
    named = [word for word in words if "->" in word and not word.startswith("-")]
    if not named and any(not word.startswith("-") and not word.endswith(".py") for word in words):
        raise InputError("the process stands in quotes, with an arrow: python cross_section.py 'e e~ -> mu mu~'")
    settings = load_settings(__doc__, KEYS, [word for word in words if word not in named])
    if len(named) != 1:
        raise InputError(f"got {len(named)} processes, wanted one, such as 'e e~ -> mu mu~'")
    if settings.theory not in VALUES:
        raise InputError(f"theory: got '{settings.theory}', wanted one of {', '.join(VALUES)}")
    check_least(settings, {"beam_size": 1})
    if settings.style not in STYLES:
        raise InputError(f"style: got {settings.style!r}, wanted {', '.join(STYLES)}")
    if not 0 < settings.max_cos <= 1:
        raise InputError(f"max_cos: got {settings.max_cos}, wanted more than 0 and at most 1")
    theory, values = THEORIES[settings.theory], VALUES[settings.theory]
    process = parse_process(named[0], theory)
    masses, title = masses_of(process, settings.theory, values), process_text(process)
    factor = uncounted_states(process, settings.theory)
    energies = read_energies(settings.energies, threshold(masses))
    output = Path(settings.output or f"cross_section/{title.replace(' -> ', '_to_').replace(' ', '_')}.csv")
    check_output(output, "energy_GeV,", ".csv")
    check_output(output.with_suffix(".angles.csv"), "cos_theta,")
    check_output(output.with_suffix(".png"), b"\x89PNG")
    pyplot_without_screen("agg")  # is it there?
    amps = amplitudes(process, theory, whole=True)
    if not amps:
        raise InputError(f"process '{title}': no tree diagram in {settings.theory}")
    amp = " + ".join(amps)

    # |M|^2, from the model and from FORM
    texts = {"form": square(amp, settings.basis, settings.style, facts=Facts(title))}
    if answer := ask_model(amp, title, settings):
        texts["model"] = answer
    print(f"|M|^2 of {title}: {texts.get('model', texts['form'])}")
    squares = {name: to_function(parse(text)) for name, text in texts.items()}

    # the total cross section (E,), and the differential one (angles,) at the highest energy
    for name, mass in poles(squares["form"], energies, masses, values).items():
        print(f"no width is known to this program: at {mass:g} GeV ({name}) the cross section is infinite, near it the "
              "curve is too high", file=sys.stderr)
    totals = {name: factor * total(function, energies, masses, values, settings.max_cos)
              for name, function in squares.items()}
    most = min(settings.max_cos, 0.999)
    cosines = np.linspace(-most, most, ANGLES)
    angular = {name: factor * differential(function, energies[-1], np.arctanh(cosines), masses, values).astype(float)
               for name, function in squares.items()}
    if "model" in totals:
        difference = np.max(np.abs(totals["model"] / totals["form"] - 1))
        print(f"model and FORM: largest relative difference {difference:.1e}")
    formula = textbook(process, settings.theory, values)
    if formula and settings.max_cos == 1:
        name, sigma = formula
        totals["textbook"] = factor * sigma(energies**2)
        difference = np.max(np.abs(totals["form"] / totals["textbook"] - 1))
        print(f"textbook, {name}: largest relative difference {difference:.1e}")
    print(f"at {energies[-1]:.6g} GeV: {totals['form'][-1]:.6g} nb")

    rows = [{"energy_GeV": energy} | {f"{name}_nb": values[k] for name, values in totals.items()}
            for k, energy in enumerate(energies)]
    write_rows(output, list(rows[0]), rows)
    rows = [{"cos_theta": cosine} | {f"{name}_nb_per_sr": values[k] for name, values in angular.items()}
            for k, cosine in enumerate(cosines)]
    write_rows(output.with_suffix(".angles.csv"), list(rows[0]), rows)
    plot(energies, totals, cosines, angular, title, output.with_suffix(".png"))
    print(f"{output}, {output.with_suffix('.angles.csv').name}, {output.with_suffix('.png').name}")


if __name__ == "__main__":
    main_guard(main)
