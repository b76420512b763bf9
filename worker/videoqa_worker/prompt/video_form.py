"""Finds out how a processor takes videos, by small trials: names of processors do not tell.

Some take no single frame (Qwen3-VL, GLM-4V), some only one video (Molmo2), or videos of as many frames each
(InternVL, PerceptionLM), some no images beside them (SmolVLM2's loses the images, GLM-4V's model cannot tell them from
a video's). What a processor cannot take as videos is asked about as images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from videoqa.errors import ConfigurationError, UnsupportedInput
from videoqa_worker.prompt.arrangement import PromptPart
from videoqa_worker.prompt.chat_template import ChatTemplate
from videoqa_worker.prompt.encoder import PromptEncoder
from videoqa_worker.prompt.model_inputs import ModelInputs
from videoqa_worker.prompt.prepared_media import FrameInput, PreparedMedia

__all__ = ["MediaForms", "VideoForm", "choose_forms"]


@dataclass(frozen=True)
class VideoForm:
    """The media that a processor takes beside one video."""

    takes_several: bool = True
    """True if a prompt may have several videos."""
    takes_any_lengths: bool = True
    """True if the videos of one prompt may differ in their numbers of frames."""
    takes_images: bool = True
    """True if a prompt may have images and videos."""

    def find_obstacle(self, media: Sequence[FrameInput]) -> str | None:
        """Returns why these media cannot be asked about as videos, or None."""
        videos = [len(item.frames) for item in media if item.kind == "video"]
        lengths = sorted(set(videos))
        if not self.takes_several and len(videos) > 1:
            return f"it takes one video in a prompt, and got {len(videos)}"
        if not self.takes_any_lengths and len(lengths) > 1:
            return f"it takes videos of one length only, and these have {lengths} frames"
        if not self.takes_images and any(item.kind == "image" for item in media):
            return "it takes no images beside videos"
        return None


@dataclass(frozen=True, eq=False)
class MediaForms:
    """The forms in which one model gets pictures and videos."""

    tokens: dict[str, str]
    """The processor's own token of each kind that it takes: `{"image": "<image>"}`."""
    template: ChatTemplate
    encoder: PromptEncoder
    videos: VideoForm | None = None
    """None: each frame of a video is an image."""
    video_obstacle: str | None = None
    """The reason for which a processor with a video part gets images all the same."""
    tells_times: bool = False
    """True if the processor gets the times of a video's frames."""


def choose_forms(
    processor: Any, chat_template: str, image_token: str, model_config: Any = None
) -> MediaForms:
    """Finds out in which forms a processor takes media.

    Arguments:
        model_config: may state further tokens for which the model puts in pictures.

    Raises:
        ConfigurationError: the chat template cannot render a question.
    """
    tokens = {"image": image_token}
    part = getattr(processor, "video_processor", None)
    if part is not None and not getattr(part, "takes_metadata", True):  # the LLaVA family's
        tokens["video"] = processor.video_token
        template = ChatTemplate(processor, chat_template, tokens)
        return MediaForms(
            tokens, template, _make_encoder(processor, tokens, model_config), VideoForm()
        )
    obstacle = getattr(processor, "video_obstacle", None)
    if part is not None and obstacle is None:
        try:
            return _try_videos(processor, chat_template, tokens, model_config)
        except (UnsupportedInput, ConfigurationError) as error:
            obstacle = str(error)
    template = ChatTemplate(processor, chat_template, tokens)
    encoder = _make_encoder(processor, tokens, model_config)
    return MediaForms(tokens, template, encoder, video_obstacle=obstacle)


def _make_encoder(processor: Any, tokens: dict[str, str], model_config: Any) -> PromptEncoder:
    return PromptEncoder(processor, _list_token_ids(processor, tokens, model_config))


def _list_token_ids(processor: Any, tokens: dict[str, str], model_config: Any) -> list[int]:
    """Returns all tokens that stand for media.

    Some processors write a picture with several, or with another one than it has in the prompt (Llama 4, Ovis2).
    """
    found = set(processor.tokenizer.convert_tokens_to_ids(list(tokens.values())))
    for kind in tokens:
        found |= set(getattr(processor, f"{kind}_token_ids", None) or ())
        found |= {getattr(model_config, f"{kind}_token_{name}", None) for name in ("id", "index")}
    return sorted(token for token in found if isinstance(token, int))


def _try_videos(
    processor: Any, chat_template: str, tokens: dict[str, str], model_config: Any
) -> MediaForms:
    """Returns the forms of a processor that takes videos with their times.

    Raises:
        UnsupportedInput: it takes none.
        ConfigurationError: the chat template cannot render a question with one.
    """
    token = getattr(processor, "video_token", None)
    if not isinstance(token, str):
        raise UnsupportedInput("the processor has no token for videos in its prompts")
    tokens = {**tokens, "video": token}
    template = ChatTemplate(processor, chat_template, tokens)
    if "video" not in template.renders:
        raise UnsupportedInput("the chat template writes no videos")
    encoder = _make_encoder(processor, tokens, model_config)
    if not _takes(encoder, tokens, 1):
        encoder.least_frames = getattr(processor.video_processor, "temporal_patch_size", None) or 2
        _encode(encoder, tokens, 1)
    form = VideoForm(
        takes_several=_takes(encoder, tokens, 2, 2),
        takes_any_lengths=_takes(encoder, tokens, 2, 4)
        and _writes_alike(processor, encoder, tokens),
        takes_images=_takes_images(processor, encoder, tokens),
    )
    return MediaForms(tokens, template, encoder, form, tells_times=True)


def _takes_images(processor: Any, encoder: PromptEncoder, tokens: dict[str, str]) -> bool:
    """Returns True if a prompt can have images and videos.

    False if both are written under one name, so that one replaces the other; or with one token under two names, so that
    the model looks for the features of all of them in the images.
    """
    names = (
        set(getattr(processor, f"{kind}_processor").model_input_names)
        for kind in ("image", "video")
    )
    if set.intersection(*names) or not _takes(encoder, tokens, 0, 2):
        return False
    inputs = _encode(encoder, tokens, 0, 2)
    video = processor.tokenizer.convert_tokens_to_ids(tokens["video"])
    return video in inputs.input_ids or "pixel_values_videos" not in inputs.images


def _writes_alike(processor: Any, encoder: PromptEncoder, tokens: dict[str, str]) -> bool:
    """Returns True if the text of a video does not depend on the length of another, as SmolVLM2's does."""

    def write(*frames: int) -> str:
        ids = _encode(encoder, tokens, *frames).input_ids[0]
        return str(processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    is_comparable = write(2, 2) == write(2) + write(2)
    return not is_comparable or write(2, 4) == write(2) + write(4)


def _takes(encoder: PromptEncoder, tokens: dict[str, str], *frames: int) -> bool:
    try:
        _encode(encoder, tokens, *frames)
    except UnsupportedInput:
        return False
    return True


def _encode(encoder: PromptEncoder, tokens: dict[str, str], *frames: int) -> ModelInputs:
    """Encodes small videos with so many frames; with 0, an image."""
    parts = [_make_part(count) for count in frames]
    prompt = "".join(tokens[part.kind] for part in parts)
    return encoder.encode(prompt, parts, PreparedMedia(()))


def _make_part(count: int) -> PromptPart:
    pixels = np.zeros((64, 96, 3), np.uint8)
    if not count:
        return PromptPart("image", frames=(pixels,))
    return PromptPart("video", frames=(pixels,) * count, times_s=tuple(map(float, range(count))))
