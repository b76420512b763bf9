"""Finds out whether a model server takes sampled frames as one video with their times.

OpenAI's protocol has no videos. vLLM has: a sequence of pictures is a video (`video_url`), and their times are fields
beside the message, which it reads only with `--trust-request-mm-kwargs`. A server that would ignore the times, or take
only some of the frames, has to be known before it answers wrongly: so it is asked with times that do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from videoqa.contract import Warn
from videoqa.errors import ModelServerError, ModelServerUnavailable
from videoqa_worker.prompt import FrameInput, describe_videos

__all__ = ["VideoTrial"]

_TRUST = "--trust-request-mm-kwargs"


class VideoTrial:
    """Trial of a server with a video; nothing is known before `run`."""

    def __init__(self) -> None:
        self.takes_videos = False
        self.obstacle = ""
        """The reason for which videos are sent as images."""

    def run(self, ask: Callable[[FrameInput, dict[str, Any]], object]) -> None:
        """Asks about a video of two frames, with their times and with times of three.

        Arguments:
            ask: asks about a video, with the times that are sent beside it; raises the server's error.
        """
        frames = tuple(np.full((64, 64, 3), level, np.uint8) for level in (0, 255))
        video = FrameInput("video", frames, (0.0, 1.0))
        times = describe_videos([video]) or {}
        try:
            ask(video, times)
        except (ModelServerError, ModelServerUnavailable) as error:
            self.obstacle = str(error)
            return
        wrong = {"video": times["video"] | {"frames_indices": [0, 1, 2]}}
        try:
            ask(video, wrong)
        except ModelServerError:
            self.takes_videos = True
        else:
            self.obstacle = "it does not read the times of a video's frames"

    def warn_of(self, media: Sequence[FrameInput]) -> tuple[Warn, ...]:
        """Returns a warning if videos are images to a server that could take them as videos."""
        if all(item.kind == "image" for item in media):
            return ()
        if self.takes_videos and describe_videos(media) is None:
            reason = (
                "it takes one list of times for all videos of a question, and frames of one size"
            )
        elif not self.takes_videos and _TRUST in self.obstacle:
            reason = f"it takes the times of frames only if it is started with {_TRUST}"
        else:
            return ()
        message = (
            f"the model's server got each frame of a video as an image, without its time: {reason}"
        )
        return (Warn(code="video_as_images", message=message),)
