"""Sessions of browsers: a link that logs in once, and the cookie that stands for a key from then on.

Redis has the hashes of both, with their ends. A session has no rights of its own: it is refused as soon as its key is
revoked or over, or has had another secret for as long as the one before was valid beside it: whoever rotates a key that
has leaked logs out the finder as well.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import redis

from videoqa.errors import VideoQAError
from videoqa.gateway.access.keys import ApiKey
from videoqa.jobs import translate_redis_errors

__all__ = ["COOKIE", "SESSION_S", "Session", "SessionStore", "WrongLogin"]

COOKIE = "videoqa_session"
LOGIN_S = 15 * 60
"""Life of a link."""
SESSION_S = 12 * 3600
"""Life of a session."""


class WrongLogin(VideoQAError):
    """The link or the session is unknown, used or over."""

    code = "wrong_login"


@dataclass(frozen=True)
class Session:
    """A session, as Redis has it."""

    key_id: str
    begun_at: datetime

    def is_over(self, key: ApiKey, now: datetime) -> bool:
        """Tells if its key has had another secret since, and the one before is refused."""
        if key.rotated_at is None or self.begun_at >= key.rotated_at:
            return False
        return key.overlap_until is None or key.overlap_until <= now


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


class SessionStore:
    """The links and sessions of one prefix. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._prefix = prefix

    def make_login(self, key_id: str) -> str:
        """Makes the token of a link that logs in once, for a key."""
        return self._make("login", key_id, LOGIN_S)

    def begin(self, token: str) -> str:
        """Exchanges a link's token for that of a session; raises WrongLogin."""
        name = self._name("login", token)
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=True)  # of several calls one gets it
            pipe.get(name)
            pipe.delete(name)
            key_id = pipe.execute()[0]
        if not key_id:
            raise WrongLogin(
                "this link was used, or is over; `videoqa keys link ID` prints another one"
            )
        return self.make_session(str(key_id))

    def make_session(self, key_id: str) -> str:
        """Makes the token of a session for a key that was just shown."""
        return self._make("session", f"{key_id} {datetime.now(UTC).isoformat()}", SESSION_S)

    def find(self, token: str) -> Session:
        """Returns a session; raises WrongLogin."""
        with translate_redis_errors(self._url):
            found = cast("str | None", self._redis.get(self._name("session", token)))
        key_id, _, begun = (found or "").partition(" ")
        try:
            return Session(key_id, datetime.fromisoformat(begun).astimezone(UTC))
        except ValueError as error:
            raise WrongLogin(
                "this session is unknown or over; `videoqa keys link ID` prints a link for another one"
            ) from error

    def end(self, token: str) -> None:
        """Ends a session."""
        with translate_redis_errors(self._url):
            self._redis.delete(self._name("session", token))

    def _name(self, kind: str, token: str) -> str:
        return f"{self._prefix}:{kind}:{_hash(token)}"

    def _make(self, kind: str, value: str, ttl_s: int) -> str:
        token = secrets.token_urlsafe(32)
        with translate_redis_errors(self._url):
            self._redis.set(self._name(kind, token), value, ex=ttl_s)
        return token
