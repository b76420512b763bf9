"""OpenStreams: the streams that are open in this process, counted in all and by API key, and ended with their keys."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from videoqa.gateway.http.problems import HttpError

__all__ = ["LOOKED_EVERY_S", "OpenStreams"]

LOOKED_EVERY_S = 2.0
"""Time between two looks at the keys of open streams, which end after it once their key is revoked or over."""
Credential = tuple[str, str]
"""The kind and the text of what a request showed: a key, or the cookie of a session."""


class OpenStreams:
    """Counts streams; used in the event loop alone."""

    def __init__(self, most: int, *, of_key: int) -> None:
        self._most = most
        self._most_of_key = of_key
        self._by_key: Counter[str] = Counter()
        self._open: dict[Credential, set[asyncio.Future[None]]] = {}

    @property
    def count(self) -> int:
        """Number of streams that are open."""
        return self._by_key.total()

    @contextmanager
    def enter(
        self, key_id: str, credential: Credential | None = None
    ) -> Iterator[asyncio.Future[None]]:
        """Counts a stream while it is open; yields what is done once its credential is no longer right.

        Arguments:
            credential: None: the gateway asks for none.

        Raises:
            HttpError: it is one too many.
        """
        if self._by_key[key_id] >= self._most_of_key:
            raise HttpError(
                429,
                "stream_limit",
                f"this API key has {self._most_of_key:,} streams open; end some, or follow many jobs by one stream: "
                "POST /v1/jobs:follow",
            )
        if self._by_key.total() >= self._most:
            raise HttpError(
                429,
                "stream_limit",
                f"the gateway has {self._most:,} streams open; try again later, or poll with wait",
            )
        self._by_key[key_id] += 1
        revoked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if credential is not None:
            self._open.setdefault(credential, set()).add(revoked)
        try:
            yield revoked
        finally:
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]
            if credential is not None:
                self._open[credential].discard(revoked)
                if not self._open[credential]:
                    del self._open[credential]

    async def watch(
        self, is_right: Callable[[str, str], Awaitable[bool]], stop: asyncio.Event
    ) -> None:
        """Ends the streams of each credential that is no longer right, until the gateway stops."""
        while not stop.is_set():
            for credential in list(self._open):
                if not await is_right(*credential):
                    for revoked in self._open.get(credential, ()):
                        if not revoked.done():
                            revoked.set_result(None)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOKED_EVERY_S):
                    await stop.wait()
