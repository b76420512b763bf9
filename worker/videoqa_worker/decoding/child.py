"""The decoding process: `python -P -m videoqa_worker.decoding.child DESCRIPTOR PARENT_PID`.

A fresh process, not a fork: the worker's memory, environment and descriptors are not in it. It imports
all that it will need, gives up its rights (`confine`), and executes commands until its socket closes.
The worker sends each input as an open descriptor, so that no path has to be readable.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from videoqa_worker.decoding.libc import prctl

__all__ = ["main"]

_MAX_DESCRIPTORS = 64
_PR_SET_PDEATHSIG = 1
_ON_LINUX = sys.platform == "linux"
_LATE_MODULES = (
    "array",
    "linecache",
    "PIL.ImageCms",
    *(f"encodings.{name}" for name in ("ascii", "latin_1", "utf_16", "utf_16_be", "utf_16_le")),
    *(
        f"PIL.{name}ImagePlugin"
        for name in (
            "Avif",
            "Bmp",
            "Cur",
            "Gif",
            "Ico",
            "Jpeg",
            "Jpeg2K",
            "Mpo",
            "Png",
            "Ppm",
            "Tiff",
            "WebP",
        )
    ),
)
_PROGRAMS = ("av.__main__", "av.datasets")


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
    _import_the_rest()
    from videoqa.errors import GuideUnavailable
    from videoqa_worker.decoding.channel import Channel, ClosedError
    from videoqa_worker.decoding.confine import confine
    from videoqa_worker.decoding.messages import Setup
    from videoqa_worker.decoding.serve import serve
    from videoqa_worker.frames import import_opencv

    with (
        Channel(socket.socket(fileno=int(argv[0]))) as channel,
        suppress(ClosedError, ConnectionError),
    ):
        body, _ = channel.receive() or (b"", None)
        setup = Setup.model_validate_json(body)
        pixels_bytes = max(setup.limits.max_frames_bytes, 3 * setup.limits.max_picture_pixels)
        _limit_memory(setup.memory_bytes, pixels_bytes)
        if setup.has_opencv:
            with suppress(GuideUnavailable):  # sampling says so
                import_opencv()
        resource.setrlimit(resource.RLIMIT_CPU, (setup.cpu_s, setup.cpu_s))
        confinement = confine(setup.uid, lambda: _die_with_parent(int(argv[1])))
        serve(channel, setup.limits, confinement)


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


def _import_the_rest() -> None:
    """Imports modules that libraries import when they first need them: later no file can be opened."""
    import av

    of_av = (module.name for module in pkgutil.walk_packages(av.__path__, "av."))
    for name in (*_LATE_MODULES, *of_av):
        if name not in _PROGRAMS:
            importlib.import_module(name)


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
