"""A short run of the fuzzer, and proof that it sees what it looks for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fuzz.asked import Ask, Given, Picture
from fuzz.child import Answer, Child, Died, Silent
from fuzz.clips import CLIPS, write_clips
from fuzz.damage import damaged
from fuzz.frames import fuzz
from fuzz.referee import Reference, referee
from fuzz.report import MOST_GROWTH_BYTES, Report
from fuzz.verdict import Judge


def test_damaged_files_bring_no_crash_hang_leak_or_wrong_frame() -> None:
    report = fuzz(range(48), seed=3, lanes=2)
    assert report.faults == []
    assert not report.leaks
    assert report.files == 48
    assert report.sound
    assert report.counts["no_reference"] == 0
    assert min(report.counts[name] for name in ("right", "damaged_said_so", "refused")) > 4
    assert len({container for container, _ in report.by_container}) == 13
    undamaged = {name for damage, name in report.by_damage if damage == "none"}
    assert undamaged == {"right"}


def test_files_that_were_once_passed_off_as_right_are_not_any_more() -> None:
    """Three faults that the fuzzer once found.

    Damaged clocks that make all times look alike, pictures concealed with what lay in memory, and
    a video whose first pictures are lost.
    """
    report = fuzz([239, 3320, 3914], seed=2)
    assert report.sound
    assert report.counts["damaged_said_so"] + report.counts["refused"] == 3


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return write_clips(tmp_path_factory.mktemp("sound"))


def test_a_number_makes_the_same_file_of_the_same_clips(sound: dict[str, bytes]) -> None:
    """Not of clips that are encoded again: x264 writes one in some hundreds otherwise."""
    again = dict(sound)
    for number in range(60):
        assert damaged(number, 7, sound) == damaged(number, 7, again)
    assert damaged(1, 7, sound).data != damaged(1, 8, sound).data


@pytest.fixture(scope="module")
def reference(sound: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Reference:
    path = tmp_path_factory.mktemp("reference") / CLIPS[0].name
    path.write_bytes(sound[CLIPS[0].name])
    with referee() as look:
        return look(path)


def given(reference: Reference, numbers: list[int]) -> Given:
    """Returns the result of a sampler that makes no mistake, for as many instants."""
    timed = reference.timed()
    pictures = tuple(
        Picture(n, timed[n][0], True, next(iter(timed[n][1].digests)), timed[n][1].number)
        for n in numbers
    )
    return Given(Ask(len(numbers)), pictures, duration_s=2.4)


def with_picture(call: Given, at: int, picture: Picture) -> Given:
    return replace(call, pictures=(*call.pictures[:at], picture, *call.pictures[at + 1 :]))


def test_only_frames_that_are_right_or_said_to_be_doubtful_pass(reference: Reference) -> None:
    shown_s = [float(time_s) for time_s in CLIPS[0].recipe.shown_s]
    digests = {one for seen in reference.pictures for one in seen.digests}
    judge = Judge(shown_s, digests)

    def verdict(call: Given) -> str:
        return judge.judge([call], reference).name

    right = given(reference, [0, 20, 40])
    assert verdict(right) == "right"
    early = given(reference, [0, 18, 40])
    picture = right.pictures[1]
    mistakes = {
        "another picture": replace(picture, digest=early.pictures[1].digest, number=18),
        "pixels of no picture": replace(picture, digest="96x72:0"),
        "no such time": replace(picture, pts_s=0.79),
        "another number": replace(picture, index=18),
        "the picture before": early.pictures[1],
    }
    for what, mistake in mistakes.items():
        assert verdict(with_picture(right, 1, mistake)) == "wrong_passed_as_right", what
        said = replace(mistake, exact=False)
        assert verdict(with_picture(right, 1, said)) == "damaged_said_so", what
    by_seeking = replace(reference, pictures=reference.pictures[:20] + reference.pictures[21:])
    assert judge.judge([right], by_seeking).name == "right"
    without = replace(by_seeking, spared=(replace(reference.pictures[20], number=None),))
    odd = replace(picture, number=None)
    assert judge.judge([with_picture(right, 1, odd)], without).name == "right"
    assert judge.judge([with_picture(right, 1, odd)], by_seeking).name == "wrong_passed_as_right"
    other = replace(odd, digest=early.pictures[1].digest)
    assert judge.judge([with_picture(right, 1, other)], without).name == "wrong_passed_as_right"
    held = replace(right, pictures=right.pictures[:2])
    assert verdict(held) == "wrong_passed_as_right"
    assert verdict(Given(Ask(1), refused="video_corrupt")) == "refused"
    assert verdict(Given(Ask(1), refused="decoder_crashed")) == "crash"
    assert verdict(Given(Ask(1), refused="decode_timeout", seconds=15)) == "hang"
    assert verdict(Given(Ask(1), unexpected="KeyError")) == "unexpected_exception"
    assert verdict(Given(Ask(1), refused="decoding_failed")) == "unexpected_exception"


@contextmanager
def obeying() -> Iterator[Callable[[str], str]]:
    def work(order: str) -> str:
        if order == "die":
            os.abort()
        if order == "hang":
            threading.Event().wait()
        return order

    yield work


def test_death_silence_and_answer_are_told_apart() -> None:
    with Child(obeying) as child:
        child.ask("speak")
        assert child.answer(30) == Answer("speak")
        child.ask("die")
        assert child.answer(30) == Died(-6)
        child.ask("hang")
        assert child.answer(0.2) == Silent(0.2)
        child.ask("speak")
        assert child.answer(30) == Answer("speak")


def test_growth_with_the_files_is_a_leak_and_a_warm_up_is_none() -> None:
    report = Report(seed=1, asked_files=0, through="direct")
    report.held[0] = [(5, 10 << 20), *[(9, 90 << 20)] * 19]
    assert not report.leaks
    report.held[1] = [(9, n * MOST_GROWTH_BYTES // 8) for n in range(20)]
    assert report.leaks
    report.held[1] = [(9 + n // 16, 0) for n in range(20)]
    assert report.leaks
