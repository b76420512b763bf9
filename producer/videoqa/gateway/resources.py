"""Resources that all requests of a gateway share: one client, the keys, and the sign that it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool

from videoqa.async_client import AsyncClient
from videoqa.errors import VideoQAError
from videoqa.gateway.access.audit import AuditLog
from videoqa.gateway.access.input_scope import EVERYTHING
from videoqa.gateway.access.key_cache import KeyCache
from videoqa.gateway.access.keys import ApiKey, KeyStore, WrongKey
from videoqa.gateway.access.rate_limits import RateLimits
from videoqa.gateway.access.sessions import SessionStore, WrongLogin
from videoqa.gateway.batches.store import BatchStore
from videoqa.gateway.estimator import Estimator
from videoqa.gateway.files.files import Files
from videoqa.gateway.files.uploads import Uploads
from videoqa.gateway.http.idempotency import CallNotes
from videoqa.gateway.http.open_streams import OpenStreams
from videoqa.gateway.job_media import JobMedia
from videoqa.gateway.metrics.fleet_metrics import FleetMetrics, FleetState
from videoqa.gateway.metrics.own_metrics import OwnMetrics
from videoqa.gateway.openai.chat_calls import ChatCalls
from videoqa.gateway.openai.inline_media import InlineMedia
from videoqa.gateway.outage import GuardedClient, Outage
from videoqa.gateway.settings import GatewaySettings
from videoqa.gateway.snapshots import Snapshots
from videoqa.gateway.webhooks import Deliverer, DeliveryStore, SigningSecrets
from videoqa.jobs import BulkActions, Ledger, LedgerReader, connect, translate_redis_errors
from videoqa.telemetry.metrics.gateway import DEAD_LETTERS

__all__ = ["Resources"]

FAILURE_CODES = DEAD_LETTERS.labels[0].values
MOST_CLIENTS = 10_000
"""Most tenants whose clients are kept; one costs 2 kB."""
P = ParamSpec("P")
T = TypeVar("T")


class Resources:
    """Connections and stores of one gateway, which keeps no state of its own."""

    def __init__(self, settings: GatewaySettings, metrics: OwnMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.fleet_metrics = FleetMetrics(lambda: self.run(self._read_fleet))
        self._clients: dict[str, AsyncClient] = {}
        self._redis = connect(settings)
        place = {"url": settings.redis_url, "prefix": settings.prefix}
        self.outage = Outage(self._ping)
        self.client = GuardedClient(settings=settings.model_copy(update={"url": None}))
        self.client.outage = self.outage
        self.ledger = LedgerReader(self._redis, url=settings.redis_url, prefix=settings.prefix)
        """Reads which events of a job are kept."""
        self.bulk = BulkActions(Ledger(self._redis, url=settings.redis_url, prefix=settings.prefix))
        self.keys = KeyStore(self._redis, **place)
        self.calls = CallNotes(self._redis, **place)
        self.sessions = SessionStore(self._redis, **place)
        self.checked = KeyCache(self.keys, self.sessions)
        self.limits = RateLimits(self._redis, **place)
        self.audit = AuditLog(self._redis, **place)
        self.chats = ChatCalls(self._redis, **place)
        self.deliveries = DeliveryStore(self._redis, **place)
        self.secrets = SigningSecrets(self._redis, **place)
        self.files = Files(self._redis, settings, metrics)
        self.inline_media = InlineMedia(self.files, self._redis, **place)
        self.streams = OpenStreams(
            settings.gateway_streams, of_key=settings.gateway_streams_per_key
        )
        self.deliverer = Deliverer(
            settings,
            self.deliveries,
            self.secrets,
            hide=self.files.urls.hide_bytes,
            on_call=metrics.note_webhook_call,
        )
        self.estimator = Estimator()
        self.media = JobMedia(settings.list_media(), settings.s3_endpoint_url)
        self.batches = BatchStore(self._redis, **place)
        self.uploads = Uploads(self.files, self._redis, **place)
        self.snapshots = Snapshots()
        self._loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()
        """Set when the gateway ends: streams end then, and their clients resume at another one."""
        self.open_key = ApiKey(
            id="open",
            name="open",
            roles=("admin",),
            inputs=EVERYTHING,
            created_at=datetime.now(UTC),
        )
        """The key of all callers of a gateway that asks for none."""

    def find_client(self, tenant: str | None) -> AsyncClient:
        """Returns the client that reaches the jobs of a tenant; None: of all."""
        if tenant is None:
            return self.client
        found = self._clients.get(tenant)
        if found is None:
            if len(self._clients) >= MOST_CLIENTS:
                self._clients.clear()
            found = self._clients[tenant] = self.client.for_tenant(tenant)
        return found

    def start(self) -> None:
        """Starts what goes on beside the requests, until `stop` is set."""
        self.chats.start(self.client)
        self._sweeping = asyncio.create_task(self.files.sweep_until(self.stop))
        self._watching = asyncio.create_task(self.streams.watch(self._is_right, self.stop))
        self.deliverer.start()

    def stop_soon(self) -> None:
        """Sets `stop` from a signal handler or another thread: the loop may be reading the event's waiters now."""
        with suppress(RuntimeError):  # the loop is closed: nothing waits any more
            self._loop.call_soon_threadsafe(self.stop.set)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls what blocks, in a thread."""
        return await run_in_threadpool(self.outage.run, partial(call, *args, **kwargs))

    async def _is_right(self, kind: str, text: str) -> bool:
        """Tells if a key or session is not known to be revoked or over."""
        try:
            await self.run(self.checked.check, kind, text)
        except (WrongKey, WrongLogin):
            return False
        except VideoQAError:  # nobody knows without Redis
            return True
        return True

    def _read_fleet(self) -> FleetState:
        ended, dead = self.ledger.count_ended(FAILURE_CODES)
        return FleetState(
            queues=self.ledger.queues(),
            workers=self.ledger.workers(),
            ended=ended,
            dead=dead,
            deliveries=self.deliveries.count(),
        )

    def read_clock(self) -> float:
        """Returns the UNIX time of Redis."""
        with translate_redis_errors(self.settings.redis_url):
            seconds, microseconds = self._redis.time()
        return seconds + microseconds / 1e6

    def _ping(self) -> None:
        with translate_redis_errors(self.settings.redis_url):
            self._redis.time()

    async def close(self) -> None:
        self.stop.set()
        self.outage.close()
        await self.estimator.close()
        await self.deliverer.close(within_s=self.settings.gateway_drain_s)
        await self._sweeping
        await self._watching
        await self.chats.close()
        await self.client.close()
        await run_in_threadpool(self._redis.close)
