"""Estimator: `python -P -m videoqa_worker.cli.dry_run`, a process of a gateway that probes inputs.

It writes a line when it is ready, then reads a request a line and writes an answer a line, in the order in which they
are ready; a line `{"cancel": ID}` ends a request whose caller has left. It may read what a worker with this environment
may: no file and no private address, unless the settings allow them. It ends with its input, so no gateway leaves one
behind.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from videoqa.contract import Input, JobRequest, redact_url
from videoqa.errors import SamplingError, SourceError
from videoqa.telemetry.log_setup import configure_logs
from videoqa_worker import log_events
from videoqa_worker.cli.dry_run.preview import Preview, TooLarge
from videoqa_worker.cli.dry_run.probe import HeaderProbe, InputFacts, open_probe
from videoqa_worker.settings import WorkerSettings

__all__ = ["THREADS", "TimeOver", "estimate", "main"]

log = logging.getLogger(__name__)

THREADS = 4
"""Requests that are looked at at a time."""


class TimeOver(Exception):
    """Raised when a request has had its time."""


def main() -> None:
    """Answers until the end of standard input."""
    lines, out = sys.stdin, sys.stdout
    sys.stdout = sys.stderr  # nothing that a library prints gets between the answers
    lock = threading.Lock()
    settings = WorkerSettings.from_environment(os.environ)
    configure_logs("WARNING", settings.log_format, hide_text=settings.hide_text)
    with open_probe(settings) as probe, ThreadPoolExecutor(THREADS) as pool:
        probe.load()
        _write({"id": 0}, out, lock)
        wanted: set[int] = set()
        for line in lines:
            asked = json.loads(line)
            if "cancel" in asked:
                wanted.discard(asked["cancel"])
            else:
                wanted.add(asked["id"])
                pool.submit(_answer, probe, asked, wanted, out, lock)


def _answer(
    probe: HeaderProbe, asked: dict[str, Any], wanted: set[int], out: IO[str], lock: threading.Lock
) -> None:
    until_s = time.monotonic() + asked["timeout_s"]

    def check() -> None:
        if time.monotonic() > until_s or asked["id"] not in wanted:
            raise TimeOver

    try:
        request = JobRequest.model_validate(asked["request"])
        found = estimate(probe, request, check, Preview() if asked["preview"] else None)
    except TimeOver:
        found = {"reason": "too_slow"}
    except TooLarge:
        found = {"reason": "too_large"}
    except Exception:  # noqa: BLE001 - it is logged
        log_events.ESTIMATE_FAILED.log(log, exc_info=True)
        found = {"reason": "probe_failed"}
    wanted.discard(asked["id"])
    _write({"id": asked["id"], **found}, out, lock)


def _write(answer: dict[str, Any], out: IO[str], lock: threading.Lock) -> None:
    with lock:
        out.write(json.dumps(answer) + "\n")
        out.flush()


def estimate(
    probe: HeaderProbe,
    request: JobRequest,
    check: Callable[[], None],
    preview: Preview | None = None,
) -> dict[str, Any]:
    """Returns the answer about a request, with its frames if there is a preview.

    Arguments:
        check: called all the time; raises TimeOver when it is to end.
    """
    found = list(probe.inspect_each(request, check, preview))
    check()
    facts = [one for one in found if isinstance(one, InputFacts)]
    is_known = len(facts) == len(found) and all(one.seconds is not None for one in facts)
    return {
        "inputs": [
            {"kind": item.kind, "url": redact_url(item.url), **_describe(item, one)}
            for item, one in zip(request.inputs, found, strict=True)
        ],
        "frames": sum(one.frames or 0 for one in facts) if is_known else None,
        "prompt_tokens": probe.count_tokens(request, facts) if is_known else None,
        "bytes": sum(one.fetched_bytes for one in facts) if len(facts) == len(found) else None,
        **({} if preview is None else preview.draw()),
    }


def _describe(item: Input, found: InputFacts | SourceError | SamplingError) -> dict[str, Any]:
    if isinstance(found, InputFacts):
        seconds = None if found.is_image else found.seconds
        return {
            "duration_s": None if seconds is None else round(seconds, 6),
            "frames": found.frames,
            "bytes": found.fetched_bytes,
            "width": found.width or None,
            "height": found.height or None,
            "error": None,
        }
    error = {"code": found.code, "message": found.message, "param": found.param}
    empty = dict.fromkeys(("duration_s", "frames", "bytes", "width", "height"))
    return {**empty, "error": error}


if __name__ == "__main__":
    main()
