r"""One spelling of amplitudes and squares: MARTY's.

Other programs, and earlier data sets, write the same formulas with other spaces, powers and index names:

    gamma_{+\INDEX_0,INDEX_1,INDEX_2}*p_3_\INDEX_0*e_{MOMENTUM_0,INDEX_2}(p_1)_u+-m_e**2*s_41

`canonical` gives what MARTY writes:

    gamma_{+%\INDEX_0,%INDEX_1,%INDEX_2}*p_3_%\INDEX_0*e_{MOMENTUM_0,%INDEX_2}(p_1)_u + -m_e^2*s_14

Decimal numbers become fractions: 0.5 is 1/2. Other numbers, names and the order of factors and terms stay. Text that
is no formula stays text that cannot be read.
"""
import functools
import re
import string
from fractions import Fraction

WORDS = (string.ascii_letters + string.digits).encode()
SHORT = 1000                 # longest square, in characters, whose spelling is cached
# What does not occur in MARTY's texts, seen without letters and digits
FOREIGN_SKELETON = re.compile(rb"""
      [^ -~] | \.                                   # a line break, a tab, a character beyond ASCII; a decimal number
    | [ ] (?! [-+][ ] ) (?<! [ ][-+][ ] )           # a space that is not part of ` + ` or ` - `
    | \+ (?! % | (?<= [ ]\+ )[ ] )                  # a + that is neither ` + ` nor before an index
    | \\ (?<! %\\ ) | , (?! \+?% )                  # an index without %
    | \{ (?! \+?% ) (?! [^{}]* \}\(_\) )            # the same, first in a tensor; a field begins with its label
    | \{ [+%] [^{}]* \}\(_\)                        # a label with %
""", re.VERBOSE)
FOREIGN_MINUS = re.compile(r"-(?<=[^(]-)(?<![\w)}+-] -)")                     # a-b, x^-2, ( - x)
REVERSED = re.compile(r"s_(?:21|3[12]|4[1-3]|5[1-4]|6[1-5]|7[1-6]|8[1-7]|9[1-8])(?!\w)(?<!\ws_\d\d)")

SPACE = re.compile(r" (?!(?<=[\w.] )[\w.])(?!(?<=\* )\*)")                    # but `2 3` and `* *` stay errors
DECIMAL = re.compile(r"(?<![\w.^/])\d+\.\d+(?![\w.])(\^?)")
NEGATIVE_POWER = re.compile(r"\^-(\d+)(?![\d^.])")
INDICES = re.compile(r"_\{([^{}]*)\}(\(p_\d+\))?")
MOMENTUM = re.compile(r"(?<!\w)(p_\d+_\+?)(\\?[A-Za-z]\w*)")
INDEX = re.compile(r"(\+?)%?(\\?\w+)")
BINARY = re.compile(r"(?<=[\w)}])(?<!(?<!\w)p_\d_)(?<!(?<!\w)p_\d\d_)[+-]")   # p_2_+%\mu has a + before an index


def canonical(text):
    """An amplitude or square in MARTY's spelling; a text that has it already is not changed. Raises nothing."""
    if "{" in text or len(text) > SHORT:                     # few amplitudes repeat, many short squares do
        return _canonical(text)
    return _canonical_square(text)


def _canonical(text):
    if not ("**" in text or FOREIGN_MINUS.search(text) or REVERSED.search(text)) \
            and _has_canonical_skeleton(text.encode(errors="replace").translate(None, WORDS)):
        return text
    text = SPACE.sub("", " ".join(text.split())).replace("**", "^")
    text = DECIMAL.sub(_fraction, text)
    text = NEGATIVE_POWER.sub(r"^(-\1)", text)
    text = INDICES.sub(_with_percent, text)
    known = set(re.findall(r"%(\w+)", text))                 # p_2_nu is p_2 with an index if nu is one elsewhere
    text = MOMENTUM.sub(
        lambda match: f"{match[1]}%{match[2]}" if match[2][0] == "\\" or match[2] in known else match[0], text)
    text = BINARY.sub(r" \g<0> ", text)
    return REVERSED.sub(lambda match: f"s_{match[0][3]}{match[0][2]}", text)


_canonical_square = functools.lru_cache(maxsize=2**14)(_canonical)


@functools.lru_cache(maxsize=2**14)
def _has_canonical_skeleton(skeleton):
    """Whether a text without letters and digits is as MARTY writes it. Many rows share such a skeleton."""
    return not FOREIGN_SKELETON.search(skeleton)


def _fraction(match):
    """A decimal number as a fraction, in brackets before a power."""
    power = match[1]
    number = str(Fraction(match[0].removesuffix(power)))
    return f"({number}){power}" if power and "/" in number else number + power


def _with_percent(match):
    r"""The indices of a tensor, each with a %, `_{+%\mu,%a,%b}`; of a field after its label, `_{i_1,%a}(p_1)`."""
    indices = [INDEX.fullmatch(index) for index in match[1].split(",")]
    if not all(indices):
        return match[0]
    spelled = [f"{position}%{name}" for position, name in (index.groups() for index in indices)]
    if match[2]:
        spelled[0] = indices[0][2].lstrip("\\")
    return f"_{{{','.join(spelled)}}}{match[2] or ''}"
