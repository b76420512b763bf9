"""What can be configured on the submitting side: each setting with default, unit and reason.

Objects here never read the environment themselves: entry points call `from_environment`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticUndefined

from videoqa.errors import ConfigurationError

__all__ = ["ENV_PREFIX", "HttpUrl", "Settings"]

ENV_PREFIX = "VIDEOQA_"
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"


def _over_http(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected a URL, such as http://HOST:PORT or https://HOST")
    return url


def _without_password(shown: str) -> str:
    """What may be a URL, as `repr` has it; some lack what stands before the password, too."""
    return re.sub(r"(^.\w[\w+.-]*://|^.).*@", r"\1", shown)


def _spelled(url: str) -> str:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "unix":
        database = query.get("db", "0")
        return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={database}"
    if parts.scheme == "rediss" and "ssl_cert_reqs" not in query:
        # kombu's default is not to look at the certificate at all.
        query["ssl_cert_reqs"] = "required"
        return urlunsplit(parts._replace(query=urlencode(query)))
    return url


HttpUrl = Annotated[str, AfterValidator(_over_http)]


class Settings(BaseModel):
    """Where Redis is and how long to wait for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    redis_url: str = Field(
        default=DEFAULT_REDIS_URL, description="Redis or Valkey of the job records"
    )
    broker_url: str | None = Field(
        default=None, description="Celery broker of the doorbells; unset: the same Redis"
    )
    prefix: str = Field(
        default="videoqa",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="begins every key and queue name, so that several fleets can share one Redis",
    )
    connect_timeout_s: float = Field(
        default=2.0, gt=0, description="a dead Redis is reported within 5 s, retries included"
    )
    socket_timeout_s: float = Field(
        default=4.0,
        gt=2,
        description="a half-open connection is noticed; above the 2 s of blocking reads",
    )
    start_by_default_s: float = Field(
        default=86_400.0, gt=0, description="jobs without start_by expire unstarted after this long"
    )
    max_queued: int = Field(
        default=1_000_000,
        ge=1,
        description="most jobs that may wait for a model in each priority; more are refused "
        "(1.3 GB of Redis, with requests of 300 bytes)",
    )
    inline_result_bytes: int = Field(
        default=100_000,
        ge=0,
        description="larger results stay in object storage, Redis keeps the pointer (p99 of everybody else)",
    )
    s3_endpoint_url: HttpUrl | None = Field(
        default=None,
        description="S3-compatible server; unset: boto3's own chain (AWS_ENDPOINT_URL...)",
    )

    @property
    def broker(self) -> str:
        """Celery's spelling of it, and of each where there are several."""
        return ";".join(map(_spelled, (self.broker_url or self.redis_url).split(";")))

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, **overrides: object
    ) -> Self:
        """Settings from VIDEOQA_* variables; overrides that are not None win.

        Raises:
            ConfigurationError: names the variable, what it held and what is expected.
        """
        environ = os.environ if environ is None else environ
        found: dict[str, object] = {
            name: environ[ENV_PREFIX + name.upper()]
            for name in cls.model_fields
            if environ.get(ENV_PREFIX + name.upper(), "") != ""
        }
        found |= {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            why = first["msg"].removeprefix("Value error, ")
            got = _without_password(repr(first["input"]))
            raise ConfigurationError(
                f"{ENV_PREFIX}{name.upper()}={got}: {why}", param=name
            ) from error

    @classmethod
    def table(cls) -> list[tuple[str, str, str]]:
        """(variable, default, reason) of every setting, for the docs and `doctor`."""
        return [
            (
                ENV_PREFIX + name.upper(),
                "" if field.default in (None, PydanticUndefined) else str(field.default),
                field.description or "",
            )
            for name, field in cls.model_fields.items()
        ]
