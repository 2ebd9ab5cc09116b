r"""
The vocabulary of a model: the tokens that it knows. And other names for the indices of its training rows.

The tokens of a vocabulary are those of the training rows, rare ones in pieces. A closed vocabulary also has every token
that differs from one of these in the particle, the mass, the legs or the number of an index, and those that any row of
the theory may have. So it reads every amplitude of the theory with so many legs, unless that has more than twice as
many indices as any training row.

A token that no training row has is never learned. For the numbers of indices there is a remedy: index names mean
nothing, so `draw_index_names` gives each row other numbers each time that it is trained on.
"""
import collections
import itertools
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

import termwise
from dataset.reader import read_rows, refuse
from dataset.shards import read_json
from notation import GLUES, INDEX_TOKEN, OPERATORS, ORDERS, Notation, write
from physics.expression import GENERATOR
from physics.normal_form import normal
from physics.theories import find_theory, theory_names
from runtime.files import InputError
from tokenizer import (
    FORMAT,
    MORE,
    SCHEME,
    SPECIALS,
    SPELLING,
    TENSORS,
    amp_tokens,
    fermions_of,
    notations_of,
    numbered,
    rename,
    spell,
    sqamp_tokens,
)

SETTINGS = [*SCHEME, "closed_vocabulary", "legs"]  # of build_vocabulary
RARE = 5  # what stands in fewer training rows is spelled: a token of its own would hardly be learned


def build_vocabulary(path, closed_vocabulary=False, legs=0, **scheme):
    """
    Vocabulary of a training file, a CSV with amp and sqamp: its tokens, the rare ones spelled, and SPELLING.

    Indices are filled up: where %D7 is the highest, every token with a Dirac index is there with %D0 to %D7.
    A termwise one has a token for each term of the row that has most. A closed one has room for so many `legs`; 0: as
    many as a training row has. scheme: settings that are not as in tokenizer.SCHEME.
    """
    if unknown := scheme.keys() - SCHEME.keys():
        raise TypeError(f"no settings of a vocabulary: {', '.join(unknown)}")
    scheme = SCHEME | scheme
    for name, known in (("src_notation", ORDERS), ("tgt_notation", ORDERS), ("glue", GLUES)):
        if scheme[name] not in known:
            raise InputError(f"{name}: got {scheme[name]!r}, wanted {', '.join(known)}")
    notations = dict(zip(("src", "tgt"), notations_of(scheme)))
    counts, most_terms = {"src": collections.Counter(), "tgt": collections.Counter()}, 0
    for line, row in read_rows(path, on_bad=refuse):
        names = numbered(fermions_of(row["amp"]) if scheme["rename_particles"] else ())
        for side, column in (("src", "amp"), ("tgt", "sqamp")):
            try:
                text = normal(row[column]) if side == "src" and scheme["normal_form"] else row[column]
                text = rename(text, *names)
                tokens = amp_tokens(text)[0] if side == "src" else sqamp_tokens(text)
                counts[side].update(set(write(tokens, notations[side])))
            except InputError as error:
                raise InputError(f"{path}:{line}: {column}: {error}") from None
        if scheme["termwise"]:
            most_terms = max(most_terms, len(termwise.split(row["sqamp"])))
    tokens = {}
    for side, count in counts.items():
        frequent = {token for token, rows in count.items() if rows >= RARE}.union(SPELLING)
        tokens[side] = {piece for token in count for piece in spell(token, frequent)}
    room = room_of(tokens, closed_vocabulary, legs, theories_of(path), scheme["rename_particles"])
    vocabulary = {"format": FORMAT, **scheme}
    for side, notation in notations.items():
        if closed_vocabulary:
            glue = Notation(glue=notation.glue)
            tokens[side].update(*(write(some, glue) for some in allowed(room, side)))
        if closed_vocabulary or notation.order != "infix":
            tokens[side].update(OPERATORS[notation.order])
        every = tokens[side].union(*(variants(token, room) for token in tokens[side]))
        vocabulary[side] = SPECIALS + SPELLING + sorted(every.difference(SPELLING))
    if scheme["termwise"]:
        vocabulary["tgt"] += [MORE, *(f"<term {k}>" for k in range(most_terms))]
    return vocabulary


def join_vocabulary(vocabulary):
    """The vocabulary whose two sides are one, for a model that embeds both with one table."""
    tgt = vocabulary["tgt"]
    end = tgt[tgt.index(MORE):] if vocabulary.get("termwise") else []  # which stays the end
    both = SPECIALS + SPELLING + sorted({*vocabulary["src"], *tgt}.difference(SPECIALS, SPELLING, end)) + end
    return vocabulary | {"src": both, "tgt": both}


# ---------------------------------------------------------------------------------------------------------------------
# Closed vocabularies

NAME = r"[A-Za-z]\w*?"
SLOT = re.compile(rf"""
      %(?P<index> [LDCA]) \d+
    | (?P<epsilon> eps\(p_[^()]*\) )
    | (?P<field>   ^{NAME} (?= _\{{ (?:\}}|$) | \(p_\d+\) ) )
    | (?P<leg>     (?<![A-Za-z]) p_\d+ )
    | (?P<product> (?<!\w) s_\d\d (?!\w) )
    | (?P<mass>    (?<!\w) m_[A-Za-z]\w* )""", re.VERBOSE)  # the parts of a token that others have in their place
OURS = "gamma", "P_L", "P_R", "T_C_10", "f_SU3"             # tensors that physics/amplitude.py writes
SPINORS = "_u", "_v"


class Room(NamedTuple):
    """What the tokens of a vocabulary have in their slots."""
    numbers: dict  # kind of index -> how many numbers
    legs: int  # 0: the vocabulary is not closed, and a token has in its other slots what it has
    fields: dict  # class of a particle, see class_of -> names
    masses: list
    couplings: list


def room_of(tokens, closed, legs, theories, rename_particles):
    """The Room of the tokens of both sides, and of the theories."""
    numbers, fields, masses, most = {}, collections.defaultdict(set), set(), legs
    for token in itertools.chain(*tokens.values()):
        for slot in SLOT.finditer(token):
            if slot["index"]:
                numbers[slot["index"]] = max(numbers.get(slot["index"], 0), int(slot[0][2:]) + 1)
            elif slot["leg"]:
                most = max(most, int(slot[0][2:]))
            elif slot["product"]:
                most = max(most, int(slot[0][3]))
            elif slot["mass"]:
                masses.add(slot[0])
            elif slot["field"]:
                fields[class_of(token, slot)].add(slot[0])
    if not closed:
        return Room(numbers, 0, {}, [], [])
    couplings = set()
    for theory in theories:
        for particle in theory.particles.values():
            fields[("scalar", "fermion", "vector")[particle.twice_spin]].add(particle.field)
            masses.add(particle.mass)
            for kind in ("", "D", "L")[particle.twice_spin] + {3: "C", 8: "A"}.get(particle.colour, ""):
                numbers.setdefault(kind, 0)                 # of the indices of its field
        couplings |= {symbol for vertex in theory.vertices for rule in vertex.rules for symbol, _ in rule.couplings}
    # a tree diagram of n legs has at most n - 3 propagators with two ends each: n + 2 (n - 3) places for an index. The
    # terms of a numerator may have indices of their own, so there is room for twice as many as any training row has
    numbers = {kind: max(2 * count, 3 * (most - 2)) for kind, count in numbers.items()}
    if rename_particles:
        numbered_fermions = {f"F{k}" for k in range(1, most + 1)}
        fields["fermion"] |= numbered_fermions
        masses |= {f"m_{name}" for name in numbered_fermions}
    fields["head"] |= fields["fermion"] | fields["vector"]
    return Room(numbers, most, {name: sorted(some) for name, some in fields.items()}, sorted(masses - {""}),
                sorted(symbol for symbol in couplings if symbol[0].isalpha()))


def class_of(token, slot):
    """Class of the particle of a field: "fermion", "vector", "scalar", or "head" if the token is only e_{."""
    rest = token[slot.end():]
    if rest == "_{":
        return "tensor" if slot[0] in TENSORS or GENERATOR.fullmatch(slot[0]) else "head"
    if rest[0] == "(":
        return "scalar"
    return "fermion" if re.search(r"\)_[uv]", rest) else "vector"


def variants(token, room):
    """The tokens that differ from this one only in its slots."""
    pieces, end = [], 0
    for slot in SLOT.finditer(token):
        pieces += [[token[end:slot.start()]], fillings(token, slot, room)]
        end = slot.end()
    return map("".join, itertools.product(*pieces, [token[end:]]))


def fillings(token, slot, room):
    """All that may stand in a slot of a token."""
    legs = range(1, room.legs + 1)
    if slot["index"]:
        return [f"%{slot['index']}{number}" for number in range(room.numbers[slot["index"]])]
    if not room.legs:
        return [slot[0]]
    if slot["leg"]:
        return [f"p_{leg}" for leg in legs]
    if slot["product"]:
        squares = slot[0][2] == slot[0][3]                  # of the momenta of legs off their mass shells
        return [f"s_{i}{j}" for i in legs for j in legs if (i == j if squares else i < j)]
    if slot["epsilon"]:
        return [f"eps({','.join(f'p_{leg}' for leg in four)})" for four in itertools.combinations(legs, 4)]
    if slot["mass"]:
        return room.masses
    return room.fields.get(class_of(token, slot), [slot[0]])


def allowed(room, side):
    """Lists of infix tokens that rows of the theory may have: one of each sort, with anything in its slots."""
    yield ["i", "reg_prop", "s_12", *room.couplings, *room.masses[:1]]
    if side == "tgt":
        return
    for name in OURS:
        if set(TENSORS[name]) <= set(room.numbers):
            yield [f"{name}_{{%{TENSORS[name][0]}0"]
    for kind in room.numbers:
        yield [f"%{kind}0"]
    if "L" in room.numbers:
        yield ["gamma_{+%L0", "p_1_%L0", "p_1_+%L0", "+%L0"]
    for (kind, suffixes), star in itertools.product(
            (("fermion", SPINORS), ("vector", [""]), ("scalar", [""])), ("", "^(*)")):
        for name, suffix in itertools.product(room.fields.get(kind, [])[:1], suffixes):
            yield [f"{name}(p_1){star}"] if kind == "scalar" else [f"{name}_{{", f"}}(p_1){suffix}{star}"]


def theories_of(path):
    """The theories of the data set that a training file belongs to, as its manifest says; [] if it does not."""
    manifest = read_json(Path(path).with_name("manifest.json"))
    settings = manifest.get("settings") if isinstance(manifest, dict) else None
    if not isinstance(settings, dict) or not settings.get("theory") or settings.get("input"):
        return []
    try:
        return [find_theory(each) for each in theory_names(settings["theory"])]
    except InputError:  # the user's file is no longer there
        return []


# ---------------------------------------------------------------------------------------------------------------------
# Other names for the indices

KINDS = "LDCA"


class IndexTokens(NamedTuple):
    """The tokens of a vocabulary that hold an index. G groups of tokens that differ in the number alone, V tokens."""
    group: np.ndarray  # (V,) int64, group of each token, -1: it holds no index
    number: np.ndarray  # (V,) int64, number of its index
    ids: np.ndarray  # (G, M) int64, the token of each group and number
    kind: np.ndarray  # (G,) int64, 0..3: kind of its indices
    has: np.ndarray  # (4, M) bool: whether every group of the kind has the number


def index_tokens(tokens):
    """IndexTokens of one side of a vocabulary, a list of tokens."""
    groups = {}  # (what stands before the index, its kind) -> {number: id}
    for id, token in enumerate(tokens):
        if match := INDEX_TOKEN.fullmatch(token):
            groups.setdefault(match.groups()[:2], {})[int(match[3])] = id
    most = max(map(len, groups.values()), default=0)
    group, number = np.full((2, len(tokens)), -1)
    ids, kind, has = np.zeros((len(groups), most), np.int64), np.zeros(len(groups), np.int64), np.ones((4, most), bool)
    for g, ((_, letter), members) in enumerate(groups.items()):
        kind[g] = KINDS.index(letter)
        has[kind[g], len(members):] = False
        for n in range(len(members)):
            group[members[n]], number[members[n]], ids[g, n] = g, n, members[n]
    return IndexTokens(group, number, ids, kind, has)


def draw_index_names(src, row, indices, rng):
    """
    Amplitudes with other numbers for their indices, each row's drawn anew: (N,) ids like src.

    src: (N,) ids of rows end to end; row: (N,), the row of each, from 0; indices: IndexTokens of the vocabulary; rng: a
    numpy Generator, which alone decides: the same for the same seed. An index keeps its kind, and two stay two.
    """
    group = indices.group[src]
    (places,) = np.nonzero(group >= 0)
    if not len(places):
        return src
    group, rows = group[places], row[places]
    order = rng.random((row[-1] + 1, *indices.has.shape))  # (B, 4, M)
    order[:, ~indices.has] = 2  # numbers that the kind lacks stay behind
    renamed = order.argsort(axis=2)  # (B, 4, M): new number of each number
    drawn = src.copy()
    drawn[places] = indices.ids[group, renamed[rows, indices.kind[group], indices.number[src[places]]]]
    return drawn
