"""The FlashInfer backend: paged attention on an NVIDIA GPU, in bfloat16 or float16.

FlashInfer plans on the host, which needs the batch's page table there and no answer from the device, and runs on the
device. What it keeps of a plan lies in a wrapper until the wrapper's next plan; so there is a wrapper for every kind of
attention that a step may ask for, and one workspace for all, since a run has done with it before the next one begins.

Each kind of attention is a program of its own, which FlashInfer compiles at first use. `prepare` uses all of a model's,
so that it happens at start or, where FLASHINFER_DISABLE_JIT forbids it, the one that is missing is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from berth_kernels.index import PageTable, page_table, slots, written
from berth_kernels.interface import KernelError, KVLayer, check_segment
from berth_kernels.triton.ops import TritonOps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from berth_kernels.interface import AttentionShape, Segment

DTYPES: Final = (torch.bfloat16, torch.float16)
WORKSPACE_BYTES: Final = 128 << 20
"""For partial results of split keys: what FlashInfer recommends."""
PLAIN_GROUP: Final = 2
"""Most heads of a KV head whose decode is faster, and possible for any number of them, without tensor cores."""


class _Kind(NamedTuple):
    """What a wrapper is for."""

    decode: bool
    """Every segment has one row; else any number of them."""
    window: int | None
    sinks: bool
    scale: float
    heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype


class FlashInferPlan:
    """A step's index work, and the wrappers that were planned for it, each when the first layer asked."""

    def __init__(self, kernels: FlashInferKernels, segments: Sequence[Segment], page_size: int) -> None:
        for segment in segments:
            check_segment(segment, page_size)
        self._kernels = kernels
        self._page_size = page_size
        self._table = page_table(segments, page_size)
        self._decode = all(segment.end - segment.start == 1 for segment in segments)
        self._pages = kernels.upload(self._table.pages)
        self._slots = kernels.upload(slots(segments, page_size))
        rows = written(segments)
        self._written = None if rows is None else kernels.upload(rows.nonzero()[0])
        self._wrappers: dict[_Kind, Any] = {}

    def append(self, layer: KVLayer, key: Tensor, value: Tensor) -> None:
        if self._written is not None:
            key, value = key[self._written], value[self._written]
        layer.key.flatten(0, 1).index_copy_(0, self._slots, key)
        layer.value.flatten(0, 1).index_copy_(0, self._slots, value)

    def attend(
        self, layer: KVLayer, query: Tensor, *, scale: float, window: int | None, sinks: Tensor | None = None
    ) -> Tensor:
        heads, dim = query.shape[1:]
        # With sinks there is one wrapper for all, which takes any number of rows.
        decode = self._decode and sinks is None
        kind = _Kind(decode, window, sinks is not None, scale, heads, layer.key.shape[2], dim, query.dtype)
        wrapper = self._wrappers.get(kind)
        if wrapper is None:
            wrapper = self._wrappers[kind] = self._kernels.planned(kind, self._table, self._pages, self._page_size)
        extra = () if sinks is None else (sinks.float(), scale)
        out: Tensor = wrapper.run(query.contiguous(), tuple(layer), *extra)
        return out


class FlashInferKernels(TritonOps):
    """FlashInfer for attention, Triton for draws and page copies, torch for the rest."""

    name = "flashinfer"

    def __init__(self, library: Any, device: torch.device) -> None:
        """Take the package `flashinfer`, already imported, and the device on which all tensors are to be."""
        self._library = library
        self._device = device
        # FlashInfer wants it zeroed before its first use.
        self._workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._wrappers: dict[_Kind, Any] = {}

    def prepare(self, model: AttentionShape) -> None:
        if model.device.type != self._device.type:
            raise KernelError(f"flashinfer attention runs on {self._device.type}, the model is on {model.device.type}")
        if model.dtype not in DTYPES:
            raise KernelError(
                f"flashinfer attention takes bfloat16 or float16, not {model.dtype}: use --dtype bfloat16"
            )
        shape = (1, 1, model.kv_heads, model.head_dim)
        layer = KVLayer(*(torch.zeros(shape, dtype=model.dtype, device=self._device) for _ in range(2)))
        sinks = torch.zeros(model.heads, device=self._device) if model.sinks else None
        for rows in (1, 2):
            query = torch.zeros(rows, model.heads, model.head_dim, dtype=model.dtype, device=self._device)
            for window in model.windows:
                # Two rows need two pages of one token: the same one will do.
                plan = self.plan([_Trial(rows)], 1)
                try:
                    plan.attend(layer, query, scale=model.head_dim**-0.5, window=window, sinks=sinks)
                except Exception as error:
                    raise KernelError(_explained(error, model)) from error

    def plan(self, segments: Sequence[Segment], page_size: int) -> FlashInferPlan:
        return FlashInferPlan(self, segments, page_size)

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Return `array` on the device."""
        return torch.from_numpy(array).to(self._device, non_blocking=True)

    def planned(self, kind: _Kind, table: PageTable, pages: Tensor, page_size: int) -> Any:
        """Return the wrapper for `kind`, planned for the batch of `table`, whose `pages` are on the device already."""
        wrapper = self._wrappers.get(kind)
        if wrapper is None:
            wrapper = self._wrappers[kind] = self._wrapper(kind)
        rows, starts, last = (torch.from_numpy(each) for each in (table.rows, table.starts, table.last_length))
        shape = (kind.heads, kind.kv_heads, kind.head_dim, page_size)
        options = {
            "window_left": _window_left(kind.window),
            "sm_scale": kind.scale,
            "q_data_type": kind.dtype,
            "kv_data_type": kind.dtype,
        }
        if kind.decode:
            wrapper.plan(starts, pages, last, *shape, **options)
        else:
            wrapper.plan(rows, starts, pages, last, *shape, causal=True, **options)
        return wrapper

    def _wrapper(self, kind: _Kind) -> Any:
        library = self._library
        if kind.sinks:
            return library.BatchAttentionWithAttentionSinkWrapper(
                self._workspace,
                "NHD",
                q_data_type=kind.dtype,
                kv_data_type=kind.dtype,
                head_dim_qk=kind.head_dim,
                head_dim_vo=kind.head_dim,
                window_left=_window_left(kind.window),
            )
        if kind.decode:
            tensor_cores = kind.heads // kind.kv_heads > PLAIN_GROUP
            return library.BatchDecodeWithPagedKVCacheWrapper(self._workspace, "NHD", use_tensor_cores=tensor_cores)
        return library.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "NHD")


class _Trial:
    """A sequence that is nothing but `end` new tokens, in pages of one token that are all the same."""

    start = kept = 0

    def __init__(self, end: int) -> None:
        self.end = end
        self.pages = np.zeros(end, np.int32)


def _window_left(window: int | None) -> int:
    """Return a window in FlashInfer's words: the keys before the query's own; -1: all of them."""
    return -1 if window is None else window - 1


def _explained(error: Exception, model: AttentionShape) -> str:
    """Return why attention like `model`'s cannot be had: the program that is missing, if that is why."""
    program = getattr(getattr(error, "spec", None), "name", None)
    if program is not None:
        return f"flashinfer's program {program} is not built, and FLASHINFER_DISABLE_JIT is set: add it to the image"
    return f"flashinfer attention with {model.heads} heads of {model.head_dim} on {model.kv_heads}: {error}"
