"""Settings of the gateway, besides those of a client."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from videoqa.gateway.webhook_settings import WebhookSettings
from videoqa.net import LOOPBACK_NAMES
from videoqa.settings import MAX_SOURCE_BYTES

__all__ = ["GatewaySettings"]

_ORIGIN = re.compile(
    r"\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?"
)
_MEDIA = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{0,254}/([^/?#,]+/)*|file:///([^/?#,]+/)*")
_BUCKET_PREFIX = re.compile(
    r"s3://[A-Za-z0-9][A-Za-z0-9._-]{0,254}(/[A-Za-z0-9][A-Za-z0-9._=-]*)*/?"
)


def _check_place(value: str | None) -> str | None:
    if value is not None and "://" in value and not _BUCKET_PREFIX.fullmatch(value):
        raise ValueError(
            "expected a folder, or s3://bucket/prefix/ with letters, digits and ._=- between the slashes"
        )
    return value


class GatewaySettings(WebhookSettings):
    """Settings of `videoqa gateway`."""

    gateway_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="address that the gateway listens at; 0.0.0.0 for all of the machine's",
    )
    gateway_port: int = Field(default=8080, ge=0, le=65535, description="its port; 0: a free one")
    gateway_open: bool = Field(
        default=False,
        description="no key is asked for, so whoever reaches the gateway is an administrator; for a laptop, and "
        "refused unless it listens at loopback",
    )
    gateway_max_body_bytes: int = Field(
        default=8_000_000,
        ge=1000,
        description="largest body of a request but an upload; a larger one is refused with body_too_large",
    )
    gateway_cors_origins: str = Field(
        default="",
        description="origins of web pages that may call the gateway, separated by commas; empty: none, *: all",
    )
    gateway_proxies: str = Field(
        default="127.0.0.1",
        description="addresses and networks of the proxies whose X-Forwarded-For, -Proto and -Prefix are believed, "
        "separated by commas",
    )
    gateway_prefix: str = Field(
        default="",
        pattern=r"^((/[A-Za-z0-9._~-]+)+)?$",
        description="path below which a proxy shows the gateway, as /videoqa, whether or not it takes it off; "
        "empty: none, or what a proxy of VIDEOQA_GATEWAY_PROXIES says by X-Forwarded-Prefix",
    )
    gateway_tls_cert: str | None = Field(
        default=None,
        description="file of the certificate chain; unset: plain HTTP, for use behind a proxy",
    )
    gateway_tls_key: str | None = Field(default=None, description="file of the certificate's key")
    gateway_connections: int = Field(
        default=10_000,
        ge=1,
        description="connections of one gateway at a time, fewer if the process may open fewer files; another one "
        "is refused with too_many_connections",
    )
    gateway_streams: int = Field(
        default=5000, ge=1, description="streams of events of one gateway at a time"
    )
    gateway_streams_per_key: int = Field(
        default=2500,
        ge=1,
        description="those of one API key; another one is refused with stream_limit",
    )
    gateway_drain_s: float = Field(
        default=5.0,
        ge=0,
        description="time that requests get to end after SIGTERM; streams end at once, and their clients resume",
    )

    gateway_validate_s: float = Field(
        default=15.0,
        gt=0,
        le=60,
        description="longest time for an estimate of a request's cost; afterwards the answer says that there is none",
    )
    gateway_sample: str | None = Field(
        default=None,
        max_length=2048,
        description="URL of a video that the page /ask offers to readers who have none at hand; workers must be "
        "allowed to read it",
    )
    gateway_files: Annotated[str | None, AfterValidator(_check_place)] = Field(
        default=None,
        description="folder, or s3://bucket/prefix/, of uploaded files, which gateways write and workers read (a "
        "folder must be one of VIDEOQA_FILE_ROOTS there); unset: uploads are refused with files_not_configured",
    )
    gateway_media: str = Field(
        default="",
        description="s3:// and file:// URLs, separated by commas, below which the gateway itself reads the inputs of "
        "jobs, so that whoever sees a job can play them; empty: uploaded files alone can be played",
    )
    gateway_files_bytes: int = Field(
        default=100 << 30, gt=0, description="most bytes of uploaded files of all tenants together"
    )
    gateway_files_tenant_bytes: int = Field(
        default=20 << 30, gt=0, description="most bytes of uploaded files of one tenant"
    )
    gateway_files_ttl_s: int = Field(
        default=30 * 86_400,
        ge=3600,
        description="time after which an uploaded file is deleted, unless the upload's expires_after says less or more",
    )
    max_source_bytes: int = Field(
        default=MAX_SOURCE_BYTES,
        gt=0,
        description="most bytes of one uploaded file; the same variable as the workers', which would not read a "
        "larger one",
    )

    def list_cors_origins(self) -> list[str]:
        """Returns the origins of web pages that may call the gateway."""
        return [one.strip() for one in self.gateway_cors_origins.split(",") if one.strip()]

    def list_media(self) -> tuple[str, ...]:
        """Returns the URLs below which inputs of jobs are passed on."""
        return tuple(one.strip() for one in self.gateway_media.split(",") if one.strip())

    @field_validator("gateway_media")
    @classmethod
    def _check_media(cls, media: str) -> str:
        for one in filter(None, map(str.strip, media.split(","))):
            if not _MEDIA.fullmatch(one):
                raise ValueError(
                    "expected URLs that end in a slash, as s3://videos/,file:///srv/videos/, got "
                    f"{one!r:.100}"
                )
        return media

    @model_validator(mode="after")
    def _check_origins(self) -> Self:
        for origin in self.list_cors_origins():
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"expected VIDEOQA_GATEWAY_CORS_ORIGINS to have origins like https://app.example.org, without a "
                    f"path, or *, got {origin!r:.200}"
                )
            if origin == "*" and self.gateway_open:
                raise ValueError(
                    "expected VIDEOQA_GATEWAY_CORS_ORIGINS to name origins with VIDEOQA_GATEWAY_OPEN, got '*': any web "
                    "page would be an administrator"
                )
        return self

    @field_validator("gateway_proxies")
    @classmethod
    def _check_proxies(cls, proxies: str) -> str:
        """Refuses `*` and names: whoever is believed chooses the address and the scheme of its calls."""
        for one in proxies.split(","):
            try:
                ip_network(one.strip(), strict=False)
            except ValueError as error:
                raise ValueError(
                    f"expected addresses and networks, as 10.0.0.7,192.168.0.0/16, got {one.strip()!r:.100}"
                ) from error
        return proxies

    @model_validator(mode="after")
    def _check_open(self) -> Self:
        if self.gateway_open and self.gateway_host not in LOOPBACK_NAMES:
            raise ValueError(
                f"expected VIDEOQA_GATEWAY_HOST to be one of {', '.join(LOOPBACK_NAMES)} with VIDEOQA_GATEWAY_OPEN, "
                f"got {self.gateway_host!r}: whoever reaches it would be an administrator; make a key with "
                "`videoqa keys create` instead"
            )
        if (self.gateway_tls_cert is None) != (self.gateway_tls_key is None):
            raise ValueError(
                "expected both VIDEOQA_GATEWAY_TLS_CERT and VIDEOQA_GATEWAY_TLS_KEY, or neither"
            )
        return self
