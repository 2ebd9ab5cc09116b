"""
Termwise decoding: greedy, sampling and beam search for models that answer a square term by term (termwise.py).

decode.py calls `search_terms` for a termwise model; nothing else needs this file. The terms of a square are independent
answers, each written after a start token of its own: <term 0>, <term 1>, ... The encoder runs once for all of them. The
token `more` before the end of a term says that another term follows. The hypothesis of a square is the hypotheses of
its terms end to end; it is finished if its last term is.

In all functions src is (B, S), padded with PAD; max_len is the longest term; `terms` are the start tokens.
"""
import torch

from generate import Hypothesis, beam_search, sample
from tokenizer import EOS

TERMS = 8  # terms decoded side by side; those beyond follow in a second batch


def search_terms(model, tokenizer, src, max_len, uniform, temperature, top_k, top_p, beam_size, length_penalty):
    """
    B lists of hypotheses of squares: sampled with the random numbers `uniform` (see sample_terms), without these by
    beam search, or greedy if beam_size is 1.
    """
    terms, more = tokenizer.first, tokenizer.more
    if uniform:
        return sample_terms(model, src, max_len, uniform, temperature, top_k, top_p, terms, more)
    if beam_size > 1:
        return beam_terms(model, src, max_len, beam_size, length_penalty, terms, more)
    return [[square] for square in greedy_terms(model, src, max_len, terms, more)]


def append(square, term):
    """The hypothesis of a square with another term at its end."""
    return Hypothesis(square.ids + term.ids, square.logprob + term.logprob, min(square.lowest, term.lowest))


def greedy_terms(model, src, max_len, terms, more):
    """As `greedy`: B hypotheses of squares."""
    squares = [Hypothesis([], 0.0, 0.0) for _ in src]
    open_rows = list(range(len(src)))  # rows whose squares have more terms
    for begin in range(0, len(terms), TERMS):
        first = torch.tensor(terms[begin:begin + TERMS], device=src.device).expand(len(open_rows), -1)
        for row, hypotheses in zip(open_rows, sample(model, src[open_rows], max_len, first=first, more=more)):
            for term in hypotheses:
                squares[row] = append(squares[row], term)
                if not goes_on(term, more):
                    break
        open_rows = [row for row in open_rows if goes_on(squares[row], more)]
        if not open_rows:
            break
    return [cut_short(square, more) for square in squares]


def beam_terms(model, src, max_len, beams, length_penalty, terms, more):
    """As `beam_search`: the K best squares made of the K best hypotheses of each term."""
    def search(src, source, wanted):
        first = torch.tensor([terms[number] for _, number in wanted], device=src.device)
        return beam_search(model, src, max_len, beams, length_penalty, first, source)

    squares = by_terms(search, lambda written: best_squares(written, beams, more), model, src, max_len, terms, more)
    return [sorted(some, key=lambda square: -square.logprob / len(square.ids) ** length_penalty) for some in squares]


def sample_terms(model, src, max_len, uniform, temperature, top_k, top_p, terms, more):
    """As `sample`: square k consists of sample k of each term. uniform(row, term): (K, max_len) random numbers."""
    def search(src, source, wanted):
        numbers = torch.stack([uniform(row, number) for row, number in wanted])
        first = torch.tensor([terms[number] for _, number in wanted], device=src.device)
        first = first[:, None].expand(numbers.shape[:2])
        return sample(model, src, max_len, numbers, temperature, top_k, top_p, first, source)

    return by_terms(search, lambda written: zip_squares(written, more), model, src, max_len, terms, more)


def by_terms(search, combine, model, src, max_len, terms, more):
    """
    B lists of squares. The greedy square says how many terms of a row are decoded first; more follow while they might
    change its squares.

    search(src, source, wanted): a list of hypotheses for each (row, number of a term) in `wanted`; the input k reads
    src[source[k]]. combine(lists of hypotheses of the terms 0, 1, ...): (squares, whether another term might change
    them).
    """
    wanted = [(row, number) for row, square in enumerate(greedy_terms(model, src, max_len, terms, more))
              for number in range(max(1, square.ids.count(EOS)))]
    written, squares = [[] for _ in src], [None] * len(src)  # of each row the lists of hypotheses of its terms so far
    while wanted:
        size = max(TERMS, len(src))  # inputs of a search: no more memory than without terms
        for begin in range(0, len(wanted), size):
            part = wanted[begin:begin + size]
            rows, source = torch.tensor([row for row, _ in part], device=src.device).unique(return_inverse=True)
            for (row, _), hypotheses in zip(part, search(src[rows], source, part)):
                written[row].append(hypotheses)
        rows, wanted = dict.fromkeys(row for row, _ in wanted), []
        for row in rows:
            squares[row], unsettled = combine(written[row])
            if unsettled and len(written[row]) < len(terms):
                wanted.append((row, len(written[row])))
    return [[cut_short(square, more) for square in some] for some in squares]


def best_squares(written, count, more):
    """
    The `count` most probable squares that the hypotheses of the terms make, best first, and whether another term might
    change them.

    written: lists of hypotheses of the terms 0, 1, ... The result is exact. Terms are independent, so only the `count`
    best beginnings of each length can begin one of the `count` best squares. Of the pairs of the i-th best beginning
    and the j-th best next term (from 0), (i + 1) (j + 1) are at least as good as this one; so only those with
    (i + 1) (j + 1) <= count matter.
    """
    ended, beginnings = [], [Hypothesis([], 0.0, 0.0)]
    for hypotheses in written:
        longer = {}
        for open_end in (False, True):
            next_terms = best((term for term in hypotheses if goes_on(term, more) == open_end), count)
            pairs = ((square, term) for i, square in enumerate(beginnings) for term in next_terms[:count // (i + 1)])
            longer[open_end] = best((append(square, term) for square, term in pairs), count)
        ended = best(ended + longer[False], count)
        beginnings = [square for square in longer[True] if len(ended) < count or square.logprob > ended[-1].logprob]
    return best(ended + beginnings, count), bool(beginnings)


def zip_squares(written, more):
    """As best_squares for samples: square k is made of hypothesis k of each term."""
    squares = [Hypothesis([], 0.0, 0.0)] * len(written[0])
    for number, hypotheses in enumerate(written):
        squares = [append(square, term) if number == 0 or goes_on(square, more) else square
                   for square, term in zip(squares, hypotheses)]
    return squares, any(goes_on(square, more) for square in squares)


def best(squares, count):
    return sorted(squares, key=lambda square: -square.logprob)[:count]


def goes_on(hypothesis, more):
    """Whether the last term says that another one follows."""
    return hypothesis.ids[-2:] == [more, EOS]


def cut_short(square, more):
    """A square with all the terms there can be that still goes on is not finished: without its last EOS."""
    return square._replace(ids=square.ids[:-1]) if goes_on(square, more) else square
