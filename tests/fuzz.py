r"""Random and mutated texts through reader, parser, tokenizer, judge and squarer; mutated squares before the judge.

    python tests/fuzz.py [--texts=1000000] [--squares=100000] [--seed=1] [--workers=2] [--minutes=600]
    python tests/fuzz.py --from_texts=200000 --from_squares=20000        continue a run that ended after so many

A text must be read or refused by an InputError, within a second of CPU time. A mutated square must not be called right
unless exact rational arithmetic (tests/exact.py), which shares nothing with the judge, finds it equal to the true one.
Rows come from the generator, and from MARTY's files where they stand beside this repository.
Prints each failure when it is found, the counts every few minutes and a table at the end; the exit code is 1 if
anything failed.
"""
import argparse
import collections
import contextlib
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from exact import Gaussian, kinematics, value  # noqa: E402

from dataset.reader import read_files, read_rows  # noqa: E402
from dataset.rows import cpu_seconds, make_rows  # noqa: E402
from physics.exact import prove  # noqa: E402
from physics.expression import epsilon_legs, marked_off_shell, names_in, parse, to_text  # noqa: E402
from physics.matrices import read_amplitude  # noqa: E402
from physics.numeric import verify  # noqa: E402
from physics.particles import Facts, roles_of  # noqa: E402
from physics.processes import list_processes  # noqa: E402
from physics.spelling import canonical  # noqa: E402
from physics.square import square_many  # noqa: E402
from physics.theory import THEORIES  # noqa: E402
from runtime.files import InputError  # noqa: E402
from runtime.workers import parallel_map  # noqa: E402
from tokenizer import amp_tokens, sqamp_tokens  # noqa: E402

MARTY = ROOT.parent / "shared" / "marty"
CHUNK = 200                  # texts or squares of a task
SLOWEST = 1.0                # seconds of CPU time of one call
HANGS = 60                   # seconds after which a call is given up
SQUARED = 50                 # every so many texts one is squared too
LOOKED_AT = 20               # every so many squares that are not called right one is judged exactly
SHOWN = 20                   # failures
PROGRESS = 180               # seconds between two lines of progress
TINY = 9                     # a factor 1 + 1/10^TINY, or less, may be rounding to verify alone; prove decides

Sample = collections.namedtuple("Sample", "amp sqamp process two_to_two")

ALPHABET = "0123456789abeghimpstuvwxyzACDGITWXZ_{}()[]%\\+-*/^.,;:'\"~ \t\n\r\0\x7féμ²٣\u2028\ufeff\ud800"
WORDS = [
    "e", "m_e", "s_12", "s_34", "s_41", "s_99", "reg_prop", "theta_W", "i", "I", "nan", "V_ub", "V_ub^(*)", "x^(*)",
    "eps(p_1,p_2,p_3,p_4)", "eps(p_4,p_1)", "sin(theta_W)", "tan(", "cos(m_e)", "0", "1", "2", "0.5", "1e9", "10^30",
    "^(1/2)", "^(-1/2)", "^(1/3)", "^0", "^(-2)", "^1000", "^(10^9)", "^9^9^9", "**2", "/0", "/(s_12 - s_12)", "%", "+",
    " + ", " - ", "-", "*", "/", "^", "(", ")", "{", "}", "()", "((((((((", "))))", "9" * 400, "9" * 2000, "((" * 500,
    r"p_1_%\mu_1", r"p_2_+%\nu_1", "p_99", r"gamma_{%\mu_1,%a_1,%a_2}", "gamma_5_{%a_1,%a_2}", "P_L_{%a_1,%b}",
    r"g_{%\mu_1,%\mu_1}", r"g_{+%\mu_1,%\nu_1}", "delta_{%a_1,%a_1}", "delta_{%a_1,%b}", "T_C_10_{%g,%i,%j}",
    "f_SU3_{%g,%h,%k}", "C_{%a,%b}", "e_{i_3,%a_1}(p_1)_u", "e_{i_3,%a_1}(p_1)_v^(*)", r"A_{i_1,+%\mu_1}(p_2)",
    r"A_{i_1,+%\mu_1}(p_2)_T", "h(p_5)", "_off", "_u", "_v", "^(*)", "(p_1)", "(p_3)", "(2*e + s_12)^50",
    "(1 + e)^(-99)",
]
TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)
WORD = re.compile(r"[%\\]+\w+|(?<=[_^(])\d+|p_\d+|[A-Za-z]\w*|\d+|[-+*/]")


def generated_samples(seed, processes=30):
    """Our own rows of some processes of each theory, to mutate."""
    found = []
    for theory, legs in (("qed", "2->2"), ("qcd", "2->2"), ("ew", "1->2"), ("ew", "2->2")):
        possible = list_processes(legs, THEORIES[theory])
        chosen = random.Random(seed).sample(possible, min(processes, len(possible)))
        for row in make_rows(chosen, theory, "diagram", "all", seed)["rows"]:
            found.append(Sample(row["amp"], row["sqamp"], row["process"], theory != "ew"))
    return found


def marty_samples():
    """MARTY's rows, to mutate; none where its files are absent."""
    found = []
    for name, step in (("qed-2to2", 2), ("qcd-2to2", 1), ("qed-2to2-offshell", 50)):
        if (MARTY / f"{name}.csv.gz").is_file():
            for _, row in list(read_rows(MARTY / f"{name}.csv.gz"))[::step]:
                found.append(Sample(row["amp"], row["sqamp"], row.get("process", ""), True))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Texts

def random_text(rng):
    if rng.random() < 0.3:
        return "".join(rng.choice(ALPHABET) for _ in range(rng.randint(0, 60)))
    return "".join(rng.choice(WORDS) for _ in range(rng.randint(1, 25)))


def mutated_text(text, other, rng):
    """A text with one to three changes: of characters, of tokens, of whole pieces, or with a piece of another text."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        a, b = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        change = rng.randrange(14)
        if change == 0:
            text = text[:a] + rng.choice(ALPHABET) + text[a:]
        elif change == 1:
            text = text[:a] + text[a + 1:]
        elif change == 2:
            text = text[:a] + rng.choice(ALPHABET) + text[a + 1:]
        elif change < 6:                                     # as most mistakes of a program or a model: of a token
            tokens = TOKEN.findall(text) or [""]
            k = rng.randrange(len(tokens))
            tokens[k] = rng.choice((rng.choice(WORDS), rng.choice(tokens), "", tokens[k] + rng.choice(WORDS)))
            text = "".join(tokens)
        elif change == 6:
            text = rng.choice((text[:a], text[a:], text[:a] + text[b:], text[:b] + text[a:]))
        elif change == 7:
            text = text[:a] + other[rng.randint(0, len(other)):]
        elif change == 8 and len(text) < 5000:
            joiner = rng.choice((" + ", " - ", "*", "/", "^"))
            text = f"({text}){joiner}({rng.choice((other, random_text(rng), text))})"
        elif change < 13:                                    # what stays a formula, as a rule
            words = list(WORD.finditer(text)) or [re.match("", text)]
            word, instead = rng.choice(words), rng.choice((rng.choice(words)[0], str(rng.randint(0, 12)), other[:1]))
            text = text[:word.start()] + instead + text[word.end():]
        else:
            text = rng.choice((text.replace(" + ", "+"), text.replace("%", ""), text.replace("^", "**"), f" {text}\n",
                               f"({text})", f"-{text}", text.replace("1/2", "0.5"), text.replace("^(*)", "")))
    return text


class Hang(Exception):
    """A call takes longer than HANGS seconds."""


def _hang(*_):
    raise Hang


class Report:
    """What a task found: counts for the table, and failures as texts."""

    def __init__(self):
        self.counts, self.failures, self.slowest = collections.Counter(), [], (0.0, "", "")
        self.to_square = []  # (amplitude, facts, sqamp that was proven right or None), see check_squaring

    def fail(self, what, *texts):
        self.counts["failures"] += 1
        self.failures.append("\n  ".join([what, *(repr(text)[:1500] for text in texts)]))

    def call(self, name, function, *texts, allowed=(InputError,), **arguments):
        """function(*texts), None where it raises what is allowed. Any other exception and a long time are failures."""
        start = cpu_seconds()
        try:
            signal.alarm(HANGS)
            return function(*texts, **arguments)
        except allowed:
            self.counts[f"{name}: refused"] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.fail(f"{name}: {type(error).__name__} {error} at {Path(where.filename).name}:{where.lineno}", *texts)
        finally:
            signal.alarm(0)
            seconds = cpu_seconds() - start
            self.counts[name] += 1
            self.slowest = max(self.slowest, (seconds, name, repr(texts)[:300]))
            if seconds > SLOWEST:
                self.fail(f"{name}: {seconds:.1f} seconds", *texts)


def check_text(report, text, sample, is_amplitude):
    """One text through everything that reads texts, as the amplitude or the square of a row."""
    text = report.call("canonical", canonical, text, allowed=()) or ""
    tree = report.call("parse", parse, text)
    if tree and len(text) < 3000:
        again = report.call("parse again", lambda text: parse(to_text(tree)), text, allowed=())
        if again != tree:
            report.fail("parse(to_text(tree)) is another tree", text)
    report.call("tokenizer", amp_tokens if is_amplitude else sqamp_tokens, text)
    row = (text, sample.sqamp) if is_amplitude else (sample.amp, text)
    facts = Facts(sample.process)
    verdict = report.call("verify", verify, *row, facts=facts, allowed=())
    report.counts[f"verify: {'failed' if verdict is None else verdict.status}"] += 1
    if verdict and sample.two_to_two and report.call("prove", prove, *row, facts=facts):
        if is_amplitude:
            report.to_square.append((text, facts, sample.sqamp))
        elif exactly_equal(sample.amp, sample.sqamp, text) is False:
            report.fail("proven, but rational arithmetic gives another value", *row)


def check_squaring(report):
    """The amplitudes that were left for the squarer, which one FORM process squares."""
    amps, facts, proven = zip(*report.to_square)
    marked = [marked_off_shell(amp, off_shell(sqamp)) if sqamp else amp for amp, sqamp in zip(amps, proven)]
    squared = report.call("square", square_many, marked, facts=facts) or []
    for amp, truth, sqamp in zip(amps, squared, proven):
        report.counts[f"square: {'squared' if type(truth) is str else 'refused'}"] += 1
        if sqamp and type(truth) is str and exactly_equal(amp, truth, sqamp) is False:
            report.fail("proven, but rational arithmetic gives another value", amp, sqamp)
    report.to_square.clear()


def check_file(report, texts, rng):
    """Texts as the lines of a file, damaged in other places, through the reader."""
    delimiter = rng.choice(",,;\t")
    lines = [delimiter.join(rng.choice((f'"{text}"', text)) for text in rng.sample(texts, rng.choice((1, 2, 2, 2, 3))))
             for _ in range(20)]
    content = "\n".join([delimiter.join(("amp", "sqamp")), *lines]).encode(rng.choice(("utf-8", "utf-16")), "replace")
    if rng.random() < 0.3:
        a = rng.randrange(len(content))
        content = content[:a] + rng.randbytes(rng.randint(0, 4)) + content[a + rng.randint(0, 4):]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(content)
        rows = report.call("reader", lambda _: list(read_files([path])), content) or []
    report.counts["reader: rows"] += sum(type(row) is dict for _, _, row in rows)


def check_texts(rows, seed, count):
    """Report on `count` texts."""
    report, rng, texts = Report(), random.Random(seed), []
    for k in range(count):
        sample, other = rng.choice(rows), rng.choice(rows)
        is_amplitude = k % SQUARED == 0 or rng.random() < 0.5
        if rng.random() < 0.25:
            text = random_text(rng)
        else:
            start, more = (sample.amp, other.amp) if is_amplitude else (sample.sqamp, other.sqamp)
            text = mutated_text(start, more, rng)
        texts.append(text)
        if k % SQUARED == 0:
            report.to_square.append((canonical(text), Facts(), None))
        check_text(report, text, sample, is_amplitude)
        report.counts["texts"] += 1
    check_squaring(report)
    check_file(report, texts, rng)
    return report


# ---------------------------------------------------------------------------------------------------------------------
# Squares

def mutants(sqamp, rng):
    """Random wrong squares: (kind, text); some are true identities in disguise."""
    numbers = list(re.finditer(r"(?<![\w^_(])\d+", sqamp))
    if numbers:
        number = rng.choice(numbers)
        changed = str(int(number[0]) + rng.choice((1, 2, 7)))
        yield "coefficient", sqamp[:number.start()] + changed + sqamp[number.end():]
    invariants = list(re.finditer(r"s_\d\d", sqamp))
    if invariants:
        symbol = rng.choice(invariants)
        other = rng.choice([f"s_{i}{j}" for i in range(1, 5) for j in range(i + 1, 5) if f"s_{i}{j}" != symbol[0]])
        yield "momenta", sqamp[:symbol.start()] + other + sqamp[symbol.end():]
    powers = list(re.finditer(r"\^(\d)|\^\(-(\d)\)", sqamp))
    if powers:
        power = rng.choice(powers)
        raised = f"^{int(power[1]) + 1}" if power[1] else f"^(-{int(power[2]) + 1})"
        yield "exponent", sqamp[:power.start()] + raised + sqamp[power.end():]
    signs = list(re.finditer(r" \+ ", sqamp))
    if signs:
        sign = rng.choice(signs)
        yield "sign", sqamp[:sign.start()] + " - " + sqamp[sign.end():]
    terms = list(re.finditer(r" \+ [^()+]+(?=[ )])", sqamp))
    if terms:
        term = rng.choice(terms)
        yield "dropped term", sqamp[:term.start()] + sqamp[term.end():]
    masses = sorted(set(re.findall(r"m_[a-z]+", sqamp)))
    if len(masses) > 1:
        a, b = rng.sample(masses, 2)
        yield "masses", re.sub(r"m_[a-z]+", lambda m: b if m[0] == a else a if m[0] == b else m[0], sqamp)


def small_mutants(sqamp, rng):
    """Squares that are wrong by little: (kind, text, whether verify alone may take the difference for rounding)."""
    power, symbol = rng.randint(1, 40), rng.choice(("s_12", "s_13*s_24", "s_34^2", "1"))
    yield "1 + tiny", f"(1 + 1/10^{power})*({sqamp})", power >= TINY
    yield "small term", f"{sqamp} + {rng.choice('-1 2 7'.split())}/10^{power}*{symbol}", True
    yield "small term", f"{sqamp} + (s_12/(9 + s_12^2))^{power}", True
    large = f"10^{rng.randint(1, 20)}*s_12*{symbol}"
    yield "cancelling", f"{sqamp} + {large} - {large}", True
    yield "cancelling, wrong", f"{sqamp} + {large} - {large} + s_13^2/{rng.randint(2, 9)}", False
    yield "cancelling, tiny", f"{sqamp} + {large} - {large}*(1 + 1/10^{power + 30})", True


def off_shell(sqamp):
    """Numbers of the legs that are off their mass shells in a square: those of its s_kk."""
    return {int(leg) for leg in re.findall(r"\bs_(\d)\1\b", sqamp)}


def exactly_equal(amp, left, right):
    """Whether two texts agree at a random rational point of an amplitude of 2->2; None where that cannot be said.

    Legs are off their mass shells where the symbol s_kk stands in the amplitude or in `right`, as for the judge.
    """
    with contextlib.suppress(InputError, ArithmeticError, KeyError, AssertionError, RecursionError):
        amplitude, trees = read_amplitude(amp), (parse(left), parse(right))
        if len(amplitude.fields) != 4 or not _is_small(trees):
            return None
        names = names_in(trees[1]) | amplitude.names
        roles = roles_of(amplitude.fields, names)
        names -= {None, "i"}
        values = kinematics(roles.masses, names, len(left))
        for name in names_in(trees[0]) | names_in(trees[1]):  # the four momenta are dependent: their epsilon is 0
            if name not in values or epsilon_legs(name):
                values[name] = Gaussian(0 if epsilon_legs(name) else 17)
        if roles.incoming == (True, True, False, False):
            return value(trees[0], values) == value(trees[1], values)
    return None


def _is_small(trees):
    """Whether powers are small enough for rational arithmetic."""
    return all(len(text) < 20_000 and not re.search(r"\^\(?-?\d{4}|\^[^*/+ )]*\^|\)\^\d{3}", text)
               for text in map(to_text, trees))


def check_squares(rows, seed, count):
    """Report on `count` mutated squares of 2->2 rows."""
    report, rng, done = Report(), random.Random(seed), 0
    rows = [row for row in rows if row.two_to_two]
    while done < count:
        sample = rng.choice(rows)
        found = [(*mutant, False) for mutant in mutants(sample.sqamp, rng)] + [*small_mutants(sample.sqamp, rng)]
        for kind, text, may_be_rounding in found[:count - done]:
            done += 1
            looked_at = kind == "cancelling" or rng.randrange(LOOKED_AT) == 0
            check_square(report, sample, kind, text, may_be_rounding, looked_at)
    return report


def check_square(report, sample, kind, text, may_be_rounding, looked_at):
    report.counts["squares"] += 1
    facts = Facts(sample.process)
    verdict = report.call("verify", verify, sample.amp, text, facts=facts, allowed=())
    right = verdict is not None and verdict.status == "right"
    proven = report.call("prove", prove, sample.amp, text, facts=facts) if right or looked_at else False
    report.counts[f"{kind}: {'proven' if proven else 'right but for rounding' if right else 'not right'}"] += 1
    if not (right or looked_at):
        return
    truth = exactly_equal(sample.amp, sample.sqamp, text)
    report.counts[f"rational arithmetic: {truth}"] += 1
    if truth is None:
        report.fail("no rational arithmetic for this square", sample.amp, text)
    elif truth is False and (proven or right and not may_be_rounding):
        report.fail(f"{kind}: false right", sample.amp, text, sample.sqamp)
    elif truth is True and not (right and proven):
        report.fail(f"{kind}: {verdict and verdict.status}, proven: {proven}, but right", sample.amp, text)


# ---------------------------------------------------------------------------------------------------------------------
# Command

CHECKS = {"texts": check_texts, "squares": check_squares}
ROWS = []                    # filled before the workers start, which share it


def _check(task):
    kind, seed, count = task
    signal.signal(signal.SIGALRM, _hang)
    return CHECKS[kind](ROWS, seed, count)


def _tasks(wanted, done, seed, end):
    """Tasks of all kinds in turn, so that each kind is done for the same share at any time. done: {kind: count}."""
    while time.monotonic() < end:
        left = {kind: done[kind] / wanted[kind] for kind in wanted if done[kind] < wanted[kind]}
        if not left:
            return
        kind = min(left, key=left.get)
        count = min(CHUNK, wanted[kind] - done[kind])
        yield kind, f"{seed} {kind} {done[kind]}", count
        done[kind] += count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("texts", 1_000_000), ("squares", 100_000), ("seed", 1), ("workers", 2), ("minutes", 600)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for kind in CHECKS:
        parser.add_argument(f"--from_{kind}", type=int, default=0, help="checked by an earlier run of the same seed")
    settings = parser.parse_args()
    ROWS.extend(generated_samples(settings.seed) + marty_samples())
    total, start = Report(), time.monotonic()
    wanted = {kind: getattr(settings, kind) for kind in CHECKS}
    done = {kind: getattr(settings, f"from_{kind}") for kind in CHECKS}
    tasks, shown = _tasks(wanted, done.copy(), settings.seed, start + 60 * settings.minutes), start
    for report in parallel_map(_check, tasks, settings.workers):
        total.counts += report.counts
        total.slowest = max(total.slowest, report.slowest)
        for failure in report.failures[:SHOWN - len(total.failures)]:
            total.failures.append(failure)
            print(failure, end="\n\n", flush=True)
        if time.monotonic() > shown + PROGRESS:
            shown = time.monotonic()
            so_far = ", ".join(f"{kind} {done[kind] + total.counts[kind]:,}" for kind in CHECKS)
            print(f"{(shown - start) / 60:.0f} minutes: {so_far}, failures {total.counts['failures']:,}", flush=True)
    for name, count in sorted(total.counts.items()):
        print(f"{count:12,}  {name}")
    print(f"slowest call: {total.slowest[0]:.2f} seconds, {total.slowest[1]}: {total.slowest[2][:150]}")
    print(f"{len(ROWS)} rows, {total.counts['texts']:,} texts, {total.counts['squares']:,} squares, "
          f"{total.counts['failures']:,} failures, {(time.monotonic() - start) / 60:.1f} minutes, seed {settings.seed}")
    return total.counts["failures"] > 0


if __name__ == "__main__":
    sys.exit(main())
