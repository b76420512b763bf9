"""Frames from a decoding process are those that this process would take, to the bit."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from support.decoding import assert_same, outcome
from support.processes import wait_until
from support.sparse_files import make_empty_copy, write_long_clip
from support.videos import Recipe, draw_number, read_number

from videoqa import contract
from videoqa.contract import Sampling
from videoqa.errors import (
    DecoderLost,
    JobCanceled,
    NotAVideo,
    SourceUnavailable,
    VideoQAError,
)
from videoqa_worker.decoding import shared_memory
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.decoding.inputs import sample_input
from videoqa_worker.frames import (
    CompleteFile,
    SampledVideo,
    read_image,
    sample_frames,
    sample_segments,
)
from videoqa_worker.settings import FrameLimits

MakeClip = Callable[[Recipe], Path]

LIMITS = FrameLimits(max_pixels=640 * 480, max_image_pixels=640 * 480, max_duration_s=60)
BASE = Recipe()
PLAIN = replace(BASE, b_frames=0)
UNEVEN = tuple(Fraction(sum((20, 40, 100, 400)[k % 4] for k in range(n)), 1000) for n in range(40))
CLIPS = {
    "mp4": BASE,
    "mp4, index first": replace(BASE, options={"movflags": "faststart"}),
    "mp4, fragmented": replace(BASE, options={"movflags": "frag_keyframe+empty_moov"}),
    "mp4, HEVC": replace(BASE, codec="libx265"),
    "mp4, AV1": replace(PLAIN, codec="libsvtav1", codec_options={"preset": "12"}),
    "mp4, odd size": replace(BASE, size=(101, 75), pixel_format="yuv444p"),
    "mp4, turned": replace(BASE, turned_degrees=90),
    "mp4, one picture": replace(PLAIN, frames=1),
    "mp4, too large": replace(PLAIN, frames=2, size=(800, 600)),
    "mp4, too long": replace(PLAIN, fps=Fraction(1, 20), frames=5),
    "mp4, sound alone": replace(BASE, video=False, sound_s=2),
    "mkv": replace(BASE, name="clip.mkv", sound_s=3),
    "mkv, uneven": replace(BASE, name="clip.mkv", frames=40, times_s=UNEVEN),
    "webm, VP9": replace(PLAIN, name="clip.webm", codec="libvpx-vp9"),
    "ts": replace(BASE, name="clip.ts"),
    "avi": replace(PLAIN, name="clip.avi", codec="mpeg4"),
    "flv": replace(BASE, name="clip.flv"),
    "gif": replace(PLAIN, name="clip.gif", codec="gif", pixel_format="rgb8"),
}
ASKED = {
    "8 frames": (Sampling(), None, None),
    "4 a second of a part": (Sampling(method="fps", fps=4), 0.4, 1.3),
    "keyframes": (Sampling(method="keyframe", frames=4), None, None),
    "given times, beyond the end": (Sampling(method="times", times=(0.1, 0.11, 99)), None, 100.0),
    "a part after the end": (Sampling(), 90.0, None),
}


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(LIMITS, processes=2) as warm:
        yield warm


def assert_same_here_and_there(
    decoders: Decoders,
    path: Path,
    sampling: Sampling,
    start: float | None = None,
    end: float | None = None,
) -> None:
    there = outcome(lambda: decoders.sample(CompleteFile(path), sampling, start=start, end=end))
    here = outcome(lambda: sample_frames(path, sampling, start=start, end=end, limits=LIMITS))
    assert_same(there, here)


@pytest.mark.parametrize("kind", CLIPS)
def test_frames_errors_and_warnings_are_those_of_this_process(
    kind: str, decoders: Decoders, make_clip: MakeClip
) -> None:
    path = make_clip(CLIPS[kind])
    for sampling, start, end in ASKED.values():
        assert_same_here_and_there(decoders, path, sampling, start, end)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.6, 0.9])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_a_file_that_breaks_off_ends_as_in_this_process(
    name: str, share: float, decoders: Decoders, make_clip: MakeClip
) -> None:
    path = make_clip(replace(BASE, name=name, options={"movflags": "faststart"}))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert_same_here_and_there(decoders, path, Sampling())


@pytest.mark.parametrize("content", [b"", b"hello", b"#EXTM3U\n", b"\xff\xd8\xff\xe0", b"GIF89a"])
def test_what_is_no_video_is_refused_as_in_this_process(
    content: bytes, decoders: Decoders, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    there = outcome(lambda: decoders.sample(CompleteFile(path), Sampling()))
    here = outcome(lambda: sample_frames(path, Sampling(), limits=LIMITS))
    assert isinstance(here, VideoQAError)
    assert_same(there, here)
    there = outcome(lambda: decoders.read_image(CompleteFile(path)))
    assert_same(there, outcome(lambda: read_image(path, limits=LIMITS)))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "large.png"])
def test_still_pictures_are_those_of_this_process(
    name: str, decoders: Decoders, tmp_path: Path
) -> None:
    path = tmp_path / name
    size = (800, 600) if name == "large.png" else (96, 72)
    Image.fromarray(draw_number(1234, *size)).save(path)
    there = outcome(lambda: decoders.read_image(CompleteFile(path)))
    here = outcome(lambda: read_image(path, limits=LIMITS))
    assert isinstance(here, VideoQAError) is (name == "large.png")
    assert_same(there, here)


def test_a_name_that_is_no_text_is_read(decoders: Decoders, make_clip: MakeClip) -> None:
    path = make_clip(BASE)
    odd = path.rename(path.with_name("clip\udcff é.mp4"))
    assert_same_here_and_there(decoders, odd, Sampling())


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_media_with_holes_are_asked_for_what_is_needed(
    name: str, decoders: Decoders, make_clip: MakeClip, tmp_path: Path
) -> None:
    recipe = replace(BASE, name=name, frames=400, gop=50, size=(320, 240))
    path = make_clip(recipe)
    there, here = make_empty_copy(path, tmp_path), make_empty_copy(path, tmp_path)
    sampling = Sampling(method="times", times=(15.9,))
    assert_same(
        outcome(lambda: decoders.sample(there, sampling)),
        outcome(lambda: sample_frames(here, sampling, limits=LIMITS)),
    )
    assert list(there.present) == list(here.present)
    assert there.asked


def test_a_still_picture_with_holes_is_fetched_whole(decoders: Decoders, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(draw_number(7, 96, 72)).save(path)
    file = make_empty_copy(path, tmp_path)
    assert read_number(decoders.read_image(file).frames[0].pixels) == 7
    assert file.asked == [((0, file.size_bytes),)]


def test_a_guess_by_the_name_gives_way_to_the_bytes(
    decoders: Decoders, make_clip: MakeClip, tmp_path: Path
) -> None:
    still, clip = CompleteFile(tmp_path / "a.png"), CompleteFile(make_clip(BASE))
    Image.fromarray(draw_number(7, 96, 72)).save(tmp_path / "a.png")
    sampling = Sampling(method="times", times=(0.0, 1.0))
    bare, named = (contract.Image(url="s3://b/a.png", guessed=guess) for guess in (True, False))
    found = sample_input(decoders, bare, still, sampling)
    assert (found.info.is_image, len(found.frames), found.warnings) == (True, 1, ())
    assert_same(found, sample_input(decoders, named, still, sampling))
    found = sample_input(decoders, bare, clip, sampling)
    assert (found.info.is_image, [frame.index for frame in found.frames]) == (False, [0, 25])
    with pytest.raises(NotAVideo):
        sample_input(decoders, named, clip, sampling)


def test_frames_outlive_the_process_that_took_them(make_clip: MakeClip) -> None:
    path = make_clip(BASE)
    with Decoders(LIMITS, processes=1) as brief:
        video = brief.sample(CompleteFile(path), Sampling())
    assert [read_number(frame.pixels) for frame in video.frames] == [
        frame.index for frame in video.frames
    ]


def test_writing_to_a_frame_changes_that_frame_alone(
    decoders: Decoders, make_clip: MakeClip
) -> None:
    first, second = decoders.sample(CompleteFile(make_clip(BASE)), Sampling(frames=2)).frames
    kept = second.pixels.copy()
    first.pixels[:] = 7
    assert (first.pixels == 7).all()
    assert np.array_equal(second.pixels, kept)


def test_many_jobs_of_several_threads_do_not_mix(decoders: Decoders, make_clip: MakeClip) -> None:
    paths = [make_clip(replace(BASE, name=f"{n}.mp4", frames=40 + n)) for n in range(4)]
    expected = [sample_frames(path, Sampling(), limits=LIMITS) for path in paths]

    def job(n: int) -> tuple[int, SampledVideo]:
        return n % 4, decoders.sample(CompleteFile(paths[n % 4]), Sampling())

    with ThreadPoolExecutor(4) as threads:
        for n, video in threads.map(job, range(80)):
            assert_same(video, expected[n])


def test_200_samples_leave_no_descriptors_and_no_memory_behind(make_clip: MakeClip) -> None:
    path = make_clip(replace(BASE, size=(320, 240), frames=20))
    me = psutil.Process()
    with Decoders(LIMITS, processes=1) as some:
        for _ in range(20):
            some.sample(CompleteFile(path), Sampling())
        gc.collect()
        child = psutil.Process(some.pids[0])
        before = me.num_fds(), child.num_fds(), me.memory_info().rss, child.memory_info().rss
        for _ in range(200):
            some.sample(CompleteFile(path), Sampling())
            outcome(lambda: some.sample(CompleteFile(path), Sampling(), start=99.0))
        gc.collect()
        # The process closes those of a command a moment after it has answered.
        wait_until(lambda: me.num_fds() <= before[0] and child.num_fds() <= before[1])
        after = me.num_fds(), child.num_fds(), me.memory_info().rss, child.memory_info().rss
    # 200 times 8 frames of this size are 369 MB.
    assert after[2] - before[2] < 10e6
    assert after[3] - before[3] < 10e6


def test_without_sealed_memory_pixels_come_through_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_memory, "CAN_SEAL", False)
    arrays = [draw_number(n, 101, 75) for n in range(3)]
    descriptor = shared_memory.write_arrays(arrays)
    for there, here in zip(
        shared_memory.map_arrays(descriptor, [array.shape for array in arrays]), arrays, strict=True
    ):
        assert np.array_equal(there, here)


SEGMENTS = Sampling(method="segment", segment_s=0.5, overlap_s=0.1, frames=3)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_shots_are_those_of_this_process(
    kind: str, decoders: Decoders, make_clip: MakeClip
) -> None:
    path, shots = make_clip(CLIPS[kind]), Sampling(method="segment", segment="shots", segment_s=1)
    there = list(decoders.segments(CompleteFile(path), shots))
    here = list(sample_segments(path, shots, limits=LIMITS))
    assert [(one.start_s, one.end_s) for one in there] == [(one.start_s, one.end_s) for one in here]
    assert_same(there[-1].video, here[-1].video)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "mp4, too large", "mp4, sound alone"])
def test_segments_are_those_of_this_process(
    kind: str, decoders: Decoders, make_clip: MakeClip
) -> None:
    path = make_clip(CLIPS[kind])
    first = outcome(lambda: next(decoders.segments(CompleteFile(path), SEGMENTS)).video)
    assert_same(first, outcome(lambda: next(sample_segments(path, SEGMENTS, limits=LIMITS)).video))
    if isinstance(first, VideoQAError):
        return
    there = list(decoders.segments(CompleteFile(path), SEGMENTS, start=0.2, first=2))
    here = list(sample_segments(path, SEGMENTS, start=0.2, first=2, limits=LIMITS))
    for ours, theirs in zip(there, here, strict=True):
        assert (ours.number, ours.total) == (theirs.number, theirs.total)
        assert (ours.start_s, ours.end_s) == (theirs.start_s, theirs.end_s)
        assert_same(ours.video, theirs.video)


def test_two_long_videos_leave_turns_to_a_short_one(make_clip: MakeClip) -> None:
    file = CompleteFile(make_clip(replace(BASE, frames=1000)))
    many = Sampling(method="segment", segment_s=0.1, frames=1)
    taken: list[int] = []

    def go_through() -> None:
        for segment in one_turn.segments(file, many):
            taken.append(segment.number)
            if len(taken) >= 20:
                amid.set()
                asking.wait(60)

    amid, asking = threading.Event(), threading.Event()
    with Decoders(LIMITS, processes=1) as one_turn, ThreadPoolExecutor(2) as pool:
        both = [pool.submit(go_through) for _ in range(2)]
        assert amid.wait(60)
        asking.set()
        one_turn.sample(file, Sampling(frames=1))
        assert len(taken) < 600, "of 800"
        for future in both:
            future.result()


def test_segments_take_no_more_memory_than_one_of_them_alone(make_clip: MakeClip) -> None:
    clip = replace(BASE, frames=100, size=(1280, 720), codec="mpeg4", b_frames=0)
    file = CompleteFile(make_clip(clip))  # 138 MB of frames a segment
    with Decoders(FrameLimits(), processes=1, memory_bytes=500 << 20) as narrow:
        assert len(narrow.sample(file, Sampling(frames=50), end=2.0).frames) == 50
        halves = Sampling(method="segment", segment_s=2, frames=50)
        assert [segment.number for segment in narrow.segments(file, halves)] == [0, 1]


def test_a_process_between_two_segments_takes_no_turn_of_others(make_clip: MakeClip) -> None:
    file = CompleteFile(make_clip(BASE))
    with (
        Decoders(LIMITS, processes=1) as one_turn,
        closing(one_turn.segments(file, SEGMENTS)) as segments,
    ):
        number = next(segments).number
        assert len(one_turn.sample(file, Sampling(frames=2)).frames) == 2
        assert next(segments).number == number + 1


@pytest.mark.parametrize("incomplete", [False, True])
def test_a_process_whose_segments_nobody_wants_any_more_serves_the_next_order(
    incomplete: bool, make_clip: MakeClip, tmp_path: Path
) -> None:
    clip = make_clip(BASE)
    file = make_empty_copy(clip, tmp_path) if incomplete else CompleteFile(clip)
    with Decoders(LIMITS, processes=1) as decoders:
        decoders.start()
        pids = decoders.pids
        with closing(decoders.segments(file, SEGMENTS)) as segments:
            next(segments)
        assert len(decoders.sample(CompleteFile(clip), Sampling(frames=2)).frames) == 2
        assert decoders.pids == pids


def test_a_cancel_while_the_next_segment_is_waited_for_ends_the_order(make_clip: MakeClip) -> None:
    file = CompleteFile(make_clip(BASE))
    canceled = False

    def check() -> None:
        if canceled:
            raise JobCanceled("now")

    with Decoders(LIMITS, processes=1) as decoders:
        segments = decoders.segments(file, SEGMENTS, check=check)
        next(segments)
        os.kill(decoders.pids[0], signal.SIGSTOP)
        canceled = True
        with pytest.raises(JobCanceled):
            next(segments)
        canceled = False
        assert len(decoders.sample(file, Sampling(frames=2)).frames) == 2


def test_a_process_that_dies_between_two_segments_is_one_jobs_error(make_clip: MakeClip) -> None:
    file = CompleteFile(make_clip(BASE))
    with Decoders(LIMITS, processes=1) as decoders:
        segments = decoders.segments(file, SEGMENTS)
        next(segments)
        os.kill(decoders.pids[0], signal.SIGKILL)
        with pytest.raises(DecoderLost, match="SIGKILL"):
            next(segments)
        assert len(decoders.sample(file, Sampling(frames=2)).frames) == 2


def test_a_source_that_breaks_off_between_two_segments_is_the_sources_error(
    tmp_path: Path,
) -> None:
    gone = False

    def on_ensure() -> None:
        if gone:
            raise SourceUnavailable("gone")

    path = tmp_path / "clip.mp4"
    write_long_clip(path, copies=4)
    file = make_empty_copy(path, tmp_path, on_ensure)
    file.ensure([(0, 64 << 10)])  # as every source does at its opening
    with Decoders(LIMITS, processes=1) as decoders:
        segments = decoders.segments(file, SEGMENTS)
        next(segments)
        gone = True
        with pytest.raises(SourceUnavailable):
            list(segments)
        assert decoders.sample(CompleteFile(path), Sampling(frames=2)).frames


def test_frames_of_a_preview_are_the_same_ones_scaled_down_in_the_process(
    decoders: Decoders, make_clip: MakeClip, tmp_path: Path
) -> None:
    file = CompleteFile(make_clip(Recipe(size=(320, 240), turned_degrees=90)))
    Image.new("RGB", (300, 100)).save(tmp_path / "a.png")
    for sampling in (Sampling(frames=3), Sampling(method="segment", segment_s=0.5, frames=2)):
        if sampling.method == "segment":
            whole, small = (
                [one.video for one in decoders.segments(file, sampling, most_side=side)]
                for side in (None, 100)
            )
        else:
            whole, small = (
                [decoders.sample(file, sampling, most_side=side)] for side in (None, 100)
            )
        assert len(whole) == len(small)
        for big, little in zip(whole, small, strict=True):
            for a, b in zip(big.frames, little.frames, strict=True):
                assert (a.index, a.pts_s, a.exact, a.asked_s) == (
                    b.index,
                    b.pts_s,
                    b.exact,
                    b.asked_s,
                )
                assert (a.pixels.shape, b.pixels.shape) == ((240, 320, 3), (75, 100, 3))
                assert b.pixels.mean((0, 1)) == pytest.approx(a.pixels.mean((0, 1)), abs=2)
    image = decoders.read_image(CompleteFile(tmp_path / "a.png"), most_side=100)
    assert (image.frames[0].pixels.shape, image.info.width) == ((33, 100, 3), 300)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told what to keep")
def test_an_idle_process_keeps_no_memory_of_its_frames(make_clip: MakeClip) -> None:
    clip = CompleteFile(make_clip(replace(BASE, size=(640, 480), frames=40)))
    with Decoders(FrameLimits(), processes=1) as decoders:
        decoders.start()
        (pid,) = decoders.pids
        process = psutil.Process(pid)
        started = process.memory_info().rss
        for _ in range(2):
            decoders.sample(clip, Sampling(frames=40))  # 37 MB
        wait_until(lambda: process.memory_info().rss < started + (20 << 20))
