"""Runtime: builds a worker's resident objects in order, and closes them in reverse.

ledger -> reaper (announces "loading") -> parts (engine, which loads the model; sources; decoders; pipeline)
    -> leases -> job slots -> watchdog
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Self

from celery import Celery
from prometheus_client import CollectorRegistry

from videoqa import errors
from videoqa.broker import make_celery, ring
from videoqa.contract import EngineInfo, WorkerInfo, WorkerState
from videoqa.jobs import Ledger, connect
from videoqa.storage import ObjectStore
from videoqa.telemetry.tracing import shut_down_tracing
from videoqa_worker import __version__, log_events
from videoqa_worker.engine import Answering, Stats
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.job.attempts import Attempts
from videoqa_worker.job.claims import Claims
from videoqa_worker.job.leases import LeaseKeeper
from videoqa_worker.job.parts import AnsweringParts, count_sequences
from videoqa_worker.job.progress import ProgressWriter
from videoqa_worker.job.result_object import list_roots
from videoqa_worker.job.sheet import SheetKeeper
from videoqa_worker.job.slots import JobSlots
from videoqa_worker.job.tally import ObserveAttempt
from videoqa_worker.service.announcement import describe_worker, list_queues, name_worker
from videoqa_worker.service.bell_reader import BellReader
from videoqa_worker.service.gpu import GpuReader
from videoqa_worker.service.metrics import (
    AttemptMetrics,
    WorkerReading,
    WorkerStateCollector,
    serve_metrics,
)
from videoqa_worker.service.profile import WorkerProfile
from videoqa_worker.service.rates import EngineRates, RateMeter
from videoqa_worker.service.reaper import Reaper
from videoqa_worker.service.watchdog import Watchdog
from videoqa_worker.settings import WorkerSettings

__all__ = ["Runtime"]

log = logging.getLogger(__name__)

MOST_IDS = 16
"""Most ids of running jobs in an announcement."""


class Runtime:
    """Everything that one worker process holds. A context manager: entering loads the model."""

    def __init__(
        self,
        settings: WorkerSettings,
        on_state: Callable[[str], None] = lambda state: None,
        profile: WorkerProfile | None = None,
    ) -> None:
        """
        Arguments:
            on_state: called with what is going on while the model loads.
            profile: observes the attempts and the engine.
        """
        self._profile = profile
        self._observers: list[ObserveAttempt] = [] if profile is None else [profile]
        self.settings = settings
        self.worker_id = name_worker()
        self.app: Celery = make_celery(settings)
        self.bells = BellReader(list_queues(settings))
        self._on_state = on_state
        self._started_at = datetime.now(UTC)
        self._engine: Answering | None = None
        self._is_draining = False
        self._meter = RateMeter()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self, stack: ExitStack) -> None:
        settings = self.settings
        client = connect(settings)
        stack.callback(client.close)
        stack.callback(self.app.close)
        ledger = Ledger(
            client,
            url=settings.redis_url,
            prefix=settings.prefix,
            wait_replicas=settings.wait_replicas,
        )
        self._reaper = reaper = stack.enter_context(self._make_reaper(ledger))
        self._announce(reaper)
        if settings.metrics_address is not None:  # before the model is loaded, if it is a wrong one
            self._serve_metrics(stack, settings.metrics_address, reaper)
        parts = stack.enter_context(
            AnsweringParts(settings, on_state=self._on_state, watch=self._watch_engine)
        )
        engine, job_slots = parts.engine, parts.job_slots
        self.decoder_count = parts.decoders.count
        self.leases = stack.enter_context(
            LeaseKeeper(ledger, lease_s=settings.lease_s, heartbeat_s=settings.heartbeat_s)
        )
        progress = stack.enter_context(ProgressWriter(ledger, every_s=settings.progress_every_s))
        objects = ObjectStore(
            s3_endpoint_url=settings.s3_endpoint_url,
            file_roots=list_roots(settings.output, settings.output_roots),
        )
        sheets = SheetKeeper(
            ObjectStore(
                s3_endpoint_url=settings.s3_endpoint_url,
                file_roots=list_roots(settings.sheet_output, ()),
            ),
            settings.sheet_output,
            is_default=settings.sheets,
        )
        stack.callback(sheets.close)
        self._attempts = Attempts(
            settings,
            Claims(
                ledger,
                lambda queue: ring(self.app, queue),
                list_queues(settings),
                worker_id=self.worker_id,
                lease_s=settings.lease_s,
                tenant_running=settings.tenant_running,
            ),
            self.leases,
            progress,
            parts.pipeline,
            objects,
            AnswerCache(
                objects,
                model=settings.model,
                revision=engine.revision,
                ttl_s=settings.cache_ttl_s,
                answer_settings=settings.answer_settings,
                prompt_form=engine.prompt_form,
                per_tenant=settings.cache_scope == "tenant",
            ),
            sheets,
            self._observers,
        )
        self.slots = stack.enter_context(
            JobSlots(job_slots, self._attempts.process, self._may_claim)
        )
        self._engine = engine
        stack.callback(self._attempts.close)  # else slots would wait for their jobs to end
        stack.enter_context(self._make_watchdog(engine, reaper))
        self._announce(reaper)

    def _serve_metrics(self, stack: ExitStack, address: str, reaper: Reaper) -> None:
        registry = CollectorRegistry()
        self._observers.append(AttemptMetrics(registry, self.settings.model))

        def read() -> WorkerReading | None:
            engine = self._engine
            if engine is None:
                return None
            return WorkerReading(
                version=__version__,
                model=self.settings.model,
                revision=engine.revision or "",
                slots_busy=len(self.leases.list_held()),
                bells_dropped=self.bells.dropped,
                bells_rerung=reaper.rung,
                engine=engine.stats,
                engine_rows_most=count_sequences(self.settings, engine),
            )

        registry.register(WorkerStateCollector(read, GpuReader()))
        self.metrics_port = stack.enter_context(serve_metrics(address, registry))

    def _watch_engine(self, engine: Answering) -> Answering:
        return engine if self._profile is None else self._profile.watch(engine)

    def _count_slots(self, engine: Answering) -> int:
        return self.settings.count_job_slots(count_sequences(self.settings, engine))

    def _make_watchdog(self, engine: Answering, reaper: Reaper) -> Watchdog:
        def leave(status: int) -> None:
            reaper.close()
            shut_down_tracing()
            logging.shutdown()
            os._exit(status)

        unset_s = 3600.0 if engine.device == "cpu" else 300.0
        return Watchdog(
            engine,
            step_timeout_s=self.settings.step_timeout_s or unset_s,
            break_off=self._attempts.break_off,
            running=lambda: len(self.leases.list_held()),
            leave=leave,
        )

    def _make_reaper(self, ledger: Ledger) -> Reaper:
        return Reaper(
            ledger,
            self.app,
            self.describe,
            every_s=self.settings.reap_every_s,
            grace_s=self.settings.bell_grace_s,
            tenant_running=self.settings.tenant_running,
            wake=self._wake,
        )

    def _wake(self, queue: str) -> bool:
        """Has an idle slot claim from a queue; returns False if there is none, or the queue is not served here."""
        if self._engine is None or queue not in list_queues(self.settings):
            return False
        return self.slots.can_hear and self.slots.wake(queue) is not None

    def _announce(self, reaper: Reaper) -> None:
        try:
            reaper.announce()
        except errors.RedisUnavailable as error:
            log_events.NOT_ANNOUNCED.log(log, error=error)

    def describe(self) -> WorkerInfo:
        """Describes this worker, for `status` and `doctor`."""
        info = describe_worker(self.settings, started_at=self._started_at)
        engine = self._engine
        found: dict[str, object] = {"messages_dropped": self.bells.dropped}
        if engine is not None:
            held = self.leases.list_held()
            state = self._find_state(engine)
            stats = engine.stats
            rates = self._meter.measure(stats, time.monotonic())
            found |= {
                "model_revision": engine.revision,
                "slots": self._count_slots(engine),
                "running": len(held),
                "job_ids": tuple(control.job_id for control in held[:MOST_IDS]),
                "ready": state == "ready",
                "state": state,
                "tokens_s": rates.tokens_s,
                "engine": _info(stats, rates) if engine.device != "server" else None,
                "device": engine.device,
            }
            memory = engine.measure_device()
            if memory is not None:
                found |= {
                    "device_name": memory.name,
                    "device_used_bytes": memory.used_bytes,
                    "device_bytes": memory.total_bytes,
                }
        return info.model_copy(update=found)

    def _find_state(self, engine: Answering) -> WorkerState:
        if self._is_draining:
            return "draining"
        return "ready" if engine.ready else "broken"

    def drain(self, grace_s: float) -> None:
        """Claims nothing more; running jobs may finish within the grace, and then are given back."""
        self._is_draining = True
        self._reaper.announce_soon()
        self.slots.close()
        self._attempts.drain()
        timer = threading.Timer(grace_s, self._attempts.close)
        timer.daemon = True
        timer.start()

    def wait_for_jobs(self) -> None:
        """Waits until no job runs, after `drain`."""
        self.slots.close()
        self.slots.join()

    def _may_claim(self) -> bool:
        is_ready = self._engine is not None and self._engine.ready
        return is_ready and self._attempts.may_claim


def _info(stats: Stats, rates: EngineRates) -> EngineInfo:
    return EngineInfo(
        running=stats.running,
        steps=stats.steps,
        rows=stats.rows,
        prompt_tokens=stats.prompt_tokens,
        shared=stats.shared,
        feature_hits=stats.features.hits,
        feature_misses=stats.features.misses,
        prefix_hits=stats.prefixes.hits + stats.packed,
        prefix_misses=stats.prefixes.misses,
        kept_bytes=stats.features.size_bytes + stats.prefixes.size_bytes,
        batch=rates.batch,
        max_batch=stats.max_batch,
        kv_used=stats.kv_used,
        kv_positions=stats.kv_positions,
    )
