"""API keys: hashed in a file, bound to namespaces, reloaded when the file changes.

The file: `{"keys": [{"sha256": <hex of the key>, "name": …, "namespaces": ["default", …] or ["*"]}]}`, and for a key
that has a rate of its own `"rate_limit": <requests a second>`. A file that became unreadable leaves the last good keys
in force, and says so: a slip of an editor must not lock everyone out.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
from aiohttp import web

from berth_api.errors import Forbidden, Unauthorized
from berth_gateway.settings import RATES

log = structlog.get_logger(__name__)


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    name: str
    namespaces: Annotated[list[str], msgspec.Meta(min_length=1)]
    rate_limit: Annotated[float, msgspec.Meta(ge=RATES[0], le=RATES[1])] | None = None


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[ApiKey]


class Principal(msgspec.Struct, frozen=True):
    """Who calls: a key's name, the namespaces it may use, and its own requests a second where it has some."""

    name: str
    namespaces: frozenset[str]
    rate_limit: float | None = None

    def allows(self, namespace: str) -> bool:
        return "*" in self.namespaces or namespace in self.namespaces

    def require(self, namespace: str) -> None:
        """Raise `Forbidden` unless the key belongs to the namespace."""
        if not self.allows(namespace):
            raise Forbidden(f"this key does not belong to namespace {namespace!r}", namespace=namespace)

    @property
    def home(self) -> str:
        """The namespace meant when none is named: `default` where allowed, else the key's first."""
        return "default" if self.allows("default") else min(self.namespaces)


PRINCIPAL: web.RequestKey[Principal] = web.RequestKey("principal", Principal)
"""Where the authenticated caller of a request is kept."""

EVERYONE = Principal(name="anonymous", namespaces=frozenset({"*"}))


class KeyRing:
    """The keys of a file. `KeyRing(None)` lets everyone in, as `--no-auth` asks."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: list[tuple[bytes, Principal]] = []
        if path is not None:
            self._load(path)

    def authenticate(self, authorization: str | None) -> Principal:
        """Return the caller of an `Authorization` header. Raises `Unauthorized`."""
        if self._path is None:
            return EVERYONE
        self._reload(self._path)
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("an API key is needed: Authorization: Bearer <key>")
        digest = hashlib.sha256(_bytes(key)).digest()
        found = None
        for known, principal in self._keys:  # all of them, so that time tells nothing of which one matched
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise Unauthorized("this API key is not known")
        return found

    def _reload(self, path: Path) -> None:
        try:
            if _stamp(path) != self._stamp:
                self._load(path)
                log.info("api_keys.loaded", keys=len(self._keys))
        except (OSError, ValueError) as error:
            log.error("api_keys.unreadable", path=str(path), error=str(error))

    def _load(self, path: Path) -> None:
        """Raises `OSError` or `ValueError`, and keeps what was loaded before."""
        stamp = _stamp(path)
        self._stamp = stamp  # a broken file is complained about once, not at every request
        keys = msgspec.json.decode(path.read_bytes(), type=KeyFile).keys
        self._keys = [(bytes.fromhex(k.sha256), Principal(k.name, frozenset(k.namespaces), k.rate_limit)) for k in keys]


def require_token(authorization: str | None, token: str | None) -> None:
    """Check the one token of the admin port; None: open. Raises `Unauthorized`."""
    if token is None:
        return
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(_bytes(given), token.encode()):
        raise Unauthorized("the admin token is missing or wrong")


def _bytes(key: str) -> bytes:
    """Return a key as it was sent: a header may hold bytes that are no text, which aiohttp shows as surrogates."""
    return key.strip().encode("utf-8", "surrogateescape")


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
