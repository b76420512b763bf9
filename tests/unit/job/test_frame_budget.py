"""The number of frames that each video of a job gets."""

from __future__ import annotations

import pytest

from videoqa.contract import Image, Sampling, Video
from videoqa.contract.frame_sampling import DEFAULT_FPS_CAP, DEFAULT_FRAMES
from videoqa_worker.job.frame_budget import (
    ProcessorDefaults,
    assign_samplings,
    fill_sampling,
    split_frame_budget,
)


def test_a_request_that_names_a_number_keeps_it() -> None:
    asked = Sampling(frames=5)
    assert fill_sampling(asked, ProcessorDefaults(num_frames=32)) == asked


def test_the_processors_number_of_frames_is_the_default() -> None:
    assert fill_sampling(Sampling(), ProcessorDefaults(num_frames=32)).frames == 32
    assert fill_sampling(Sampling(method="keyframe"), ProcessorDefaults(num_frames=32)).frames == 32


def test_the_processors_rate_becomes_the_method_fps() -> None:
    found = fill_sampling(Sampling(), ProcessorDefaults(fps=0.5))
    assert (found.method, found.fps, found.frames) == ("fps", 0.5, DEFAULT_FPS_CAP)


def test_without_a_processors_wish_there_are_eight() -> None:
    assert fill_sampling(Sampling(), ProcessorDefaults()).frames == DEFAULT_FRAMES == 8


def test_given_times_are_left_alone() -> None:
    asked = Sampling(method="times", times=(1.0, 2.0))
    assert fill_sampling(asked, ProcessorDefaults(num_frames=32, fps=1.0)) == asked


@pytest.mark.parametrize(
    ("asked", "videos", "expected"),
    [
        (Sampling(frames=8), 2, [8, 8]),
        (Sampling(frames=8, budget=12), 2, [6, 6]),
        (Sampling(frames=8, budget=11), 3, [4, 4, 3]),
        (Sampling(frames=2, budget=11), 3, [2, 2, 2]),
        (Sampling(method="fps", fps=1, budget=5), 2, [3, 2]),
        (Sampling(method="fps", fps=1, frames=2, budget=50), 2, [2, 2]),
    ],
)
def test_a_budget_is_shared_equally(asked: Sampling, videos: int, expected: list[int]) -> None:
    assert [share.cap for share in split_frame_budget(asked, videos)] == expected


def test_an_image_that_may_move_takes_no_share_of_the_videos() -> None:
    image, video = Image(url="s3://b/a.png", guessed=True), Video(url="s3://b/a.mp4")
    asked = Sampling(frames=8, budget=6)
    assert [share.cap for share in assign_samplings(asked, (video, image, video))] == [3, 6, 3]


def test_the_workers_limits_of_a_frame_hold_for_jobs_that_state_none() -> None:
    limits = ProcessorDefaults(num_frames=4, max_pixels=1000, max_tokens_per_frame=64)
    asked = Sampling(method="times", times=(1.0,), max_pixels=500)
    assert fill_sampling(asked, limits) == asked.model_copy(update={"max_tokens_per_frame": 64})
    found = fill_sampling(Sampling(), limits)
    assert (found.frames, found.max_pixels, found.max_tokens_per_frame) == (4, 1000, 64)
