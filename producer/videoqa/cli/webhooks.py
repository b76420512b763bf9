"""`videoqa webhooks`: calls of URLs when jobs ended, and the secret that signs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from videoqa.cli.gateway import open_redis, require_extra
from videoqa.cli.help import App
from videoqa.cli.options import JsonFlag
from videoqa.cli.output import print_note
from videoqa.errors import InvalidRequest
from videoqa.login import name_shell_user
from videoqa.printable import printable

if TYPE_CHECKING:
    import redis

    from videoqa.gateway.webhooks import Delivery

__all__ = ["webhooks"]

webhooks = App(
    help="List, replay and sign the calls of your URLs when jobs end.", no_args_is_help=True
)

Tenant = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only this tenant's [those of all, or of none].")
]


def _note(client: redis.Redis, place: dict[str, str], change: str, *, on: str) -> None:
    """Writes a change into the audit log, before it is made."""
    from videoqa.gateway.access.audit import AuditLog, make_fields

    log = AuditLog(client, **place)
    log.write(make_fields(name_shell_user(), change, on=on))


@webhooks.command(name="list")
def list_deliveries(
    status: Annotated[
        str | None,
        typer.Option(metavar="pending|delivered|failed", help="Only those in this status."),
    ] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this job.")] = None,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most deliveries.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """List the webhooks of jobs that have ended, newest first."""
    with require_extra():
        from videoqa.gateway.webhooks import DeliveryStore
    if status not in (None, "pending", "delivered", "failed"):
        raise InvalidRequest(
            f"got --status {status!r:.50}, expected pending, delivered or failed", param="status"
        )
    found, cursor = 0, None
    with open_redis("webhooks") as (client, place, own):
        store = DeliveryStore(client, **place)
        while found < limit:
            page = store.find(
                own or tenant,
                status=cast(Any, status),
                job_id=job,
                cursor=cursor,
                limit=min(limit - found, 1000),
            )
            for delivery in page.deliveries:
                typer.echo(delivery.model_dump_json() if as_json else _describe(delivery))
            found += len(page.deliveries)
            cursor = page.next_cursor
            if cursor is None:
                break
    if not found and not as_json:
        print_note("no webhook is kept; delivered ones are for a day, others for 14 days")


def _describe(delivery: Delivery) -> str:
    last = delivery.log[-1] if delivery.log else None
    became = "" if last is None else last.error or f"HTTP {last.status} in {last.ms} ms"
    attempts = f"{delivery.attempts} attempt{'s' if delivery.attempts != 1 else ''}"
    parts = (delivery.id, delivery.status, delivery.event, delivery.url, attempts, became)
    return printable("  ".join(part for part in parts if part))


@webhooks.command()
def replay(
    delivery_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the delivery, as printed by `webhooks list`.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Send a webhook again, under the same id; a running gateway does it."""
    with require_extra():
        from videoqa.gateway.webhooks import DeliveryStore
    with open_redis("webhooks") as (client, place, own):
        store = DeliveryStore(client, **place)
        _note(client, place, "webhooks replay", on=delivery_id)
        delivery = store.replay(delivery_id, own)
    if as_json:
        typer.echo(delivery.model_dump_json())
    else:
        print_note(f"{delivery_id} is due again; `videoqa webhooks list` shows how it ends")


@webhooks.command()
def secret(
    tenant: Tenant = None,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new one; the old one signs for a day more.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print the secret that signs a tenant's webhooks; it is made when it is first asked for."""
    with require_extra():
        from videoqa.gateway.webhooks import SigningSecrets
    with open_redis("webhooks") as (client, place, own):
        secrets = SigningSecrets(client, **place)
        if rotate:
            _note(client, place, "webhooks secret --rotate", on=own or tenant or "")
        found = (secrets.rotate if rotate else secrets.get)(own or tenant)
    until = None if found.previous_until is None else found.previous_until.isoformat()
    if as_json:
        typer.echo(
            json.dumps(
                {"secret": found.current, "previous": found.previous, "previous_until": until}
            )
        )
        return
    typer.echo(found.current)
    if until is not None:
        print_note(f"the secret before it signs as well until {until}")
