"""`python -m videoqa_worker`, `videoqa worker`: reads the environment, loads the model, hears bells."""

from __future__ import annotations

import logging
import os
import sys
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
from videoqa_worker.service.announcement import announce_loading
from videoqa_worker.service.logs import configure
from videoqa_worker.settings import WorkerSettings

__all__ = ["leave", "main"]

log = logging.getLogger("videoqa_worker")


def main() -> int:
    """Runs one worker until a signal; returns 0 after a clean shutdown, 2 for a wrong setting."""
    try:
        settings = WorkerSettings.from_environment()
        configure(settings.log_level)
        for mistake in unknown_variables(os.environ, WorkerSettings.table()):
            log.warning("%s", mistake)
        return _run(settings)
    except VideoQAError as error:
        print(printable(f"videoqa worker: {error} ({error.code})"), file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    except KeyboardInterrupt:
        return 130


def _run(settings: WorkerSettings) -> int:
    _check_redis(settings)
    with announce_loading(settings):
        log.info("importing torch and transformers")
        from videoqa_worker.service.consumer import hear_bells
        from videoqa_worker.service.runtime import Runtime

        with Runtime(settings, on_state=lambda state: log.info("%s", state)) as runtime:
            info = runtime.describe()
            log.info(
                "ready: %s, %d slots, queues %s", info.model, info.slots, ", ".join(info.queues)
            )
            return hear_bells(runtime)


def _check_redis(settings: WorkerSettings) -> None:
    """Warns at once if Redis is away, may evict keys or refuses something; the worker loads and goes on trying."""
    try:
        with connect(settings) as client, translate_redis_errors(settings.redis_url):
            check_permissions(client, settings, consumes=True)
            policy = find_eviction_policy(client)
    except RedisUnavailable as error:
        log.warning("%s; this worker keeps trying", error)
        return
    if policy not in (None, "noeviction"):
        log.warning(
            "%s has maxmemory-policy %s, expected noeviction: once it is full it drops jobs silently; "
            "set `maxmemory-policy noeviction`",
            describe_address(settings.redis_url),
            policy,
        )


def leave(status: int) -> NoReturn:
    """Ends the process at once: all is closed, and the interpreter's own end takes seconds with torch."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())
