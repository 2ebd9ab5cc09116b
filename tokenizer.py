r"""Text of amplitudes and squares <-> compact token ids; vocabulary; the packed cache that training reads.

The amplitude

    -1/2*i*e^2*gamma_{+%\sigma_165,%gam_145,%gam_146}*...*e_{i_3,%gam_146}(p_1)_u*.../(m_e^2 + -s_13 + 1/2*reg_prop)

becomes the tokens

    -1/2  i  e^2  gamma_{+%L0  %D0  %D1  ...  e_{}(p_1)_u  %D1  ...  /(  m_e^2  -s_13  1/2  reg_prop  )

- A number with its sign, a symbol with its sign and power, a tensor with its first index, a field without its indices
  are one token each; further indices follow their tensor or field one by one.
- Index names are arbitrary, so they are numbered by first appearance within their kind: %L Lorentz, %D Dirac, %C colour
  of quarks, %A colour of gluons. The label of a field's polarisation (i_3) says nothing and has no token. `names` keeps
  what decode_amp needs to write the text back: each index name where it is new and every label, in the order of the text.
- What joins two factors is implied: ` + ` before a number or a minus sign, `*` before anything else. Where the text has
  another joiner, that one is a token. So no text loses a character.
- A number that the vocabulary lacks is spelled: `-32/81` is `#-  #3  #2  #/  #8  #1`.

`lex` defines the tokens: slow, plain. `amp_tokens` and `sqamp_tokens` give the same four times faster: rows differ in their
index names but are made of few distinct factors and terms, so each of these is lexed once and remembered.
"""
import array
import collections
import functools
import hashlib
import json
import pathlib
import re
import sys
from typing import NamedTuple

import numpy as np
import torch

from files import InputError, atomic_open, read_rows

PAD, BOS, EOS = 0, 1, 2
SPECIALS = ["<pad>", "<bos>", "<eos>"]
SPELLING = ["#", "#-", "#(-", "#/", "#)", *(f"#{digit}" for digit in range(10))]
RARE = 5                # a number in fewer training rows than this is spelled: a token of its own would hardly be learned

# ---------------------------------------------------------------------------------------------------------------------
# The slow lexer: what the tokens of a text are

INDEX = r"\+?%\\?\w+"
POWER = r"\^(?:\d+|\(-?\d+(?:/\d+)?\)|\(\*\))"
OPERAND = re.compile(rf"""
      (?P<number>   (?: \(-\d+(?:/\d+)?\) | -?\d+(?:/\d+)? ) (?:{POWER})? )
    | (?P<momentum> p_\d+_ {INDEX} )
    | (?P<field>    [A-Za-z]\w*_\{{ [^{{}}]* \}} \(p_\d+\) (?:_[uv]\b)? (?:\^\(\*\))? )
    | (?P<tensor>   [A-Za-z]\w*_\{{ [^{{}}]* \}} )
    | (?P<symbol>   -?[A-Za-z]\w* (?:\(\w+\))? (?:{POWER})? (?!\w*\+?[{{(%]) )  # also cos(theta_W)^2, a scalar leg h(p_3)
    | (?P<opening>  [(-] )""", re.VERBOSE)
OPERATOR = re.compile(rf"\)(?:{POWER})? | /\(? | \* | [ ][+-][ ]", re.VERBOSE)
TENSORS = {"gamma": "LDD", "P_L": "DD", "P_R": "DD", "T_C_10": "ACC", "f_SU3": "AAA"}           # the kinds of their indices
KINDS = {"L": "Lorentz", "D": "Dirac", "C": "quark colour", "A": "gluon colour"}


class Slot(NamedTuple):
    """A token that holds an index: `before` and the index's number."""
    kind: str               # L, D, C or A
    before: str             # `%D`, `+%L`, `gamma_{+%L`, `p_1_%L`


LABEL = Slot("", "")        # the polarisation label of a field: takes a name and makes no token


def lex(text, joiner=""):
    """The parts of a text in order: tokens as str, and a Slot for each index name.

    joiner: the operator that stands before `text` where it is a piece of a longer text. Raises InputError with the
    column, counted from 1, and what stood there.
    """
    parts, position = [], 0
    while True:
        match = OPERAND.match(text, position)
        if not match:
            raise _error(text, position, "a number, a symbol, a tensor with indices, a field or '('")
        operand, kind = match.group(), match.lastgroup
        if joiner and joiner != implied_joiner(operand):
            parts.append(joiner)
        if kind == "momentum":
            parts.append(Slot("L", operand[:operand.index("%")] + "%L"))
        elif kind == "field":
            parts += _lex_field(text, position, operand)
        elif kind == "tensor":
            parts += _lex_tensor(text, position, operand)
        else:
            parts.append(operand)
        position, joiner = match.end(), ""
        if kind == "opening":
            continue
        while not joiner:
            match = OPERATOR.match(text, position)
            if not match:
                if position == len(text):
                    return parts
                raise _error(text, position, "'*', ' + ', '/', ')' or the end")
            operator, position = match.group(), match.end()
            if operator[0] in ")/":
                parts.append(operator)
            if operator[0] == "/":
                break
            if operator[0] != ")":
                joiner = operator


def _lex_field(text, position, operand):
    """Particle, momentum and spinor kind in one token; then the label, [colour,] [Dirac or Lorentz]."""
    head, indices, tail = re.split("[{}]", operand)
    label, *indices = indices.split(",")
    spinor = tail.removesuffix("^(*)")[-2:] in ("_u", "_v")
    kinds = ("CD" if spinor else "AL")[-len(indices):] if indices else ""
    if not re.fullmatch(r"\w+", label) or len(kinds) < len(indices):
        raise _error(text, position + len(head) + 1, r"the indices of a field: its label, [colour,] Dirac or Lorentz")
    parts = [f"{head}{{}}{tail}", LABEL]
    column = position + len(head) + 1 + len(label)
    for index, kind in zip(indices, kinds):
        parts.append(_slot(text, column + 1, index, kind, ""))
        column += 1 + len(index)
    return parts


def _lex_tensor(text, position, operand):
    head, indices = operand[:-1].split("_{")
    if head not in TENSORS:
        raise _error(text, position, f"a tensor out of {', '.join(TENSORS)}, or a field with its momentum")
    indices, kinds = indices.split(","), TENSORS[head]
    column = position + len(head) + 2
    if len(indices) != len(kinds):
        raise _error(text, column, f"the {len(kinds)} indices of {head}: {', '.join(KINDS[kind] for kind in kinds)}")
    parts, before = [], head + "_{"
    for index, kind in zip(indices, kinds):
        parts.append(_slot(text, column, index, kind, before))
        column, before = column + len(index) + 1, ""
    return parts


def _slot(text, column, index, kind, before):
    if not re.fullmatch(INDEX, index):
        raise _error(text, column, f"a {KINDS[kind]} index such as %gam_1")
    return Slot(kind, f"{before}{'+' if index[0] == '+' else ''}%{kind}")


def _error(text, position, expected):
    found = " ".join(text[position:position + 12].split())
    found = f"'{found}'" if position < len(text) else "the end of the text"
    return InputError(f"column {position + 1}: found {found}, expected {expected}")


def implied_joiner(token):
    """What joins `token` to a factor before it unless another joiner stands there."""
    return " + " if token[0] in "-#0123456789" or token.startswith("(-") else "*"


# ---------------------------------------------------------------------------------------------------------------------
# The fast way to the same tokens

NAME = re.compile(r"([%{]\\?\w+)")       # an index with its %, or a label with the { before it
NAMELESS = {"%": "%x", "{": "{x"}


def amp_tokens(text):
    """Tokens of an amplitude and the names for amp_text: (list of str, list of str). Raises InputError."""
    cut = NAME.split(text.replace("^(*)", "^~"))            # ~, so that every * left is a product
    names = cut[1::2]
    cut[1::2] = [NAMELESS[name[0]] for name in names]
    parts = []
    try:
        if "~" in text:
            raise _error(text, text.index("~"), "no such character")
        for factor in "".join(cut).split("*"):
            parts += _lex_factor(factor)
        if parts[0] == "*":                                 # nothing stands before the first factor
            del parts[0]
    except InputError:
        parts = lex(text)                                   # raises too, with the column in the whole text
    return number_indices(parts, names)


@functools.lru_cache(maxsize=2**16)                         # some 1,500 factors make up all of QED 2->2
def _lex_factor(factor):
    """lex() of what stands between two `*`, every name in it x, every `^(*)` written `^~`."""
    return tuple(lex(factor.replace("^~", "^(*)"), "*"))


def number_indices(parts, names):
    """Parts and the index names and labels in their order, one for each Slot -> tokens, names for amp_text."""
    tokens, kept, every_name = [], [], iter(names)
    numbers = {"L": {}, "D": {}, "C": {}, "A": {}}          # kind -> name -> number, as text
    for part in parts:
        if part.__class__ is str:
            tokens.append(part)
            continue
        kind, before = part
        name = next(every_name)
        if not kind:
            kept.append(name[1:])
            continue
        known = numbers[kind]
        if name not in known:
            known[name] = str(len(known))
            kept.append(name)
        tokens.append(before + known[name])
    return tokens, kept


def sqamp_tokens(text):
    """Tokens of a squared amplitude, a list of str. Raises InputError."""
    tokens = []
    try:
        for term in text.split(" + "):
            tokens += _lex_term(term)
        if tokens[0] == " + ":
            del tokens[0]
    except InputError:
        lex(text)                                           # raises with the column in the whole text
        raise
    return tokens


@functools.lru_cache(maxsize=2**16)
def _lex_term(term):
    """lex() of what stands between two ` + `."""
    parts = lex(term, " + ")
    if not all(part.__class__ is str for part in parts):
        raise InputError(f"found {term!r}: a tensor or a field, expected a square, which has neither")
    return tuple(parts)


# ---------------------------------------------------------------------------------------------------------------------
# Tokens -> text

OPENING = {"(", "-", "/", "/(", "*", " + ", " - "}         # nothing joins these to what follows
INDEXED = re.compile(r"(.*)%([LDCA]\d+)")


def join_tokens(tokens):
    """Text of the tokens of a square; of any other sequence of tokens too, since a model may write anything."""
    pieces, opened = [], True
    for token in tokens:
        spelled = token[0] == "#"
        glued = token[0] in ")/" or token in OPENING and token not in "(-" or spelled and token not in ("#", "#-", "#(-")
        if not opened and not glued:
            pieces.append(implied_joiner(token))
        pieces.append(token[1:] if spelled else token)
        opened = token in OPENING
    return "".join(pieces)


def amp_text(tokens, names):
    """The text of an amplitude from amp_tokens' answer. Raises ValueError where the names do not fit the tokens."""
    names, known = iter(names), {}
    factors, tail = [], ""                                  # tail: what closes the tensor or field whose indices are being read
    try:
        for token in tokens:
            indexed = INDEXED.fullmatch(token)
            if indexed:
                before, index = indexed.groups()
                if index not in known:
                    known[index] = next(names)
                if before in ("", "+"):
                    factors[-1] += ("," if factors[-1][-1] != "{" else "") + before + known[index]
                    continue
            if tail:
                factors[-1] += tail
            if indexed:
                factors.append(before + known[index])
                tail = "}" if "{" in before else ""
            elif "{}" in token:
                head, tail = token.split("}")
                tail = "}" + tail
                factors.append(head + next(names))
            else:
                factors.append(token)
                tail = ""
    except StopIteration:
        raise ValueError("fewer names than the tokens have indices and fields") from None
    if tail:
        factors[-1] += tail
    if next(names, None) is not None:
        raise ValueError("more names than the tokens have indices and fields")
    return join_tokens(factors)


# ---------------------------------------------------------------------------------------------------------------------
# Keys under which rows count as the same

MASS_OR_LEG = re.compile(r"(?<!\w)m_([A-Za-z]\w*)|(?<!\w)([A-Za-z]\w*?)(?=(?:_\{\})?\(p_)")


def canonical_key(amp):
    """The amplitude up to index names: equal for two rows exactly if only these differ."""
    return " ".join(amp_tokens(amp)[0])


def template(amp):
    """The amplitude up to index and particle names, and the particles in order of first appearance, as field or in a mass.

    `m_e` becomes `m_P0`, `e_{}(p_1)_u` becomes `P0_{}(p_1)_u`; numbers, so charges, stay.
    """
    particles = {}

    def rename(match):
        number = particles.setdefault(match[1] or match[2], len(particles))
        return f"m_P{number}" if match[1] else f"P{number}"

    return MASS_OR_LEG.sub(rename, canonical_key(amp)), list(particles)


def template_key(amp):
    """The amplitude up to index and particle names: equal for two rows exactly if only these differ."""
    return template(amp)[0]


# ---------------------------------------------------------------------------------------------------------------------
# Tokens <-> ids

class Tokenizer:
    """vocabulary: {"src": [token, ...], "tgt": [token, ...]}, the three specials first; a checkpoint holds it as it is."""

    def __init__(self, vocabulary):
        for side in ("src", "tgt"):
            if vocabulary[side][:3] != SPECIALS or len(vocabulary[side]) > 2**16:
                raise InputError(f"not a vocabulary of this program: its {side} tokens begin with {vocabulary[side][:3]}, "
                                 f"expected {SPECIALS} and fewer than {2**16} tokens")
        self.vocabulary = vocabulary
        self.src_ids = {token: id for id, token in enumerate(vocabulary["src"])}
        self.tgt_ids = {token: id for id, token in enumerate(vocabulary["tgt"])}

    def encode_amp(self, text):
        """(ids with EOS at the end, names for decode_amp). InputError for what is no amplitude or an unknown token."""
        tokens, names = amp_tokens(text)
        return _to_ids(tokens, self.src_ids), names

    def decode_amp(self, ids, names):
        return amp_text(_to_tokens(ids, self.vocabulary["src"]), names)

    def encode_sqamp(self, text):
        """Ids with EOS at the end, without BOS. InputError for what is no square or an unknown token."""
        return _to_ids(sqamp_tokens(text), self.tgt_ids)

    def decode_sqamp(self, ids):
        """Text of the ids up to EOS or the end."""
        return join_tokens(_to_tokens(ids, self.vocabulary["tgt"]))


def _to_ids(tokens, ids_of):
    try:
        ids = [ids_of[token] for token in tokens]
    except KeyError:
        ids = []
        for token in tokens:
            for piece in (token,) if token in ids_of else spell(token):
                if piece not in ids_of:
                    raise InputError(f"the token {token!r} is not in the vocabulary: no training row has it") from None
                ids.append(ids_of[piece])
    ids.append(EOS)
    return ids


def _to_tokens(ids, vocabulary):
    tokens = []
    for id in ids:
        if id == EOS:
            break
        tokens.append(vocabulary[id])
    return tokens


def spell(token):
    """Tokens of a number's sign, digits, fraction line: `(-32/81)` -> `#(- #3 #2 #/ #8 #1 #)`. Other tokens stay whole."""
    number = re.fullmatch(r"(\(-|-|)(\d+(?:/\d+)?\)?)", token)
    return [f"#{number[1]}", *(f"#{character}" for character in number[2])] if number else [token]


def build_vocabulary(path):
    """Vocabulary of a training file, a CSV with amp and sqamp: every token in it, but of the numbers only the frequent."""
    counts = {"src": collections.Counter(), "tgt": collections.Counter()}
    for line, row in read_rows(path):
        for side, column, tokens_of in (("src", "amp", lambda text: amp_tokens(text)[0]), ("tgt", "sqamp", sqamp_tokens)):
            try:
                counts[side].update(set(tokens_of(row[column])))
            except InputError as error:
                raise InputError(f"{path}:{line}: {column}: {error}") from None
    return {side: SPECIALS + SPELLING + sorted(token for token, rows in count.items() if rows >= RARE or spell(token) == [token])
            for side, count in counts.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Packed splits: all rows end to end, memory-mapped

FORMAT = 1                  # of the cache; a change of the tokens or of the layout makes old caches invalid
JITTER = 0.1                # of a row's length where batches are drawn: 96% of the positions of a batch are real tokens


class Packed(NamedTuple):
    """Row r is src[src_start[r]:src_start[r + 1]] and tgt likewise, each ending in EOS."""
    src: np.ndarray         # uint16, all rows end to end
    src_start: np.ndarray   # int64, rows + 1
    tgt: np.ndarray
    tgt_start: np.ndarray


def load_split(data_dir, split, tokenizer, src_max_len, tgt_max_len):
    """Packed form of data_dir/SPLIT.csv, from the cache beside it where that was made of the same data and vocabulary.

    Raises InputError as FILE:LINE for a row that is unreadable, has an unknown token or is longer than src_max_len
    (with EOS) or tgt_max_len (with BOS and EOS).
    """
    path = pathlib.Path(data_dir) / f"{split}.csv"
    key = _cache_key(path, tokenizer.vocabulary, src_max_len, tgt_max_len)
    stem = path.parent / ".cache" / f"{split}-{key}"
    packed = _read_cache(stem, tokenizer.vocabulary)
    if packed is None:
        packed = _pack(path, tokenizer, src_max_len, tgt_max_len)
        try:
            for name, values in packed._asdict().items():
                with atomic_open(f"{stem}.{name}.npy", "wb") as file:
                    np.save(file, values, allow_pickle=False)
        except OSError as error:                            # a read-only data set is packed anew by every run
            print(f"{path}: not cached ({error})", file=sys.stderr)
    return packed


def _cache_key(path, vocabulary, *limits):
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror}); python prepare.py makes the data") from None
    digest.update(json.dumps([FORMAT, vocabulary, limits]).encode())
    return digest.hexdigest()[:24]


def _read_cache(stem, vocabulary):
    """The cached arrays, memory-mapped; None where they are missing, cut short or not what they should be."""
    try:
        packed = Packed(*(np.load(f"{stem}.{name}.npy", mmap_mode="r", allow_pickle=False) for name in Packed._fields))
    except (OSError, ValueError, EOFError):
        return None
    for flat, start, tokens in ((packed.src, packed.src_start, vocabulary["src"]), (packed.tgt, packed.tgt_start, vocabulary["tgt"])):
        sound = (flat.dtype == np.uint16 and start.dtype == np.int64 and flat.ndim == start.ndim == 1
                 and len(start) == len(packed.src_start) > 1 and start[0] == 0 and start[-1] == len(flat)
                 and (np.diff(start) > 0).all() and (flat[start[1:] - 1] == EOS).all() and flat.max() < len(tokens))
        if not sound:
            return None
    return packed


def _pack(path, tokenizer, src_max_len, tgt_max_len):
    src, tgt, src_start, tgt_start = array.array("H"), array.array("H"), array.array("q", [0]), array.array("q", [0])
    for line, row in read_rows(path):
        try:
            column = "amp"
            src_ids = tokenizer.encode_amp(row["amp"])[0]
            column = "sqamp"
            tgt_ids = tokenizer.encode_sqamp(row["sqamp"])
        except InputError as error:
            raise InputError(f"{path}:{line}: {column}: {error}") from None
        if len(src_ids) > src_max_len:
            raise InputError(f"{path}:{line}: amp: {len(src_ids)} tokens, src_max_len is {src_max_len}")
        if len(tgt_ids) + 1 > tgt_max_len:
            raise InputError(f"{path}:{line}: sqamp: {len(tgt_ids) + 1} tokens, tgt_max_len is {tgt_max_len}")
        src.fromlist(src_ids)
        tgt.fromlist(tgt_ids)
        src_start.append(len(src))
        tgt_start.append(len(tgt))
    if len(src_start) == 1:
        raise InputError(f"{path}:2: no rows, at least one is expected")
    return Packed(np.array(src, np.uint16), np.array(src_start, np.int64), np.array(tgt, np.uint16), np.array(tgt_start, np.int64))


def length_batches(packed, batch_tokens, generator_seed):
    """Row numbers of each batch, a list of int arrays: rows of like length, at most batch_tokens with their padding.

    The seed draws how rows of nearly the same length are mixed and in which order the batches come; with None rows and
    batches come by length. A row longer than batch_tokens is a batch of its own.
    """
    src, tgt = np.diff(packed.src_start), np.diff(packed.tgt_start)         # (rows,)
    length = src + tgt
    if generator_seed is not None:
        # Rows of exactly one length are often of one process: a little jitter mixes them and costs 3% more padding
        generator = np.random.default_rng(generator_seed)
        length = length * generator.uniform(1 - JITTER, 1 + JITTER, len(length))
    rows = np.argsort(length, kind="stable")
    batches, first, longest_src, longest_tgt = [], 0, 0, 0
    for end, (s, t) in enumerate(zip(src[rows].tolist(), tgt[rows].tolist())):
        longest_src, longest_tgt = max(longest_src, s), max(longest_tgt, t)
        if (longest_src + longest_tgt) * (end + 1 - first) > batch_tokens and end > first:
            batches.append(rows[first:end])
            first, longest_src, longest_tgt = end, s, t
    batches.append(rows[first:])
    if generator_seed is not None:
        generator.shuffle(batches)
    return batches


def collate(packed, rows):
    """The rows as tensors: src (B, S), padded with PAD; tgt (B, T), BOS ... EOS, padded. int64."""
    return (_pad(packed.src, packed.src_start, rows, bos=0), _pad(packed.tgt, packed.tgt_start, rows, bos=1))


def _pad(flat, start, rows, bos):
    rows = np.asarray(rows)
    length = start[rows + 1] - start[rows]                                  # (B,)
    column = np.arange(length.max())                                        # (T,)
    real = column < length[:, None]                                         # (B, T)
    ids = np.full((len(rows), bos + len(column)), PAD)
    ids[:, :bos] = BOS
    ids[:, bos:][real] = flat[(start[rows][:, None] + column)[real]]
    return torch.from_numpy(ids)
