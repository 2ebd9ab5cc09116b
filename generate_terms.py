"""
Squares that a model writes term by term (termwise.py): greedy, sampled, or the best that the terms of beams can be put
together to.

Given the source, the terms are independent answers, each written after a token of its own; the source is read once for
all of them. The hypothesis of a square is those of its terms end to end, and it is finished if its last term is.

In all functions here src is (B, S), padded with PAD, max_len is that of a term, `terms` are the tokens <term 0>, <term
1>, ... and `more` is the token that a term has before its end if another follows.
"""
import torch

from generate import Hypothesis, beam_search, sample
from tokenizer import EOS

TERMS = 8  # terms written side by side; where a square has more, the next ones follow


def search_terms(model, tokenizer, src, max_len, uniform, temperature, top_k, top_p, beam_size, length_penalty):
    """
    B lists of hypotheses of squares, for decode.py: sampled with the random numbers `uniform` (see sample_terms), or if
    that is None greedy (beam_size 1) or by beam search.
    """
    terms, more = tokenizer.first, tokenizer.more
    if uniform:
        return sample_terms(model, src, max_len, uniform, temperature, top_k, top_p, terms, more)
    if beam_size > 1:
        return beam_terms(model, src, max_len, beam_size, length_penalty, terms, more)
    return [[square] for square in greedy_terms(model, src, max_len, terms, more)]


def append(square, term):
    """The hypothesis of a square with one term more."""
    return Hypothesis(square.ids + term.ids, square.logprob + term.logprob, min(square.lowest, term.lowest))


def greedy_terms(model, src, max_len, terms, more):
    """As `greedy`, of squares of which each term has at most max_len tokens."""
    squares = [Hypothesis([], 0.0, 0.0) for _ in src]
    going = list(range(len(src)))
    for begin in range(0, len(terms), TERMS):
        first = torch.tensor(terms[begin:begin + TERMS], device=src.device).expand(len(going), -1)
        for row, written in zip(going, sample(model, src[going], max_len, first=first, more=more)):
            for term in written:
                squares[row] = append(squares[row], term)
                if not goes_on(term, more):
                    break
        going = [row for row in going if goes_on(squares[row], more)]
        if not going:
            break
    return [cut_short(square, more) for square in squares]


def beam_terms(model, src, max_len, beams, length_penalty, terms, more):
    """As `beam_search`: the K best squares that can be put together from the K best hypotheses of each term."""
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
    B lists of squares, from as many terms of each input as they take.

    search(src, source, wanted): lists of hypotheses for these (row, number of a term); source says where in src the row
    is. combine(lists for the terms 0, 1, ...): (squares, whether one term more might change them). To begin with, as
    many terms are written as the greedy square has.
    """
    wanted = [(row, number) for row, square in enumerate(greedy_terms(model, src, max_len, terms, more))
              for number in range(max(1, square.ids.count(EOS)))]
    written, squares = [[] for _ in src], [None] * len(src)
    while wanted:
        size = max(TERMS, len(src))  # inputs of a search, as many as without terms: its memory does not grow with them
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
    The `count` most probable squares of which each term is one of its hypotheses, best first, and whether a further
    term might change that.

    written: for the terms 0, 1, ... lists of hypotheses. Exact: what goes on after a term does not depend on what was
    before it, so only the `count` best beginnings of each length can be beginnings of the `count` best squares. And of
    the pairs of the i-th best beginning and the j-th best next term only those with (i + 1) (j + 1) <= count: so many
    are at least as good.
    """
    ended, going = [], [Hypothesis([], 0.0, 0.0)]
    for hypotheses in written:
        longer = {}
        for on in (False, True):
            next_terms = best((hypothesis for hypothesis in hypotheses if goes_on(hypothesis, more) == on), count)
            pairs = ((square, term) for i, square in enumerate(going) for term in next_terms[:count // (i + 1)])
            longer[on] = best((append(square, term) for square, term in pairs), count)
        ended = best(ended + longer[False], count)
        going = [square for square in longer[True] if len(ended) < count or square.logprob > ended[-1].logprob]
    return best(ended + going, count), bool(going)


def zip_squares(written, more):
    """As best_squares, where the hypotheses of the terms belong together in their order."""
    squares = [Hypothesis([], 0.0, 0.0)] * len(written[0])
    for number, hypotheses in enumerate(written):
        squares = [append(square, term) if number == 0 or goes_on(square, more) else square
                   for square, term in zip(squares, hypotheses)]
    return squares, any(goes_on(square, more) for square in squares)


def best(squares, count):
    return sorted(squares, key=lambda square: -square.logprob)[:count]


def goes_on(hypothesis, more):
    return hypothesis.ids[-2:] == [more, EOS]


def cut_short(square, more):
    """Without its end if it says that another term follows: it had as many as there can be, and is not finished."""
    return square._replace(ids=square.ids[:-1]) if goes_on(square, more) else square
