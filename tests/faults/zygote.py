"""Forks workers that have everything imported already: a killed one is replaced within a second.

Started workers import torch for several seconds each, which on two cores would be all that a test
with a kill every two seconds measures. What is forked is the production worker, with a process group,
environment and log of its own; only its imports were done before. Reads one JSON object a line,
`{"environ": {...}, "log": "...", "before": "..."}`, and answers with the pid.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any, NoReturn

import videoqa_worker.service.consumer  # noqa: F401
from videoqa_worker.__main__ import leave, main

PR_SET_PDEATHSIG = 1


def serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be_worker(order)
        print(pid, flush=True)


def _be_worker(order: dict[str, Any]) -> NoReturn:
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(order["environ"])
    exec(order["before"], {})
    leave(main())


if __name__ == "__main__":
    serve()
