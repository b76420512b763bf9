"""KeyCache: keys that were checked a moment ago, so that most requests cost no round trip for it.

A key that is revoked, or an old secret that is over, is refused by all gateways after `CHECKED_S` at the latest.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime

from videoqa.gateway.access.keys import ApiKey, KeyStore, WrongKey
from videoqa.gateway.access.sessions import SessionStore

__all__ = ["CHECKED_S", "KeyCache"]

CHECKED_S = 1.0
"""Time for which a key is believed to be as it was."""
MOST_KEPT = 10_000


class KeyCache:
    """The keys of one gateway that were right when they were last checked; for one event loop and its threads."""

    def __init__(self, keys: KeyStore, sessions: SessionStore) -> None:
        self._keys = keys
        self._sessions = sessions
        self._checked: dict[bytes, tuple[ApiKey, float]] = {}

    def find(self, kind: str, text: str) -> ApiKey | None:
        """Returns the key of a text that was right a moment ago.

        Arguments:
            kind: `key` or `session`.
        """
        found = self._checked.get(_digest(kind, text))
        if found is None or found[1] < time.monotonic() or found[0].is_over(datetime.now(UTC)):
            return None
        return found[0]

    def find_earlier(self, kind: str, text: str) -> ApiKey | None:
        """Returns the key that a text was when it was last checked here, however long ago that is."""
        found = self._checked.get(_digest(kind, text))
        return found[0] if found and not found[0].is_over(datetime.now(UTC)) else None

    def check(self, kind: str, text: str) -> ApiKey:
        """Returns the key of a text, as Redis has it; raises WrongKey or WrongLogin."""
        began = time.monotonic()
        key = self._keys.check(text) if kind == "key" else self._check_session(text)
        if len(self._checked) >= MOST_KEPT:
            self._checked.clear()
        self._checked[_digest(kind, text)] = key, began + CHECKED_S
        return key

    def _check_session(self, token: str) -> ApiKey:
        session, now = self._sessions.find(token), datetime.now(UTC)
        key = self._keys.find(session.key_id)
        if key is None or key.is_over(now):
            raise WrongKey("the key of this session is revoked or over")
        if session.is_over(key, now):
            raise WrongKey("the key of this session was rotated since; log in with its new text")
        return key

    def forget(self, kind: str, text: str) -> None:
        """Forgets a text, which is refused from now on."""
        self._checked.pop(_digest(kind, text), None)


def _digest(kind: str, text: str) -> bytes:
    # No part of a secret is compared: a lookup by its hash tells nothing of it in its time.
    return hashlib.sha256(f"{kind} {text}".encode(errors="surrogateescape")).digest()
