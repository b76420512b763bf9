"""GatewayAddress: the URL of a gateway and the API key for it, checked, and shown without the key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self

from videoqa.contract import split_url
from videoqa.errors import ConfigurationError
from videoqa.redaction import redact_url
from videoqa.settings import Settings

__all__ = ["GatewayAddress", "is_gateway_url"]

_PLAIN_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_PLAIN_URL = re.compile(r"[\x21-\x7e]{1,2048}")


def is_gateway_url(url: str) -> bool:
    """Tells the URL of a gateway from that of a Redis."""
    return url.partition("://")[0].lower() in ("http", "https")


@dataclass(frozen=True)
class GatewayAddress:
    """A gateway, as requests reach it."""

    url: str
    """Without a slash at its end."""
    key: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, key: str | None) -> Self:
        """Checks both.

        Raises:
            ConfigurationError: the URL holds a user, a key or what is no address; or the key has characters that no
                key has.
        """
        try:
            parts = split_url(url)
            is_usable = bool(parts.hostname) and parts.port != 0 and is_gateway_url(url)
        except ValueError:
            is_usable = False
        if not is_usable or not _PLAIN_URL.fullmatch(url):
            raise ConfigurationError(
                f"got the gateway {redact_url(url)!r:.200}, expected a URL such as https://videoqa.example.com",
                param="url",
            )
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ConfigurationError(
                f"got the gateway {redact_url(url)!r:.200} with a user, a query or a fragment, expected only its "
                "address: give the API key by VIDEOQA_API_KEY, `videoqa login` or api_key=",
                param="url",
            )
        if key is not None and not _PLAIN_KEY.fullmatch(key):
            raise ConfigurationError(
                "VIDEOQA_API_KEY: got spaces, line ends or other characters that no key has, expected vqa_ID_SECRET",
                param="api_key",
            )
        return cls(url.rstrip("/"), key)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Returns the gateway of a client's settings."""
        key = settings.api_key
        return cls.parse(settings.url or "", None if key is None else key.get_secret_value())

    @property
    def shown(self) -> str:
        """Scheme, host and path, for messages."""
        return redact_url(self.url)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"authorization": f"Bearer {self.key}"}
