"""Code in the place of a decoder reaches nothing: not the worker, no file, no network, no program.

A worker of its own runs the attacks of `support/attacker.py`, as root and as an ordinary user. Without
any layer nearly all of them succeed, which shows that they are real; without one layer the others hold.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import attacker

from videoqa_worker.decoding.landlock import apply_landlock
from videoqa_worker.decoding.libc import syscall

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

WORKER = """
import json, os, socket, sys
from pathlib import Path
from videoqa.contract import Sampling
from videoqa.errors import NotAVideo
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.frames import CompleteFile
from videoqa_worker.settings import FrameLimits
folder, attacker = Path(sys.argv[1]), sys.argv[2]
redis = socket.create_server(("127.0.0.1", 0))
hidden = socket.socket(socket.AF_UNIX)
abstract = f"videoqa-{os.getpid()}"
hidden.bind("\\0" + abstract)
hidden.listen()
found = {}
with Decoders(FrameLimits(), processes=1) as sibling:
    sibling.start()
    facts = {
        "port": redis.getsockname()[1], "sibling": sibling.pids[0], "home": str(Path.home()),
        "model": str(folder / "model.safetensors"), "program": str(folder / "program"),
        "abstract": abstract,
    }
    given = folder / "input"
    given.write_text(json.dumps(facts))
    for lacking in sys.argv[3:]:
        argv = (sys.executable, "-P", attacker, lacking)
        with Decoders(FrameLimits(), processes=1, argv=argv) as decoders:
            decoders.start()
            (process,) = decoders._all
            try:
                decoders.sample(CompleteFile(given), Sampling())
            except NotAVideo as told:
                found[lacking] = {
                    "layers": list(process.confinement.held),
                    "missing": list(process.confinement.missing),
                    "tried": json.loads(told.message),
                }
print(json.dumps(found))
"""
ORDINARY = 12345
OPTIONAL = {
    # Not in every kernel or container, or refused in another way.
    "open by handle", "add a key", "bpf", "perf_event_open", "userfaultfd", "io_uring", "mount",
    "ask a device", "write the input", "make a user namespace", "leave its session",
    "raise its limits",
}  # fmt: skip


def find_layers() -> tuple[int, bool]:
    """Returns the kernel's Landlock ABI, and True if it has seccomp filters."""
    return max(0, syscall(444, None, 0, 1)), Path("/proc/sys/kernel/seccomp").is_dir()


def run_worker(folder: Path, user: int, *lacking: str) -> dict[str, Any]:
    """Returns for each decoder its layers, and what each attack met with."""
    model, program = folder / "model.safetensors", folder / "program"
    model.write_bytes(b"weights")
    program.write_bytes(b"no program")
    program.chmod(0o755)
    for path in (folder, model, program):
        os.chown(path, user, user)
    as_user = []
    if user != os.geteuid():
        # The right to read is only for the interpreter, which may lie in root's home.
        as_user = [
            "setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups",
            "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search",
        ]  # fmt: skip
    command = [sys.executable, "-P", "-c", WORKER, str(folder), attacker.__file__, *lacking]
    env = os.environ | {"AWS_SECRET_ACCESS_KEY": "hunter2", "TMPDIR": str(folder)}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [*as_user, *command],
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can enter, as pytest's cannot be."""
    with tempfile.TemporaryDirectory(prefix="videoqa-taken-over-") as name:
        yield Path(name)


def assert_nothing_reached(found: dict[str, Any]) -> None:
    reached = {name: how for name, how in found["tried"].items() if how != "denied"}
    assert not reached, (reached, found["layers"], found["missing"])
    assert len(found["tried"]) > 50


@pytest.mark.parametrize("who", ["root", "an ordinary user"])
def test_a_decoder_that_is_taken_over_reaches_nothing(who: str, folder: Path) -> None:
    if who == "root" and os.geteuid() != 0:
        pytest.skip("the layer 'user' needs root")
    if who != "root" and os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv to become an ordinary user")
    user = ORDINARY if who != "root" and os.geteuid() == 0 else os.geteuid()
    abi, has_seccomp = find_layers()
    found = run_worker(folder, user, "nothing", "Landlock", "seccomp")
    full = found["nothing"]
    assert ("user 65534" in full["layers"]) is (who == "root")
    assert "no capabilities" in full["layers"]
    assert any(layer.startswith("Landlock") for layer in full["layers"]) is (abi > 0)
    assert ("seccomp" in full["layers"]) is has_seccomp
    if not has_seccomp:
        pytest.skip(f"this kernel lacks seccomp; Landlock's ABI is {abi}, layers {full['layers']}")
    assert_nothing_reached(full)
    assert_nothing_reached(found["Landlock"])  # seccomp alone
    if not abi:
        pytest.skip("this kernel lacks Landlock; the test of seccomp alone has passed")
    tried = found["seccomp"]["tried"]
    for name in (
        "read the worker's environment", "read the worker's memory", "write the worker's memory",
        "ptrace", "process_vm_readv", "process_vm_writev", "list the home folder", "list /proc",
        "read /etc/passwd", "read a model file", "write a model file", "start a process",
        "write a file in the temporary folder", "open the input for writing", "execute a program",
        "make a symbolic link", "make a hard link", "write a file in the working folder",
        "become root", "raise its limits", "mount",
        *(["connect to Redis"] if abi >= 4 else []),
        *(["signal the worker", "open an abstract socket"] if abi >= 6 else []),
    ):  # fmt: skip
        assert tried[name] == "denied", (name, tried[name], found["seccomp"]["layers"])


@pytest.mark.skipif(os.geteuid() != 0, reason="the worker's memory is closed to ordinary users")
def test_without_the_layers_nearly_all_of_it_is_reached(folder: Path) -> None:
    tried = run_worker(folder, 0, "everything")["everything"]["tried"]
    assert {name for name, how in tried.items() if how != "allowed"} <= OPTIONAL


def test_a_kernel_without_landlock_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ctypes.set_errno(38)
    monkeypatch.setattr("videoqa_worker.decoding.landlock.syscall", lambda *arguments: -1)
    assert apply_landlock() == (0, "this kernel does not have it (Linux 5.13 does)")
