"""Builds the content of a chat message from question and pictures, for a model server.

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

from videoqa_worker.prompt.arrangement import PromptPart, arrange
from videoqa_worker.prompt.control_tokens import neutralise_likely_tokens
from videoqa_worker.prompt.prepared_media import PreparedMedia

__all__ = ["build_chat_content"]

_JPEG_QUALITY = 95


def build_chat_content(
    prepared: PreparedMedia, question: str, *, images: Literal["png", "jpeg"] = "png"
) -> list[dict[str, Any]]:
    """Returns the parts of one user message.

    Raises:
        UnsupportedInput: an input without frames.
        MarkMismatch: the question's marks are not those of the media.
    """
    arranged = arrange(prepared.media, question)
    return [item for part in arranged for item in _render(part, images, prepared)]


def _render(part: PromptPart, images: str, prepared: PreparedMedia) -> Iterator[dict[str, Any]]:
    if part.kind != "text":
        for frame in part.frames:
            encode = partial(_encode_data_uri, frame, images)
            url = prepared.compute_once((images, id(frame)), encode)
            yield {"type": "image_url", "image_url": {"url": url}}
    elif part.text.strip():
        yield {"type": "text", "text": neutralise_likely_tokens(part.text)}


def _encode_data_uri(frame: np.ndarray, images: str) -> str:
    """Encodes a frame, uint8[H, W, 3], RGB."""
    buffer = BytesIO()
    if images == "png":  # the pixels as they are; level 1 takes a third of the time of the default
        Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(frame).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/{images};base64,{base64.b64encode(buffer.getvalue()).decode()}"
