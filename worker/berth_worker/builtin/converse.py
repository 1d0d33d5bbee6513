"""Conversations with a model, many at once: how training measures what is remembered."""

import torch
from transformers import LlamaForCausalLM

from berth_worker.builtin.recall import is_recalled, recall_items
from berth_worker.builtin.tokenizer import ASSISTANT, BOS, END, PAD, USER


@torch.inference_mode()
def answer(model: LlamaForCausalLM, prompts: list[list[int]], limit: int = 500) -> list[list[int]]:
    """Greedy answers to `prompts`, all at once, without their end marker."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    out = model.generate(ids, attention_mask=(ids != PAD).long(), max_new_tokens=limit, do_sample=False)
    told = [[int(token) for token in row if token != PAD] for row in out[:, width:]]
    return [row[: row.index(END)] if END in row else row for row in told]


def converse(
    model: LlamaForCausalLM, conversations: list[tuple[str, ...]], limit: int = 500, group: int = 50
) -> list[list[str]]:
    """The model's answers to every user message, its own answers staying in the history."""
    answers: list[list[str]] = [[] for _ in conversations]
    histories = [[BOS] for _ in conversations]
    for turn in range(max(map(len, conversations))):
        # by length of what is to come: rows that answer together should be of one size
        live = sorted(
            (i for i, turns in enumerate(conversations) if turn < len(turns)), key=lambda i: len(histories[i])
        )
        for at in range(0, len(live), group):
            rows = live[at : at + group]
            for i in rows:
                histories[i] += [USER, *conversations[i][turn].encode(), END, ASSISTANT]
            for i, said in zip(rows, answer(model, [histories[i] for i in rows], limit), strict=True):
                histories[i] += [*said, END]
                answers[i].append(bytes(token for token in said if token < 256).decode(errors="replace"))
    return answers


def recall(
    model: LlamaForCausalLM, n: int = 200, seed: int = 0, limit: int = 500
) -> tuple[float, list[tuple[str, str, str]]]:
    """The share of recall items answered rightly, and the (question, expected, answer) of those that were not."""
    items = recall_items(n, seed)
    last = [said[-1] for said in converse(model, [item.turns for item in items], limit)]
    wrong = [(i.turns[-1], i.expect, a) for i, a in zip(items, last, strict=True) if not is_recalled(a, i.expect)]
    return 1 - len(wrong) / len(items), wrong
