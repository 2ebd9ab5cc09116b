r"""Text -> tokens -> ids -> text is exact; the fast lexer is the slow one; the cache is what the CSV says."""

import csv
import gzip
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_physics import off_shell_legs

import batches
import tokenizer
from batches import load_split
from dataset.baseline import canonical_key, template, template_key
from dataset.vocabulary import RARE, build_vocabulary
from physics.expression import marked_off_shell
from runtime.files import InputError
from tokenizer import (
    BOS,
    EOS,
    NAME,
    SPECIALS,
    SPELLING,
    Memo,
    Tokenizer,
    amp_text,
    amp_tokens,
    join_tokens,
    lex,
    number_indices,
    spell,
    sqamp_tokens,
)

# One row of each kind that the theories have, MARTY's own spelling
MOLLER = (
    r"-1/2*i*e^2*gamma_{+%\sigma_165,%gam_145,%gam_146}*gamma_{%\sigma_165,%gam_147,%del_137}*e_{i_3,%gam_146}(p_1)_u"
    r"*e_{k_3,%del_137}(p_2)_u*e_{l_3,%gam_145}(p_3)_u^(*)*e_{i_5,%gam_147}(p_4)_u^(*)/(m_e^2 + -s_13 + 1/2*reg_prop)"
)
COMPTON = (
    r"4/9*i*e^2*(m_c*gamma_{%\mu_7,%a_1,%b}*A_{l_50647,+%\mu_7}(p_2)*c_{j_9,%a_1}(p_4)_u^(*)*c_{i_50649,%b}(p_3)_v"
    r" + (-2)*p_3_%\mu_7*gamma_{+%\mu_7,%d,%e_8}*A_{l_50647,+%\nu_2}(p_2)*c_{j_9,%d}(p_4)_u^(*)*c_{i_50649,%e_8}(p_3)_v"
    r" + -p_2_+%\nu_2*P_L_{%d,%b})/(s_22 + (-2)*s_23 + -reg_prop)"
)
GLUON = (
    r"-i*g^2*(p_1_%\tau_14*gamma_{%\tau_16,%gam_28,%eps_9}*T_C_10_{%c_6,%D_7,%H_7}*T_C_10_{%d_4,%G_3,%D_7}"
    r"*G_{i_3,%c_6,+%\tau_16}(p_2)*G_{k_3,%d_4,+%\tau_14}(p_4)^(*)*s_{j_3,%H_7,%eps_9}(p_3)_v"
    r"*s_{l_3,%G_3,%gam_28}(p_1)_v^(*))"
    r"/(s_23 + -1/2*reg_prop)"
)
AMPS = [MOLLER, COMPTON, GLUON]
OURS = "2*e^4*(2*m_e^2*m_mu^2 + m_mu^2*s_12 + s_14*s_23 + s_13*s_24 + m_e^2*s_34)*(m_e^2 + s_12 + 1/2*reg_prop)^(-2)"
SQAMPS = [
    OURS,
    "-1/144*g^4*((-16)*m_d^2*m_u^2 + -1/2*m_d^4)*(m_u^2 + s_12)^(-2)"
    " + 1/16*i*g^2*(i*g^2*s_14/(m_u^2 + s_12) + 3)/(s_12 + -reg_prop)",
    "e^2*4*cos(theta_W)^(-2)*2^(1/2)/s_12 - -(m_e + V_us^(*))/3*(2 + e)",
    "0",
    "m_e",
]


def slow_tokens(text):
    return number_indices(lex(text), NAME.findall(text))


def write_csv(path, rows, header=("amp", "sqamp")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    rows = [(amp, sqamp) for amp in AMPS for sqamp in SQAMPS]
    return build_vocabulary(write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows))


@pytest.fixture
def data(tmp_path):
    """A data folder and its tokenizer: 40 rows of different lengths."""
    rows = [(AMPS[k % 3], " + ".join(["8*s_14*s_23"] * (k % 7 + 1))) for k in range(40)]
    write_csv(tmp_path / "train.csv", rows)
    return tmp_path, Tokenizer(build_vocabulary(tmp_path / "train.csv"))


# ---------------------------------------------------------------------------------------------------------------------
# The scheme


def test_tokens_of_an_amplitude():
    tokens, names = amp_tokens(MOLLER)
    assert (
        tokens
        == (
            "-1/2 i e^2 gamma_{+%L0 %D0 %D1 gamma_{%L0 %D2 %D3 e_{ }(p_1)_u %D1 e_{ }(p_2)_u %D3 e_{ }(p_3)_u^(*) %D0 "
            "e_{ }(p_4)_u^(*) %D2 /( m_e^2 -s_13 1/2 reg_prop )"
        ).split()
    )
    assert names == r"%\sigma_165 %gam_145 %gam_146 %gam_147 %del_137 i_3 k_3 l_3 i_5".split()


def test_kinds_of_colour_and_momentum_indices():
    tokens = amp_tokens(GLUON)[0]
    assert tokens[:13] == "-i g^2 ( p_1_%L0 gamma_{%L1 %D0 %D1 T_C_10_{%A0 %C0 %C1 T_C_10_{%A1 %C2 %C0".split()
    assert tokens[13:25] == "G_{ }(p_2) %A0 +%L1 G_{ }(p_4)^(*) %A1 +%L0 s_{ }(p_3)_v %C1 %D1".split()


def test_tokens_of_a_square():
    assert sqamp_tokens(OURS)[:7] == ["2", "e^4", "(", "2", "m_e^2", "m_mu^2", " + "]
    assert sqamp_tokens("8*s_14*s_23 + (-8)*s_13 + -s_12") == ["8", "s_14", "s_23", "(-8)", "s_13", "-s_12"]
    assert sqamp_tokens("e*2 + m_e - 3") == ["e", "*", "2", " + ", "m_e", " - ", "3"]  # joiners that are not implied


# ---------------------------------------------------------------------------------------------------------------------
# Exactness


@pytest.mark.parametrize("amp", AMPS)
def test_amplitude_round_trip(vocabulary, amp):
    ids, names = Tokenizer(vocabulary).encode_amp(amp)
    assert ids[-1] == EOS and ids.count(EOS) == 1
    assert Tokenizer(vocabulary).decode_amp(ids, names) == amp


@pytest.mark.parametrize("sqamp", SQAMPS)
def test_square_round_trip(vocabulary, sqamp):
    ids = Tokenizer(vocabulary).encode_sqamp(sqamp)
    assert ids[-1] == EOS and BOS not in ids
    assert Tokenizer(vocabulary).decode_sqamp(ids) == sqamp


@pytest.mark.parametrize("file", ["qed-2to2-offshell", "qed-2to2", "qcd-2to2"])
def test_every_marty_row_round_trips(marty, file):
    path = marty / f"{file}.csv.gz"
    tokens = Tokenizer(build_vocabulary(path))
    with gzip.open(path, "rt") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        ids, names = tokens.encode_amp(row["amp"])
        assert tokens.decode_amp(ids, names) == row["amp"]
        assert tokens.decode_sqamp(tokens.encode_sqamp(row["sqamp"])) == row["sqamp"]


def test_tokens_are_compact_and_the_vocabulary_small(marty):
    path = marty / "qed-2to2-offshell.csv.gz"
    vocabulary = build_vocabulary(path)
    with gzip.open(path, "rt") as lines:
        rows = list(csv.DictReader(lines))[::10]
    assert np.mean([len(amp_tokens(row["amp"])[0]) for row in rows]) < 46
    assert np.mean([len(sqamp_tokens(row["sqamp"])) for row in rows]) < 55
    assert len(vocabulary["src"]) < 250 and len(vocabulary["tgt"]) < 150


INDEX_NAMES = st.from_regex(r"\\?[A-Za-z]{1,5}(_[0-9]{1,4})?", fullmatch=True)


@given(st.lists(INDEX_NAMES, min_size=20, max_size=20, unique=True), st.sampled_from(AMPS))
def test_index_names_do_not_matter_and_come_back(names, amp):
    """Any renaming gives the same tokens and comes back, also where names of different kinds collide."""
    old = list(dict.fromkeys(re.findall(r"%\\?\w+", amp)))
    new = dict(zip(old, names))
    renamed = re.sub(r"%\\?\w+", lambda match: "%" + new[match[0]], amp)
    tokens, kept = amp_tokens(renamed)
    assert tokens == amp_tokens(amp)[0]
    assert amp_text(tokens, kept) == renamed


def test_an_index_of_a_delta_has_the_kind_of_what_it_joins():
    amp = (
        r"delta_{%a,%b}*delta_{%\m,+%\n}*delta_{%C,%D}*gamma_{%\m,%a,%x}*u_{i_1,%C,%b}(p_1)_u"
        r"*u_{i_2,%D,%x}(p_2)_u^(*)*A_{i_3,%\n}(p_3)^(*)"
    )
    tokens, names = amp_tokens(amp)
    assert tokens[:9] == "delta_{%D0 %D1 delta_{%L0 +%L1 delta_{%C0 %C1 gamma_{%L0 %D0 %D2".split()
    assert amp_text(tokens, names) == amp and amp_tokens(amp) == slow_tokens(amp)
    with pytest.raises(InputError, match="found the index %b of a delta in no other tensor"):
        amp_tokens("delta_{%a,%b}*delta_{%b,%c}*P_L_{%a,%c}")


def test_wider_grammar_is_encoded_and_comes_back(tmp_path):
    rows = [
        (
            r"V_ub^(*)*g_{%\m,%\n}*gamma_{+%\m,%a,%b}*gamma_5_{%b,%c}*delta_{%c,%d}*T_C_6_{%g,%k,%l}"
            r"*u_{i_1,%l,%d}(p_1)_u*u_{i_2,%k,%a}(p_2)_u^(*)"
            r"*G_{i_3,%g,+%\n}(p_3)^(*)/(s_12 + i*Gamma_Z*m_Z)",
            "V_ub*V_ub^(*)^2*eps(p_1,p_2,p_3,p_4)*3^(1/2) + -V_ub^2",
        )
    ]
    tokens = Tokenizer(build_vocabulary(write_csv(tmp_path / "train.csv", rows)))
    ids, names = tokens.encode_amp(rows[0][0])
    assert tokens.decode_amp(ids, names) == rows[0][0]
    assert tokens.decode_sqamp(tokens.encode_sqamp(rows[0][1])) == rows[0][1]


def test_one_name_for_two_kinds_of_index():
    amp = "gamma_{%x,%x,%y}*T_C_10_{%x,%x,%x}*e_{x,%x}(p_1)_u"
    tokens, names = amp_tokens(amp)
    assert tokens == "gamma_{%L0 %D0 %D1 T_C_10_{%A0 %C0 %C0 e_{ }(p_1)_u %D0".split()
    assert amp_text(tokens, names) == amp


def grammar():
    number = st.sampled_from(["2", "16", "(-8)", "-1/2", "4/81", "7^(1/2)"])
    symbol = st.sampled_from(
        [
            "i",
            "e^4",
            "m_e^2",
            "s_13",
            "-s_13",
            "reg_prop",
            "-reg_prop^2",
            "cos(theta_W)^(-1)",
            "V_ud^(*)",
            "V_ud^(*)^2",
            "-V_ud^(*)^(-2)",
            "eps(p_1,p_2,p_3,p_4)",
            "-eps(p_1,p_2,p_3,p_5)^2",
        ]
    )
    tensor = st.sampled_from(
        [
            r"gamma_{+%\mu,%a,%b}",
            r"p_1_%\mu",
            r"p_2_+%\nu",
            "P_L_{%a,%c}",
            "e_{i_3,%a}(p_1)_u^(*)",
            r"G_{k,%g,+%\mu}(p_4)",
            "T_C_10_{%g,%k,%l}",
            "h(p_3)",
            r"g_{+%\mu,%\rho}",
            "gamma_5_{%c,%d}",
            "T_C_6_{%g,%k,%l}",
            r"delta_{%b,%d}*P_R_{%b,%d}",
            r"T_C_6_{%h,%k,%m}*delta_{%h,%h}",
        ]
    )
    factor = st.one_of(number, symbol, tensor)
    sums = st.recursive(
        factor,
        lambda inner: st.one_of(
            st.lists(inner, min_size=2, max_size=3).map("*".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' + '.join(terms)})"),
            st.tuples(inner, inner).map(lambda pair: f"{pair[0]}/({pair[1]} - {pair[0]})^(-2)"),
            inner.map(lambda term: f"-({term})"),
        ),
        max_leaves=12,
    )
    return st.lists(sums, min_size=1, max_size=3).map(" + ".join)


@given(grammar())
def test_fast_tokens_are_the_slow_ones_and_exact(text):
    assert amp_tokens(text) == slow_tokens(text)
    assert amp_text(*amp_tokens(text)) == text
    if "%" not in text and "{" not in text:
        assert sqamp_tokens(text) == lex(text)
        assert join_tokens(sqamp_tokens(text)) == text


@settings(max_examples=500)
@given(
    st.sampled_from(AMPS + SQAMPS),
    st.integers(0, 400),
    st.sampled_from("*+-/(){}%_^~ ,s9"),
    st.sampled_from(["insert", "replace", "delete"]),
)
def test_fast_and_slow_agree_on_broken_text(text, place, character, how):
    """One character wrong: either both lexers refuse it, or both read it alike and it comes back."""
    place %= len(text)
    text = text[:place] + ("" if how == "delete" else character) + text[place + (how != "insert") :]

    def outcome(tokens_of):
        try:
            return tokens_of(text)
        except InputError as error:
            return str(error)

    assert outcome(amp_tokens) == outcome(slow_tokens)
    if not isinstance(outcome(amp_tokens), str):
        assert amp_text(*amp_tokens(text)) == text


def test_an_amplitude_that_differs_in_its_names_is_not_lexed_again(vocabulary, monkeypatch):
    tokens = Tokenizer(vocabulary)
    ids, names = tokens.encode_amp(COMPTON)
    monkeypatch.setattr(tokenizer, "lex", None)
    assert tokens.encode_amp(COMPTON.replace("_50", "_7").replace("%b", r"%\b")) == (
        ids,
        [name.replace("_50", "_7").replace("%b", r"%\b") for name in names],
    )


def test_the_memory_of_factors_is_bounded():
    made = []
    memo = Memo(lambda key: made.append(key) or -key)
    assert [memo[key] for key in (1, 2, 1, 2)] == [-1, -2, -1, -2] and made == [1, 2]
    assert all(memo[key] == -key and len(memo) <= 2**16 for key in range(2**16 + 100))


@given(st.lists(st.sampled_from(SPECIALS + SPELLING + sqamp_tokens(SQAMPS[1]) + sqamp_tokens(SQAMPS[2]))))
def test_any_tokens_have_a_text(tokens):
    """A model may write anything; what it writes must at least be shown."""
    join_tokens(tokens)


# ---------------------------------------------------------------------------------------------------------------------
# Numbers, vocabulary, keys


def test_what_the_vocabulary_lacks_is_spelled(vocabulary):
    tokens = Tokenizer(vocabulary)
    for text in (
        "-12345/678*e^4",
        "(-99)*i + 77 + -5/7*e",
        "e^4*19*23 + e*31/(31 + (-31)*s_12)",
        "m_e^18*19^(1/2) + -m_e^(-12)*(s_12 + -e^3)^(-40)",
    ):
        assert tokens.decode_sqamp(tokens.encode_sqamp(text)) == text
    assert tokens.encode_sqamp("-12345/678") == [tokens.tgt_ids[t] for t in "#- #1 #2 #3 #4 #5 #/ #6 #7 #8".split()] + [
        EOS
    ]


@pytest.mark.parametrize(
    "token, pieces",
    [
        ("(-32/81)", "#(- #3 #2 #/ #8 #1 #)"),
        ("12", "# #1 #2"),
        ("-m_W^6", "- m_W #^ #6"),
        ("m_W^(-12)", "m_W #^(- #1 #2 #)"),
        (")^(-4)", ") #^(- #4 #)"),
        ("2^(1/2)", "# #2 #^( #1 #/ #2 #)"),
        ("-", "-"),
        ("e_{", "e_{"),
        ("}(p_1)_u", "}(p_1)_u"),
        ("V^(*)", "V^(*)"),
    ],
)
def test_spelling(token, pieces):
    assert spell(token, {}) == pieces.split()
    assert spell(token, {token}) == [token]


def test_a_known_symbol_stays_whole_in_a_spelled_token():
    assert spell("-m_W^6", {"m_W^6"}) == ["-", "m_W^6"]


@given(grammar())
def test_spelling_loses_nothing(text):
    if "%" not in text and "{" not in text:
        assert join_tokens(piece for token in sqamp_tokens(text) for piece in spell(token, {})) == text


def test_rare_tokens_are_spelled(tmp_path):
    rows = [(MOLLER, "16*s_12")] * RARE + [(MOLLER, "17*s_12*17")] * (RARE - 1) + [(MOLLER, "-m_e^6")]
    tgt = build_vocabulary(write_csv(tmp_path / "train.csv", rows))["tgt"]
    assert tgt == SPECIALS + SPELLING + ["*", "16", "m_e", "s_12"]


def test_a_vocabulary_has_every_index_up_to_the_highest(tmp_path):
    src = build_vocabulary(write_csv(tmp_path / "train.csv", [(GLUON, "2")]))["src"]
    assert {"%D0", "%D1", "gamma_{%L0", "gamma_{%L1", "p_1_%L0", "p_1_%L1", "T_C_10_{%A0", "T_C_10_{%A1", "%C2"} < set(
        src
    )
    assert not {"%D2", "gamma_{%L2", "gamma_{+%L0"} & set(src)


def test_vocabulary_survives_json_and_a_stranger_is_refused(vocabulary):
    assert json.loads(json.dumps(vocabulary)) == vocabulary
    with pytest.raises(InputError, match="not a vocabulary"):
        Tokenizer(vocabulary | {"src": ["a", "b", "c"]})
    with pytest.raises(InputError, match="token format 1"):
        Tokenizer(vocabulary | {"format": 1})


def test_keys_see_through_names():
    other = MOLLER.replace("_165", "_9").replace("del_137", "x")
    muon = other.replace("e_{", "mu_{").replace("m_e", "m_mu")
    assert canonical_key(MOLLER) == canonical_key(other) != canonical_key(muon)
    assert template_key(MOLLER) == template_key(muon)
    assert template(muon)[1] == ["mu"] and "m_P0^2" in template(muon)[0]
    assert template_key(MOLLER) != template_key(MOLLER.replace("-1/2*i", "1/9*i"))  # charges stay
    mixed = MOLLER.replace("e_{k_3", "mu_{k_3").replace("e_{i_5", "mu_{i_5")  # two particles are not one
    assert template_key(mixed) not in (template_key(MOLLER), template_key(mixed.replace("m_e", "m_mu")))
    assert template(GLUON)[1] == ["G", "s"]


def test_reference_counts_of_the_benchmark_set(marty):
    """11,242 distinct amplitudes, 254 with more than one text of the square; 22 where legs off shell are marked."""
    squares, marked = {}, {}
    with gzip.open(marty / "qed-2to2-offshell.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            squares.setdefault(canonical_key(row["amp"]), set()).add(row["sqamp"])
            marked.setdefault(canonical_key(marked_off_shell(row["amp"], off_shell_legs(row))), set()).add(row["sqamp"])
    assert len(squares) == 11242
    assert sum(len(texts) > 1 for texts in squares.values()) == 254
    assert sum(len(texts) > 1 for texts in marked.values()) == 22


# ---------------------------------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    "text, column, found",
    [
        ("2*e^4*(m_e + )", 14, "')'"),
        ("2*e^4*m_e&s_12", 10, "'&s_12'"),
        ("2*e^4*", 7, "the end of the text"),
        ("", 1, "the end of the text"),
        ("m_e^x", 4, "'^x'"),
        ("s_12+s_13", 5, "'+s_13'"),
        ("m_e^~*2", 4, "'^~*2'"),
        (r"i*gamma_{%\mu_1,%a}*e", 10, r"'%\mu_1,%a}*e'"),
        ("i*sigma_{%a,%b}", 3, "'sigma_{%a,%b'"),
        ("i*e_{%a}(p_1)_u", 6, "'%a}"),
        ("i*u_{i,%a,%b,%c}(p_1)_u", 6, "'i,%a"),
        (r"i*gamma_{%\mu_1,a,%b}", 17, "'a,%b}'"),
    ],
)
def test_errors_name_the_column_and_what_stood_there(text, column, found):
    with pytest.raises(InputError) as error:
        amp_tokens(text)
    assert str(error.value).startswith(f"column {column}: found {found}") and ", expected " in str(error.value)


def test_a_square_has_no_tensors():
    with pytest.raises(InputError, match="e_{i,%a}"):
        sqamp_tokens("2 + e_{i,%a}(p_1)_u")


def test_an_unknown_token_is_named(vocabulary):
    with pytest.raises(InputError, match="'m_tau\\^2' is not in the vocabulary"):
        Tokenizer(vocabulary).encode_sqamp("2*m_tau^2")


def test_names_must_fit_the_tokens():
    tokens, names = amp_tokens(MOLLER)
    with pytest.raises(ValueError, match="fewer"):
        amp_text(tokens, names[:-1])
    with pytest.raises(ValueError, match="more"):
        amp_text(tokens, names + ["x"])


@pytest.mark.parametrize(
    "row, limits, message",
    [
        ((MOLLER, "2*&"), (512, 512), "train.csv:42: sqamp: column 3"),
        (("2*", "2"), (512, 512), "train.csv:42: amp: column 3"),
        ((MOLLER, "m_x"), (512, 512), "train.csv:42: sqamp: the token 'm_x'"),
        ((MOLLER, "*".join(["s_14"] * 30)), (512, 31), "train.csv:42: sqamp: 32 tokens, tgt_max_len is 31"),
        (("*".join(["i"] * 60), "2"), (60, 512), "train.csv:42: amp: 61 tokens, src_max_len is 60"),
    ],
)
def test_load_split_names_file_and_line(data, row, limits, message):
    folder, tokens = data
    with open(folder / "train.csv", "a", newline="") as file:
        csv.writer(file).writerow(row)
    with pytest.raises(InputError, match=re.escape(message)):
        load_split(folder, "train", tokens, *limits)
    assert not list(folder.glob(".cache/*"))


def test_build_vocabulary_names_file_and_line(tmp_path):
    path = write_csv(tmp_path / "train.csv", [(MOLLER, "2"), (MOLLER, "2*")])
    with pytest.raises(InputError, match="train.csv:3: sqamp: column 3"):
        build_vocabulary(path)


@pytest.mark.parametrize(
    "text, message", [("amp,sqamp\n", "train.csv:2: no rows"), ("amp,x\n1,2\n", "no column 'sqamp'")]
)
def test_load_split_without_rows_or_column(data, text, message):
    folder, tokens = data
    (folder / "train.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_split(folder, "train", tokens, 512, 512)


def test_a_missing_split_says_how_to_make_it(data):
    with pytest.raises(InputError, match="valid.csv.*prepare.py"):
        load_split(data[0], "valid", data[1], 512, 512)


# ---------------------------------------------------------------------------------------------------------------------
# The cache


def content(packed):
    return [values.tolist() for values in packed]


def test_packed_rows_are_the_encoded_rows(data):
    folder, tokens = data
    packed = load_split(folder, "train", tokens, 512, 512)
    with open(folder / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert packed.src.dtype == packed.tgt.dtype == np.uint16 and packed.src_start.dtype == np.int64
    for k, row in enumerate(rows):
        assert packed.src[packed.src_start[k] : packed.src_start[k + 1]].tolist() == tokens.encode_amp(row["amp"])[0]
        assert packed.tgt[packed.tgt_start[k] : packed.tgt_start[k + 1]].tolist() == tokens.encode_sqamp(row["sqamp"])


def test_second_load_reads_the_cache(data, monkeypatch):
    folder, tokens = data
    first = content(load_split(folder, "train", tokens, 512, 512))
    monkeypatch.setattr(batches, "_pack", None)
    second = load_split(folder, "train", tokens, 512, 512)
    assert content(second) == first and isinstance(second.src, np.memmap)


def test_cache_follows_data_vocabulary_and_limits(data):
    folder, tokens = data
    load_split(folder, "train", tokens, 512, 512)
    with pytest.raises(InputError, match="tgt_max_len is 8"):
        load_split(folder, "train", tokens, 512, 8)
    write_csv(folder / "train.csv", [(MOLLER, "8*s_14")])
    assert len(load_split(folder, "train", tokens, 512, 512).src_start) == 2
    other = Tokenizer(tokens.vocabulary | {"tgt": SPECIALS + tokens.vocabulary["tgt"][:2:-1]})
    assert load_split(folder, "train", other, 512, 512).tgt.tolist() == other.encode_sqamp("8*s_14")


@pytest.mark.parametrize("name", ["src", "src_start", "tgt", "tgt_start"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "zeros", "foreign", "pickle", "short"])
def test_a_damaged_cache_is_made_anew(data, name, damage):
    folder, tokens = data
    good = content(load_split(folder, "train", tokens, 512, 512))
    (path,) = folder.glob(f".cache/*.{name}.npy")
    values = np.load(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "gone":
        path.unlink()
    elif damage == "pickle":
        np.save(path, np.array([{"not": "numbers"}]), allow_pickle=True)
    else:
        np.save(path, {"zeros": values * 0, "foreign": np.arange(len(values)) * 0.5, "short": values[:-1]}[damage])
    assert content(load_split(folder, "train", tokens, 512, 512)) == good
    assert np.load(path).tolist() == values.tolist()


def test_a_data_set_that_cannot_be_written_is_packed_in_memory(data, monkeypatch, capsys):
    folder, tokens = data
    good = content(load_split(folder, "train", tokens, 512, 512))
    shutil.rmtree(folder / ".cache")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(batches, "atomic_open", refuse)
    assert content(load_split(folder, "train", tokens, 512, 512)) == good
    assert "not cached" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# Particles renamed


def test_fermions_are_numbered_in_the_tokens_and_come_back(tmp_path):
    rows = [(MOLLER.replace("e_{", "tt_{", 2), "2*m_e^2*m_tt^4 + -m_mu^2"), (COMPTON, "m_c^2"), (GLUON, "-m_s^2")]
    tokens = Tokenizer(build_vocabulary(write_csv(tmp_path / "train.csv", rows), rename_particles=True))
    assert tokens.fermions(rows[0][0]) == ("e", "tt")
    for amp, sqamp in rows:
        fermions = tokens.fermions(amp)
        ids, names = tokens.encode_amp(amp)
        assert tokens.decode_amp(ids, names, fermions) == amp
        assert tokens.decode_sqamp(tokens.encode_sqamp(sqamp, fermions), fermions) == sqamp
    assert {"F1_{", "F2_{", "G_{"} <= set(tokens.vocabulary["src"]) and not {"e_{", "tt_{", "s_{"} & set(
        tokens.vocabulary["src"]
    )
    assert {"m_F1", "m_F2", "m_mu"} <= set(tokens.vocabulary["tgt"]) and not {"m_e", "m_tt", "m_c"} & set(
        tokens.vocabulary["tgt"]
    )


def test_a_boson_called_f1_keeps_its_mass_apart_from_the_fermions(tmp_path):
    """Renamed, the electron would be called F1 too."""
    amp, sqamp = COMPTON.replace("A_{", "F1_{").replace("c_{", "e_{").replace("m_c", "m_e"), "g^2*(m_e^2 + m_F1^2)"
    tokens = Tokenizer(build_vocabulary(write_csv(tmp_path / "train.csv", [(amp, sqamp)]), rename_particles=True))
    assert "F1_{" in amp and "e_{" in amp
    fermions = tokens.fermions(amp)
    ids, names = tokens.encode_amp(amp)
    assert tokens.decode_amp(ids, names, fermions) == amp
    assert tokens.decode_sqamp(tokens.encode_sqamp(sqamp, fermions), fermions) == sqamp


def test_renamed_rows_of_one_kind_have_the_same_tokens(tmp_path):
    rows = [(COMPTON, "m_c^2"), (COMPTON.replace("m_c", "m_mu").replace("c_{", "mu_{"), "m_mu^2")]
    tokens = Tokenizer(build_vocabulary(write_csv(tmp_path / "train.csv", rows), rename_particles=True))
    assert tokens.encode_amp(rows[0][0]) == tokens.encode_amp(rows[1][0])
    assert tokens.encode_sqamp("m_c^2", ("c",)) == tokens.encode_sqamp("m_mu^2", ("mu",))


def test_renaming_round_trips_on_marty(marty, tmp_path):
    path = marty / "qed-2to2-offshell.csv.gz"
    tokens = Tokenizer(build_vocabulary(path, rename_particles=True))
    with gzip.open(path, "rt") as lines:
        for row in list(csv.DictReader(lines))[::40]:
            fermions = tokens.fermions(row["amp"])
            ids, names = tokens.encode_amp(row["amp"])
            assert tokens.decode_amp(ids, names, fermions) == row["amp"]
            assert tokens.decode_sqamp(tokens.encode_sqamp(row["sqamp"], fermions), fermions) == row["sqamp"]
