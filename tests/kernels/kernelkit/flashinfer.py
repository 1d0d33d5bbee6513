"""A stand-in for the package `flashinfer`: its wrappers by their documented meaning, in float64, on the CPU.

It takes the arguments that ours gives and no others, wants its index tensors as the real one does, and keeps a record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Call:
    owner: str
    method: str
    args: tuple[Any, ...]
    options: dict[str, Any]


@dataclass
class FlashInfer:
    """The package. `calls` are all of them, oldest first."""

    calls: list[Call] = field(default_factory=list)
    missing: str | None = None
    """A program that was not built ahead."""

    def named(self, owner: str, method: str) -> list[Call]:
        return [call for call in self.calls if (call.owner, call.method) == (owner, method)]

    def BatchDecodeWithPagedKVCacheWrapper(self, *args, **options) -> Decode:  # noqa: N802 - its name
        return self._made(Decode, args, options)

    def BatchPrefillWithPagedKVCacheWrapper(self, *args, **options) -> Prefill:  # noqa: N802 - its name
        return self._made(Prefill, args, options)

    def BatchAttentionWithAttentionSinkWrapper(self, *args, **options) -> WithSinks:  # noqa: N802 - its name
        return self._made(WithSinks, args, options)

    def _made(self, kind: type[Wrapper], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        self.calls.append(Call(kind.name, "__init__", args, options))
        made = kind(*args, **options)
        made.library = self
        return made


class MissingProgramError(RuntimeError):
    """As MissingJITCacheError: `spec.name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__("JIT compilation is disabled")
        self.spec = type("Spec", (), {"name": name})()


class Wrapper:
    """What the wrappers share: attention over what the last plan said."""

    name: str
    library: FlashInfer

    def __init__(self, workspace: Tensor, kv_layout: str) -> None:
        assert kv_layout == "NHD"
        assert workspace.dtype == torch.uint8
        assert not workspace.any()

    def planned(self, *args, **options) -> None:
        self.library.calls.append(Call(self.name, "plan", args, options))
        if self.library.missing is not None:
            raise MissingProgramError(self.library.missing)

    def keep(self, rows, starts, pages, last, shape, window_left, sm_scale, dtypes) -> None:  # noqa: PLR0917
        for each in (rows, starts, pages, last):
            assert each.dtype == torch.int32
        for each in (rows, starts, last):
            assert each.device.type == "cpu"  # or it would be fetched from the device
        assert len(starts) == len(rows) == len(last) + 1
        self.table = tuple(each.tolist() for each in (rows, starts, pages, last))
        self.shape, self.window_left, self.scale, self.dtypes = shape, window_left, sm_scale, dtypes

    def attention(self, query: Tensor, pool: tuple[Tensor, Tensor], sinks: Tensor | None) -> Tensor:
        rows, starts, pages, last = self.table
        heads, kv_heads, dim, page_size = self.shape
        assert query.is_contiguous()
        assert type(pool) is tuple
        assert query.shape == (rows[-1], heads, dim)
        assert pool[0].shape[1:] == (page_size, kv_heads, dim)
        assert self.dtypes == (query.dtype, pool[0].dtype)
        out = torch.empty_like(query)
        for at, tail in enumerate(last):
            own = pages[starts[at] : starts[at + 1]]
            length = (len(own) - 1) * page_size + tail
            assert 1 <= tail <= page_size
            key, value = (
                each[own].flatten(0, 1)[:length].double().repeat_interleave(heads // kv_heads, 1) for each in pool
            )
            mine = slice(rows[at], rows[at + 1])
            position = torch.arange(length)[-(rows[at + 1] - rows[at]) :, None]
            others = torch.arange(length)[None, :]
            hidden = others > position
            if self.window_left >= 0:
                hidden |= others < position - self.window_left
            scores = torch.einsum("qhd,khd->hqk", query[mine].double(), key) * self.scale
            scores.masked_fill_(hidden, float("-inf"))
            if sinks is not None:
                scores = torch.cat((scores, sinks.double()[:, None, None].expand(*scores.shape[:2], 1)), -1)
            weights = scores.softmax(-1)[..., :length]
            out[mine] = torch.einsum("hqk,khd->qhd", weights, value).to(out.dtype)
        return out


class Decode(Wrapper):
    name = "BatchDecodeWithPagedKVCacheWrapper"

    def __init__(self, workspace: Tensor, kv_layout: str, *, use_tensor_cores: bool) -> None:
        super().__init__(workspace, kv_layout)
        self.tensor_cores = use_tensor_cores

    def plan(self, *args, **options) -> None:
        self.planned(*args, **options)
        self._plan(*args, **options)

    def _plan(  # noqa: PLR0917 - its own
        self,
        indptr,
        indices,
        last_page_len,
        num_qo_heads,
        num_kv_heads,
        head_dim,
        page_size,
        *,
        window_left=-1,
        sm_scale=None,
        q_data_type="float16",
        kv_data_type=None,
    ) -> None:
        # Without tensor cores only some numbers of heads a KV head are there.
        assert self.tensor_cores or num_qo_heads // num_kv_heads in {1, 2, 3, 4, 8}
        rows = torch.arange(len(indptr), dtype=torch.int32)
        shape = (num_qo_heads, num_kv_heads, head_dim, page_size)
        self.keep(rows, indptr, indices, last_page_len, shape, window_left, sm_scale, (q_data_type, kv_data_type))

    def run(self, q, paged_kv_cache) -> Tensor:
        return self.attention(q, paged_kv_cache, None)


class Prefill(Wrapper):
    name = "BatchPrefillWithPagedKVCacheWrapper"

    def plan(self, *args, **options) -> None:
        self.planned(*args, **options)
        self._plan(*args, **options)

    def _plan(  # noqa: PLR0917 - its own
        self,
        qo_indptr,
        paged_kv_indptr,
        paged_kv_indices,
        paged_kv_last_page_len,
        num_qo_heads,
        num_kv_heads,
        head_dim_qk,
        page_size,
        *,
        causal=False,
        window_left=-1,
        sm_scale=None,
        q_data_type="float16",
        kv_data_type=None,
    ) -> None:
        assert causal
        shape = (num_qo_heads, num_kv_heads, head_dim_qk, page_size)
        index = (qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len)
        self.keep(*index, shape, window_left, sm_scale, (q_data_type, kv_data_type))

    def run(self, q, paged_kv_cache) -> Tensor:
        return self.attention(q, paged_kv_cache, None)


class WithSinks(Prefill):
    name = "BatchAttentionWithAttentionSinkWrapper"

    def __init__(
        self, workspace, kv_layout, *, q_data_type, kv_data_type, head_dim_qk, head_dim_vo, window_left
    ) -> None:
        super().__init__(workspace, kv_layout)
        self.made_for = (q_data_type, kv_data_type, head_dim_qk, head_dim_vo, window_left)

    def run(self, q, paged_kv_cache, sink, sm_scale) -> Tensor:
        dim = self.shape[2]
        assert self.made_for == (*self.dtypes, dim, dim, self.window_left)
        assert sm_scale == self.scale
        assert sink.dtype == torch.float32
        return self.attention(q, paged_kv_cache, sink)
