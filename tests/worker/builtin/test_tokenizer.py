"""Every text round-trips, and a longer conversation starts with what the shorter one rendered to."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from berth_worker.builtin import resolve

TOKENIZER: Any = AutoTokenizer.from_pretrained(resolve("berth-tiny"))
BOS, END, USER, ASSISTANT = 256, 257, 259, 260

plain_text = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "<|" not in text)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": plain_text}), min_size=1
)


@given(plain_text)
@settings(max_examples=200)
def test_ids_are_the_bytes_and_text_round_trips(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert ids == list(text.encode())
    assert TOKENIZER.decode(ids) == text


def test_a_text_starts_with_bos() -> None:
    assert TOKENIZER.encode("hi") == [BOS, *b"hi"]


def test_every_id_decodes() -> None:
    assert all(isinstance(TOKENIZER.decode([token]), str) for token in range(len(TOKENIZER)))
    assert TOKENIZER.decode([BOS, *"Zoë".encode(), END], skip_special_tokens=True) == "Zoë"


def test_a_chat_reads_as_marked_messages() -> None:
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "ok"},
    ]
    ids = TOKENIZER.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ids == [BOS, USER, *b"hi", END, ASSISTANT, *b"yo", END, USER, *b"ok", END, ASSISTANT]
    assert TOKENIZER.eos_token_id == END


@given(messages)
@settings(max_examples=50)
def test_the_template_only_appends(chat: list[dict[str, str]]) -> None:
    rendered = [TOKENIZER.apply_chat_template(chat[:n], tokenize=False) for n in range(1, len(chat) + 1)]
    assert all(longer.startswith(shorter) for shorter, longer in itertools.pairwise(rendered))
    assert rendered[-1].count("<|bos|>") == 1
    prompted = TOKENIZER.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompted == rendered[-1] + "<|assistant|>"


def test_a_role_it_does_not_know_is_refused() -> None:
    with pytest.raises(Exception, match="system, user and assistant"):
        TOKENIZER.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)
