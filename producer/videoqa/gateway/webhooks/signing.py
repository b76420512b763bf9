"""Secrets that sign webhooks: one a tenant, and the one before it for a day after a rotation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote

import redis

from videoqa.jobs import translate_redis_errors
from videoqa.webhooks import make_secret

__all__ = ["SigningSecret", "SigningSecrets"]

OVERLAP_S = 86_400.0
"""Time after a rotation in which the old secret signs as well."""


@dataclass(frozen=True)
class SigningSecret:
    """The secret of a tenant, and its predecessor while that one still signs."""

    current: str
    previous: str | None = None
    previous_until: datetime | None = None

    @property
    def keys(self) -> list[str]:
        """The secrets that sign now."""
        return [self.current] if self.previous is None else [self.current, self.previous]


class SigningSecrets:
    """The secrets of one prefix in Redis. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._prefix = f"{prefix}:hooks:secret:"

    def get(self, tenant: str | None) -> SigningSecret:
        """Returns a tenant's secret, which is made when it is first asked for."""
        key = self._name(tenant)
        with translate_redis_errors(self._url):
            found = cast("dict[str, str]", self._redis.hgetall(key))
            if "current" not in found:
                self._redis.hsetnx(key, "current", make_secret())
                found = cast("dict[str, str]", self._redis.hgetall(key))
        until_s = float(found.get("previous_until", 0))
        if "previous" not in found or until_s <= time.time():
            return SigningSecret(found["current"])
        return SigningSecret(
            found["current"], found["previous"], datetime.fromtimestamp(until_s, UTC)
        )

    def rotate(self, tenant: str | None) -> SigningSecret:
        """Makes a new secret; the old one signs beside it for a day."""
        before = self.get(tenant)
        fields = {
            "current": make_secret(),
            "previous": before.current,
            "previous_until": f"{time.time() + OVERLAP_S:.0f}",
        }
        with translate_redis_errors(self._url):
            self._redis.hset(self._name(tenant), mapping=cast(Any, fields))
        return self.get(tenant)

    def _name(self, tenant: str | None) -> str:
        return self._prefix + quote(tenant or "", safe="")
