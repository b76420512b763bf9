"""Builds the content of a chat message from question and pictures, for a model server.

Pictures are data URIs; a video is its frames in order, one by one or as one video of frames with their times. The
server's own chat template and processor do the rest.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from videoqa_worker.prompt.arrangement import PromptPart, arrange
from videoqa_worker.prompt.control_tokens import neutralise_likely_tokens
from videoqa_worker.prompt.prepared_media import FrameInput, PreparedMedia
from videoqa_worker.prompt.video_metadata import describe_video

__all__ = ["ChatForm", "build_chat_content", "build_system_messages", "describe_videos"]

_JPEG_QUALITY = 95


class ChatForm(NamedTuple):
    """The form in which a server gets frames."""

    images: Literal["png", "jpeg"] = "png"
    as_videos: bool = False
    """True: the frames of a video are one item; see `describe_videos`."""


def build_chat_content(
    prepared: PreparedMedia, question: str, form: ChatForm
) -> list[dict[str, Any]]:
    """Returns the parts of one user message.

    Raises:
        UnsupportedInput: an input without frames.
        MarkMismatch: the question's marks are not those of the media.
    """
    arranged = arrange(prepared.media, question)
    return [item for part in arranged for item in _render(part, form, prepared)]


def build_system_messages(system: str) -> list[dict[str, Any]]:
    """Returns the message with these instructions; an empty list without any."""
    if not system:
        return []
    return [{"role": "system", "content": neutralise_likely_tokens(system)}]


def describe_videos(media: Sequence[FrameInput]) -> dict[str, Any] | None:
    """Returns the times of all frames, as vLLM's server takes them beside a message (`media_io_kwargs`).

    None if there is no video, or if vLLM could not be told: it takes one list of times for all videos of a message, and
    frames of one size.
    """
    videos = [item for item in media if item.kind == "video"]
    found = [_describe(item) for item in videos]
    sizes = [{frame.shape for frame in item.frames} for item in videos]
    if not videos or any(one != found[0] for one in found) or any(len(one) > 1 for one in sizes):
        return None
    return {"video": found[0]}


def _describe(item: FrameInput) -> dict[str, Any]:
    times_s = item.pts_s or tuple(map(float, range(len(item.frames))))
    told = describe_video(times_s, item.duration_s, *item.frames[0].shape[:2])
    indices = told.frames_indices or []
    return {
        "num_frames": -1,  # all of them: vLLM would take the first 32
        "fps": told.fps,
        "frames_indices": indices,
        "total_num_frames": max(told.total_num_frames, len(indices)),
        "duration": told.duration,
    }


def _render(part: PromptPart, form: ChatForm, prepared: PreparedMedia) -> Iterator[dict[str, Any]]:
    if part.kind == "text":
        if part.text.strip():
            yield {"type": "text", "text": neutralise_likely_tokens(part.text)}
        return
    encoded = [_encode_once(frame, form.images, prepared) for frame in part.frames]
    if part.kind == "video" and form.as_videos:
        # The name of a sequence of pictures in vLLM, whatever their format.
        yield {
            "type": "video_url",
            "video_url": {"url": f"data:video/jpeg;base64,{','.join(encoded)}"},
        }
        return
    for text in encoded:
        url = f"data:image/{form.images};base64,{text}"
        yield {"type": "image_url", "image_url": {"url": url}}


def _encode_once(frame: np.ndarray, images: str, prepared: PreparedMedia) -> str:
    return prepared.compute_once((images, id(frame)), partial(_encode, frame, images))


def _encode(frame: np.ndarray, images: str) -> str:
    """Encodes a frame, uint8[H, W, 3], RGB, as a file in base64."""
    buffer = BytesIO()
    if images == "png":  # the pixels as they are; level 1 takes a third of the time of the default
        Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(frame).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
