"""The FlashInfer backend without a GPU: what it plans, with which wrapper, and that the real package would take it.

Over a stand-in for the package it also passes the suite that every backend passes (test_attention.py).
"""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berth_kernels.flashinfer_backend import FlashInferKernels
from berth_kernels.index import page_table
from berth_kernels.interface import AttentionShape, KernelError
from kernelkit.flashinfer import FlashInfer
from kernelkit.paged import Batch, Piece

DECODE, PREFILL = "BatchDecodeWithPagedKVCacheWrapper", "BatchPrefillWithPagedKVCacheWrapper"
WITH_SINKS = "BatchAttentionWithAttentionSinkWrapper"
CPU = torch.device("cpu")
DECODES, MIXED = [(8, 9), (2, 3)], [(8, 9), (0, 5)]


@pytest.fixture
def library():
    return FlashInfer()


@pytest.fixture
def flashinfer(library):
    return FlashInferKernels(library, CPU)


def attend(kernels: FlashInferKernels, spans, *, sinks: bool = False, window: int | None = None, **shape) -> None:
    batch = Batch.random(spans, 4, dtype=torch.bfloat16, **shape)
    logits = torch.zeros(batch.query.shape[1], dtype=torch.bfloat16) if sinks else None
    batch.attend(kernels, scale=0.3, window=window, sinks=logits)


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 70)), min_size=1, max_size=6), st.sampled_from([1, 4, 100])
)
@settings(max_examples=60)
def test_the_page_table_is_the_lists_it_stands_for(spans, page_size):
    fresh = itertools.count(7)
    nothing = torch.empty(0)
    pieces = []
    for start, new in spans:
        # Longer than needed, as a row of the page table is.
        pages = np.array([next(fresh) for _ in range((start + new) // page_size + 3)], np.int32)
        pieces.append(Piece(start, start + new, pages, nothing, nothing))
    table = page_table(pieces, page_size)
    assert {each.dtype for each in table} == {np.dtype(np.int32)}
    lists = [list(piece.pages[: -(-piece.end // page_size)]) for piece in pieces]
    assert table.rows.tolist() == [sum(new for _, new in spans[:count]) for count in range(len(spans) + 1)]
    assert table.starts.tolist() == [sum(map(len, lists[:count])) for count in range(len(lists) + 1)]
    assert table.pages.tolist() == [page for own in lists for page in own]
    # The positions that the last page holds, counted one by one.
    tails = [sum(at // page_size == (piece.end - 1) // page_size for at in range(piece.end)) for piece in pieces]
    assert table.last_length.tolist() == tails


def test_a_step_of_decodes_is_planned_as_one(flashinfer, library):
    attend(flashinfer, DECODES)
    [planned] = library.named(DECODE, "plan")
    starts, pages, last = planned.args[:3]
    assert (starts.tolist(), len(pages), last.tolist()) == ([0, 3, 4], 4, [1, 3])
    assert planned.args[3:] == (4, 2, 8, 4)
    assert not library.named(PREFILL, "plan")


def test_any_longer_segment_makes_it_a_prefill(flashinfer, library):
    attend(flashinfer, MIXED)
    [planned] = library.named(PREFILL, "plan")
    rows, starts, pages, last = planned.args[:4]
    assert (rows.tolist(), starts.tolist(), len(pages), last.tolist()) == ([0, 1, 6], [0, 3, 5], 5, [1, 1])
    assert planned.options["causal"] is True
    assert not library.named(DECODE, "plan")


@pytest.mark.parametrize("spans", [DECODES, MIXED])
@pytest.mark.parametrize(("window", "left"), [(None, -1), (1, 0), (64, 63)])
def test_windows_dtypes_and_scale_are_always_said(flashinfer, library, spans, window, left):
    attend(flashinfer, spans, window=window)
    [planned] = library.named(DECODE, "plan") + library.named(PREFILL, "plan")
    said = {"window_left": left, "sm_scale": 0.3, "q_data_type": torch.bfloat16, "kv_data_type": torch.bfloat16}
    assert planned.options.items() >= said.items()


def test_many_heads_of_a_group_take_tensor_cores(flashinfer, library):
    for heads in (2, 4, 6, 14):
        attend(flashinfer, DECODES, heads=heads)
    made = library.named(DECODE, "__init__")
    assert [call.options["use_tensor_cores"] for call in made] == [False, False, True, True]


def test_sinks_have_a_wrapper_of_their_own_for_decodes_too(flashinfer, library):
    attend(flashinfer, DECODES, sinks=True, window=5)
    [made] = library.named(WITH_SINKS, "__init__")
    assert made.options["window_left"] == 4
    assert len(library.named(WITH_SINKS, "plan")) == 1
    assert len(library.calls) == 2


def test_steps_share_wrappers_and_wrappers_share_a_workspace(flashinfer, library):
    for _ in range(3):
        for window in (None, 5):
            attend(flashinfer, DECODES, window=window)
            attend(flashinfer, MIXED, window=window)
    made = [call for call in library.calls if call.method == "__init__"]
    assert len(made) == 4
    assert len({call.args[0].data_ptr() for call in made}) == 1


def test_layers_with_and_without_a_window_do_not_replan_each_other(flashinfer, library):
    batch = Batch.random(DECODES, 4)
    plan = flashinfer.plan(batch.pieces, 4)
    plan.append(batch.layer, *batch.fresh())
    for window in (None, 3) * 4:
        found = plan.attend(batch.layer, batch.query, scale=0.3, window=window)
        torch.testing.assert_close(found.double(), batch.by_hand(scale=0.3, window=window), atol=1e-5, rtol=0)
    assert len(library.named(DECODE, "plan")) == 2


def a_model(**changes) -> AttentionShape:
    fields = {"heads": 8, "kv_heads": 2, "head_dim": 64, "dtype": torch.bfloat16, "device": CPU}
    return AttentionShape(**(fields | {"windows": frozenset({None, 16})} | changes))


def test_a_model_is_prepared_for_by_using_all_it_needs(flashinfer, library):
    flashinfer.prepare(a_model())
    for owner in (DECODE, PREFILL):
        assert {call.options["window_left"] for call in library.named(owner, "plan")} == {-1, 15}
    made = len([call for call in library.calls if call.method == "__init__"])
    batch = Batch.random(MIXED, 16, heads=8, kv_heads=2, dim=64, dtype=torch.bfloat16)
    batch.attend(flashinfer, scale=64**-0.5, window=16)
    assert len([call for call in library.calls if call.method == "__init__"]) == made


def test_a_model_with_sinks_is_prepared_for_with_sinks(flashinfer, library):
    flashinfer.prepare(a_model(sinks=True, windows=frozenset({128})))
    assert {call.owner for call in library.calls} == {WITH_SINKS}


def test_a_program_that_was_not_built_ahead_is_named(flashinfer, library):
    library.missing = "batch_decode_bf16_head_dim_64"
    with pytest.raises(KernelError, match="program batch_decode_bf16_head_dim_64 is not built"):
        flashinfer.prepare(a_model())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": torch.float32}, "bfloat16 or float16, not torch.float32: use --dtype bfloat16"),
        ({"device": torch.device("meta")}, "runs on cpu, the model is on meta"),
        ({"heads": 7, "kv_heads": 2}, "7 heads of 64 on 2"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(flashinfer, changes, message):
    with pytest.raises(KernelError, match=message):
        flashinfer.prepare(a_model(**changes))


def test_the_real_package_takes_the_same_arguments(flashinfer, library):
    real = pytest.importorskip("flashinfer")
    for spans, window, sinks in itertools.product((DECODES, MIXED), (None, 5), (False, True)):
        attend(flashinfer, spans, window=window, sinks=sinks)
    assert {(call.owner, call.method) for call in library.calls} == {
        (owner, method) for owner in (DECODE, PREFILL, WITH_SINKS) for method in ("__init__", "plan")
    }
    for call in library.calls:
        owner = getattr(real, call.owner)
        # The decode wrapper's plan takes any keywords, and hands them on.
        method = (call.method == "plan" and getattr(owner, "_plan_impl", None)) or getattr(owner, call.method)
        inspect.signature(method).bind(owner, *call.args, **call.options)
    for owner, extra in ((DECODE, 0), (PREFILL, 0), (WITH_SINKS, 2)):
        inspect.signature(getattr(real, owner).run).bind(None, torch.empty(0), (), *range(extra))
