from lookup import look_up, lookup_scores, lookup_table
from physics.amplitude import amplitudes, parse_process
from physics.square import square
from physics.theory import THEORIES
from rows import randomise_indices

QED = THEORIES["qed"]


def rows(*processes):
    found = [{"amp": amp} for process in processes for amp in amplitudes(parse_process(process, QED), QED)]
    return [row | {"sqamp": square(row["amp"])} for row in found]


def test_index_names_do_not_hide_a_known_row():
    train = rows("e e~ -> mu mu~")
    asked = [{"amp": randomise_indices(row["amp"], 7), "sqamp": row["sqamp"]} for row in train]
    assert asked[0]["amp"] != train[0]["amp"]
    assert lookup_scores(train, asked) == {"exact": 1, "renamed": 1, "rescaled": 1}


def test_particles_of_equal_charge_are_looked_up_under_other_names():
    """mu, tau and e have one charge; the order of the masses in the canonical text changes with the names, the physics does not."""
    train, asked = rows("t mu -> t mu"), rows("e t -> e t", "mu e -> mu e")
    assert lookup_scores(train, asked) == {"exact": 0, "renamed": 1, "rescaled": 1}
    assert "m_e" in look_up(lookup_table(train), asked[0]["amp"], "renamed")


def test_other_charges_need_the_number_in_front_rescaled():
    """Charge 2/3 for 1: the square is multiplied by 4/9 for a muon and an up quark, by 16/81 for Compton scattering off the latter."""
    assert lookup_scores(rows("e mu -> e mu"), rows("u mu -> u mu", "d u -> d u")) == {"exact": 0, "renamed": 0, "rescaled": 1}
    assert lookup_scores(rows("e A -> e A"), rows("u A -> u A")) == {"exact": 0, "renamed": 0, "rescaled": 1}


def test_other_legs_are_not_found():
    assert lookup_scores(rows("e mu -> e mu"), rows("e mu~ -> e mu~", "e A -> e A")) == {"exact": 0, "renamed": 0, "rescaled": 0}
