"""Which processes a data set is made of, and how many diagrams they have: counted before a single one is drawn.

A setting `processes` is a list such as "2->2; 2->3; e e~ -> mu mu~ A A": "2->2" stands for every process with so many
legs, in every crossing and order of the legs.
"""
import collections
import functools
import itertools
import math
import random
import re

from physics.amplitude import parse_process, process_text
from physics.particles import cannot_decay
from physics.theory import conserved_charges
from runtime.files import InputError

MOST_TUPLES = 1_000_000      # combinations of particles, on one side of a process, that are tried to list all processes
MOST_PROCESSES = 2_000_000   # processes of one kind such as "2->3" that are listed
MILLISECONDS = {"qed": 1.7, "qcd": 2.6}  # CPU time of a 2->2 diagram: amplitude, square, verification
OTHER_MILLISECONDS = 12      # of another theory, with massive vectors and several structures at a vertex
INTERFERENCE = 3             # a whole process of n diagrams takes n/3 times as long as they alone (measured: n/5 to n)
MORE_A_LEG = 4               # times as long for each leg more: QED 2->3 takes 2 times, 2->4 11 times, QCD 2->3 4 times
KILOBYTES = 60               # of memory for a diagram: feyngraph has all those of a process there together
TIMES = (("years", 31_557_600), ("days", 86_400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
SIZES = (("GB", 1e6), ("MB", 1e3), ("KB", 1))


def list_processes(text, theory):
    """Processes named by the setting `processes`, in a fixed order. InputError also for more than can be listed."""
    return list(
        dict.fromkeys(process for part in text.split(";") if part.strip() for process in _list_part(part, theory))
    )


def _list_part(part, theory, off_shell=0):
    counts = re.fullmatch(r"\s*([1-9])\s*->\s*([1-9])\s*", part)
    if not counts:
        return [parse_process(part, theory)]
    return enumerate_processes(theory, int(counts[1]), int(counts[2]), off_shell)


def choose_processes(text, theory, sample, seed, off_shell=0):
    """{process: number of diagrams} of the setting `processes`, without processes that have none.

    A diagram counts once for each choice of at most off_shell legs off their mass shell. Raises InputError, also for
    a process named in full that no momenta allow.
    sample: most diagrams of each part of the list. Whole processes are drawn with the seed until no other fits.
        0: no limit.
    """
    chosen = {}
    for part in filter(str.strip, text.split(";")):
        listed = _list_part(part, theory, off_shell)
        choices = [len(off_shell_choices(process, off_shell, theory)) for process in listed]
        if choices == [0]:
            raise InputError(f"process '{process_text(listed[0])}': no momenta allow it on the mass shells; "
                             f"--off_shell={off_shell + 1} takes so many legs off them")
        counts = {
            process: n * count for process, n in zip(listed, choices) if (count := count_diagrams(process, theory))
        }
        if sample and sum(counts.values()) > sample:
            drawn, room = set(), sample
            for process in random.Random(f"{seed} {part.strip()}").sample(list(counts), len(counts)):
                if counts[process] <= room:
                    drawn.add(process)
                    room -= counts[process]
            counts = {process: n for process, n in counts.items() if process in drawn}
        chosen |= counts
    return chosen


def check_cost(chosen, theory, max_diagrams, squares="diagram"):
    """The cost of {process: number of diagrams} as a line of text. InputError with the cost for more than max_diagrams.

    squares: with "process" each diagram interferes with all others of its process.
    """
    total = sum(chosen.values())
    largest = max(chosen, key=chosen.get)
    seconds = 0
    for process, n in chosen.items():
        times = max(count_diagrams(process, theory) / INTERFERENCE, 1) if squares == "process" else 1
        legs = len(process[0]) + len(process[1])
        seconds += n * times * MILLISECONDS.get(theory.name, OTHER_MILLISECONDS) / 1000 * MORE_A_LEG ** max(legs - 4, 0)
    processes = f"{len(chosen):,} processes" if len(chosen) > 1 else "1 process"
    memory = _amount(chosen[largest] * KILOBYTES, SIZES)
    cost = (f"{processes} with {total:,} diagrams, roughly {_amount(seconds, TIMES)} of CPU time; "
            f"the largest, {process_text(largest)}, has {chosen[largest]:,}, roughly {memory} of memory")
    if total > max_diagrams:
        fewer = "name another process"
        if len(chosen) > 1:
            fewer = f"name fewer processes, draw some of them (--sample={max_diagrams})"
        raise InputError(f"processes: {cost}. That is more than max_diagrams={max_diagrams:,}: {fewer} "
                         f"or raise the limit (--max_diagrams={total})")
    return cost


def _amount(value, units):
    """The value in the largest unit of which it is at least 2."""
    name, size = next((unit for unit in units[:-1] if value >= 2 * unit[1]), units[-1])
    return f"{value / size:,.0f} {name}"


# ---------------------------------------------------------------------------------------------------------------------

def enumerate_processes(theory, n_in, n_out, off_shell=0):
    """All ordered (incoming, outgoing) with equal conserved charges; some of them have no diagram.

    A decay of one leg to two, or its inverse, is left out where no momenta allow it with at most off_shell legs off
    shell.
    """
    if n_in + n_out < 3:
        raise InputError(f"processes: '{n_in}->{n_out}' has no diagram, expected three legs or more")
    most = len(theory.particles) ** max(n_in, n_out)
    if most > MOST_TUPLES:
        raise InputError(
            f"processes: '{n_in}->{n_out}' takes {len(theory.particles)}^{max(n_in, n_out)} = {most:,} combinations "
            f"of particles to list; at most {MOST_TUPLES:,} are tried: name the processes that you want, "
            'such as --processes="e e~ -> mu mu~ A A; ..."'
        )
    charges = conserved_charges(theory)

    def key(charge):
        return tuple(round(float(x), 6) + 0.0 for x in charge)

    @functools.cache
    def numbers(n):                                          # {key: (charge, number of n particles with it)}
        if not n:
            return {(): (0, 1)}
        table = {}
        for (charge, number), more in itertools.product(numbers(n - 1).values(), charges.values()):
            table[key(charge + more)] = charge + more, table.get(key(charge + more), (0, 0))[1] + number
        return table

    def by_charge(n):
        table = collections.defaultdict(list)
        for names in itertools.product(theory.particles, repeat=n):
            table[key(sum(charges[name] for name in names))].append(names)
        return table

    outgoing = numbers(n_out)
    total = sum(number * outgoing.get(charge, (0, 0))[1] for charge, (_, number) in numbers(n_in).items())
    if total > MOST_PROCESSES:
        raise InputError(
            f"processes: '{n_in}->{n_out}' stands for {total:,} processes; at most {MOST_PROCESSES:,} are listed: "
            'name those that you want, such as --processes="e e~ -> mu mu~ A A; ..."'
        )
    incoming, outgoing = by_charge(n_in), by_charge(n_out)
    return [
        process
        for charge, group in incoming.items()
        for process in itertools.product(group, outgoing.get(charge, ()))
        if n_in + n_out > 3 or off_shell_choices(process, off_shell, theory)
    ]


def off_shell_choices(process, most, theory):
    """Every choice of at most so many legs to be off their mass shell, as tuples of their numbers from 1.

    For three legs only those choices that real momenta allow. For more legs all choices: where a decay is
    impossible, the judge crosses one of its products.
    """
    n_in, legs = len(process[0]), [*process[0], *process[1]]
    choices = itertools.chain.from_iterable(itertools.combinations(range(1, len(legs) + 1), n) for n in range(most + 1))
    if len(legs) > 3:
        return list(choices)

    def allowed(off):
        masses = [f"leg {k}" if k in off else theory.particles[name].mass for k, name in enumerate(legs, 1)]
        (alone,), pair = sorted((masses[:n_in], masses[n_in:]), key=len)
        return not cannot_decay(alone, pair)

    return list(filter(allowed, choices))


# ---------------------------------------------------------------------------------------------------------------------
# The number of tree diagrams, by recursion over sets of legs (after Berends and Giele, Nucl. Phys. B306 (1988) 759)

def count_diagrams(process, theory):
    """Number of tree diagrams of a process. An outgoing particle counts as its antiparticle that flows in."""
    flowing_in = [*process[0], *(theory.particles[name].antiparticle for name in process[1])]
    return _count(tuple(sorted(flowing_in)), theory)


@functools.lru_cache(maxsize=2**16)
def _count(legs, theory):
    fused = _fusions(theory)
    *others, last = legs
    # set of legs -> {the field they join to: number of ways}
    trees = {1 << k: {name: 1} for k, name in enumerate(others)}
    for size in range(2, len(others) + 1):
        for members in itertools.combinations(range(len(others)), size):
            whole, total = sum(1 << k for k in members), collections.Counter()
            for parts in _partitions(whole, fused):
                for fields in itertools.product(*(trees[part].items() for part in parts)):
                    names, numbers = zip(*fields)
                    for field in fused[len(parts)].get(tuple(sorted(names)), ()):
                        total[field] += math.prod(numbers)
            trees[whole] = total
    return trees[(1 << len(others)) - 1].get(theory.particles[last].antiparticle, 0)


@functools.lru_cache
def _fusions(theory):
    """{2: {(field, field): fields that they join to}, 3: {...}}: all legs of a vertex but one flow in, one out."""
    fused = collections.defaultdict(lambda: collections.defaultdict(set))
    for vertex in theory.vertices:
        for k, name in enumerate(vertex.particles):
            rest = vertex.particles[:k] + vertex.particles[k + 1:]
            fused[len(rest)][tuple(sorted(rest))].add(theory.particles[name].antiparticle)
    return {count: dict(table) for count, table in fused.items()}


def _partitions(whole, fused):
    """All ways to cut a set, a number's bits, into as many parts as a vertex joins; the parts in no order."""
    lowest = whole & -whole
    first = whole
    while first := (first - 1) & whole:                      # every proper subset
        if first & lowest:
            rest = whole ^ first
            yield first, rest
            if 3 in fused:
                low, second = rest & -rest, rest
                while second := (second - 1) & rest:
                    if second & low:
                        yield first, second, rest ^ second


# ---------------------------------------------------------------------------------------------------------------------

LEG = re.compile(r"(\w+?)(?:_\{[^{}]*\})?\((p_\d+)\)(?:_([uv]))?(?:_T|_off)?(\^\(\*\))?")


def process_kind(amp):
    """Kind of the process of an amplitude's text: "f f~ -> A A" for a fermion pair that goes to two photons."""
    sides = {True: [], False: []}
    for name, _, spinor, star in set(LEG.findall(amp)):
        incoming = bool(star) == (spinor == "v")             # u, vbar and bosons without a star come in
        sides[incoming].append({"u": "f", "v": "f~", "": name}[spinor])
    return " -> ".join(
        " ".join(sorted(sides[incoming], key=lambda name: (name[0] != "f", name))) for incoming in (True, False)
    )
