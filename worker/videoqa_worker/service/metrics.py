"""Metrics of a worker, served at an address of its own by prometheus-client's server.

Attempts are counted once each, when they are over, on their own thread. All else is read when it is scraped: from the
engine's counters, which its thread keeps anyway. Decoding processes count nothing themselves: frames and bytes pass
through their parent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from videoqa.errors import ConfigurationError
from videoqa.telemetry.metrics import worker as declared
from videoqa.telemetry.metrics.instruments import Instruments, Samples, make_family
from videoqa_worker import log_events
from videoqa_worker.engine import Stats
from videoqa_worker.job.tally import AttemptTally
from videoqa_worker.service.gpu import GpuReader

__all__ = ["AttemptMetrics", "WorkerReading", "WorkerStateCollector", "serve_metrics"]

log = logging.getLogger(__name__)


class AttemptMetrics:
    """Counts the attempts of one worker. Thread-safe."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._model = model
        make = Instruments(registry, model=model)
        self._attempts = make.make_counter(declared.ATTEMPTS)
        self._failures = make.make_counter(declared.FAILURES)
        self._leases_lost = make.make_counter(declared.LEASES_LOST)()
        self._waits = make.make_histogram(declared.JOB_WAIT_SECONDS)
        self._seconds = make.make_histogram(declared.ATTEMPT_SECONDS)(model)
        self._stages = make.make_histogram(declared.STAGE_SECONDS)
        self._first_token = make.make_histogram(declared.FIRST_TOKEN_SECONDS)(model)
        self._token = make.make_histogram(declared.OUTPUT_TOKEN_SECONDS)(model)
        self._tokens = make.make_counter(declared.TOKENS)
        self._prompts = make.make_histogram(declared.PROMPT_TOKENS)(model)
        self._outputs = make.make_histogram(declared.OUTPUT_TOKENS)(model)
        self._frames = make.make_counter(declared.FRAMES)
        self._bytes = make.make_counter(declared.SOURCE_BYTES)
        self._requests = make.make_counter(declared.SOURCE_REQUESTS)
        self._caches = make.make_counter(declared.CACHE_REQUESTS)

    def __call__(self, tally: AttemptTally) -> None:
        """Counts an attempt that is over."""
        self._attempts(self._model, tally.outcome).inc()
        if tally.code is not None:
            self._failures(tally.code).inc()
        if tally.outcome == "lost":
            self._leases_lost.inc()
        self._waits(tally.priority).observe(tally.queued_s)
        self._seconds.observe(tally.total_s)
        for stage, seconds in tally.seconds.items():
            self._stages(stage).observe(max(0.0, seconds))
        self._count_answers(tally)
        self._frames("true").inc(tally.frames_exact)
        self._frames("false").inc(tally.frames_near)
        for scheme, copy in tally.copies:
            self._bytes(scheme).inc(copy.fetched_bytes)
            self._requests(scheme).inc(copy.requests)
        if tally.cache is not None:
            self._caches(tally.cache).inc()

    def _count_answers(self, tally: AttemptTally) -> None:
        for answer in tally.answers:
            self._first_token.observe(answer.first_token_s)
            if answer.token_s is not None:
                self._token.observe(answer.token_s)
            self._tokens(self._model, "input").inc(answer.input_tokens)
            self._tokens(self._model, "output").inc(answer.output_tokens)
            self._prompts.observe(answer.input_tokens)
            self._outputs.observe(answer.output_tokens)


@dataclass(frozen=True)
class WorkerReading:
    """State of a worker at the time of a scrape."""

    version: str
    model: str
    revision: str
    slots_busy: int
    bells_dropped: int
    bells_rerung: int
    engine: Stats
    engine_rows_most: int


class WorkerStateCollector(Collector):
    """Reads the state of a worker when it is scraped."""

    def __init__(self, read: Callable[[], WorkerReading | None], gpus: GpuReader) -> None:
        self._read = read
        self._gpus = gpus

    def collect(self) -> Iterator[Family]:
        """Yields the metrics; none while the model loads."""
        state = self._read()
        if state is None:
            return
        stats = state.engine
        info: Samples = {(state.version, state.model, state.revision): 1}
        yield make_family(declared.BUILD_INFO, info)
        caches: Samples = {
            ("features", "hit"): stats.features.hits,
            ("features", "miss"): stats.features.misses,
            ("prefixes", "hit"): stats.prefixes.hits + stats.packed,
            ("prefixes", "miss"): stats.prefixes.misses,
        }
        yield make_family(declared.ENGINE_CACHE_REQUESTS, caches)
        values = (
            (declared.SLOTS_BUSY, state.slots_busy),
            (declared.BELLS_DROPPED, state.bells_dropped),
            (declared.BELLS_RERUNG, state.bells_rerung),
            (declared.ENGINE_STEPS, stats.steps),
            (declared.ENGINE_ROWS, stats.rows),
            (declared.ENGINE_ROWS_RUNNING, stats.running),
            (declared.ENGINE_ROWS_MOST, state.engine_rows_most),
            (declared.ENGINE_SHARED, stats.shared),
            (declared.ENGINE_PROMPT_TOKENS, stats.prompt_tokens),
            (declared.KV_TOKENS, stats.kv_positions or 0),
            (declared.KV_TOKENS_USED, stats.kv_used or 0),
            (declared.ENGINE_PREEMPTIONS, stats.preempted),
            (declared.OUT_OF_MEMORY, stats.out_of_memory),
        )
        for metric, value in values:
            samples: Samples = {(): value}
            yield make_family(metric, samples)
        for metric, of_gpus in self._gpus.read():
            yield make_family(metric, of_gpus)


@contextmanager
def serve_metrics(address: str, registry: CollectorRegistry) -> Iterator[int]:
    """Serves the metrics until the block ends; yields the port.

    Raises:
        ConfigurationError: the address cannot be listened at.
    """
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise ConfigurationError(
            f"VIDEOQA_METRICS_ADDRESS={address}: it cannot be listened at: {error.strerror or error}; choose another "
            "port, each worker of a machine needs its own",
            param="metrics_address",
        ) from error
    log_events.METRICS_SERVED.log(log, address=f"{host}:{server.server_port}")
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
