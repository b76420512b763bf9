"""A taken-over decoding process is refused whatever it sends, and does no harm."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.videos import Recipe

from videoqa.contract import Sampling
from videoqa.errors import DecoderCrashed, DecodeTimeout, JobCanceled, NotAVideo
from videoqa_worker.decoding.channel import MAX_MESSAGE_BYTES, Channel, ProtocolError
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.decoding.messages import FROM_PROCESS, Command, Present, Ready, Sampled, Setup
from videoqa_worker.decoding.shared_memory import UnsealedError, map_arrays, write_arrays
from videoqa_worker.frames import CompleteFile
from videoqa_worker.settings import FrameLimits

LIMITS = FrameLimits(decode_timeout_s=2.0, max_pixels=1000)
linux = pytest.mark.skipif(sys.platform != "linux", reason="sealed memory is Linux's")

HOSTILE = """
import array, fcntl, json, os, socket, struct, sys, time
end = socket.socket(fileno=int(sys.argv[1]))
def packed(body):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return struct.pack(">I", len(body)) + body
def say(body, *descriptors):
    socket.send_fds(end, [packed(body)], descriptors)
def memory(size, seals=15, held=None):
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
def hear():
    return end.recv(1 << 20)
frame = dict(index=0, pts_s=0.0, exact=True, asked_s=0.0, height=10, width=10)
info = dict(duration_s=1.0, fps=1.0, width=10, height=10, codec="x", format="y")
sampled = dict(kind="sampled", frames=[frame], info=info, warnings=[])
ensure = dict(kind="ensure", spans=[[0, 10]])
hear()
say(dict(kind="ready"))
hear()
"""
ATTACKS = {
    "ends in silence": ("pass", "exit code 0"),
    "sends garbage": (
        "end.sendall(b'\\xff' * 100)",
        "message of 4294967295 bytes, expected at most",
    ),
    "sends half a message and ends": ("end.sendall(packed(sampled)[:20])", "exit code 0"),
    "claims a message of 4 GB": (
        "end.sendall(b'\\xff\\xff\\xff\\xff{'); time.sleep(60)",
        "message of 4294967295 bytes, expected at most",
    ),
    "sends no JSON": ("say(b'not json')", "Invalid JSON"),
    "sends a pickle": ("import pickle; say(pickle.dumps(print))", "Invalid JSON"),
    "nests deeply": ("say(b'[' * 1_000_000)", "recursion limit"),
    "sends an empty message": ("say(b'')", "EOF while parsing"),
    "says it is ready again": ("say(dict(kind='ready'))", "Ready amid a command"),
    "says what is the worker's to say": ("say(dict(kind='present', spans=[]))", "tag 'present'"),
    "adds fields": ("say({**ensure, 'more': 1})", "Extra inputs"),
    "answers twice": (
        "end.sendall(packed(sampled) + packed(sampled))",
        "second message out of turn",
    ),
    "asks for bytes before the file": (
        "say(dict(kind='ensure', spans=[[-5, 10]]))",
        "greater than or equal to 0",
    ),
    "asks for more bytes than there are numbers": (
        "say(dict(kind='ensure', spans=[[0, 1 << 80]]))",
        "less than or equal to",
    ),
    "fails with another's error": (
        "say(dict(kind='failed', code='canceled', message=''))",
        "failed with 'canceled'",
    ),
    "fails with an error unheard of": (
        "say(dict(kind='failed', code='hm', message=''))",
        "failed with 'hm'",
    ),
    "has a lot to say about its failure": (
        "say(dict(kind='failed', code='not_a_video', message='x' * 20_000))",
        "at most 10000 characters",
    ),
    "has a lot to say about its frames": (
        "info.update(codec='x' * 20_000); say(sampled, memory(4096))",
        "more than 10000 characters",
    ),
    "sends no frames": ("say({**sampled, 'frames': []}, memory(0))", "at least 1 item"),
    "sends no pixels": ("say(sampled)", "without their pixels"),
    "sends pixels that are too few": ("say(sampled, memory(299))", "smaller than the 320 bytes"),
    "sends pixels that can shrink": ("say(sampled, memory(4096, 1 | 4 | 8))", "seals 0xd"),
    "sends pixels that can grow": ("say(sampled, memory(4096, 1 | 2 | 8))", "seals 0xb"),
    "sends pixels that can change": ("say(sampled, memory(4096, 1 | 2 | 4))", "seals 0x7"),
    "sends a pipe": ("say(sampled, os.pipe()[0])", "smaller than"),
    "sends a file": ("say(sampled, os.open(sys.executable, os.O_RDONLY))", "no shared memory"),
    "sends a device": ("say(sampled, os.open('/dev/zero', os.O_RDWR))", "smaller than"),
    "sends a folder": ("say(sampled, os.open('/', os.O_RDONLY))", "no shared memory"),
    "sends many descriptors": ("say(sampled, *[os.dup(0) for _ in range(50)])", "smaller than"),
    "sends descriptors piecemeal": (
        "for part in packed(sampled)[:9], packed(sampled)[9:]:"
        " socket.send_fds(end, [part], [memory(4096)])",
        "second descriptor",
    ),
    "sends a picture beyond the limit": (
        "frame.update(height=100, width=11); say(sampled, memory(1 << 20))",
        "more than 1000 pixels",
    ),
    "sends a picture of negative size": (
        "frame.update(height=-10, width=-10); say(sampled, memory(1 << 20))",
        "greater than 0",
    ),
    "sends a picture without height": (
        "frame.update(height=0); say(sampled, memory(1 << 20))",
        "greater than 0",
    ),
    "sends too many pictures": (
        "say({**sampled, 'frames': [{**frame, 'width': 100}] * 8}, memory(1 << 16))",
        "24000 bytes",
    ),
    "sends more pictures than were asked for": (
        "say({**sampled, 'frames': [{**frame, 'width': 1, 'height': 1}] * 9}, memory(64 * 9))",
        "got 9 frames, expected at most 8",
    ),
    "sends a number of a thousand digits": (
        "info.update(width=10**1000); say(sampled, memory(999))",
        "a property of the video beyond",
    ),
    "sends a picture's number that is too large": (
        "frame.update(index=10**40); say(sampled, memory(999))",
        "less than or equal to",
    ),
    "sends a time after all times": (
        "frame.update(pts_s=1e300); say(sampled, memory(999))",
        "less than or equal to",
    ),
    "has a lot to say in a code": (
        "warning = dict(code='x' * 20_000, message=''); say({**sampled, 'warnings': [warning]}, memory(999))",
        "more than 10000 characters",
    ),
    "sends times that are no numbers": (
        "frame.update(pts_s=float('nan')); say(sampled, memory(999))",
        "finite number",
    ),
    "sends text for a number": (
        "frame.update(index='1; drop'); say(sampled, memory(999))",
        "valid integer",
    ),
}
"""The code that the process runs, and a part of the error's message."""


@linux
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_process_that(attack: str, tmp_path: Path) -> None:
    """...is refused with DecoderCrashed, gone at once, and leaves no descriptor behind."""
    path = tmp_path / "clip"
    path.write_bytes(bytes(100))
    limits = FrameLimits(max_pixels=1000, max_frames_bytes=1 << 14)
    code, reason = ATTACKS[attack]
    gc.collect()
    before = psutil.Process().num_fds()
    with (
        Decoders(limits, processes=1, argv=(sys.executable, "-c", HOSTILE + code)) as decoders,
        pytest.raises(DecoderCrashed, match=re.escape(reason)),
    ):
        decoders.sample(CompleteFile(path), Sampling())
    assert (
        psutil.Process().num_fds() <= before
    )  # threads of earlier tests may close theirs meanwhile


@linux
def test_a_process_that_speaks_well_is_believed(tmp_path: Path) -> None:
    """This shows that the attacks above fail for their own reasons."""
    path = tmp_path / "clip"
    path.write_bytes(bytes(100))
    attack = "say(ensure); hear(); say(sampled, memory(4096))"
    with Decoders(LIMITS, processes=1, argv=(sys.executable, "-c", HOSTILE + attack)) as decoders:
        video = decoders.sample(CompleteFile(path), Sampling())
    assert video.frames[0].pixels.shape == (10, 10, 3)
    assert video.info.codec == "x"


TALKING = {
    "asks for the same bytes for ever": "while True: say(ensure); hear()",
    "sends a message byte by byte": "for byte in packed(b'[' * (4 << 20)): end.send(bytes([byte]))",
}


@contextmanager
def killed_if_it_hangs(decoders: Decoders) -> Iterator[None]:
    """Kills the pool's processes after 15 s, so that a worker that waits for ever fails the test."""
    killer = threading.Timer(15, lambda: [os.kill(pid, signal.SIGKILL) for pid in decoders.pids])
    killer.start()
    try:
        yield
    finally:
        killer.cancel()


@linux
@pytest.mark.parametrize("attack", TALKING)
def test_a_process_that_talks_for_ever(attack: str, tmp_path: Path) -> None:
    """...is ended by its deadline, and by a cancel, as one that is silent."""
    path = tmp_path / "clip"
    path.write_bytes(bytes(100))
    limits = FrameLimits(max_pixels=1000, decode_timeout_s=0.5)
    argv = (sys.executable, "-c", HOSTILE + TALKING[attack])
    checks = []
    with Decoders(limits, processes=1, grace_s=0.5, argv=argv) as decoders:
        with killed_if_it_hangs(decoders), pytest.raises(DecodeTimeout):
            decoders.sample(CompleteFile(path), Sampling(), check=lambda: checks.append(1))

        def cancel() -> None:
            if len(checks) > 5:
                raise JobCanceled("no more")
            checks.append(1)

        checks.clear()
        with pytest.raises(JobCanceled):
            decoders.sample(CompleteFile(path), Sampling(), check=cancel)


@linux
def test_a_process_that_asks_on_after_its_command_was_aborted_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(bytes(100))
    attack = "part(0, 9)\nwhile True: hear(); say(ensure)"
    argv = (sys.executable, "-c", HOSTILE + PART + attack)
    sampling = Sampling(method="segment", segment_s=1)
    with (
        Decoders(FrameLimits(max_pixels=1000), processes=1, argv=argv) as decoders,
        killed_if_it_hangs(decoders),
    ):
        begun_s = time.monotonic()
        segments = decoders.segments(CompleteFile(path), sampling)
        next(segments)
        segments.close()
        assert time.monotonic() - begun_s < 12


REMEMBERING = """
seen = ""
hear()
say(dict(kind="ready"))
while True:
    descriptor = socket.recv_fds(end, 1 << 16, 1)[1][0]
    seen += os.pread(descriptor, 9, 0).decode()
    say(dict(kind="failed", code="not_a_video", message=seen))
"""


@linux
@pytest.mark.parametrize("inputs", [1, 1000])
def test_a_process_sees_no_other_video_if_it_lives_for_one(inputs: int, tmp_path: Path) -> None:
    code = HOSTILE.rpartition("hear()\nsay(")[0] + REMEMBERING
    with Decoders(
        LIMITS, processes=1, commands_each=inputs, argv=(sys.executable, "-c", code)
    ) as decoders:
        for name in ("of-a", "of-b"):
            (tmp_path / name).write_text(name)
            with pytest.raises(NotAVideo) as caught:
                decoders.sample(CompleteFile(tmp_path / name), Sampling())
    assert str(caught.value) == ("of-b" if inputs == 1 else "of-aof-b")


AMID_SEGMENTS = {
    "passes more segments than are before the first": (
        "[(say(dict(kind='skipped')), hear()) for _ in range(5)]",
        "skipped more segments",
    ),
    "passes more segments than are before the next": (
        "part(2, 9); hear(); [(say(dict(kind='skipped')), hear()) for _ in range(4)]",
        "skipped more segments",
    ),
    "begins with another segment": ("part(1, 9)", "gave segment 1 of 9, expected 2 of 9"),
    "leaves a segment out": (
        "part(2, 9); hear(); part(4, 9)",
        "gave segment 4 of 9, expected 3 of 9",
    ),
    "gives more segments than the limit": (
        "part(2, 101)",
        "gave segment 2 of 101, expected 2 of 100",
    ),
    "gives more of them than there were": (
        "part(2, 4); hear(); part(3, 5)",
        "gave segment 3 of 5, expected 3 of 4",
    ),
    "gives fewer than there were": (
        "part(2, 9); hear(); part(1, 2)",
        "gave segment 1 of 2, expected 3 of 9",
    ),
    "gives frames of no segment": (
        "say(sampled, memory(4096))",
        "expected the frames of a segment",
    ),
}
PART = """
def part(number, total):
    segment = dict(number=number, total=total, start_s=1.0, end_s=2.0)
    say({**sampled, 'segment': segment}, memory(4096))
"""


@linux
@pytest.mark.parametrize("attack", AMID_SEGMENTS)
def test_a_process_that_amid_segments(attack: str, tmp_path: Path) -> None:
    """...is refused as above; two segments are before the first that is wanted."""
    path = tmp_path / "clip"
    path.write_bytes(bytes(100))
    limits = FrameLimits(max_pixels=1000, max_segments=100)
    code, reason = AMID_SEGMENTS[attack]
    argv = (sys.executable, "-c", HOSTILE + PART + code)
    sampling = Sampling(method="segment", segment_s=1)
    with (
        Decoders(limits, processes=1, argv=argv) as decoders,
        pytest.raises(DecoderCrashed, match=re.escape(reason)),
    ):
        list(decoders.segments(CompleteFile(path), sampling, first=2))


@linux
def test_a_process_on_its_way_to_the_first_segment_has_time_for_each(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(bytes(100))
    slow = "[(time.sleep(0.4), say(dict(kind='skipped')), hear()) for _ in range(4)]; part(4, 5)"
    argv = (sys.executable, "-c", HOSTILE + PART + slow)
    limits = FrameLimits(max_pixels=1000, decode_timeout_s=0.5)
    sampling = Sampling(method="segment", segment_s=1)
    with Decoders(limits, processes=1, grace_s=0.5, argv=argv) as decoders:
        found = list(decoders.segments(CompleteFile(path), sampling, first=4))
    assert [segment.number for segment in found] == [4]


@linux
def test_what_a_process_prints_blocks_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clip"
    path.write_bytes(bytes(100))
    attack = """
for _ in range(1000):
    try:
        os.write(2, b"line\\n" * 1000)
    except BlockingIOError:
        pass
say(sampled, memory(4096))
"""
    with caplog.at_level("DEBUG", "videoqa_worker.decoding"):
        argv = (sys.executable, "-c", HOSTILE + attack)
        with Decoders(LIMITS, processes=1, argv=argv) as decoders:
            assert decoders.sample(CompleteFile(path), Sampling()).frames
    assert any("printed" in record.message for record in caplog.records)
    assert all(len(record.message) < 100_000 for record in caplog.records)


ALONE = """
import sys
from videoqa_worker.decoding.child import main
main(sys.argv[1:])
print(*sys.modules)
"""


@pytest.fixture
def alone() -> Iterator[tuple[Channel, subprocess.Popen[str]]]:
    """A real process, spoken to directly."""
    ours, theirs = socket.socketpair()
    with (
        theirs,
        Channel(ours) as channel,
        subprocess.Popen(
            [sys.executable, "-c", ALONE, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        theirs.close()
        yield channel, process
        process.kill()


def test_a_process_imports_no_model_no_queue_and_no_store(
    alone: tuple[Channel, subprocess.Popen[str]], make_clip: Callable[[Recipe], Path]
) -> None:
    channel, process = alone
    channel.send(Setup(limits=FrameLimits(), memory_bytes=4 << 30, cpu_s=60, uid=65534))
    body, _ = channel.receive() or (b"", None)
    assert isinstance(FROM_PROCESS.validate_json(body), Ready)
    file = CompleteFile(make_clip(Recipe()))
    given = file.open_file()
    channel.send(Command.of(file, Sampling(), None, None), given)
    os.close(given)
    body, descriptor = channel.receive() or (b"", None)
    assert isinstance(FROM_PROCESS.validate_json(body), Sampled)
    assert descriptor is not None
    os.close(descriptor)
    channel.close()
    loaded = set(process.communicate(timeout=60)[0].split())
    assert "av" in loaded
    heavy = "torch transformers celery kombu redis boto3 botocore httpcore multiprocessing"
    assert loaded & set(heavy.split()) == set()


def test_long_messages_are_refused_at_both_ends() -> None:
    ours, theirs = socket.socketpair()
    with Channel(ours) as sender, Channel(theirs) as receiver:
        with pytest.raises(ProtocolError, match=re.escape(f"at most {MAX_MESSAGE_BYTES}")):
            sender.send(Present(spans=((1 << 60, 1 << 61),) * 200_000))
        ours.sendall(b"\x00\x40\x00\x01")
        with pytest.raises(ProtocolError, match=re.escape(f"at most {MAX_MESSAGE_BYTES}")):
            receiver.receive()


def test_a_message_that_comes_in_pieces_is_kept_until_it_is_whole() -> None:
    ours, theirs = socket.socketpair()
    with ours, Channel(theirs) as receiver:
        for byte in b"\x00\x00\x00\x02{":
            assert receiver.receive(0) is None
            ours.sendall(bytes([byte]))
        assert receiver.receive(0) is None
        ours.sendall(b"}")
        assert receiver.receive(0) == (b"{}", None)


@linux
def test_memory_that_was_not_written_by_us_is_not_mapped() -> None:
    ours = write_arrays([np.zeros((1, 1, 3), np.uint8)])
    plain = os.memfd_create("plain")
    try:
        assert map_arrays(ours, [(1, 1, 3)])[0].shape == (1, 1, 3)
        with pytest.raises(UnsealedError, match="smaller than the 128 bytes"):
            map_arrays(ours, [(1, 1, 3)] * 2)
        os.ftruncate(plain, 64)
        with pytest.raises(UnsealedError, match="has seals 0x1, expected 0xf"):
            map_arrays(plain, [(1, 1, 3)])
    finally:
        os.close(ours)
        os.close(plain)
