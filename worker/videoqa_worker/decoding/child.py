"""The decoding process: `python -P -m videoqa_worker.decoding.child DESCRIPTOR PARENT_PID`.

Gives up the rights that it does not need before it opens any file, then executes commands until
its socket closes. It has no network and starts no programs (`confine`), no credentials (the worker
picks its environment), few descriptors and bounded memory. It still runs as the worker's user and
can read what that user can.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from videoqa_worker.decoding.confine import confine, prctl

__all__ = ["main"]

_MAX_DESCRIPTORS = 64
_PR_SET_PDEATHSIG = 1
_ON_LINUX = sys.platform == "linux"


def main(argv: list[str]) -> None:
    """Runs the child process; `argv` holds the socket's descriptor and the pid of the worker."""
    _die_with_parent(int(argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_DESCRIPTORS, _MAX_DESCRIPTORS))
    if _ON_LINUX:
        # If the machine runs out of memory, the kernel should kill this process and not the worker.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    _install_bare_package()
    from videoqa_worker.decoding.channel import Channel, ClosedError
    from videoqa_worker.decoding.messages import Setup
    from videoqa_worker.decoding.serve import serve

    with (
        Channel(socket.socket(fileno=int(argv[0]))) as channel,
        suppress(ClosedError, ConnectionError),
    ):
        body, _ = channel.receive() or (b"", None)
        setup = Setup.model_validate_json(body)
        pixels_bytes = max(setup.limits.max_frames_bytes, 3 * setup.limits.max_pixels)
        _limit_memory(setup.memory_bytes, pixels_bytes)
        confine()
        serve(channel, setup.limits)


def _die_with_parent(parent: int) -> None:
    """Asks Linux to kill this process when its parent ends, even amid decoding.

    Elsewhere it ends when it next reads its socket, that is, after its command at the latest.
    """
    if not _ON_LINUX:
        return
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the worker ended before its decoding process began")


def _limit_memory(memory_bytes: int, pixels_bytes: int) -> None:
    """Limits address space, and the size of shared memory, which counts as a written file.

    macOS accepts RLIMIT_AS and does not enforce it: there only FrameLimits bound memory.
    """
    most = pixels_bytes + (1 << 20)  # room for alignment
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    if _ON_LINUX:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _install_bare_package() -> None:
    """Installs `videoqa` as a package whose `__init__` does not run.

    That `__init__` imports the client and so Redis, which a decoder does not need.
    """
    spec = importlib.util.find_spec("videoqa")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("the package videoqa is not installed")
    bare = ModuleType("videoqa")
    bare.__path__ = list(spec.submodule_search_locations)
    bare.__spec__ = spec
    sys.modules["videoqa"] = bare


if __name__ == "__main__":
    main(sys.argv[1:])
