"""Text comes out whole and complete, whatever the tokenizer does between tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from berth_worker.builtin import BUILTIN_MODELS
from berth_worker.engine.detokenizer import WINDOW, Detokenizer
from berth_worker.engine.tokenizer import Tokenizer, load_tokenizer
from berth_worker.models.errors import ModelError

END = 257
BYTES = load_tokenizer(BUILTIN_MODELS["berth-tiny"])

PIECES = ["▁", "▁▁", "▁a", "a", "▁word", "s", ".", "é", "▁日本"]


def sentencepiece() -> Tokenizer:
    """As Llama 2 has it: spaces as ▁, unknown characters spelt in bytes, the very first space dropped."""
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": 1 + byte for byte in range(256)}}
    vocab |= {piece: 257 + at for at, piece in enumerate(PIECES)}
    backend = Backend(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens([AddedToken("</s>", special=True)])
    return Tokenizer(backend)


PIECEWISE = sentencepiece()
SPELT = st.characters(exclude_categories=["Cs"]).map(lambda letter: [1 + byte for byte in letter.encode()])
PIECE = st.integers(257, 257 + len(PIECES)).map(lambda token: [token])


def stream(tokenizer: Tokenizer, ids: list[int], *, skip: bool = True) -> list[str]:
    text = tokenizer.stream(skip_special_tokens=skip)
    return [*map(text.push, ids), text.flush()]


@given(st.lists(st.integers(0, 299), max_size=80), st.booleans())
def test_any_bytes_come_out_as_if_decoded_at_once(ids, skip):
    assert "".join(stream(BYTES, ids, skip=skip)) == BYTES.decode(ids, skip_special_tokens=skip)


@given(st.lists(st.sampled_from([0x80, 0xC3, 0xE4, 0xF0, 0x9F, 0xFF, 0x41, END]), min_size=WINDOW, max_size=200))
def test_garbage_longer_than_the_window_comes_out_as_if_decoded_at_once(ids):
    assert "".join(stream(BYTES, ids)) == BYTES.decode(ids, skip_special_tokens=True)


@given(st.lists(SPELT | PIECE, max_size=40), st.booleans())
def test_pieces_and_characters_spelt_in_bytes_come_out_as_if_decoded_at_once(parts, skip):
    ids = [token for part in parts for token in part]
    assert "".join(stream(PIECEWISE, ids, skip=skip)) == PIECEWISE.decode(ids, skip_special_tokens=skip)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=30))
def test_no_piece_ends_inside_a_character(text):
    pieces = stream(BYTES, list(text.encode()))  # not encoded: text may spell a special token, which has none
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_appears_with_its_last_byte():
    assert stream(BYTES, list("aé🙂".encode())) == ["a", "", "é", "", "", "", "🙂", ""]


def test_a_character_cut_off_at_the_end_is_shown_as_broken():
    assert stream(BYTES, list("é".encode()[:1])) == ["", "\ufffd"]


def test_a_character_of_its_own_that_looks_broken_is_kept():
    assert "".join(stream(BYTES, list("a\ufffdb".encode()))) == "a\ufffdb"


def test_only_the_very_first_space_is_dropped():
    word, end = 257 + PIECES.index("▁word"), PIECEWISE.token_id("</s>")
    assert stream(PIECEWISE, [word, end, word, word]) == ["word", "", " word", " word", ""]


def test_special_tokens_are_shown_when_asked_for():
    assert "".join(stream(BYTES, [0x41, END], skip=False)) == "A<|end|>"


def test_ids_beyond_the_vocabulary_have_no_text():
    assert "".join(stream(BYTES, [9999, 0x41, *[9999] * 100, 0x42])) == "AB"


def test_replayed_ids_leave_the_same_text_to_come():
    ids = list("grüße 🙂!".encode())
    for at in range(len(ids)):
        first, second = BYTES.stream(skip_special_tokens=True), BYTES.stream(skip_special_tokens=True)
        sent = "".join(map(first.push, ids[:at]))
        assert "".join(map(second.push, ids[:at])) == sent
        assert sent + "".join(map(second.push, ids[at:])) + second.flush() == "grüße 🙂!"


def test_flushing_twice_says_nothing_twice():
    text = BYTES.stream(skip_special_tokens=True)
    text.push(0xC3)
    assert (text.flush(), text.flush()) == ("\ufffd", "")


def test_garbage_costs_no_more_as_it_grows():
    longest = 0

    def decode(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return BYTES.decode(ids, skip_special_tokens=False)

    text = Detokenizer(decode, frozenset())
    for _ in range(3000):
        text.push(0xFF)
    assert longest <= WINDOW + 1


def test_a_tokenizer_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"cannot read .*tokenizer\.json"):
        load_tokenizer(tmp_path)
