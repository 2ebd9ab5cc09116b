r"""Text of amplitudes and squares <-> compact token ids.

The amplitude

    -1/2*i*e^2*gamma_{+%\sigma_165,%gam_145,%gam_146}*...*e_{i_3,%gam_146}(p_1)_u*.../(m_e^2 + -s_13 + 1/2*reg_prop)

becomes the tokens

    -1/2  i  e^2  gamma_{+%L0  %D0  %D1  ...  e_{  }(p_1)_u  %D1  ...  /(  m_e^2  -s_13  1/2  reg_prop  )

- A number or a symbol with sign and power, or a tensor with its first index, is one token; a field is two.
- Index names are arbitrary, so they are numbered by first appearance within their kind: %L Lorentz, %D Dirac, %C colour
  of quarks, %A colour of gluons. The label of a field's polarisation (i_3) says nothing and has no token. `names` keeps
  what decode_amp needs to write the text back: each index name where it is new and every label, in order.
- The joiner of two factors is implied: ` + ` before a number or a minus sign, else `*`. Any other one is a token.
- What the vocabulary lacks is spelled, if it is a number, a sign or a power: `-32/81` is `#-  #3  #2  #/  #8  #1`, and
  `-m_W^6` is `-  m_W  #^  #6`. Only a symbol, tensor or field that no training row has is an error.

These are infix tokens. notation.py makes prefix notations, larger and smaller tokens out of them.

`lex` defines the tokens: slow, plain. `amp_tokens` and `sqamp_tokens` give the same four times faster: without index
names, rows are made of few distinct factors and terms, so each of these is lexed once and remembered.
"""
import functools
import itertools
import re
from typing import NamedTuple

import termwise
from notation import INDEX_TOKEN, JOINERS, SHORT, Notation, implied_joiner, read, write
from physics.expression import GENERATOR, INDEX_KINDS, KIND_NAMES
from physics.normal_form import normal
from runtime.files import InputError

FORMAT = 2              # of the tokens; vocabularies and packed data made with another one are refused
PAD, BOS, EOS = 0, 1, 2
SPECIALS = ["<pad>", "<bos>", "<eos>"]
MORE = "<more>"         # before the end of a term that is not the last
# the settings that say how rows become tokens. A vocabulary has them; one that lacks some was made with these values
SCHEME = dict(rename_particles=False, termwise=False, src_notation="infix", tgt_notation="infix", shorten_masses=False,
              glue="tensor", normal_form=False)
SPELLING = ["-", "#", "#-", "#(-", "#^", "#^(", "#^(-", "#/", "#)", *(f"#{digit}" for digit in range(10))]

# ---------------------------------------------------------------------------------------------------------------------
# The slow lexer: what the tokens of a text are

INDEX = r"\+?%\\?\w+"
POWER = r"\^(?:\d+|\(-?\d+(?:/\d+)?\)|\(\*\))"
OPERAND = re.compile(rf"""
      (?P<number>   (?: \(-\d+(?:/\d+)?\) | -?\d+(?:/\d+)? ) (?:{POWER})? )
    | (?P<momentum> p_\d+_ {INDEX} )
    | (?P<field>    [A-Za-z]\w*_\{{ [^{{}}]* \}} \(p_\d+\) (?:(?:_[uv])?(?:_T|_off)?\b)? (?:\^\(\*\))? )
    | (?P<tensor>   [A-Za-z]\w*_\{{ [^{{}}]* \}} )
    # also cos(theta_W)^2, eps(p_1,p_2,p_3,p_4), V_ub^(*)^2, a scalar leg h(p_3)
    | (?P<symbol>   -?[A-Za-z]\w* (?:\([\w,]+\)(?:_off)?)? (?:{POWER}){{0,2}} (?!\w*\+?[{{(%]) )
    | (?P<opening>  [(-] )""", re.VERBOSE)
OPERATOR = re.compile(rf"\)(?:{POWER})? | /\(? | \* | [ ][+-][ ]", re.VERBOSE)
TENSORS = {"T_C_10": "ACC"} | INDEX_KINDS
KINDS = KIND_NAMES | {"?": "any other"}  # of their indices


class Memo(dict):
    """What `make` gives for a key, made once; forgotten now and then, so that no data set can fill the memory."""

    def __init__(self, make):
        self.make = make

    def __missing__(self, key):
        if len(self) == 2**16:
            self.clear()
        value = self[key] = self.make(key)
        return value


class Slot(NamedTuple):
    """A token that holds an index."""
    kind: str               # L, D, C, A, or ? for a delta's
    tokens: dict            # number of the index -> token; for a delta, kind -> number -> token


LABEL = Slot("", None)      # the polarisation label of a field: takes a name and makes no token


def lex(text, joiner=""):
    """The parts of a text in order: tokens as str, and a Slot for each index name.

    joiner: the operator before `text` where it is a piece of a longer text. InputError with the column, counted from 1.
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
            parts.append(_slot("L", operand[:operand.index("%")]))
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
    """The particle; the label; momentum and spinor kind; [colour,] [Dirac or Lorentz].

    Particle and momentum are two tokens: a model sees that two legs have the same flavour, and no pair is unknown.
    """
    head, indices, tail = re.split("[{}]", operand)
    label, *indices = indices.split(",")
    spinor = re.search(r"_[uv]\b", tail.replace("_off", ""))
    kinds = ("CD" if spinor else "AL")[-len(indices):] if indices else ""
    if not re.fullmatch(r"\w+", label) or len(kinds) < len(indices):
        raise _error(text, position + len(head) + 1, r"the indices of a field: its label, [colour,] Dirac or Lorentz")
    column = position + len(head) + 1 + len(label) + 1
    return [f"{head}{{", LABEL, f"}}{tail}", *_lex_indices(text, column, indices, kinds, "")]


def _lex_tensor(text, position, operand):
    head, indices = operand[:-1].split("_{")
    kinds = TENSORS.get("T_C_10" if GENERATOR.fullmatch(head) else head)
    if not kinds:
        raise _error(text, position, f"a tensor out of {', '.join(TENSORS)}, or a field with its momentum")
    indices = indices.split(",")
    column = position + len(head) + 2
    if len(indices) != len(kinds):
        raise _error(text, column, f"the {len(kinds)} indices of {head}: {', '.join(KINDS[kind] for kind in kinds)}")
    return _lex_indices(text, column, indices, kinds, head + "_{")


def _lex_indices(text, column, indices, kinds, before):
    """A Slot for each index; `before` belongs to the token of the first."""
    parts = []
    for index, kind in zip(indices, kinds):
        if not re.fullmatch(INDEX, index):
            raise _error(text, column, f"a {KINDS[kind]} index such as %gam_1")
        parts.append(_slot(kind, before + "+" if index[0] == "+" else before))
        column, before = column + len(index) + 1, ""
    return parts


def _slot(kind, before):
    """The Slot for `%D3`, `+%L0`, `gamma_{+%L0`, `p_1_%L0`, whatever the number."""
    tokens = {kind: Memo(functools.partial("{}%{}{}".format, before, kind)) for kind in "LDCA"}
    return Slot(kind, tokens.get(kind, tokens))


def _error(text, position, expected):
    found = " ".join(text[position:position + 12].split())
    found = f"'{found}'" if position < len(text) else "the end of the text"
    return InputError(f"column {position + 1}: found {found}, expected {expected}")


# ---------------------------------------------------------------------------------------------------------------------
# The fast way to the same tokens

# An index with its %, or a label with the { before it. `[0-9A-Za-z_]+\w*|\w+` is \w+, faster for ASCII
NAME = re.compile(r"([%{]\\?(?:[0-9A-Za-z_]+\w*|\w+))")
NAMELESS = {"%": "%x", "{": "{x"}


def amp_tokens(text):
    """Tokens of an amplitude and the names for amp_text: (list of str, list of str). Raises InputError."""
    try:
        parts, names = amp_parts(text, FACTORS)
    except InputError:
        parts, names = lex(text), NAME.findall(text)        # raises too, with the column in the whole text
    return number_indices(parts, names)


def sqamp_tokens(text):
    """Tokens of a squared amplitude, a list of str. Raises InputError."""
    try:
        return sqamp_parts(text, TERMS)
    except InputError:
        lex(text)                                           # raises with the column in the whole text
        raise


def amp_parts(text, factors):
    """Parts of an amplitude and the name for each Slot. factors: text between two `*` -> its parts, as FACTORS."""
    if "~" in text:
        raise _error(text, text.index("~"), "no such character")
    cut = NAME.split(text.replace("^(*)", "^~"))            # so that every * left is a product
    names = cut[1::2]
    cut[1::2] = [NAMELESS[name[0]] for name in names]
    first, *others = "".join(cut).split("*")
    parts, parts_of = [*factors[""][first]], factors["*"]
    for factor in others:
        parts += parts_of[factor]
    return parts, names


def sqamp_parts(text, terms):
    """Parts of a square. terms: the parts of what stands between two ` + `, as TERMS."""
    first, *others = text.split(" + ")
    parts, parts_of = [*terms[""][first]], terms[" + "]
    for term in others:
        parts += parts_of[term]
    return parts


def _lex_factor(joiner, factor):
    if factor.startswith("delta_{"):
        raise InputError("the whole text says what kind of indices a delta has")
    return lex(factor.replace("^~", "^(*)"), joiner)


def _lex_term(joiner, term):
    parts = lex(term, joiner)
    if any(part.__class__ is Slot for part in parts):
        raise InputError(f"found '{term}': a tensor or a field, expected a square, which has neither")
    return parts


# Some 1,500 factors and 1,400 terms make up all of QED 2->2. They are kept by the joiner before them: "" for the first
FACTORS = {joiner: Memo(functools.partial(_lex_factor, joiner)) for joiner in ("", "*")}
TERMS = {joiner: Memo(functools.partial(_lex_term, joiner)) for joiner in ("", " + ")}


def number_indices(parts, names):
    """Parts and the name for each Slot in their order -> (tokens, names for amp_text)."""
    tokens, kept, every_name = [], [], iter(names)
    numbers = {"L": {}, "D": {}, "C": {}, "A": {}}          # kind -> name -> number
    for part in parts:
        if part.__class__ is not Slot:
            tokens.append(part)
            continue
        kind, tokens_of = part
        name = next(every_name)
        if not kind:
            kept.append(name[1:])
            continue
        if kind == "?":
            kind = _kind_elsewhere(name, parts, names)
            tokens_of = tokens_of[kind]
        known = numbers[kind]
        if name not in known:
            known[name] = len(known)
            kept.append(name)
        tokens.append(tokens_of[known[name]])
    return tokens, kept


def _kind_elsewhere(name, parts, names):
    """Kind of an index of a delta, which is the one that its name has in another tensor or a field."""
    slots = (part.kind for part in parts if part.__class__ is Slot)
    for kind, other in zip(slots, names):
        if other == name and kind not in ("", "?"):
            return kind
    raise InputError(f"found the index {name} of a delta in no other tensor or field")


# ---------------------------------------------------------------------------------------------------------------------
# Tokens -> text

OPENING = {"(", "-", "/", "/(", *JOINERS}                   # nothing joins these to what follows


def join_tokens(tokens):
    """Text of the tokens of a square; of any other sequence of tokens too, since a model may write anything."""
    pieces, opened = [], True
    for token in tokens:
        spelled = token[0] == "#"
        glued = token[0] in ")/" or token in JOINERS or spelled and token not in ("#", "#-", "#(-")
        if not opened and not glued:
            pieces.append(implied_joiner(token))
        pieces.append(token[1:] if spelled else token)
        opened = token in OPENING
    return "".join(pieces)


def amp_text(tokens, names):
    """The text of an amplitude from amp_tokens' answer. Raises ValueError where the names do not fit the tokens."""
    names, known = iter(names), {}
    factors, tail = [], ""                                  # tail closes the tensor or field that is being read
    try:
        for token in tokens:
            indexed = INDEX_TOKEN.fullmatch(token)
            if indexed:
                before, index = indexed[1], indexed[2] + indexed[3]
                if index not in known:
                    known[index] = next(names)
                if before in ("", "+"):
                    factors[-1] += ("," if factors[-1][-1] != "{" else "") + before + known[index]
                    continue
            if token[0] == "}":
                tail = token
                continue
            if tail:
                factors[-1] += tail
            factors.append(before + known[index] if indexed else token)
            if token[-1] == "{":
                factors[-1] += next(names)
            tail = "}" if indexed and "{" in before else ""
        if tail:
            factors[-1] += tail
    except StopIteration:
        raise ValueError("fewer names than the tokens have indices and fields") from None
    except IndexError:
        raise ValueError("the tokens begin with an index or the end of a field") from None
    if next(names, None) is not None:
        raise ValueError("more names than the tokens have indices and fields")
    return join_tokens(factors)


# ---------------------------------------------------------------------------------------------------------------------
# Tokens <-> ids

NEW_NAME = re.compile(r"(?<!\w)F\d+(?=_\{|\(p_)|(?<=(?<!\w)m_)F\d+(?!\w)")  # in a field, in a mass
FERMION = re.compile(r"(?<!\w)([A-Za-z]\w*)_\{[^{}]*\}\(p_\d+\)_[uv]")


def fermions_of(amp):
    """
    Names of the fermions but for neutrinos (nu..) among an amplitude's legs, in alphabetical order, as the masses in
    our squares. () if another particle has a name that these would be given, F1, F2, ...
    """
    names = tuple(sorted({name for name in FERMION.findall(amp) if not name.startswith("nu")}))
    return () if set(NEW_NAME.findall(amp)) - set(names) else names


def rename(text, old, new):
    """The text with the particles `old` named `new`, in fields and in masses."""
    if not old:
        return text
    names = dict(zip(old, new))
    return _particles(old).sub(lambda match: f"m_{names[match[1]]}" if match[1] else names[match[2]], text)


@functools.lru_cache(maxsize=2**12)
def _particles(names):
    either = "|".join(map(re.escape, names))
    return re.compile(rf"(?<!\w)(?:m_({either})(?!\w)|({either})(?=_\{{))")


def scheme_of(vocabulary):
    """The settings with which a vocabulary was made, those of SCHEME."""
    return {name: vocabulary.get(name, value) for name, value in SCHEME.items()}


def notations_of(scheme):
    """The Notations of amplitudes and of squares."""
    return tuple(Notation(scheme[name], scheme["shorten_masses"], scheme["glue"])
                 for name in ("src_notation", "tgt_notation"))


class Tokenizer:
    """vocabulary: {"format": int, "src": [token, ...], "tgt": [token, ...]}, SPECIALS first, and the settings of
    SCHEME; a checkpoint holds it as it is. The tgt of a termwise one ends with `<more>`, `<term 0>`, ...

    With rename_particles the fermions of a row are F1, F2, ... in the tokens: physics does not depend on their
    names, and a model need not learn it for each flavour. `fermions` says which are which. With normal_form an
    amplitude is rewritten by physics/normal_form.py first, so that it has the same tokens whoever wrote it.
    """

    def __init__(self, vocabulary):
        if vocabulary.get("format") != FORMAT:
            raise InputError(f"the vocabulary has the token format {vocabulary.get('format')}, this program writes and "
                             f"reads {FORMAT}; train a new model, or use the program that made it")
        for side in ("src", "tgt"):
            if vocabulary[side][:3] != SPECIALS or len(vocabulary[side]) > 2**16:
                raise InputError(f"not a vocabulary of this program: its {side} tokens begin with "
                                 f"{vocabulary[side][:3]}, expected {SPECIALS} and at most {2**16} tokens")
        self.vocabulary, scheme = vocabulary, scheme_of(vocabulary)
        self.src_notation, self.tgt_notation = notations_of(scheme)
        self.normal_form, self.rename_particles = scheme["normal_form"], scheme["rename_particles"]
        self.src_ids = {token: id for id, token in enumerate(vocabulary["src"])}
        self.tgt_ids = {token: id for id, token in enumerate(vocabulary["tgt"])}
        self.more = self.tgt_ids[MORE] if scheme["termwise"] else None
        # the token that each term of a square begins after; a square that is not split into terms begins after BOS
        self.first = list(range(self.more + 1, len(vocabulary["tgt"]))) if self.more else [BOS]
        self.factors, self.terms = (                        # with ids for tokens
            {joiner: Memo(functools.partial(_parts_to_ids, known, ids)) for joiner, known in memos.items()}
            for memos, ids in ((FACTORS, self.src_ids), (TERMS, self.tgt_ids)))

    def fermions(self, amp):
        """The fermions that are F1, F2, ... in the tokens of a row; () where they keep their names."""
        return fermions_of(amp) if self.rename_particles else ()

    def encode_amp(self, text):
        """(ids with EOS at the end, names for decode_amp). InputError for what is no amplitude or an unknown token."""
        text = rename(normal(text) if self.normal_form else text, *numbered(self.fermions(text)))
        if self.src_notation == PLAIN:
            try:
                ids, names = number_indices(*amp_parts(text, self.factors))
                ids.append(EOS)
                return ids, names
            except InputError:                              # below it is raised with the column in the whole text
                pass
        tokens, names = amp_tokens(text)
        return _to_ids(write(tokens, self.src_notation, self.src_ids), self.src_ids), names

    def decode_amp(self, ids, names, fermions=()):
        """The text of ids up to EOS or the end. Raises ValueError where they are no formula or the names do not fit."""
        tokens = read(_to_tokens(ids, self.vocabulary["src"]), self.src_notation)
        return rename(amp_text(tokens, names), *numbered(fermions)[::-1])

    def encode_sqamp(self, text, fermions=()):
        """Ids without BOS, EOS at the end, termwise of each term. InputError for no square or an unknown token."""
        text = rename(text, *numbered(fermions))
        if self.more is None:
            return self._encode_square(text)
        terms = termwise.split(text)
        most = len(self.first) - 1
        if terms[most:]:                                    # more than any training row has: the last takes the rest
            terms[most:] = [termwise.join(terms[most:])]
        ids = self._encode_square(terms[0])
        for term in terms[1:]:
            ids[-1:] = [self.more, EOS, *self._encode_square(term)]
        return ids

    def _encode_square(self, text):
        if self.tgt_notation == PLAIN:
            try:
                ids = sqamp_parts(text, self.terms)
                ids.append(EOS)
                return ids
            except InputError:
                pass
        return _to_ids(write(sqamp_tokens(text), self.tgt_notation, self.tgt_ids), self.tgt_ids)

    def decode_sqamp(self, ids, fermions=()):
        """Text of the ids up to EOS or the end; termwise of all terms, each up to `<more>` or EOS.

        Prefix tokens that are no formula become a text that is none: a `?` and the tokens.
        """
        terms, rest = [], list(ids)
        while rest:
            end = rest.index(EOS) + 1 if self.more and EOS in rest else len(rest)
            tokens = _to_tokens(rest[:end], self.vocabulary["tgt"])
            tokens = tokens[:tokens.index(MORE)] if MORE in tokens else tokens
            try:
                terms.append(join_tokens(read(tokens, self.tgt_notation)))
            except ValueError:
                terms.append(" ".join(["?", *tokens]))
            rest = rest[end:]
        text = termwise.join(terms) if self.more else "".join(terms)
        return rename(text, *numbered(fermions)[::-1])


def numbered(fermions):
    return fermions, tuple(f"F{k}" for k in range(1, len(fermions) + 1))


PLAIN = Notation()                      # whose tokens have a fast way, see FACTORS and TERMS


def _to_ids(tokens, ids_of):
    """Ids of the tokens, EOS at the end."""
    return [*(id for token in tokens for id in _ids_of(token, ids_of)), EOS]


def _parts_to_ids(known, ids_of, piece):
    """known[piece] with ids for tokens."""
    parts = []
    for part in known[piece]:
        if part.__class__ is str:
            parts += _ids_of(part, ids_of)
        else:
            memo = Memo(functools.partial(_index_id, part.tokens, ids_of))
            parts.append(part if part is LABEL else Slot(part.kind, memo))
    return parts


def _index_id(tokens, ids_of, number):
    (id,) = _ids_of(tokens[number], ids_of)
    return id


def _ids_of(token, ids_of):
    """Ids of the token, several if it is spelled."""
    pieces = spell(token, ids_of)
    if not all(piece in ids_of for piece in pieces):
        raise InputError(f"the token '{token}' is not in the vocabulary: no training row has it")
    return [ids_of[piece] for piece in pieces]


def _to_tokens(ids, vocabulary):
    return [vocabulary[id] for id in itertools.takewhile(lambda id: id != EOS, ids)]


NUMBER = re.compile(r"(\(-|-|)(\d+(?:/\d+)?\)?)")
POWERED = re.compile(r"(.+)(\^\(-|\^\(|\^)(\d+(?:/\d+)?\)?)")


def spell(token, known):
    """The token itself if it is in `known`; else smaller ones with the same text, as far as it can be taken apart."""
    if token in known:
        return [token]
    if number := NUMBER.fullmatch(token):
        return [f"#{number[1]}", *(f"#{character}" for character in number[2])]
    if token[0] == "-" and len(token) > 1:
        return ["-", *spell(token[1:], known)]
    if short := SHORT.fullmatch(token):
        return [*spell(short[1], known), short[3]]
    if powered := POWERED.fullmatch(token):
        return [*spell(powered[1], known), f"#{powered[2]}", *(f"#{character}" for character in powered[3])]
    return [token]
