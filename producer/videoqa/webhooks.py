"""Webhooks: their signatures, as Standard Webhooks 1.0 has them, and a check for receivers.

    call = verify_webhook(request.body, request.headers, secret)
    if call.type == "job.succeeded":
        answer = client.result(call.data["id"])

A call may come more than once, with the same id, and calls may come in any order. The signature is an HMAC-SHA256 over
`id.timestamp.body`, so libraries of Standard Webhooks and OpenAI's `client.webhooks.unwrap` check it as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from videoqa.errors import WebhookInvalid

__all__ = ["WebhookCall", "make_secret", "sign", "verify_webhook"]

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_LEAST_BYTES = 24
_MOST_BYTES = 1_000_000
"""A call of ours is below 20 kB; hashing a larger body would only cost time."""
_MOST_SIGNATURES = 20


class Headers(Protocol):
    """Headers of any framework, or a dictionary."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Returns names and values."""


@dataclass(frozen=True)
class WebhookCall:
    """A call that a gateway has signed."""

    id: str
    """Id of the delivery: every attempt of it has the same one, by which a receiver knows what it has seen."""
    type: str
    """`job.` and the state in which the job ended."""
    data: dict[str, Any]
    """The job: `id`, `state`, `custom_id`, `metadata`, `failure`, `links` and more."""
    body: dict[str, Any]
    """All that was sent."""


def make_secret() -> str:
    """Makes a secret: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(body: bytes, *, webhook_id: str, timestamp_s: int, keys: Sequence[str]) -> dict[str, str]:
    """Returns the headers of a call, with a signature by each of the secrets."""
    made = [f"v1,{_hash(body, webhook_id, str(timestamp_s), _decode(key))}" for key in keys]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(made),
    }


def verify_webhook(
    body: bytes | str,
    headers: Headers,
    secret: str,
    *,
    tolerance_s: float = 300.0,
    now_s: float | None = None,
) -> WebhookCall:
    """Returns the call if its signature is right; everything else is not to be trusted.

    Arguments:
        body: the bytes that came, not JSON that was parsed and written again.
        headers: the request's headers, in any case.
        secret: `whsec_...`, as `videoqa webhooks secret` prints it.
        tolerance_s: greatest age of the call, so that nobody can send an old one again.
        now_s: the time, for tests; None: the clock's.

    Raises:
        WebhookInvalid: the signature is wrong, missing or too old, or the body is not ours.
    """
    raw = body.encode() if isinstance(body, str) else bytes(body)
    key = _decode(secret)
    if len(raw) > _MOST_BYTES:
        raise WebhookInvalid(
            f"got a body of {len(raw)} bytes, expected less than {_MOST_BYTES}; refuse it"
        )
    webhook_id, timestamp, signatures = _find_headers(headers)
    _check_age(timestamp, tolerance_s, time.time() if now_s is None else now_s)
    expected = _hash(raw, webhook_id, timestamp, key).encode()
    given = [one.partition(",") for one in signatures.split(" ", _MOST_SIGNATURES)]
    found = [
        hmac.compare_digest(text.encode(errors="replace"), expected)
        for version, _, text in given
        if version == "v1"
    ]
    if not any(found):
        raise WebhookInvalid(
            "got no signature that is right for this body and secret; pass the body as it came, and the secret of "
            "the tenant whose job it is (`videoqa webhooks secret`)"
        )
    return _parse(raw, webhook_id)


def _decode(secret: str) -> bytes:
    """Returns the bytes of a secret; raises WebhookInvalid for text that is none."""
    try:
        key = base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _LEAST_BYTES:
        raise WebhookInvalid(
            f"the secret is not {_PREFIX} and base64 of at least {_LEAST_BYTES} bytes; copy all that "
            "`videoqa webhooks secret` prints"
        )
    return key


def _hash(body: bytes, webhook_id: str, timestamp: str, key: bytes) -> str:
    text = f"{webhook_id}.{timestamp}.".encode(errors="replace") + body
    return base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()


def _find_headers(headers: Headers) -> tuple[str, str, str]:
    found = {name.lower(): value for name, value in headers.items()}
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    missing = [name for name in names if not found.get(name)]
    if missing:
        raise WebhookInvalid(
            f"got no header {', '.join(missing)}; expected a call of videoqa's gateway, with its headers passed on"
        )
    return found[names[0]], found[names[1]], found[names[2]]


def _check_age(timestamp: str, tolerance_s: float, now_s: float) -> None:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 15):
        raise WebhookInvalid(
            f"got webhook-timestamp {timestamp!r:.50}, expected seconds since 1970"
        )
    age_s = now_s - int(timestamp)
    if abs(age_s) > tolerance_s:
        when = f"{age_s:.0f} s old" if age_s > 0 else f"{-age_s:.0f} s ahead of this clock"
        raise WebhookInvalid(
            f"the call is {when}, expected at most {tolerance_s:g} s; somebody sent it again, or a clock is wrong"
        )


def _parse(body: bytes, webhook_id: str) -> WebhookCall:
    try:
        found = json.loads(body)
        kind, data = found["type"], found["data"]
        if isinstance(kind, str) and isinstance(data, dict):
            return WebhookCall(webhook_id, kind, data, found)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise WebhookInvalid("the body is signed, but is no event; expected JSON with type and data")
