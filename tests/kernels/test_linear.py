"""Every backend's linear layers against float64; the native one's rows are the same bits whatever is beside them."""

from __future__ import annotations

import pytest
import torch

from berth_kernels.interface import KernelError

ROWS = [1, 2, 3, 4, 5, 8, 17, 70]
SHAPES = [(1, 1), (7, 5), (8, 64), (33, 37), (264, 64), (1000, 96)]
"""Columns and depth, around the ends of vectors, tiles and blocks."""
DTYPES = [torch.float32, torch.bfloat16]


def a_layer(columns: int, depth: int, dtype: torch.dtype, rows: int = max(ROWS)) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(columns * depth)
    x, weight = (torch.randn(count, depth, generator=draw).to(dtype) for count in (rows, columns))
    return x, weight, torch.randn(columns, generator=draw).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [False, True])
def test_rows_are_multiplied_as_by_hand(kernels, shape, dtype, biased):
    x, weight, bias = a_layer(*shape, dtype)
    expected = x.double() @ weight.double().T + (bias.double() if biased else 0)
    # Summed in float32, rounded once to the result's dtype.
    exact = {torch.float32: 1e-5, torch.bfloat16: 2**-8}[dtype]
    for count in ROWS:
        found = kernels.linear(x[:count], weight, bias if biased else None)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected[:count], atol=2e-5, rtol=exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_alone_or_among_many_a_row_has_the_same_bits(native, shape, dtype):
    if native.path == "generic":
        pytest.skip("torch's linear layers promise no such thing")
    x, weight, bias = a_layer(*shape, dtype)
    among = native.linear(x, weight, bias)
    for count in ROWS:
        for first in (0, len(x) - count):
            rows = slice(first, first + count)
            assert torch.equal(native.linear(x[rows], weight, bias), among[rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(native, threads, dtype):
    if native.path == "generic":
        pytest.skip("torch's linear layers promise no such thing")
    x, weight, bias = a_layer(1000, 96, dtype)
    one = native.linear(x, weight, bias)
    for count in (2, 5):
        assert torch.equal(threads(native, count).linear(x, weight, bias), one)


def test_rows_may_be_part_of_wider_ones(kernels):
    x, weight, _ = a_layer(33, 37, torch.float32)
    wide = torch.full((len(x), 50), float("nan"))
    wide[:, 4:41] = x
    assert torch.equal(kernels.linear(wide[:, 4:41], weight), kernels.linear(x, weight))
    assert torch.equal(kernels.linear(x.T.contiguous().T, weight), kernels.linear(x, weight))


def test_what_is_not_finite_is_not_hidden(kernels):
    x, weight, _ = a_layer(33, 37, torch.bfloat16)
    x[2, 36] = float("inf")
    x[3, 0] = float("nan")
    found = kernels.linear(x, weight)
    assert found[2].isinf().all()
    assert found[3].isnan().all()
    assert found[:2].isfinite().all()
    assert found[4:].isfinite().all()


def test_what_would_lead_out_of_memory_is_refused(native):
    if native.path == "generic":
        pytest.skip("torch refuses in its own words")
    x, weight, bias = a_layer(33, 37, torch.float32)
    with pytest.raises(ValueError, match=r"rows of 36 want contiguous weights \(columns, 36\), not \(33, 37\)"):
        native.linear(x[:, :36], weight)
    with pytest.raises(ValueError, match="contiguous weights"):
        native.linear(x[:, :32], weight[:, :32])
    with pytest.raises(ValueError, match=r"33 columns want a contiguous bias \(33,\), not \(32,\)"):
        native.linear(x, weight, bias[:32])
    for wrong in ((x.half(), weight.half(), None), (x, weight.bfloat16(), None), (x, weight, bias.bfloat16())):
        with pytest.raises(KernelError, match="float32 or bfloat16 throughout"):
            native.linear(*wrong)
