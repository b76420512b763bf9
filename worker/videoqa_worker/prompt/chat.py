"""Question and pictures as the content of a chat message, for a server that has the model.

Pictures are data URIs, videos are their frames in order; the server's own chat template and
processor do the rest.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image

from videoqa_worker.prompt.control_tokens import without_likely_tokens
from videoqa_worker.prompt.prompter import Placed, arrange
from videoqa_worker.prompt.viewed import Viewed

__all__ = ["chat_content"]

_JPEG_QUALITY = 95


def chat_content(
    viewed: Viewed, question: str, *, images: Literal["png", "jpeg"] = "png"
) -> list[dict[str, Any]]:
    """The parts of one user message.

    Raises:
        UnsupportedInput: an input without frames.
        MarkMismatch: the question's marks are not those of the media.
    """
    arranged = arrange(viewed.media, question)
    return [part for placed in arranged for part in _parts(placed, images, viewed)]


def _parts(placed: Placed, images: str, viewed: Viewed) -> Iterator[dict[str, Any]]:
    if placed.kind != "text":
        for frame in placed.frames:
            url = viewed.once((images, id(frame)), partial(_data_uri, frame, images))
            yield {"type": "image_url", "image_url": {"url": url}}
    elif placed.text.strip():
        yield {"type": "text", "text": without_likely_tokens(placed.text)}


def _data_uri(frame: np.ndarray, images: str) -> str:
    """`frame`: uint8[H, W, 3], RGB."""
    buffer = BytesIO()
    if images == "png":  # the pixels as they are; level 1 takes a third of the time of the default
        Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(frame).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/{images};base64,{base64.b64encode(buffer.getvalue()).decode()}"
