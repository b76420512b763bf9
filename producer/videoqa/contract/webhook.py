"""Webhook: the URL that a gateway calls when a job ends."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from videoqa.contract.model import Model
from videoqa.contract.urls import DEFAULT_PORTS, MAX_WEBHOOK_URL, split_url
from videoqa.errors import InvalidRequest
from videoqa.redaction import redact_url

__all__ = ["WEBHOOK_EVENTS", "Webhook", "WebhookEvent", "name_receiver", "parse_webhook"]

WebhookEvent = Literal["job.succeeded", "job.failed", "job.canceled", "job.expired"]
WEBHOOK_EVENTS: tuple[WebhookEvent, ...] = get_args(WebhookEvent)
"""All events: `job.` and a final state."""


def _check_url(url: str) -> str:
    """Returns the URL as it is; raises ValueError for one that cannot be called."""
    parts = split_url(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("expected https://host/path")
    if "@" in parts.netloc:
        raise ValueError(
            "got a user or a password, expected none: the receiver checks the signature"
        )
    if not url.isascii() or any(character <= " " or character in "\\\x7f" for character in url):
        raise ValueError("got a space, a backslash, a control or non-ASCII character; write %XX")
    if parts.port == 0:
        raise ValueError("got port 0, expected 1 to 65535")
    return url


def name_receiver(url: str) -> str:
    """Returns scheme, host and port of a webhook's URL: the receiver whose calls are counted together."""
    parts = split_url(url)
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{(parts.hostname or '').removesuffix('.')}:{port}"


class Webhook(Model):
    """A URL of the caller's that is called when the job ends, signed, by a gateway."""

    url: str = Field(min_length=1, max_length=MAX_WEBHOOK_URL)
    events: tuple[WebhookEvent, ...] = Field(
        default=WEBHOOK_EVENTS,
        min_length=1,
        max_length=len(WEBHOOK_EVENTS),
    )
    """Events that are sent; all by default."""

    _url = field_validator("url")(_check_url)


def parse_webhook(url: str) -> Webhook:
    """Returns a webhook with all events; raises InvalidRequest."""
    try:
        return Webhook(url=url)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidRequest(
            f"webhook: got {redact_url(url)!r:.200}: {why}", param="webhook"
        ) from error


def as_webhook(value: Any) -> Any:
    """Turns a bare URL into a webhook with all events."""
    if isinstance(value, str):
        return {"url": value}
    if isinstance(value, dict) and isinstance(value.get("events"), list):
        return {**value, "events": tuple(value["events"])}  # strict parsing wants it here
    return value


WebhookOrUrl = Annotated[Webhook, BeforeValidator(as_webhook, json_schema_input_type=Webhook | str)]
