import math
import random
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from physics.amplitude import diagrams, parse_process
from physics.processes import check_cost, choose_processes, count_diagrams, list_processes, off_shell_choices
from physics.theory import THEORIES
from runtime.files import InputError


@pytest.mark.parametrize(
    "theory, legs", [("qed", "2->2"), ("qed", "2->3"), ("qcd", "2->3"), ("ew", "1->2"), ("ew", "2->2"), ("ew", "2->3")]
)
def test_as_many_diagrams_are_counted_as_feyngraph_draws(theory, legs):
    theory = THEORIES[theory]
    processes = list_processes(legs, theory)
    for process in random.Random(3).sample(processes, min(60, len(processes))):
        assert count_diagrams(process, theory) == len(diagrams(process, theory)), process


def test_numbers_of_diagrams_of_the_literature():
    """g g -> n g: Mangano and Parke, Phys. Rept. 200 (1991) 301, table 1; e e~ -> n photons: every order."""
    qcd, qed = THEORIES["qcd"], THEORIES["qed"]
    numbers = [count_diagrams((("G", "G"), ("G",) * n), qcd) for n in range(2, 9)]
    assert numbers == [4, 25, 220, 2485, 34300, 559405, 10525900]
    assert [count_diagrams((("e", "e~"), ("A",) * n), qed) for n in range(2, 7)] == [
        math.factorial(n) for n in range(2, 7)
    ]


def test_decays_that_no_momenta_allow_are_not_listed():
    listed = {" ".join(before + ("->",) + after) for before, after in list_processes("1->2", THEORIES["ew"])}
    assert {"Z -> e e~", "t -> b W", "h -> W W~", "W -> e~ nu_e"} <= listed
    assert not {"e -> e A", "A -> e e~", "nu_e -> e W", "e -> e Z", "h -> h h"} & listed
    assert "e e~ -> Z" in {
        " ".join(before + ("->",) + after) for before, after in list_processes("2->1", THEORIES["ew"])
    }


def test_legs_off_their_shell_make_decays_possible_and_count():
    """By hand: the lone leg off its shell frees both others; an equal mass among the products must be off its own."""
    qed = THEORIES["qed"]
    assert off_shell_choices((("e",), ("e", "A")), 1, qed) == [(1,), (2,)] and off_shell_choices(
        (("A",), ("e", "e~")), 1, qed
    ) == [(1,)]
    assert (
        off_shell_choices((("e", "e~"), ("A",)), 2, qed) == [(3,), (1, 3), (2, 3)]
        and off_shell_choices((("e",), ("e", "A")), 0, qed) == []
    )
    assert len(off_shell_choices((("e",), ("e", "mu", "mu~")), 1, qed)) == 5
    listed = choose_processes("1->2", qed, 0, 1, 1)
    assert (
        listed[("e",), ("e", "A")] == 2 and listed[("A",), ("e", "e~")] == 1 and not choose_processes("1->2", qed, 0, 1)
    )
    assert choose_processes("e mu -> e mu; e A -> e A", qed, 0, 1, 2) == {
        (("e", "mu"), ("e", "mu")): 11,
        (("e", "A"), ("e", "A")): 22,
    }
    assert sum(choose_processes("2->2", qed, 1000, 1, 1).values()) <= 1000
    with pytest.raises(InputError, match="process 'e -> e A': no momenta allow it on the mass shells; --off_shell=1"):
        choose_processes("e A -> e A; e -> e A", qed, 0, 1)
    with pytest.raises(InputError, match="three particles or more"):
        choose_processes("e -> e", qed, 0, 1)
    with pytest.raises(InputError, match="nine particles at most"):
        choose_processes("e e~ -> A A A A A A A A", qed, 0, 1)


def test_interference_costs_more():
    qcd = THEORIES["qcd"]
    chosen = {parse_process("G G -> G G G", qcd): 25}
    alone, together = (
        float(
            re.search(
                r"roughly (\d+) seconds",
                check_cost({process: 4 * n for process, n in chosen.items()}, qcd, 100, squares),
            )[1]
        )
        for squares in ("diagram", "process")
    )
    assert 6 <= together / alone <= 11                       # 25 / 3


def test_a_list_may_name_kinds_and_processes_and_none_twice():
    qed = THEORIES["qed"]
    chosen = choose_processes("2->2; e e~ -> mu mu~ A ; 1->3; e A -> e A", qed, 0, 1)
    assert (
        sum(chosen.values()) == 1188 + 4 + 1188
        and list(chosen)[:5] == [p for p in list_processes("2->2", qed) if count_diagrams(p, qed)][:5]
    )
    assert (("A", "A"), ("A", "A")) not in chosen


def test_a_sample_is_of_whole_processes_and_leaves_small_kinds_whole():
    qed = THEORIES["qed"]
    everything, small = choose_processes("2->2; 2->3", qed, 0, 1), choose_processes("2->2; 2->3", qed, 2000, 1)
    assert small.items() < everything.items() and [p for p in everything if p in small] == list(small)
    sizes = [sum(n for process, n in small.items() if len(process[1]) == legs) for legs in (2, 3)]
    assert sizes == [1188, 2000] or sizes[0] == 1188 and 1990 <= sizes[1] <= 2000
    assert small == choose_processes("2->2; 2->3", qed, 2000, 1) != choose_processes("2->2; 2->3", qed, 2000, 2)


@pytest.mark.parametrize(
    "processes, said",
    [
        ("G G -> G G G G G G G", "1 process with 559,405 diagrams, roughly "),
        ("2->7", "13^7 = 62,748,517"),
        ("5->5", "158,738,113 processes; at most 2,000,000"),
        ("2->4", "26,041 processes with 437,080 diagrams"),
    ],
)
def test_what_is_too_much_is_refused_in_seconds_with_its_cost(tmp_path, processes, said):
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "prepare.py",
            "--theory=qcd",
            f"--processes={processes}",
            f"--data_dir={tmp_path / 'x'}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1] and not (tmp_path / "x").exists()


def test_the_limit_can_be_raised():
    qcd = THEORIES["qcd"]
    chosen = {parse_process("G G -> G G G G", qcd): 220}
    assert "220 diagrams" in check_cost(chosen, qcd, 220)
    with pytest.raises(InputError, match=r"--max_diagrams=220\)"):
        check_cost(chosen, qcd, 219)
