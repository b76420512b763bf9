"""Settings: each one is defined once, with its default, its unit and its reason.

A setting is a field of a `Config`; its variable is `VIDEOQA_` and the field's alias or name. A
`Config` may hold others, each for one part of the program: `from_environment` reads them all, and
only entry points call it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from videoqa.errors import ConfigurationError
from videoqa.redaction import redact_url
from videoqa.redis_url import parse_sentinels, speaks_redis, spell_for_celery

__all__ = [
    "DEFAULT_REDIS_URL",
    "ENV_PREFIX",
    "GATEWAY_PREFIXES",
    "MAX_SOURCE_BYTES",
    "OTHER_VARIABLES",
    "Config",
    "HttpUrl",
    "Settings",
    "Variable",
    "check_server_url",
    "unknown_variables",
]

ENV_PREFIX = "VIDEOQA_"
MAX_SOURCE_BYTES = 4 << 30
"""Default of the largest input, in workers and gateways. An hour of 1080p has about 4 GB; times the slots of a worker
this fills a disk."""
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
_PLACEHOLDERS = ("change-me", "changeme")
"""Passwords of examples, in lower case, which a server that is reachable must not have."""


OTHER_VARIABLES = ("VIDEOQA_HOME", "VIDEOQA_REDIS_SERVER")
"""Variables that only `videoqa up` and the commands beside it read, to find their own files."""
GATEWAY_PREFIXES = ("VIDEOQA_GATEWAY_", "VIDEOQA_WEBHOOK_")
"""Beginnings of the variables of `GatewaySettings`, which this layer does not import; the gateway checks them."""


class Variable(NamedTuple):
    """A setting as a row of the reference: its variable, default and reason."""

    name: str
    default: str
    reason: str


def _require_http(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected a URL, such as http://HOST:PORT or https://HOST")
    return url


def check_server_url(url: str | None) -> str | None:
    """Checks ports and passwords of a server's URL, or of several brokers'.

    Raises:
        ValueError: it is a Cluster's, a port is not a number, or a password is that of an example.
    """
    for one in url.split(";") if url else ():
        if "cluster" in one.partition("://")[0]:
            raise ValueError(
                "expected a Redis without cluster mode, as redis://HOST:PORT/0: a Cluster would spread the "
                "keys of one job over several servers"
            )
        group = parse_sentinels(one)
        try:
            parts = urlsplit(one)
            _ = group or parts.port
        except ValueError:  # whose message may quote a password
            raise ValueError(
                "expected HOST:PORT with a number; in a password write / as %2F, # as %23, ? as %3F "
                "and @ as %40"
            ) from None
        if parts.password is not None and parts.password.lower() in _PLACEHOLDERS:
            raise ValueError(
                "expected a password of your own instead of the example's; `openssl rand -hex 24` "
                "makes one"
            )
    return url


def _upper(level: Any) -> Any:
    return level.upper() if isinstance(level, str) else level


HttpUrl = Annotated[str, AfterValidator(_require_http)]


class Config(BaseModel):
    """Settings of one part of the program, frozen and checked.

    A wrong value raises `ConfigurationError` with the variable, what it held and what is expected.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else cls.__name__
            why = first["msg"].removeprefix("Value error, ")
            got = first["input"]
            shown = repr(redact_url(got) if isinstance(got, str) else got)
            raise ConfigurationError(
                f"{ENV_PREFIX}{name.upper()}={shown:.200}: {why}", param=name
            ) from error

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, **overrides: object
    ) -> Self:
        """Reads VIDEOQA_* variables; overrides, by the variable's lower-case rest, win unless None.

        Raises:
            ConfigurationError: names the variable, what it held and what is expected.
        """
        environ = os.environ if environ is None else environ
        found: dict[str, Any] = {}
        paths = [path for path, _ in cls._walk()]
        if wrong := overrides.keys() - {path[-1] for path in paths}:
            raise TypeError(f"got {', '.join(sorted(wrong))}, expected names of settings")
        for path in paths:
            name = path[-1]
            value = overrides.get(name)
            value = environ.get(ENV_PREFIX + name.upper()) or None if value is None else value
            if value is not None:
                part = found
                for step in path[:-1]:
                    part = part.setdefault(step, {})
                part[name] = value
        return cls.model_validate(found)

    @classmethod
    def _walk(cls) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
        """Yields every setting with the way to it: the fields that lead there, its own alias or name."""
        for name, field in cls.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
                yield from (((name, *rest), found) for rest, found in field.annotation._walk())
            else:
                yield (field.alias or name,), field

    @classmethod
    def table(cls) -> list[Variable]:
        """Lists every setting, for the reference and `doctor`."""
        return [
            Variable(
                ENV_PREFIX + path[-1].upper(),
                "" if field.default in (None, PydanticUndefined) else str(field.default),
                field.description or "",
            )
            for path, field in cls._walk()
        ]


def unknown_variables(
    environ: Mapping[str, str], known: Iterable[Variable], *, similar_only: bool = False
) -> list[str]:
    """Lists the VIDEOQA_* variables that no setting reads, each with the nearest known name.

    Arguments:
        similar_only: leave out those that resemble no known name; where the worker's settings are
            not installed, they may be its own.
    """
    known = list(known)
    checks_gateway = any(row.name.startswith(GATEWAY_PREFIXES) for row in known)
    names = [
        name.removeprefix(ENV_PREFIX) for name in (*(row.name for row in known), *OTHER_VARIABLES)
    ]
    found = []
    for name in sorted(environ):
        rest = name.removeprefix(ENV_PREFIX)
        if name.startswith(GATEWAY_PREFIXES) and not checks_gateway:
            continue
        if name.startswith(ENV_PREFIX) and rest not in names:
            nearest = difflib.get_close_matches(rest, names, 1, cutoff=0.75)
            if nearest:
                found.append(f"{name} is not a setting; did you mean {ENV_PREFIX}{nearest[0]}?")
            elif not similar_only:
                found.append(f"{name} is not a setting; unset it, or look it up in the reference")
    return found


class Settings(Config):
    """Settings of both sides: Redis, how long to wait for it, and the defaults of jobs."""

    url: HttpUrl | None = Field(
        default=None,
        description="gateway that a client or a command asks in place of Redis, such as https://videoqa.example.com; "
        "workers and gateways do not read it",
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="API key for that gateway; unset: that of `videoqa login`, if it is for it",
    )
    redis_url: Annotated[str, AfterValidator(check_server_url)] = Field(
        default=DEFAULT_REDIS_URL, description="Redis or Valkey of the job records"
    )
    redis_read_url: Annotated[str | None, AfterValidator(check_server_url)] = Field(
        default=None,
        description="a replica of that Redis, from which clients read jobs, lists, queues and workers; what it lacks "
        "is looked up at the primary; with redis+sentinel:// a replica that the Sentinels know; unset: the primary",
    )
    broker_url: Annotated[str | None, AfterValidator(check_server_url)] = Field(
        default=None, description="Celery broker of the queue messages; unset: the same Redis"
    )
    wait_replicas: int = Field(
        default=0,
        ge=0,
        le=16,
        description="replicas of Redis that must have acknowledged a submit, cancel, retry, purge or pause before the "
        "call returns; with fewer it fails with not_replicated after 1.5 s; 0: a failover may lose the last moment",
    )
    prefix: str = Field(
        default="videoqa",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="prefix of every key and queue name, so that several fleets can share one Redis",
    )
    tenant: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="the only tenant whose jobs a client submits and sees; unset: an operator's client, which sees "
        "all; workers serve all tenants either way",
    )
    connect_timeout_s: float = Field(
        default=2.0,
        gt=0,
        description="time-out of a connection; a dead Redis is reported within 5 s, retries included",
    )
    socket_timeout_s: float = Field(
        default=4.0,
        gt=2,
        description="time-out of a reply, by which a half-open connection is noticed; above the 2 s of blocking reads",
    )
    start_by_default_s: float = Field(
        default=86_400.0,
        gt=0,
        description="a job without start_by expires if no worker has started it after this time",
    )
    max_queued: int = Field(
        default=1_000_000,
        ge=1,
        description="most jobs that wait for a model in each priority; further submits fail with queue_full "
        "(1.3 GB of Redis, with requests of 300 bytes)",
    )
    inline_result_bytes: int = Field(
        default=100_000,
        ge=0,
        description="a larger result is kept in object storage only, and its URL in Redis",
    )
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)
    ] = Field(
        default="INFO",
        description="level of the log lines of workers and gateways; those of libraries begin at WARNING",
    )
    log_format: Literal["console", "json"] | None = Field(
        default=None,
        description="console: lines for people; json: an object a line; unset: console on a terminal, else json",
    )
    hide_text: bool = Field(
        default=False,
        description="questions and answers stand in no log line, no span and no page of the gateway",
    )
    trace_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^{}]*\{trace_id\}[^{}]*$",
        description="URL of a trace in your viewer, with {trace_id}, as http://jaeger:16686/trace/{trace_id}; pages of "
        "jobs link there",
    )
    s3_endpoint_url: HttpUrl | None = Field(
        default=None,
        description="S3-compatible server; unset: boto3's own chain (AWS_ENDPOINT_URL...)",
    )

    sheet_output: str = Field(
        default_factory=lambda: (
            (Path.home() / ".local/share/videoqa/sheets").as_uri() + "/{date}/{job_id}.jpg"
        ),
        pattern=r"^(s3|file)://[^{}]+(\{date\}[^{}]*)?\{job_id\}[^{}/]*$",
        description="URL template of the sheets with thumbnails, file:// or s3://, with {job_id} and perhaps {date}: "
        "workers write there, and clients and gateways read nowhere else",
    )

    @property
    def broker(self) -> str:
        """The broker's URL as Celery spells it; of each broker where there are several.

        Raises ValueError for an option that is wrong.
        """
        return ";".join(spell_for_celery(url) if speaks_redis(url) else url for url in self.brokers)

    @property
    def brokers(self) -> list[str]:
        """The broker's URL as it was given; several where Celery is to fail over between them."""
        return (self.broker_url or self.redis_url).split(";")
