"""Every time and limit of the worker, in one place, with its unit and the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from berth_worker.cache.integrity import CheckLevel


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What is served, and how it is computed."""

    name: str
    """A built-in model's name or a checkpoint folder, as it was given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: Literal["reference", "native", "flashinfer", "auto"] = "auto"
    threads: int | None = None
    """Compute threads. None: torch's default, one a physical core."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The KV pool."""

    page_size: int = 16
    """Tokens a page. 16 keeps page tables short and wastes at most 15 tokens a session."""
    slots: int = 32
    """Sessions that keep KV at once, and rows of the page table: an idle row costs 4 bytes a page, so be generous."""
    max_total_tokens: int | None = None
    """Tokens of KV. None: what `kv_bytes` holds."""
    kv_bytes: int = 256 << 20
    """Bytes of KV when no size is given: safe beside a small model on a laptop, and a few thousand tokens a slot."""
    context_length: int | None = None
    """Most tokens of history + input + output. None: the model's positions."""
    check: CheckLevel = "idle"
    """The idle check costs microseconds when the last request has ended and finds every leak."""


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """Who runs when."""

    chunked_prefill_size: int = 512
    """Prompt tokens a step: about where a CPU's matrix products are efficient, and short enough for decodes beside."""
    max_running: int | None = None
    """Requests in a batch. None: as many as slots."""
    queue_limit: int = 256
    """Requests that may wait before 429: minutes of work; a longer queue only hides that the fleet is too small."""
    queue_timeout_s: float | None = None
    """Seconds from acceptance to admission after which a request is aborted. None: a gateway and its client know best
    how long they want to wait, and go away when it has been long enough."""
    headroom: int = 128
    """Output tokens for which there must be room at admission: most turns end within, and few have to wait for them."""
    mixed_chunk: bool = False
    """Decodes and prefill chunks in one step: nobody's next token waits for a prompt, which takes a little longer."""
    retract_every: int | None = None
    """Steps after which the newest request that got somewhere waits again, without need. For tests."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The HTTP side."""

    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None
    """What callers must send as a bearer token; without one only a loopback address is served."""
    pod_uid: str = "local"
    """First half of the worker's id: the pod's uid under Kubernetes."""
    body_limit: int = 64 << 20
    """Bytes of a request body: 16 million packed ids, more than any context."""
    keepalive_s: float = 5.0
    """Silence on a stream before a comment is sent: well below any proxy's idle limit and the gateway's stall limit."""
    step_limit_s: float = 15.0
    """A step that takes longer is overdue and fails /health: many times a full prefill chunk on a slow CPU, and below
    the 20 s after which a gateway that hears nothing asks for /health."""
    drain_s: float = 30.0
    """What running turns are given to end after SIGTERM; Kubernetes' default grace period."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it."""

    model: ModelSettings
    cache: CacheSettings = field(default_factory=CacheSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    log_format: Literal["json", "console"] = "json"
