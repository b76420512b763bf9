"""Fork server of test workers: a worker that has everything imported already is up within a second.

A started worker imports torch and transformers for several CPU seconds. What is forked here is the
production worker, in a session of its own, with an environment and a log of its own; only its imports
were done before. One process serves a whole test session, from all of its lanes: it listens on a Unix
socket, reads one JSON object a connection, `{"environ": {...}, "log": "...", "before": "..."}`, and
answers with the pid. A worker's exit status is written beside its log. The end of standard input ends
the server, and so its workers.

    python tests/support/forking/zygote.py SOCKET
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
WORKER_MODULES = (
    "videoqa_worker.__main__",
    "videoqa_worker.service.consumer",
    "transformers.models.llava",
)
STATUS_FILES: dict[int, Path] = {}
"""Pid of a worker -> where its exit status goes."""


def serve(path: str) -> None:
    """Forks a worker for each connection until standard input ends."""
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}.new")
        server.listen(64)
        os.rename(f"{path}.new", path)  # whoever sees it can connect
        while True:
            ready, _, _ = select.select([sys.stdin, server], [], [])
            if sys.stdin in ready:
                return
            connection, _ = server.accept()
            with connection, connection.makefile() as orders:
                order = json.loads(orders.readline())
                connection.sendall(str(_fork(order)).encode())


def _fork(order: dict[str, Any]) -> int:
    _import_worker()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # until its status has a place
    pid = os.fork()
    if pid == 0:
        _become_worker(order)
    STATUS_FILES[pid] = Path(order["log"] + ".status")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    return pid


def _import_worker() -> None:
    """Imports all that a worker with the demo model does; at the first order, which may never come."""
    for module in WORKER_MODULES:
        importlib.import_module(module)
    gc.freeze()  # a worker's collections would copy all pages that it shares with this process


def _reap(*_: object) -> None:
    while STATUS_FILES:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        path = STATUS_FILES.pop(pid)
        whole = path.with_suffix(".new")
        whole.write_text(str(os.waitstatus_to_exitcode(status)))
        whole.rename(path)


def _become_worker(order: dict[str, Any]) -> NoReturn:
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(order["environ"])
    try:
        exec(order["before"], {})
        from videoqa_worker.__main__ import leave, main

        leave(main())
    except BaseException:  # noqa: BLE001 - the server's own code goes on in the server alone
        traceback.print_exc()
    os._exit(1)


if __name__ == "__main__":
    serve(sys.argv[1])
