"""Idempotency keys: the header, and the notes of calls that make several jobs or change one.

`POST /v1/jobs` needs no note: the script that records a job knows its key. A key is its tenant's, and that of one
route.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, cast

import redis

from videoqa.errors import IdempotencyConflict, InvalidRequest
from videoqa.jobs import translate_redis_errors

__all__ = ["CallNotes", "derive_key", "digest_body", "is_retry", "parse_idempotency_key"]

MOST_CHARACTERS = 256
NOTED_S = 86_400
"""Time for which a call is noted."""
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def parse_idempotency_key(header: str | None) -> str | None:
    """Returns the key of the header, which is in quotes or bare; None without one. Raises InvalidRequest."""
    if header is None:
        return None
    text = header.strip()
    if text.startswith('"'):
        match = _QUOTED.fullmatch(text)
        key = re.sub(r"\\(.)", r"\1", match[1]) if match else ""
    else:
        key = text if _BARE.fullmatch(text) else ""
    if not 1 <= len(key) <= MOST_CHARACTERS:
        raise InvalidRequest(
            f"got the header Idempotency-Key: {header!r:.100}, expected 1 to {MOST_CHARACTERS} ASCII characters, bare "
            "or in quotes",
            param="Idempotency-Key",
        )
    return key


def is_retry(retry_count: str | None) -> bool:
    """Tells if a call repeats another one, by the count that OpenAI's clients send."""
    count = retry_count or ""
    return count.isascii() and count.isdigit() and int(count[:9]) > 0


def digest_body(body: Any) -> str:
    """Returns a digest of a body, however it is spelled."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def derive_key(route: str, key: str, number: int) -> str:
    """Returns the key of one job of a call that makes several."""
    return f"{route}:{hashlib.sha256(key.encode()).hexdigest()[:40]}:{number}"


class CallNotes:
    """Notes in Redis of the calls with an idempotency key. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._prefix = f"{prefix}:call:"

    def begin(self, tenant: str | None, route: str, key: str, digest: str = "") -> bool:
        """Notes a call; returns True if it is the first one with its key.

        Raises:
            IdempotencyConflict: the first one had another body.
        """
        name = self._name(tenant, route, key)
        with translate_redis_errors(self._url):
            if self._redis.set(name, digest, nx=True, ex=NOTED_S):
                return True
            before = cast("str | None", self._redis.get(name))
        if before not in (None, digest):
            raise IdempotencyConflict(
                f"idempotency key {key!r:.100} already belongs to a call of {route} with another body; use a new key "
                "for a new call",
                param="Idempotency-Key",
            )
        return False

    def forget(self, tenant: str | None, route: str, key: str) -> None:
        """Removes the note of a call that changed nothing."""
        with translate_redis_errors(self._url):
            self._redis.delete(self._name(tenant, route, key))

    def _name(self, tenant: str | None, route: str, key: str) -> str:
        text = json.dumps([tenant, route, key])
        return self._prefix + hashlib.sha256(text.encode()).hexdigest()[:32]
