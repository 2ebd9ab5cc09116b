"""The tokens that a model knows: those of its training rows, the rare ones in pieces."""
import collections

import termwise
from files import InputError, read_rows
from tokenizer import FORMAT, INDEXED, MORE, SPECIALS, SPELLING, amp_tokens, fermions_of, numbered, rename, spell, sqamp_tokens

RARE = 5  # what stands in fewer training rows is spelled: a token of its own would hardly be learned


def build_vocabulary(path, rename_particles=False, by_terms=False):
    """Vocabulary of a training file, a CSV with amp and sqamp: its tokens, the rare ones spelled, and what spelling takes.

    Indices are filled up: where %D7 is the highest, every token with a Dirac index is there with %D0 to %D7.
    by_terms: make it a termwise one, with a token for each term of the row that has most.
    """
    most = 0  # terms of a row
    counts = {"src": collections.Counter(), "tgt": collections.Counter()}
    for line, row in read_rows(path):
        names = numbered(fermions_of(row["amp"]) if rename_particles else ())
        for side, column, tokens_of in (("src", "amp", lambda text: amp_tokens(text)[0]), ("tgt", "sqamp", sqamp_tokens)):
            try:
                counts[side].update(set(tokens_of(rename(row[column], *names))))
            except InputError as error:
                raise InputError(f"{path}:{line}: {column}: {error}") from None
        most = max(most, len(termwise.split(row["sqamp"]))) if by_terms else 0
    vocabulary = {"format": FORMAT, "rename_particles": rename_particles}
    for side, count in counts.items():
        frequent = {token for token, rows in count.items() if rows >= RARE}.union(SPELLING)
        tokens = {piece for token in count for piece in spell(token, frequent)}
        indexed = {match.groups() for token in tokens if (match := INDEXED.fullmatch(token))}
        highest = {kind: max(int(number) for _, other, number in indexed if other == kind) for _, kind, _ in indexed}
        tokens.update(f"{before}%{kind}{number}" for before, kind, _ in indexed for number in range(highest[kind] + 1))
        vocabulary[side] = SPECIALS + SPELLING + sorted(tokens.difference(SPELLING))
    if by_terms:
        vocabulary["termwise"] = True
        vocabulary["tgt"] += [MORE, *(f"<term {k}>" for k in range(most))]
    return vocabulary


def join_vocabulary(vocabulary):
    """The vocabulary whose two sides are one, for a model that embeds both with one table."""
    tgt = vocabulary["tgt"]
    end = tgt[tgt.index(MORE):] if vocabulary.get("termwise") else []  # which stays the end
    both = SPECIALS + SPELLING + sorted({*vocabulary["src"], *tgt}.difference(SPECIALS, SPELLING, end)) + end
    return vocabulary | {"src": both, "tgt": both}
