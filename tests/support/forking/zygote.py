"""Fork server of test workers and lanes: what has everything imported already is up within a second.

A started worker imports torch and transformers for several CPU seconds, and so does each lane of the tests. What
is forked here is the production worker, in a session of its own, with an environment and a log of its own, or a
lane (lane.py); only its imports were done before. One process serves a whole test session, from all of its lanes:
it listens on a Unix socket, reads one JSON object a connection, `{"environ": {...}, "log": "...", "before":
"..."}`, and answers with the pid. A worker's exit status is written beside its log. The end of standard input ends
the server, and so its workers.

    python tests/support/forking/zygote.py SOCKET
"""

from __future__ import annotations

import atexit
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
import types
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
WORKER_MODULES = (
    "videoqa_worker.__main__",
    "videoqa_worker.service.consumer",
    "transformers.models.llava",
)
LANE_MODULES = (
    *WORKER_MODULES,
    "boto3",
    "celery",
    "scipy.optimize",
    "videoqa.gateway",
    "videoqa.cli",
)
"""Without pytest's plugins: it rewrites their assertions as it imports them."""
STATUS_STREAM = 3
"""Number of the stream to which a lane writes its exit status."""
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
                if "program" in order:
                    _fork_lane(order, connection)
                else:
                    connection.sendall(str(_fork(order)).encode())


def _fork_lane(order: dict[str, Any], connection: socket.socket) -> None:
    """Forks a process that runs a program as `python -c` does, with the streams that come with the order."""
    _import(LANE_MODULES)
    connection.sendall(b"0")
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    if os.fork():
        for stream in streams:
            os.close(stream)
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for target, source in enumerate([*streams, connection.fileno()]):
        os.dup2(source, target, inheritable=target < STATUS_STREAM)
    os.closerange(STATUS_STREAM + 1, 1024)
    status = 1
    try:
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environ"])
        sys.argv = ["-c"]
        sys.path[:0] = ["", *filter(None, order["environ"].get("PYTHONPATH", "").split(os.pathsep))]
        # They stay open when others take their place, as execnet has it: else the next file would be stream 1.
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(order["program"], main.__dict__)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - the server's own code goes on in the server alone
        traceback.print_exc()
    finally:
        with suppress(Exception):
            atexit._run_exitfuncs()
        os.write(STATUS_STREAM, str(status).encode())
        os._exit(status)


def _fork(order: dict[str, Any]) -> int:
    _import(WORKER_MODULES)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # until its status has a place
    pid = os.fork()
    if pid == 0:
        _become_worker(order)
    STATUS_FILES[pid] = Path(order["log"] + ".status")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    return pid


def _import(modules: Iterable[str]) -> None:
    """Imports all that a worker with the demo model does, or a lane; at the first order, which may never come."""
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # a worker's collections would copy all pages that it shares with this process


def _reap(*_: object) -> None:
    while STATUS_FILES:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if (path := STATUS_FILES.pop(pid, None)) is None:  # a lane
            continue
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
