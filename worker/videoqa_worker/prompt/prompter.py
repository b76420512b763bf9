"""Builds the model's inputs from question and frames.

A model whose processor takes videos gets each video as one item, with the times of its frames.
To other models, and where their processor cannot take these videos, each sampled frame is an image. Marks in the
question (`<video>`, `<image>`) say where the media stand; without marks the media come first, in
the order given, then the text. Content goes through the checkpoint's chat template as
typed items; where the template would reorder them (see `chat_template`), as one text with
the model's own tokens in their places.

Knows the processor and the numbers of the model's configuration, not the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image
from tokenizers import AddedToken

from videoqa.contract import Warn
from videoqa.errors import (
    ConfigurationError,
    PromptTooLong,
    SystemUnsupported,
    UnsupportedInput,
)
from videoqa_worker.prompt.arrangement import PromptPart, arrange
from videoqa_worker.prompt.chat_template import ChatTemplate
from videoqa_worker.prompt.control_tokens import ControlTokens
from videoqa_worker.prompt.encoder import FAILURES
from videoqa_worker.prompt.model_inputs import ModelInputs
from videoqa_worker.prompt.picture_limits import (
    NO_LIMITS,
    NO_SETTINGS,
    Limiter,
    Measured,
    PartSettings,
)
from videoqa_worker.prompt.prepared_media import (
    FrameInput,
    PixelCache,
    PreparedMedia,
    make_pixel_cache,
)
from videoqa_worker.prompt.token_budget import Shape, TokenBudget
from videoqa_worker.prompt.video_form import choose_forms

__all__ = ["Prompter", "RenderedPrompt"]

Kind = Literal["image", "video"]
_UNSTATED = 1 << 20
"""Tokens of context for a model that states no limit: some derive positions from the input."""
_NO_TEMPLATE = Warn(
    code="no_chat_template",
    message="the checkpoint has no chat template, so the prompt had the plain format: the media, then "
    "`USER: question`, then `ASSISTANT:`; set VIDEOQA_CHAT_TEMPLATE to the format that it was trained with",
)
_BLANK_PIXELS = 1 << 26
"""Most pixels of a video that stands for another when its tokens are counted: 200 MB."""


@dataclass(frozen=True, eq=False)
class RenderedPrompt:
    """A prompt whose media are not processed: for an engine with a processor of its own."""

    token_ids: Sequence[int]
    """Each picture or video is one token, or as many as the chat template writes."""
    media: tuple[PromptPart, ...]
    """In the order of their tokens."""


class Prompter:
    """Builds prompts for one checkpoint. Safe to use from many threads."""

    def __init__(
        self,
        processor: Any,
        model_config: Any,
        *,
        chat_template: str = "checkpoint",
        max_context: int | None = None,
        pixel_cache_bytes: int = 0,
    ) -> None:
        """
        Arguments:
            chat_template: `checkpoint`, `guide` or a Jinja template; see `chat_template`.
            max_context: tokens of prompt and answer together; None: what the model was built for.
            pixel_cache_bytes: prepared pixels kept for later jobs; 0: only jobs at the same time share them.

        Raises:
            ConfigurationError: the chat template cannot render a question.
        """
        self._processor = processor
        image_token = _find_image_token(processor, chat_template)
        forms = choose_forms(processor, chat_template, image_token, model_config)
        self._forms, self._tokens = forms, forms.tokens
        self._template, self._encoder = forms.template, forms.encoder
        self._encoder.pixel_cache = make_pixel_cache(pixel_cache_bytes)
        self._control = ControlTokens(processor.tokenizer, self._tokens.values())
        text = model_config.get_text_config()
        built_for = int(getattr(text, "max_position_embeddings", None) or _UNSTATED)
        self.max_context = min(max_context or built_for, built_for)
        self._budget = TokenBudget(
            self.max_context,
            self._count_media_tokens,
            self._count_video_tokens if forms.tells_times else None,
        )
        self._limiter = Limiter(processor, self._measure_picture)
        self.takes_videos = forms.videos is not None
        """True if the model has a token for a whole video; otherwise each frame is an image."""

    @property
    def pixel_cache(self) -> PixelCache:
        """Prepared pixels that jobs share."""
        return self._encoder.pixel_cache

    @property
    def pixels(self) -> dict[str, str]:
        """Path of each kind of media that the model takes: `fast` or `reference`."""
        return {
            kind: "fast" if kind in self._encoder.normalisations else "reference"
            for kind in self._tokens
        }

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """Remarks on all answers with these prompts."""
        return (_NO_TEMPLATE,) if self._template.is_plain else ()

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        """Frames (`num_frames`) and `fps` that the checkpoint's video processor states, if it does."""
        stated = getattr(self._processor, "video_processor", None) if self.takes_videos else None
        return getattr(stated, "num_frames", None), getattr(stated, "fps", None)

    def build(
        self,
        media: Sequence[FrameInput] | PreparedMedia,
        question: str,
        *,
        system: str = "",
        max_new_tokens: int = 0,
    ) -> ModelInputs:
        """Builds the inputs of a prompt; with `PreparedMedia`, pixels of an earlier call are used again.

        Arguments:
            system: instructions, for the system message; empty: none.

        Raises:
            SystemUnsupported: the chat template has no place for instructions.
            UnsupportedInput: the model's processor cannot take these pictures.
            FrameLimitUnmet: it cannot keep the limits of the media.
            MarkMismatch: the question's marks are not those of the media.
            PromptTooLong: prompt and `max_new_tokens` are longer than the context.
        """
        prepared = PreparedMedia.of(media)
        prompt, parts, settings = self._lay_out(prepared.media, question, system, max_new_tokens)
        inputs = self._encoder.encode(prompt, parts, prepared, settings)
        self.check_length(inputs, max_new_tokens)
        return inputs

    def render(
        self,
        media: Sequence[FrameInput] | PreparedMedia,
        question: str,
        *,
        system: str = "",
        max_new_tokens: int = 0,
    ) -> RenderedPrompt:
        """Renders a prompt for an engine that processes the media itself.

        Raises:
            SystemUnsupported, UnsupportedInput, MarkMismatch, PromptTooLong: as `build`.
        """
        own = PreparedMedia.of(media).media
        prompt, parts, _ = self._lay_out(own, question, system, max_new_tokens)
        tokens = self._encoder.encode_text(prompt)
        placed = tuple(part for part in parts if part.kind != "text")
        if not placed:
            self._check_text(len(tokens), max_new_tokens)
        return RenderedPrompt(tokens, placed)

    def _lay_out(
        self, media: Sequence[FrameInput], question: str, system: str, max_new_tokens: int
    ) -> tuple[str, list[PromptPart], dict[str, PartSettings]]:
        """Returns the prompt as text, its parts in order, and settings of the processor, once they fit the context."""
        parts = self._arrange_parts(media, question)
        prompt = self._render(parts, system)
        settings = self._choose_settings(media, parts)
        self._budget.check(
            _list_shapes(parts, settings),
            lambda: self._count_text_tokens(prompt, parts) + max_new_tokens,
        )
        return prompt, parts, settings

    def count_tokens(self, media: Sequence[FrameInput], question: str, *, system: str = "") -> int:
        """Returns the length of the prompt that `build` would make, by the sizes of the pictures only.

        Raises:
            SystemUnsupported, UnsupportedInput, FrameLimitUnmet, MarkMismatch: as `build`.
        """
        parts = self._arrange_parts(media, question)
        text_tokens = self._count_text_tokens(self._render(parts, system), parts)
        settings = self._choose_settings(media, parts)
        return text_tokens + self._budget.count_tokens(_list_shapes(parts, settings))

    def check_length(self, inputs: ModelInputs, max_new_tokens: int) -> None:
        """Raises PromptTooLong if prompt and answer cannot both fit the context."""
        length = inputs.length + max_new_tokens
        if length <= self.max_context:
            return
        if not inputs.frames:
            self._check_text(inputs.length, max_new_tokens)
        media = inputs.media_tokens
        raise self._budget.make_error(length, inputs.frames, 0, media, length - media)

    def _check_text(self, length: int, max_new_tokens: int) -> None:
        if length + max_new_tokens > self.max_context:
            error = PromptTooLong(
                f"got {length} tokens of text, with max_new_tokens expected at most "
                f"{self.max_context}: ask less, or lower max_new_tokens"
            )
            error.excess = length / max(1, self.max_context - max_new_tokens)
            raise error

    def warn_of(self, media: Sequence[FrameInput]) -> tuple[Warn, ...]:
        """Returns a warning if videos are asked about as images although the model's processor has a video part."""
        obstacle = self._find_obstacle(media)
        if obstacle is None:
            return ()
        message = (
            "the model got each frame of a video as an image, without its time: its processor has a part for videos, "
            f"but {obstacle}"
        )
        return (Warn(code="video_as_images", message=message),)

    def _find_obstacle(self, media: Sequence[FrameInput]) -> str | None:
        """Returns why these videos are images to a model whose processor has a video part, or None."""
        if all(item.kind == "image" for item in media):
            return None
        if self._forms.videos is None:
            return self._forms.video_obstacle
        return self._forms.videos.find_obstacle(media)

    def _count_text_tokens(self, prompt: str, parts: list[PromptPart]) -> int:
        """Returns the number of tokens that are no pictures."""
        media = sum(part.kind != "text" for part in parts)
        return self._encoder.count_text_tokens(prompt, media)

    def _choose_settings(
        self, media: Sequence[FrameInput], parts: list[PromptPart]
    ) -> dict[str, PartSettings]:
        """Returns the processor's settings for the limits of these media, by kind."""
        limits = media[0].limits if media else NO_LIMITS
        if not limits:
            return {}
        shapes = _list_shapes(parts, {})
        return {kind: self._limiter.choose(kind, shapes, limits) for kind in self._tokens}

    def _count_media_tokens(
        self,
        kind: str,
        items: Sequence[Sequence[np.ndarray]],
        settings: PartSettings | None = None,
    ) -> int:
        """Returns the tokens of a prompt of media alone, with those that the processor writes around them."""
        parts = [PromptPart(kind, frames=tuple(frames)) for frames in items]  # type: ignore[arg-type]
        prompt = self._tokens[kind] * len(parts)
        own = {kind: settings or NO_SETTINGS}
        encoded = self._encoder.encode(prompt, parts, PreparedMedia(()), own)
        return encoded.length - self._count_text_tokens(prompt, parts)

    def _count_video_tokens(self, shape: Shape) -> int:
        """Returns the tokens of a video with those around them; of a very long one an estimate, where it must be."""
        others = self._encoder.count_text_tokens(self._tokens["video"], 1)
        encoded, count = self._encode_blank(shape, _get_settings(shape))
        return -(-(encoded.length - others) * shape.frames // count)

    def _encode_blank(self, shape: Shape, settings: PartSettings) -> tuple[ModelInputs, int]:
        """Returns a prompt with a video, or an image, by the processor's own arithmetic, and the number of its frames.

        It computes with sizes only, where it can. Else it gets a video of that size whose frames alternate between
        black and white, since some leave out what does not change: of a very long one a part.
        """
        prompt, size = self._tokens[shape.kind], (shape.height, shape.width, 3)
        if shape.kind == "video" and self._forms.tells_times:
            blank = (np.zeros((1, 1, 3), np.uint8),) * shape.frames
            part = PromptPart("video", "", blank, shape.times_s, shape.duration_s)
            try:
                sizes = shape.height, shape.width
                return self._encoder.measure_video(prompt, part, *sizes, settings), shape.frames
            except UnsupportedInput:
                pass
        count = min(shape.frames, max(2, _BLANK_PIXELS // (shape.height * shape.width)))
        pair = np.zeros(size, np.uint8), np.full(size, 255, np.uint8)
        frames = tuple(pair[n % 2] for n in range(count))
        part = PromptPart(shape.kind, "", frames, shape.times_s and shape.times_s[:count])  # type: ignore[arg-type]
        nothing = PreparedMedia(())
        return self._encoder.encode(prompt, [part], nothing, {shape.kind: settings}), count

    def _measure_picture(self, shape: Shape, settings: PartSettings) -> Measured:
        """Returns what the processor makes of one frame of a video, or of an image."""
        encoded, count = self._encode_blank(shape, settings)
        return Measured(
            _count_pixels(self._processor, shape.kind, encoded) / count,
            encoded.media_tokens / count,
        )

    def _arrange_parts(self, media: Sequence[FrameInput], question: str) -> list[PromptPart]:
        as_images = not self.takes_videos or self._find_obstacle(media) is not None
        arranged = arrange(media, question)
        return [part for item in arranged for part in self._expand(item, as_images=as_images)]

    def _expand(self, item: PromptPart, *, as_images: bool) -> Iterator[PromptPart]:
        """Yields the parts that the template gets of one item: for an image model, a video's frames."""
        if item.kind == "text":
            text = self._control.neutralise(item.text)
            if text:
                yield PromptPart("text", text)
        elif item.kind == "video" and as_images:
            for frame in item.frames:
                yield PromptPart("image", frames=(frame,))
        else:
            yield item

    def _render(self, placed: list[PromptPart], system: str) -> str:
        if system and not self._template.takes_system:
            raise SystemUnsupported(
                "got system, but the model's chat template writes no system message: put the instructions into the "
                "question, or set VIDEOQA_CHAT_TEMPLATE to a template that writes one"
            )
        system = self._control.neutralise(system)
        kinds = {part.kind for part in placed} - {"text"}
        media_first = all(part.kind != "text" for part in placed[:-1])
        faithful = len(kinds) == 1 and media_first and kinds <= self._template.renders
        if kinds and (self._template.keeps_order or faithful):
            return self._template.render(
                [
                    {"type": "text", "text": part.text}
                    if part.kind == "text"
                    else {"type": part.kind}
                    for part in placed
                ],
                system,
            )
        if kinds and not self._template.takes_tokens:
            raise UnsupportedInput(
                "the model's chat template writes media before the text only; expected inputs of one "
                "kind and a question without marks, or a template of yours as chat_template"
            )
        return self._template.render_text(self._render_text(placed, media_first), system)

    def _render_text(self, placed: list[PromptPart], media_first: bool) -> str:
        """Returns all parts as one text, with the model's own tokens in place of the media."""
        gap = "\n" if media_first and len(placed) > 1 else ""
        return "".join(
            gap + part.text if part.kind == "text" else self._tokens[part.kind] for part in placed
        )


def _list_shapes(parts: list[PromptPart], settings: Mapping[str, PartSettings]) -> list[Shape]:
    return [_make_shape(part, settings.get(part.kind)) for part in parts if part.kind != "text"]


def _make_shape(part: PromptPart, settings: PartSettings | None) -> Shape:
    height, width = part.frames[0].shape[:2]
    frames, times_s = len(part.frames), part.times_s
    return Shape(part.kind, frames, height, width, times_s, part.duration_s, settings)


def _get_settings(shape: Shape) -> PartSettings:
    return shape.settings if isinstance(shape.settings, PartSettings) else NO_SETTINGS


def _count_pixels(processor: Any, kind: str, inputs: ModelInputs) -> float:
    """Returns the pixels of all frames of a prompt with one video or image, without the frames that fill up a pair."""
    grid = inputs.images.get(f"{kind}_grid_thw")
    if grid is not None:
        part = getattr(processor, f"{kind}_processor")
        cells = int(grid[:, 1:].prod(-1).sum())
        return cells * float(part.patch_size**2) * inputs.frames
    names = ("pixel_values_videos", "pixel_values") if kind == "video" else ("pixel_values",)
    found = [inputs.images[name] for name in names if name in inputs.images][:1]
    return sum(tensor.numel() for tensor in (*found, *inputs.videos)) / 3


def _find_image_token(processor: Any, chat_template: str) -> str:
    """Returns the token of an image in the processor's prompts: some take another one than the model (Gemma 3)."""
    stated = (getattr(processor, name, None) for name in ("image_token", "boi_token"))
    found = [str(token) for token in stated if isinstance(token, str | AddedToken)]
    if not found:
        raise ConfigurationError(
            f"{type(processor).__name__} has no token for images in its prompts; choose another "
            "checkpoint",
            param="model",
        )
    if len(found) == 1:
        return found[0]
    for token in found:
        template = ChatTemplate(processor, chat_template, {"image": token})
        if "image" in template.renders:
            return token
    accepted = (token for token in found if _accepts(processor, token))
    return next(accepted, found[0])


def _accepts(processor: Any, token: str) -> bool:
    """Returns True if the processor takes this token in a prompt for a picture."""
    black = Image.new("RGB", (32, 32))
    try:
        processor(text=[token], images=[[black]], return_tensors="pt")
    except FAILURES:
        return False
    return True
