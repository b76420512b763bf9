"""A decoding process that dies, hangs or grows costs one job, and the next one works."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from PIL import Image
from support.decoding import assert_same, outcome
from support.sparse_files import SparseCopy, make_empty_copy
from support.videos import Recipe, read_number

from videoqa.contract import Sampling
from videoqa.errors import (
    ConfigurationError,
    DecoderCrashed,
    DecoderLost,
    DecoderOutOfMemory,
    DecodeTimeout,
    DecodingFailed,
    JobCanceled,
    JobError,
    PictureTooLarge,
    SourceTimeout,
    WorkerStopping,
)
from videoqa_worker.decoding import decoder_process
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.decoding.turns import Turns
from videoqa_worker.frames import CompleteFile, SampledVideo
from videoqa_worker.settings import FrameLimits

MakeClip = Callable[[Recipe], Path]

LIMITS = FrameLimits()
SMALL = Recipe(frames=20, options={"movflags": "faststart"})
PYTHON = sys.executable


@pytest.fixture
def path(make_clip: MakeClip) -> Path:
    return make_clip(SMALL)


@pytest.fixture
def one() -> Iterator[Decoders]:
    """With one process, and limits that end a hang soon and no order on a busy machine."""
    with Decoders(
        LIMITS.model_copy(update={"decode_timeout_s": 2.0}), processes=1, grace_s=0.2
    ) as decoders:
        decoders.start()
        yield decoders


def assert_works(decoders: Decoders, path: Path) -> None:
    frames = decoders.sample(CompleteFile(path), Sampling()).frames
    assert [read_number(frame.pixels) for frame in frames] == [frame.index for frame in frames]


def assert_gone(*pids: int) -> None:
    """Ended, reaped or not: pid 1 of a container may not reap."""
    ends_s = time.monotonic() + 30
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < ends_s, "a process lives on"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def signalled(decoders: Decoders, path: Path, folder: Path, number: int) -> SparseCopy:
    """The process gets the signal amid its order."""
    return make_empty_copy(path, folder, lambda: os.kill(decoders.pids[0], number))


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGKILL, DecoderLost),  # by whoever: a kernel short of memory, for example
        (signal.SIGSEGV, DecoderCrashed),
        (signal.SIGABRT, DecoderCrashed),
    ],
)
def test_a_process_that_dies_costs_one_job(
    number: signal.Signals, error: type[JobError], one: Decoders, path: Path, tmp_path: Path
) -> None:
    before = one.pids
    with pytest.raises(error, match=number.name):
        one.sample(signalled(one, path, tmp_path, number), Sampling())
    assert_works(one, path)
    assert_gone(*before)
    assert len(one.pids) == 1


def test_a_process_that_died_between_two_jobs_costs_none(one: Decoders, path: Path) -> None:
    before = one.pids
    os.kill(before[0], signal.SIGKILL)
    os.waitid(os.P_PID, before[0], os.WEXITED | os.WNOWAIT)
    assert_works(one, path)
    assert one.pids != before


def test_a_process_that_hangs_is_killed_by_the_timer(
    one: Decoders, path: Path, tmp_path: Path
) -> None:
    before = one.pids
    with pytest.raises(DecodeTimeout, match="more than 2 s and could only be ended"):
        one.sample(signalled(one, path, tmp_path, signal.SIGSTOP), Sampling())
    assert_gone(*before)
    assert_works(one, path)


def test_decoding_too_long_ends_the_job_and_not_the_process(path: Path) -> None:
    with Decoders(LIMITS.model_copy(update={"decode_timeout_s": 1e-9}), processes=1) as decoders:
        decoders.start()
        before = decoders.pids
        with pytest.raises(DecodeTimeout, match="ask for a shorter clip"):
            decoders.sample(CompleteFile(path), Sampling())
        assert decoders.pids == before


def test_time_spent_on_waiting_for_bytes_does_not_count(path: Path, tmp_path: Path) -> None:
    """The first wait is longer than decoding may take, grace included."""
    limits = LIMITS.model_copy(update={"decode_timeout_s": 1.0})

    def wait() -> None:
        if len(slow.asked) == 1:
            threading.Event().wait(1.2)

    slow = make_empty_copy(path, tmp_path, wait)
    with Decoders(limits, processes=1, grace_s=0.1) as decoders:
        decoders.start()
        assert decoders.sample(slow, Sampling()).frames
        assert slow.asked


def test_a_canceled_job_ends_its_process(one: Decoders, path: Path, tmp_path: Path) -> None:
    before, canceled = one.pids, threading.Event()

    def stop() -> None:
        os.kill(before[0], signal.SIGSTOP)
        canceled.set()

    def check() -> None:
        if canceled.is_set():
            raise JobCanceled("enough")

    with pytest.raises(JobCanceled, match="enough"):
        one.sample(make_empty_copy(path, tmp_path, stop), Sampling(), check=check)
    assert_gone(*before)
    assert_works(one, path)


def test_media_that_cannot_be_fetched_end_the_job_and_not_the_process(
    one: Decoders, path: Path, tmp_path: Path
) -> None:
    before, error = one.pids, SourceTimeout("no bytes")

    def fail() -> None:
        raise error

    for _ in range(3):
        with pytest.raises(SourceTimeout) as caught:
            one.sample(make_empty_copy(path, tmp_path, fail), Sampling())
        assert caught.value is error
    assert_works(one, path)
    assert one.pids == before


def test_bytes_that_cannot_be_fetched_do_not_hang_on_a_process_that_hangs(
    one: Decoders, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_process, "_ABORT_TIMEOUT_S", 0.3)
    before = one.pids

    def fail() -> None:
        os.kill(before[0], signal.SIGSTOP)
        raise SourceTimeout("no bytes")

    with pytest.raises(SourceTimeout, match="no bytes"):
        one.sample(make_empty_copy(path, tmp_path, fail), Sampling())
    assert_gone(*before)
    assert_works(one, path)


def test_while_one_job_waits_for_bytes_another_is_decoded(
    one: Decoders, path: Path, tmp_path: Path
) -> None:
    done: list[SampledVideo] = []
    file = make_empty_copy(
        path, tmp_path, lambda: done.append(one.sample(CompleteFile(path), Sampling()))
    )
    assert one.sample(file, Sampling()).frames
    assert len(done) == len(file.asked) > 0


def test_a_bomb_is_refused_by_its_size(bomb: Path) -> None:
    limits = LIMITS.model_copy(update={"max_image_pixels": LIMITS.max_pixels})
    with Decoders(limits, processes=1) as decoders:
        assert isinstance(
            outcome(lambda: decoders.sample(CompleteFile(bomb), Sampling())), PictureTooLarge
        )
        assert isinstance(outcome(lambda: decoders.read_image(CompleteFile(bomb))), PictureTooLarge)


def test_a_bomb_within_the_limits_ends_at_the_memory_limit(bomb: Path, path: Path) -> None:
    limits = LIMITS.model_copy(update={"max_pixels": 1 << 28})
    with Decoders(limits, processes=1, memory_bytes=600 << 20) as decoders:
        decoders.start()
        before = decoders.pids
        for call in (
            lambda: decoders.sample(CompleteFile(bomb), Sampling(frames=1)),
            lambda: decoders.read_image(CompleteFile(bomb)),
        ):
            error = outcome(call)
            assert isinstance(error, DecoderOutOfMemory), error
        assert_works(decoders, path)
        assert decoders.pids == before


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_decoder_that_finds_no_memory_is_no_damage_of_the_video(
    codec: str, make_clip: MakeClip
) -> None:
    """53 MB a picture, and so not one of them fits."""
    large = make_clip(replace(SMALL, codec=codec, b_frames=0, frames=2, size=(8184, 4320)))
    with Decoders(LIMITS, processes=1, memory_bytes=280 << 20) as decoders:
        error = outcome(lambda: decoders.sample(CompleteFile(large), Sampling(frames=1)))
        assert isinstance(error, DecoderOutOfMemory), error


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 70 KB that decode to a picture of 8192x8192, 192 MB in RGB."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.gif"
    Image.new("P", (8192, 8192)).save(path)
    return path


def test_a_worn_process_is_replaced(path: Path) -> None:
    with Decoders(LIMITS, processes=1, commands_each=2) as decoders:
        pids = []
        for _ in range(3):
            assert_works(decoders, path)
            pids.append(decoders.pids)
        assert pids[0] != pids[2]
    with Decoders(LIMITS, processes=1, resident_bytes=1) as decoders:
        decoders.start()
        before = decoders.pids
        assert_works(decoders, path)
        assert decoders.pids != before


def test_closing_ends_orders_and_processes(path: Path, tmp_path: Path) -> None:
    decoders = Decoders(LIMITS, processes=1)
    decoders.start()
    before = decoders.pids

    def stop_and_close() -> None:
        os.kill(before[0], signal.SIGSTOP)
        decoders.close()

    with pytest.raises(WorkerStopping):
        decoders.sample(make_empty_copy(path, tmp_path, stop_and_close), Sampling())
    with pytest.raises(WorkerStopping):
        decoders.sample(CompleteFile(path), Sampling())
    assert_gone(*before)
    decoders.close()


PARENT = """
import os, signal, sys, threading
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.settings import FrameLimits
decoders = Decoders(FrameLimits(), processes=2)
decoders.start()
os.kill(decoders.pids[0], signal.SIGSTOP)
print(*decoders.pids, flush=True)
threading.Event().wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a busy child with its parent")
def test_a_killed_worker_leaves_no_process_behind_not_even_a_stuck_one() -> None:
    with subprocess.Popen([PYTHON, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    assert_gone(*pids)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_has_little_that_could_be_stolen_or_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("VIDEOQA_REDIS_URL", "redis://:hunter2@localhost")
    with Decoders(LIMITS, processes=1, memory_bytes=1 << 30) as decoders:
        decoders.start()
        child = psutil.Process(decoders.pids[0])
        assert "hunter2" not in Path(f"/proc/{child.pid}/environ").read_text()
        limits = Path(f"/proc/{child.pid}/limits").read_text()
        for name, most in (
            ("address space", 1 << 30),
            ("core file size", 0),
            ("open files", 64),
            ("processes", 0),
            ("cpu time", 100 * 125),
        ):
            assert re.search(rf"Max {name} +{most} +{most} ", limits), (name, limits)
        assert child.num_threads() == 1
        assert child.num_fds() <= 5
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert os.getpgid(child.pid) == child.pid
        assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "1000"


def test_a_system_that_starts_no_processes_is_named(path: Path) -> None:
    with Decoders(LIMITS, processes=1, argv=("/nonexistent",)) as decoders:
        with pytest.raises(DecoderLost, match=r"cannot be started .*No such file"):
            decoders.sample(CompleteFile(path), Sampling())
        with pytest.raises(
            ConfigurationError, match=r"cannot be decoded on this machine: .*No such file"
        ):
            decoders.start()


def test_a_process_that_cannot_begin_says_why(path: Path) -> None:
    argv = (PYTHON, "-c", "import no_such_module")
    with Decoders(LIMITS, processes=1, argv=argv) as decoders:
        with pytest.raises(ConfigurationError, match=r"exit code 1 .*No module named"):
            decoders.start()
        with pytest.raises(DecoderLost, match=r"exit code 1 .*No module named"):
            decoders.sample(CompleteFile(path), Sampling())


def test_turns_come_in_the_order_of_asking_and_those_who_return_go_first() -> None:
    turns, order, asked = Turns(1), [], threading.Semaphore(0)

    def take(name: str) -> None:
        with turns.wait_turn(asked.release):  # `check` runs once it waits in the queue
            order.append(name)

    threads = []
    with turns.wait_turn(lambda: None) as mine:
        for name in "abc":
            threads.append(threading.Thread(target=take, args=(name,)))
            threads[-1].start()
            asked.acquire()
        with mine.yield_turn(front=True):
            pass
        order.append("mine")
    for thread in threads:
        thread.join()
    assert "".join(order) == "aminebc"


def test_who_is_called_off_while_waiting_leaves_the_queue() -> None:
    turns = Turns(1)

    def cancel() -> None:
        raise JobCanceled("enough")

    with turns.wait_turn(lambda: None):
        for _ in range(3):
            with pytest.raises(JobCanceled), turns.wait_turn(cancel):
                pytest.fail("it was not its turn")
    with turns.wait_turn(cancel):
        pass


FOREIGN = """
import sys
from videoqa_worker.decoding import child, serve
def fail(*arguments, **named):
    raise {error}
serve.sample_frames = serve.read_image = fail
child.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "error",
    [
        "ValueError('29 is not a valid Type')",
        "__import__('av').error.EOFError(541478725, 'End of file')",
        "__import__('av').error.OSError(95, 'Operation not supported')",
        "RuntimeError('x' * 100_000)",
    ],
)
def test_an_exception_that_nobody_foresaw_has_a_stable_code(
    error: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No file is known that makes a library raise each of them, so the process raises them here."""
    argv = (PYTHON, "-c", FOREIGN.format(error=error))
    with Decoders(LIMITS, processes=1, argv=argv) as decoders:
        for call in (
            lambda: decoders.sample(CompleteFile(path), Sampling()),
            lambda: decoders.read_image(CompleteFile(path)),
        ):
            with pytest.raises(DecodingFailed, match="encode it again") as caught:
                call()
            assert not caught.value.retryable
            assert len(caught.value.message) < 2000
        assert "Traceback" in caplog.text


def test_segments_go_on_in_another_process_when_one_has_used_its_cpu_time_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(method="segment", segment_s=0.3, frames=2)
    seen: list[tuple[int, ...]] = []
    with Decoders(LIMITS, processes=1) as decoders:
        expected = list(decoders.segments(CompleteFile(path), sampling))
        monkeypatch.setattr(decoder_process.DecoderProcess, "has_used_up", True)
        found = []
        for segment in decoders.segments(CompleteFile(path), sampling):
            found.append(segment)
            seen.append(decoders.pids)
    assert [part.number for part in found] == [part.number for part in expected]
    assert len(expected) > 1
    assert len(set(seen)) == len(seen)
    for there, here in zip(found, expected, strict=True):
        assert_same(there.video, here.video)


SPINNING = """
import sys
from videoqa_worker.decoding import child, serve
from videoqa_worker.decoding.messages import Ready
def spin(channel, limits, confinement):
    channel.send(Ready(confinement=confinement))
    while True:
        pass
serve.serve = spin
child.main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is set on Linux")
def test_a_process_that_spins_without_a_command_is_ended_by_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoder_process, "_COMMANDS_OF_CPU", 1e-9)  # rounds up to one second
    with Decoders(LIMITS, processes=1, argv=(PYTHON, "-c", SPINNING)) as decoders:
        with suppress(ConfigurationError):  # on a slow machine the start takes as long
            decoders.start()
        assert_gone(*decoders.pids)
