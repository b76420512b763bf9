"""The decoding process: `python -P -m videoqa_worker.decoding.child DESCRIPTOR PARENT_PID`.

Gives away what it does not need before it opens anything, then serves orders until its socket
closes. It has no network and starts no programs (`confine`), no credentials (its environment is
picked by the worker), few descriptors and bounded memory; it still runs as the worker's user and
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
    """`argv`: the socket's descriptor, and the pid of the worker."""
    _die_with_parent(int(argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_DESCRIPTORS, _MAX_DESCRIPTORS))
    if _ON_LINUX:
        # If the machine runs out of memory, the kernel shall end this and not the worker.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    _install_bare_package()
    from videoqa_worker.decoding.channel import Channel
    from videoqa_worker.decoding.messages import Setup
    from videoqa_worker.decoding.serve import serve

    with (
        Channel(socket.socket(fileno=int(argv[0]))) as channel,
        suppress(EOFError, ConnectionError),
    ):
        body, _ = channel.receive() or (b"", None)
        setup = Setup.model_validate_json(body)
        pixels_bytes = max(setup.limits.max_frames_bytes, 3 * setup.limits.max_pixels)
        _limit_memory(setup.memory_bytes, pixels_bytes)
        confine()
        serve(channel, setup.limits)


def _die_with_parent(parent: int) -> None:
    """Linux ends this process with its parent, even amid decoding. Elsewhere it ends when it next
    looks at its socket, that is, with its order at the latest."""
    if not _ON_LINUX:
        return
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the worker ended before its decoding process began")


def _limit_memory(memory_bytes: int, pixels_bytes: int) -> None:
    """Of address space, and of shared memory, which is written and so not part of it.

    macOS knows RLIMIT_AS and does not keep it: there only FrameLimits bound memory.
    """
    most = pixels_bytes + (1 << 20)  # their alignment
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    if _ON_LINUX:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _install_bare_package() -> None:
    """`videoqa` as a package whose `__init__` has not run: that one imports the client, and with
    it Redis, which a decoder has no use for."""
    spec = importlib.util.find_spec("videoqa")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("the package videoqa is not installed")
    bare = ModuleType("videoqa")
    bare.__path__ = list(spec.submodule_search_locations)
    bare.__spec__ = spec
    sys.modules["videoqa"] = bare


if __name__ == "__main__":
    main(sys.argv[1:])
