"""The native backend, on the CPU: attention in C++ that reads KV where it lies, and linear layers.

What a query's result depends on is its position, its keys and the instruction set: not the batch, nor how a prompt was
cut into chunks, nor how many threads there are. A linear layer's row depends on that row alone. See csrc/berth.h.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from berth_kernels.build import library
from berth_kernels.interface import KernelError, check_segment
from berth_kernels.reference import ReferenceKernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from berth_kernels.interface import KVLayer, Segment

DTYPES: Final = (torch.float32, torch.bfloat16)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("segments", ctypes.c_void_p),
        ("pages", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("page_size", ctypes.c_int64),
    )


class _Call(ctypes.Structure):
    _fields_ = (
        ("batch", _Batch),
        ("key", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        ("query", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("sinks", ctypes.c_void_p),
        ("query_stride", ctypes.c_int64),
        ("window", ctypes.c_int64),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("dim", ctypes.c_int32),
        ("half", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


class _Linear(ctypes.Structure):
    _fields_ = (
        ("x", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("depth", ctypes.c_int64),
        ("x_stride", ctypes.c_int64),
        ("half", ctypes.c_int32),
    )


class NativePlan:
    """A step's index work: where each segment's rows and pages begin, for the library to read."""

    def __init__(self, library: ctypes.CDLL, context: int, segments: Sequence[Segment], page_size: int) -> None:
        self._library, self._context = library, context
        table = np.empty((len(segments), 5), np.int64)
        row = page = 0
        pages = []
        for at, segment in enumerate(segments):
            check_segment(segment, page_size)
            table[at] = segment.start, segment.end, segment.kept, row, page
            pages.append(segment.pages[: -(-segment.end // page_size)])
            row += segment.end - segment.start
            page += len(pages[-1])
        self._rows = row
        self._table, self._pages = table, np.concatenate(pages, dtype=np.int32)
        self._pages_seen = int(self._pages.min()), int(self._pages.max())
        self._batch = _Batch(table.ctypes.data, self._pages.ctypes.data, len(table), page_size)
        self._call = _Call(batch=self._batch)

    def append(self, layer: KVLayer, key: Tensor, value: Tensor) -> None:
        self._check(layer, key)
        _, heads, dim = key.shape
        key, value = _rows(key), _rows(value)
        size = key.element_size()
        self._library.berth_append(
            self._context,
            ctypes.byref(self._batch),
            layer.key.data_ptr(),
            layer.value.data_ptr(),
            key.data_ptr(),
            value.data_ptr(),
            key.stride(0) * size,
            value.stride(0) * size,
            heads * dim * size,
        )

    def attend(
        self, layer: KVLayer, query: Tensor, *, scale: float, window: int | None, sinks: Tensor | None = None
    ) -> Tensor:
        self._check(layer, query)
        query = _rows(query)
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        sinks = None if sinks is None else sinks.float().contiguous()
        call = self._call
        call.key, call.value = layer.key.data_ptr(), layer.value.data_ptr()
        call.query, call.query_stride, call.out = query.data_ptr(), query.stride(0), out.data_ptr()
        call.sinks = None if sinks is None else sinks.data_ptr()
        call.window, call.scale = window or 0, scale
        _, call.heads, call.dim = query.shape
        call.kv_heads, call.half = layer.key.shape[2], query.dtype == torch.bfloat16
        if self._library.berth_attend(self._context, ctypes.byref(call)):
            raise MemoryError("no memory for the partial results of attention")
        return out

    def _check(self, layer: KVLayer, rows: Tensor) -> None:
        """Refuse what the library would follow out of its memory."""
        if len(rows) != self._rows:
            raise ValueError(f"a plan for {self._rows} rows was given {len(rows)}")
        if rows.dtype not in DTYPES or not rows.dtype == layer.key.dtype == layer.value.dtype:
            raise KernelError(f"native attention takes float32 or bfloat16 throughout, not {rows.dtype}")
        low, high = self._pages_seen
        if low < 0 or high >= len(layer.key):
            raise IndexError(f"pages {low} … {high} of a pool that has {len(layer.key)}")


class NativeKernels(ReferenceKernels):
    """C++ for attention and linear layers; the rest is torch's, as in the reference. One thread calls at a time."""

    name = "native"

    def __init__(self, *, threads: int | None = None, path: str | None = None) -> None:
        """Take `threads` (None: as many as torch has now) and the instruction set `path` (None: the best).

        Raises KernelError when the library is not there and cannot be built, and for a path that this CPU lacks.
        """
        self._library = _load()
        self.path = path or paths()[0]
        self.threads = threads or torch.get_num_threads()
        parallel = ctypes.cast(_openmp().GOMP_parallel, ctypes.c_void_p) if self.threads > 1 else None
        self._context = self._library.berth_open(self.path.encode(), self.threads, parallel)
        if not self._context:
            raise KernelError(f"no instruction set {self.path!r} here: choose one of {', '.join(paths())}")
        weakref.finalize(self, self._library.berth_close, self._context)
        self._linear = _Linear()
        self._linear_at = ctypes.byref(self._linear)

    def plan(self, segments: Sequence[Segment], page_size: int) -> NativePlan:  # type: ignore[override]
        return NativePlan(self._library, self._context, segments, page_size)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.path == "generic":
            # Without an instruction set of ours, torch's library knows the machine better.
            return super().linear(x, weight, bias)
        rows, depth = x.shape
        columns = len(weight)
        if x.dtype not in DTYPES or x.dtype != weight.dtype or (bias is not None and bias.dtype != x.dtype):
            raise KernelError(f"a native linear layer takes float32 or bfloat16 throughout, not {x.dtype}")
        if weight.shape != (columns, depth) or not weight.is_contiguous():
            raise ValueError(f"rows of {depth} want contiguous weights (columns, {depth}), not {tuple(weight.shape)}")
        if bias is not None and (bias.shape != (columns,) or not bias.is_contiguous()):
            raise ValueError(f"{columns} columns want a contiguous bias ({columns},), not {tuple(bias.shape)}")
        if x.stride(1) != 1:
            x = x.contiguous()
        out = x.new_empty(rows, columns)
        call = self._linear
        call.x, call.weight, call.out = x.data_ptr(), weight.data_ptr(), out.data_ptr()
        call.bias = None if bias is None else bias.data_ptr()
        call.rows, call.columns, call.depth, call.x_stride = rows, columns, depth, x.stride(0)
        call.half = x.dtype == torch.bfloat16
        self._library.berth_linear(self._context, self._linear_at)
        return out


def paths() -> list[str]:
    """Return the instruction sets that this CPU has, best first. Raises KernelError."""
    names = ctypes.create_string_buffer(256)
    _load().berth_paths(names, len(names))
    return names.value.decode().split()


def _rows(x: Tensor) -> Tensor:
    """Return `x` (N, heads, head_dim) so that each row is in one piece."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


@cache
def _load() -> ctypes.CDLL:
    path = library()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"cannot load {path}: {error}") from error
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    loaded.berth_paths.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    loaded.berth_open.argtypes = [ctypes.c_char_p, ctypes.c_int, pointer]
    loaded.berth_open.restype = pointer
    loaded.berth_close.argtypes = [pointer]
    loaded.berth_append.argtypes = [pointer] * 6 + [count] * 3
    loaded.berth_append.restype = None
    loaded.berth_attend.argtypes = [pointer, pointer]
    loaded.berth_linear.argtypes = [pointer, pointer]
    loaded.berth_linear.restype = None
    return loaded


@cache
def _openmp() -> ctypes.CDLL:
    """Return the OpenMP runtime that torch has loaded: its threads are ours, or the two would fight for the cores."""
    bundled = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    for name in (*map(str, bundled), "libgomp.so.1"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise KernelError("native attention needs torch's OpenMP runtime for its threads, and libgomp is not to be found")
