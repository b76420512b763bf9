"""Runs a processor on a prompt and its media: tokens, and pixels for the model.

Knows how a processor takes videos: which it takes as they are, and what it cannot do. The rest of the prompt
(arrangement, chat format, length) is not its matter.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image

from videoqa.errors import UnsupportedInput
from videoqa_worker.prompt.arrangement import PromptPart
from videoqa_worker.prompt.model_inputs import ModelInputs
from videoqa_worker.prompt.normalisation import Normalisation
from videoqa_worker.prompt.picture_limits import PartSettings
from videoqa_worker.prompt.placeholder_runs import collapse_runs
from videoqa_worker.prompt.prepared_media import PreparedMedia, make_pixel_cache
from videoqa_worker.prompt.video_metadata import describe_video

__all__ = ["FAILURES", "PromptEncoder"]

FAILURES = (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError)
"""Errors by which processors refuse what they cannot take."""

_NOTHING: Mapping[str, PartSettings] = {}


class PromptEncoder:
    """Encodes prompts with one processor. Safe to use from many threads."""

    def __init__(self, processor: Any, token_ids: Sequence[int]) -> None:
        """
        Arguments:
            token_ids: tokens that stand for pictures.
        """
        self._processor = processor
        self._token_ids = torch.tensor(token_ids)
        self._encoder = copy.copy(processor)
        kinds = ("image", "video")
        named = (getattr(processor, f"{kind}_token", None) for kind in kinds)
        placeholders = [token for token in named if isinstance(token, str)]
        self._encoder.tokenizer = collapse_runs(processor.tokenizer, placeholders)
        parts = {kind: getattr(processor, f"{kind}_processor", None) for kind in kinds}
        found = {kind: getattr(part, "normalisation", None) for kind, part in parts.items()}
        self.normalisations: Mapping[str, Normalisation] = {
            kind: normalisation
            for kind, normalisation in found.items()
            if normalisation is not None
        }
        """Normalisation of the pixels of each kind that is left to the device."""
        self._tells_times = getattr(parts["video"], "takes_metadata", True)
        self.pixel_cache = make_pixel_cache(0)
        """Pixels that the processor has prepared, for other jobs."""
        self.least_frames = 1
        """Frames that the processor needs in a video; a shorter one ends with its last frame repeated."""

    def needs_bos(self, prompt: str) -> bool:
        """Returns True if the tokenizer has to add the begin token, since the template did not."""
        bos = self._processor.tokenizer.bos_token
        return not (bos and prompt.startswith(bos))

    def count_text_tokens(self, prompt: str, media: int) -> int:
        """Returns the tokens of a prompt, without those of so many media, each one token of it."""
        return len(self.encode_text(prompt)) - media

    def encode_text(self, prompt: str) -> list[int]:
        """Returns the ids of a prompt's tokens, with those that the chat template writes for media."""
        tokens = self._processor.tokenizer(prompt, add_special_tokens=self.needs_bos(prompt))
        return list(tokens["input_ids"])

    def encode(
        self,
        prompt: str,
        placed: Sequence[PromptPart],
        prepared: PreparedMedia,
        settings: Mapping[str, PartSettings] = _NOTHING,
    ) -> ModelInputs:
        """Encodes a prompt in which each picture and video stands as one token.

        Arguments:
            settings: for the processor of each kind, if it gets any.

        Raises:
            UnsupportedInput: the processor refuses these media.
        """
        images = [
            self._convert(part.frames[0], prepared) for part in placed if part.kind == "image"
        ]
        videos = [part for part in placed if part.kind == "video"]
        lengthened = [_lengthen(part, self.least_frames) for part in videos]
        stacked = [
            prepared.compute_once(("stacked", *map(id, part.frames)), partial(_stack, part.frames))
            for part in lengthened
        ]
        given = self._gather(images, stacked, lengthened, settings)
        frames = len(images) + sum(len(part.frames) for part in videos)
        media_digest = prepared.digest(given) if frames else b""
        data = self._process(prompt, given, prepared)
        return replace(self._make_inputs(data, frames, prepared), media_digest=media_digest)

    def measure_video(
        self, prompt: str, part: PromptPart, height: int, width: int, settings: PartSettings
    ) -> ModelInputs:
        """Returns the inputs of a prompt with one video of such frames, without a pixel in memory.

        Raises:
            UnsupportedInput: the processor refuses them, or computes with their values.
        """
        part = _lengthen(part, self.least_frames)
        blank = torch.empty((len(part.frames), height, width, 3), dtype=torch.uint8, device="meta")
        nothing = PreparedMedia(())
        given = self._gather([], [blank], [part], {"video": settings})
        return self._make_inputs(self._process(prompt, given, nothing), len(part.frames), nothing)

    def _gather(
        self,
        images: list[Any],
        videos: list[Any],
        parts: Sequence[PromptPart],
        settings: Mapping[str, PartSettings],
    ) -> dict[str, Any]:
        """Returns all that the processor is given beside the text; it decides the pixels."""
        own = {kind: dict(found.values) for kind, found in settings.items()}
        for_videos = own.get("video", {}) if videos else {}
        if videos and self._tells_times:
            for_videos |= _describe_videos(parts, videos)
        return {
            # A list of one list: the images of one question. In a flat list LLaVA-OneVision
            # takes each for a question of its own and cuts all of them into tiles.
            "images": [images] if images else None,
            "videos": videos or None,
            # Video-LLaVA's image processor otherwise guesses from the sizes, wrongly at 3 rows.
            "images_kwargs": {"input_data_format": "channels_last", **own.get("image", {})},
            **({"videos_kwargs": for_videos} if for_videos else {}),
        }

    def _process(
        self, prompt: str, given: dict[str, Any], prepared: PreparedMedia
    ) -> dict[str, Any]:
        try:
            data = prepared.bind(self._encoder, self.pixel_cache)(
                text=[prompt],
                **given,
                return_tensors="pt",
                add_special_tokens=self.needs_bos(prompt),
            )
        except FAILURES as error:
            images, videos = sum(map(len, given["images"] or ())), len(given["videos"] or ())
            raise UnsupportedInput(
                f"the processor of the model refuses {images} images and {videos} "
                f"videos: {error}; try another number of frames, or fewer inputs"
            ) from error
        return dict(data)

    def _convert(self, frame: np.ndarray, prepared: PreparedMedia) -> np.ndarray | Image.Image:
        """Returns a frame as the image processor takes it."""
        if "image" in self.normalisations:
            return frame
        return prepared.compute_once(("image", id(frame)), partial(Image.fromarray, frame))

    def _make_inputs(
        self, data: dict[str, Any], frames: int, prepared: PreparedMedia
    ) -> ModelInputs:
        input_ids = data.pop("input_ids")
        attention_mask = data.pop("attention_mask")
        videos: tuple[torch.Tensor, ...] = ()
        if not torch.is_tensor(data.get("pixel_values_videos")):  # the LLaVA family's, one by one
            videos = tuple(
                prepared.compute_once(("tensor", id(video)), partial(_make_tensor, video))
                for video in data.pop("pixel_values_videos", ())
            )
        if "pixel_values_images" in data:  # Video-LLaVA's old name
            data["pixel_values"] = data.pop("pixel_values_images")
        return ModelInputs(
            input_ids=input_ids,
            attention_mask=attention_mask,
            images={name: value for name, value in data.items() if torch.is_tensor(value)},
            videos=videos,
            frames=frames,
            media_tokens=int(torch.isin(input_ids, self._token_ids).sum()),
            normalisations=self.normalisations,
            pixels=prepared.pixels,
        )


def _describe_videos(parts: Sequence[PromptPart], videos: Sequence[Any]) -> dict[str, Any]:
    """Returns the settings by which a processor takes frames as they are, with their times."""
    metadata = []
    for part, video in zip(parts, videos, strict=True):
        times_s = part.times_s or tuple(map(float, range(len(part.frames))))
        metadata.append(describe_video(times_s, part.duration_s, *video.shape[1:3]))
    return {
        "video_metadata": metadata,
        "do_sample_frames": False,
        "input_data_format": "channels_last",
    }


def _lengthen(part: PromptPart, least: int) -> PromptPart:
    """Repeats the last frame of a video that is too short, as processors do with an odd number of frames."""
    missing = least - len(part.frames)
    if missing <= 0:
        return part
    times_s = part.times_s and (*part.times_s, *part.times_s[-1:] * missing)
    frames = (*part.frames, *part.frames[-1:] * missing)
    return PromptPart("video", "", frames, times_s or None, part.duration_s)


def _make_tensor(video: Any) -> torch.Tensor:
    return torch.as_tensor(video)[None]


def _stack(frames: tuple[np.ndarray, ...]) -> np.ndarray:
    """Returns uint8[T, H, W, 3]; of a list of frames upstream would make such an array three times over."""
    sizes = [shape for shape, _ in groupby(frame.shape for frame in frames)]
    if len(sizes) > 1:
        raise UnsupportedInput(
            f"got frames of the sizes {sizes[:3]} in one video, expected one size; "
            "the picture size changes within this video"
        )
    return np.stack(frames)
