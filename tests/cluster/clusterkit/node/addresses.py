"""Addresses for pods: 127.a.b.n, the same on no two nodes of this machine, whoever runs them.

The whole of 127.0.0.0/8 is the loopback device's, so every process may bind any of it without a right or a set-up.
"""

from __future__ import annotations

import fcntl
import random
import tempfile
from pathlib import Path
from typing import IO


class Addresses:
    """A node's net: .1 is the node, the others are its pods', given out in turn so that one comes back late.

    `count` limits them: with 1, each pod gets the address of the one before it.
    """

    def __init__(self, count: int = 253) -> None:
        self._lock, self._net = _own_net()
        self._count = count
        self._next = 0
        self._used: set[int] = set()

    @property
    def host(self) -> str:
        return f"{self._net}.1"

    def take(self) -> str:
        """Return a free address. Raises LookupError when there is none."""
        for step in range(self._count):
            number = (self._next + step) % self._count
            if number not in self._used:
                self._used.add(number)
                self._next = number + 1
                return f"{self._net}.{number + 2}"
        raise LookupError(f"all {self._count} addresses of {self._net}.0/24 are in use")

    def give_back(self, address: str) -> None:
        self._used.discard(int(address.rpartition(".")[2]) - 2)

    def close(self) -> None:
        """Let others have the net."""
        self._lock.close()


def _own_net() -> tuple[IO[str], str]:
    """Return a lock that goes with this process, and the net it stands for."""
    folder = Path(tempfile.gettempdir()) / "berth-nets"
    folder.mkdir(mode=0o777, exist_ok=True)
    while True:
        net = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}"
        try:
            lock = (folder / net).open("w")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another node's, or another user's
            continue
        return lock, net
