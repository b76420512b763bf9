"""`python -m videoqa_worker`, `videoqa worker`: reads the environment, loads the model, hears bells."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from videoqa.errors import ConfigurationError, RedisUnavailable, VideoQAError
from videoqa.jobs import (
    check_permissions,
    connect,
    find_eviction_policy,
    translate_redis_errors,
)
from videoqa.local_stack import describe_address
from videoqa.printable import printable
from videoqa.settings import unknown_variables
from videoqa.telemetry import log_events as events
from videoqa.telemetry.log_setup import LogFormat, adopt_libraries, configure_logs
from videoqa.telemetry.tracing import configure_tracing, shut_down_tracing
from videoqa_worker import log_events
from videoqa_worker.machine import keep_threads_from_spinning
from videoqa_worker.service.announcement import announce_loading
from videoqa_worker.settings import WorkerSettings

__all__ = ["leave", "main"]

log = logging.getLogger("videoqa_worker")


def main(profile: Path | None = None, profile_jobs: int = 50) -> int:
    """Runs one worker until a signal; returns 0 after a clean shutdown, 2 for a wrong setting.

    Arguments:
        profile: file for a profile of the first `profile_jobs` attempts, after which the worker ends.
    """
    log_format: LogFormat = "console"
    try:
        settings = WorkerSettings.from_environment()
        log_format = configure_logs(
            settings.log_level, settings.log_format, hide_text=settings.hide_text
        )
        configure_tracing("videoqa-worker")
        for mistake in unknown_variables(os.environ, WorkerSettings.table()):
            events.UNKNOWN_VARIABLE.log(log, setting=mistake)
        try:
            return _run(settings, profile, profile_jobs)
        finally:
            shut_down_tracing()
    except VideoQAError as error:
        if log_format == "json":
            events.START_FAILED.log(log, error=error, code=error.code)
        else:
            print(printable(f"videoqa worker: {error} ({error.code})"), file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    except KeyboardInterrupt:
        return 130


def _run(settings: WorkerSettings, profile: Path | None, profile_jobs: int) -> int:
    _check_redis(settings)
    with announce_loading(settings):
        log_events.IMPORTING.log(log)
        keep_threads_from_spinning()
        from videoqa_worker.service.consumer import hear_bells
        from videoqa_worker.service.profile import WorkerProfile, describe_profile
        from videoqa_worker.service.runtime import Runtime

        adopt_libraries()
        profiler = WorkerProfile(profile, profile_jobs) if profile is not None else None
        with Runtime(
            settings,
            on_state=lambda state: log_events.STARTING.log(log, state=state),
            profile=profiler,
        ) as runtime:
            info = runtime.describe()
            log_events.READY.log(
                log,
                name=info.model,
                slots=info.slots,
                decoders=runtime.decoder_count,
                queues=", ".join(info.queues),
            )
            if profiler is None or profile is None:
                return hear_bells(runtime)
            profiler.begin()
            status = hear_bells(runtime)
            print(describe_profile(profiler.write(), profile))
            return status


def _check_redis(settings: WorkerSettings) -> None:
    """Warns at once if Redis is away, may evict keys or refuses something; the worker loads and goes on trying."""
    try:
        with connect(settings) as client, translate_redis_errors(settings.redis_url):
            check_permissions(client, settings, consumes=True)
            policy = find_eviction_policy(client)
    except RedisUnavailable as error:
        log_events.REDIS_AWAY_AT_START.log(log, error=error)
        return
    if policy not in (None, "noeviction"):
        log_events.EVICTION_POLICY.log(
            log, address=describe_address(settings.redis_url), policy=policy
        )


def leave(status: int) -> NoReturn:
    """Ends the process at once: all is closed, and the interpreter's own end takes seconds with torch."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())
