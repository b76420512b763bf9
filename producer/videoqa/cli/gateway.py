"""`videoqa gateway` and `videoqa keys`: HTTP before the fleet, and who may use it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videoqa.cli.arguments import drop_unset, parse_instant
from videoqa.cli.help import App
from videoqa.cli.options import JsonFlag, WideFlag
from videoqa.cli.output import print_note
from videoqa.cli.tables import Column, format_age, print_rows
from videoqa.contract import parse_webhook
from videoqa.errors import ConfigurationError
from videoqa.local_stack import find_stack
from videoqa.login import find_redis_settings
from videoqa.printable import printable
from videoqa.settings import unknown_variables
from videoqa.telemetry import log_events

if TYPE_CHECKING:
    import redis

    from videoqa.gateway.access.keys import ApiKey, KeyStore, NewKey

__all__ = ["add_gateway_commands", "open_redis", "require_extra"]

log = logging.getLogger(__name__)

keys = App(help="Make, list, rotate and revoke the gateway's API keys.", no_args_is_help=True)

KeyId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the key, as printed by `keys list`.")
]


def add_gateway_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the app."""
    app.command()(gateway)
    app.add_typer(keys, name="keys")


@contextmanager
def require_extra() -> Iterator[None]:
    """Explains how to install the extra `gateway` if the block lacks a module."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "videoqa":
            raise
        raise ConfigurationError(
            f"the gateway needs {error.name}; install it in your clone: pip install './producer[gateway]'"
        ) from error


def gateway(
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen at [127.0.0.1].")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Port to listen at; 0: a free one [8080].")
    ] = None,
) -> None:
    """Serve HTTP before the fleet, until a signal."""
    with require_extra():
        from videoqa.gateway import GatewayServer, GatewaySettings
        from videoqa.telemetry.log_setup import configure_logs
        from videoqa.telemetry.tracing import configure_tracing, shut_down_tracing
    found = find_redis_settings("gateway")
    overrides: dict[str, Any] = {
        "redis_url": found.redis_url,
        "prefix": found.prefix,
        "broker_url": found.broker_url,
        "sheet_output": found.sheet_output,
    }
    settings = GatewaySettings.from_environment(gateway_host=host, gateway_port=port, **overrides)
    configure_logs(settings.log_level, settings.log_format, hide_text=settings.hide_text)
    for mistake in unknown_variables(os.environ, GatewaySettings.table(), similar_only=True):
        log_events.UNKNOWN_VARIABLE.log(log, setting=mistake)
    configure_tracing("videoqa-gateway")
    try:
        GatewayServer(settings).run_until_signal()
    finally:
        shut_down_tracing()


@contextmanager
def open_redis(command: str) -> Iterator[tuple[redis.Redis, dict[str, str], str | None]]:
    """Yields a client of Redis, the URL and prefix for the stores of a gateway, and the tenant of the settings."""
    from videoqa.jobs import connect

    settings = find_redis_settings(command)
    with closing(connect(settings)) as client:
        yield client, {"url": settings.redis_url, "prefix": settings.prefix}, settings.tenant


@contextmanager
def _open_store() -> Iterator[KeyStore]:
    with require_extra():
        from videoqa.gateway.access.keys import KeyStore
    with open_redis("keys") as (client, place, _):
        yield KeyStore(client, **place)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Your word for it, as `web app`.")],
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            metavar="submit|read|operate|admin",
            help="What it may do; several are possible [submit, read].",
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="The only tenant that it reaches.")
    ] = None,
    may_read: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="URL",
            help="What its jobs may read, as s3://bucket/prefix/, https://host/, or https:// for all hosts; several "
            "are possible [http://, https://].",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where its jobs' results go, as s3://bucket/prefix/; {job_id} and {date} are filled in.",
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="N/s", help="Most requests in a second, minute (m), hour or day."),
    ] = None,
    jobs_per_day: Annotated[
        int | None, typer.Option(metavar="N", help="Most jobs submitted in a day (UTC).")
    ] = None,
    open_jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Most jobs of its tenant that are queued or running at a time."
        ),
    ] = None,
    frames_per_day: Annotated[
        int | None,
        typer.Option(metavar="N", help="Frames of jobs in a day, after which it submits no more."),
    ] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(metavar="N", help="The same for input and output tokens.")
    ] = None,
    max_file_bytes: Annotated[
        int | None, typer.Option(metavar="N", help="Largest file that it may upload.")
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="URL that is called when one of its jobs ends."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End of its life: 30d from now, or a date; unset: none."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key, and print it once."""
    with _open_store() as store:
        made = store.create(
            name,
            role or ["submit", "read"],
            **drop_unset(
                tenant=tenant,
                inputs=may_read or None,
                output=output,
                rate=rate,
                jobs_per_day=jobs_per_day,
                open_jobs=open_jobs,
                frames_per_day=frames_per_day,
                tokens_per_day=tokens_per_day,
                max_file_bytes=max_file_bytes,
                webhook=None if webhook is None else parse_webhook(webhook),
                expires_at=parse_instant("--expires", expires, from_now=1),
            ),
        )
    _print_new(made, as_json=as_json)


def _print_new(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(made.key.model_dump(mode="json") | {"text": made.text}))
        return
    typer.echo(made.text)
    print_note(
        f"this is the only time that key {made.key.id} is shown; keep it where only its user reads"
    )


@keys.command(name="list")
def list_keys(as_json: JsonFlag = False, wide: WideFlag = False) -> None:
    """List all keys, without their secrets, with their last use."""
    with _open_store() as store:
        found = store.list()
    columns: list[Column[ApiKey]] = [
        Column("KEY", lambda key: key.id),
        Column("ROLES", lambda key: ",".join(key.roles)),
        Column("TENANT", lambda key: key.tenant or "(all)", cut="end"),
        Column("USED", lambda key: f"{format_age(key.used_at)} ago" if key.used_at else "never"),
        Column("EXPIRES", _describe_end),
        Column("NAME", lambda key: key.name, cut="end"),
        Column("LIMITS", _describe_limits, is_wide=True),
        Column("INPUTS", lambda key: " ".join(key.inputs), is_wide=True),
        Column("OUTPUT", lambda key: key.output or "", is_wide=True),
    ]
    if not print_rows(columns, found, as_json, wide) and not as_json:
        print_note("there is no key; make one: videoqa keys create NAME")


def _describe_end(key: ApiKey) -> str:
    return key.expires_at.isoformat(timespec="minutes") if key.expires_at else "never"


def _describe_limits(key: ApiKey) -> str:
    names = (
        "rate",
        "jobs_per_day",
        "open_jobs",
        "frames_per_day",
        "tokens_per_day",
        "max_file_bytes",
    )
    limits = ((name, getattr(key, name)) for name in names)
    return " ".join(f"{name}={most}" for name, most in limits if most is not None)


@keys.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time for which the old secret is valid as well, as 24h, up to 30d [none].",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Give a key a new secret, and print it once; the old one is refused from now on, or after --overlap."""
    until = parse_instant("--overlap", overlap, from_now=1)
    overlap_s = max(0.0, (until - datetime.now(UTC)).total_seconds()) if until else 0.0
    with _open_store() as store:
        made = store.rotate(key_id, overlap_s=overlap_s)
    _print_new(made, as_json=as_json)


@keys.command()
def link(
    key_id: KeyId,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of the gateway [that of `videoqa up`]."),
    ] = None,
) -> None:
    """Print a link that logs a browser in with this key, once and within 15 minutes."""
    with require_extra():
        from videoqa.gateway.access.keys import KeyStore
        from videoqa.gateway.access.sessions import SessionStore
    with open_redis("keys") as (client, place, _):
        key = KeyStore(client, **place).get(key_id)
        token = SessionStore(client, **place).make_login(key.id)
    stack = find_stack()
    found = url or (stack and stack.gateway_url) or "http://127.0.0.1:8080"
    typer.echo(f"{found.rstrip('/')}/login?token={token}")


@keys.command()
def revoke(key_id: KeyId) -> None:
    """Delete a key; it is refused from the next request on."""
    with _open_store() as store:
        store.revoke(key_id)
    print_note(f"key {key_id} is revoked")


@keys.command()
def audit(
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="Most entries.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """List what operators and administrators changed, newest first."""
    with require_extra():
        from videoqa.gateway.access.audit import AuditLog
    with open_redis("keys") as (client, place, _):
        found = AuditLog(client, **place).read(limit)
    for entry in found:
        if as_json:
            typer.echo(entry.model_dump_json())
            continue
        parts = (
            entry.at.isoformat(timespec="seconds"),
            entry.who,
            entry.what,
            entry.on,
            entry.detail,
        )
        typer.echo(printable("  ".join(part for part in parts if part)))
    if not found and not as_json:
        print_note("no change was asked for yet")
