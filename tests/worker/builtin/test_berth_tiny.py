"""The committed checkpoint: small, of the promised shape, and it remembers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from berth_worker.builtin import resolve
from berth_worker.builtin.recall import RecallItem, is_recalled, recall_items

FOLDER = resolve("berth-tiny")


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


class Chats:
    """Some conversations with the model at once, its own answers staying in their histories."""

    def __init__(self, model: Any, tokenizer: Any, n: int) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.histories: list[list[dict[str, str]]] = [[] for _ in range(n)]

    @torch.inference_mode()
    def say(self, messages: dict[int, str], limit: int = 600) -> dict[int, str]:
        """Put one user message to each conversation named; returns the answers, each ended by the model itself."""
        for chat, message in messages.items():
            self.histories[chat].append({"role": "user", "content": message})
        prompts = [self.histories[chat] for chat in messages]
        inputs = self.tokenizer.apply_chat_template(
            prompts, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        out = self.model.generate(**inputs, do_sample=False, max_new_tokens=limit)[:, inputs["input_ids"].shape[1] :]
        assert all(self.tokenizer.eos_token_id in row for row in out.tolist()), "an answer did not end"
        answers = self.tokenizer.batch_decode(out, skip_special_tokens=True)
        for chat, answer in zip(messages, answers, strict=True):
            self.histories[chat].append({"role": "assistant", "content": answer})
        return dict(zip(messages, answers, strict=True))


def recalled(chats: Chats, items: list[RecallItem]) -> list[bool]:
    last: dict[int, str] = {}
    for turn in range(max(len(item.turns) for item in items)):
        last |= chats.say({n: item.turns[turn] for n, item in enumerate(items) if turn < len(item.turns)})
    return [is_recalled(last[n], item.expect) for n, item in enumerate(items)]


def test_it_is_small_enough_to_come_with_the_worker() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 3_000_000
    assert sum(path.stat().st_size for path in Path(FOLDER).iterdir()) <= 3_100_000


def test_it_is_a_plain_llama(model: Any) -> None:
    assert isinstance(model, LlamaForCausalLM)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_500_000
    assert model.config.max_position_embeddings >= 4096
    assert model.config.vocab_size == 264
    assert model.config.num_attention_heads > model.config.num_key_value_heads
    assert model.generation_config.eos_token_id == model.config.eos_token_id == 257


def test_it_remembers_what_it_was_never_trained_on(model: Any, tokenizer: Any) -> None:
    items = recall_items(20, seed=11)
    right = recalled(Chats(model, tokenizer, len(items)), items)
    assert sum(right) >= 0.9 * len(items)


def test_a_long_answer_depends_on_what_was_told(model: Any, tokenizer: Any) -> None:
    chats = Chats(model, tokenizer, 2)
    chats.say({0: "My cat is called Milo.", 1: "My cat is called Luna."})
    stories = chats.say(dict.fromkeys((0, 1), "Tell me a story about my cat."))
    assert stories[0].count("Milo") >= 3
    assert stories[1].count("Luna") >= 3
    assert all(200 <= len(story) <= 600 for story in stories.values())


def test_it_says_what_it_was_not_told(model: Any, tokenizer: Any) -> None:
    chats = Chats(model, tokenizer, 1)
    assert "not told" in chats.say({0: "What is my dog called?"})[0]
