"""Question and frames in, one row of model inputs out.

A model with a token for videos gets each video as one item, through its video processor.
A model that knows images only gets each sampled frame as an image. Marks in the question
(`<video>`, `<image>`) say where the media stand; without marks the media come first, in
the order given, then the text. Content goes through the checkpoint's chat template as
typed items; where the template would reorder them (see `chat_template`), as one text with
the model's own tokens at their places.

Knows the processor and the numbers of the model's configuration, not the model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from videoqa.contract import IMAGE_MARK, VIDEO_MARK
from videoqa.errors import ConfigurationError, MarkMismatch, PromptTooLong, UnsupportedInput
from videoqa_worker.prompt.chat_template import ChatTemplate
from videoqa_worker.prompt.control_tokens import ControlTokens
from videoqa_worker.prompt.normalisation import Normalisation
from videoqa_worker.prompt.per_tensor import PerTensor
from videoqa_worker.prompt.token_budget import Budget, Shape
from videoqa_worker.prompt.viewed import Media, Viewed

__all__ = ["ModelInputs", "Placed", "Prompter", "arrange"]

Kind = Literal["image", "video"]
_UNSTATED = 1 << 20
"""Tokens of context, where a model states none: some count positions from what they are given."""
MARK = re.compile(f"({re.escape(VIDEO_MARK)}|{re.escape(IMAGE_MARK)})")


_pinned = PerTensor(lambda tensor: tensor.pin_memory())


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """One row, not padded, on the CPU."""

    input_ids: torch.Tensor
    """int64[1, L]; a picture or video is as many placeholder tokens as it has features."""
    attention_mask: torch.Tensor
    """int64[1, L], ones."""
    images: Mapping[str, torch.Tensor]
    """What the processor made of the images, by its own names: `pixel_values`, `image_sizes`.
    `pixel_values` is of the same type as videos."""
    videos: tuple[torch.Tensor, ...]
    """[1, T, 3, H, W] each, RGB: uint8 where `normalisations` has its kind, else float32 and
    ready for the model. Videos of one row may differ in T."""
    frames: int
    """Pictures of all media together."""
    media_tokens: int = 0
    """How many of the L tokens stand for pictures."""
    normalisations: Mapping[str, Normalisation] = field(default_factory=dict)
    """What the device still has to do to the pixels of each kind, `image` and `video`."""

    @property
    def length(self) -> int:
        return int(self.input_ids.shape[1])

    def pinned(self) -> ModelInputs:
        """The same with pictures in page-locked memory, which CUDA reads by itself."""
        return replace(
            self,
            images={name: _pinned(value) for name, value in self.images.items()},
            videos=tuple(map(_pinned, self.videos)),
        )


@dataclass(frozen=True, eq=False)
class Placed:
    """A picture, a video or a piece of text, at its place in the prompt."""

    kind: Literal["text", "image", "video"]
    text: str = ""
    frames: tuple[np.ndarray, ...] = field(default=())


class Prompter:
    """Writes prompts for one checkpoint. Safe to use from many threads."""

    def __init__(
        self,
        processor: Any,
        model_config: Any,
        *,
        chat_template: str = "checkpoint",
        max_context: int | None = None,
    ) -> None:
        """
        Arguments:
            chat_template: `checkpoint`, `guide` or a Jinja template; see `chat_template`.
            max_context: tokens of prompt and answer together; None: what the model was built for.

        Raises:
            ConfigurationError: the chat template cannot render a question.
        """
        self._processor = processor
        self._tokens: dict[str, str] = {"image": _image_token(processor, chat_template)}
        if getattr(processor, "video_processor", None) is not None:
            self._tokens["video"] = processor.video_token
        self._token_ids = torch.tensor(
            processor.tokenizer.convert_tokens_to_ids(list(self._tokens.values()))
        )
        self._control = ControlTokens(processor.tokenizer, self._tokens.values())
        self._template = ChatTemplate(processor, chat_template, self._tokens)
        self._normalisations = {
            kind: part.normalisation
            for kind in self._tokens
            if hasattr(part := getattr(processor, f"{kind}_processor"), "normalisation")
        }
        text = model_config.get_text_config()
        built_for = int(getattr(text, "max_position_embeddings", None) or _UNSTATED)
        self.max_context = min(max_context or built_for, built_for)
        self._budget = Budget(self.max_context, self._media_tokens)
        self.takes_videos = "video" in self._tokens
        """The model has a token for a whole video; otherwise each frame is an image."""

    @property
    def pixels(self) -> dict[str, str]:
        """`fast` or `reference` for each kind of media that the model takes."""
        return {
            kind: "fast" if kind in self._normalisations else "reference" for kind in self._tokens
        }

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        """`num_frames` and `fps` of the checkpoint's video processor, where it states them."""
        stated = getattr(self._processor, "video_processor", None)
        return getattr(stated, "num_frames", None), getattr(stated, "fps", None)

    def build(
        self, media: Sequence[Media] | Viewed, question: str, *, max_new_tokens: int = 0
    ) -> ModelInputs:
        """One row of inputs; of a `Viewed`, what an earlier call made of the pictures is used again.

        Raises:
            UnsupportedInput: the model's processor cannot take these pictures.
            MarkMismatch: the question's marks are not those of the media.
            PromptTooLong: with `max_new_tokens` more the row is longer than the context.
        """
        viewed = Viewed.of(media)
        placed = [part for item in arrange(viewed.media, question) for part in self._parts(item)]
        prompt = self._render(placed)
        self._budget.check(_shapes(placed), lambda: self._others(prompt, placed) + max_new_tokens)
        with viewed.remembered():
            inputs = self._encode(prompt, placed, viewed)
        self.check_length(inputs, max_new_tokens)
        return inputs

    def length(self, media: Sequence[Media], question: str) -> int:
        """Tokens of the row that `build` would make; the pictures' sizes are looked at, not they.

        Raises:
            UnsupportedInput, MarkMismatch: as `build`.
        """
        placed = [part for item in arrange(media, question) for part in self._parts(item)]
        return self._others(self._render(placed), placed) + self._budget.tokens(_shapes(placed))

    def check_length(self, inputs: ModelInputs, max_new_tokens: int) -> None:
        """Raises PromptTooLong if prompt and answer cannot both fit the context."""
        length = inputs.length + max_new_tokens
        if length <= self.max_context:
            return
        if not inputs.frames:
            raise PromptTooLong(
                f"got {inputs.length} tokens of text, with max_new_tokens expected at most "
                f"{self.max_context}: ask less, or lower max_new_tokens"
            )
        media = inputs.media_tokens
        raise self._budget.too_long(length, inputs.frames, 0, media, length - media)

    def _others(self, prompt: str, placed: list[Placed]) -> int:
        """Tokens that are no pictures."""
        tokens = self._processor.tokenizer(prompt, add_special_tokens=self._begins(prompt))
        return len(tokens["input_ids"]) - sum(part.kind != "text" for part in placed)

    def _begins(self, prompt: str) -> bool:
        """Whether the tokenizer has to begin it, since the template did not."""
        bos = self._processor.tokenizer.bos_token
        return not (bos and prompt.startswith(bos))

    def _media_tokens(self, kind: str, items: Sequence[Sequence[np.ndarray]]) -> int:
        parts = [Placed(kind, frames=tuple(frames)) for frames in items]  # type: ignore[arg-type]
        return self._encode(self._tokens[kind] * len(parts), parts, Viewed(())).media_tokens

    def _parts(self, item: Placed) -> Iterator[Placed]:
        """What the template shall see of one item: for an image model, a video's frames."""
        if item.kind == "text":
            text = self._control.neutralise(item.text)
            if text:
                yield Placed("text", text)
        elif item.kind == "video" and not self.takes_videos:
            for frame in item.frames:
                yield Placed("image", frames=(frame,))
        else:
            yield item

    def _render(self, placed: list[Placed]) -> str:
        kinds = {part.kind for part in placed} - {"text"}
        media_first = all(part.kind != "text" for part in placed[:-1])
        faithful = len(kinds) == 1 and media_first and kinds <= self._template.renders
        if self._template.keeps_order or faithful or not kinds:
            content: list[dict[str, str]] = [
                {"type": "text", "text": part.text} if part.kind == "text" else {"type": part.kind}
                for part in placed
            ]
        else:
            content = [{"type": "text", "text": self._written_out(placed, media_first)}]
        return self._template.render(content)

    def _written_out(self, placed: list[Placed], media_first: bool) -> str:
        """The same as one text, the model's own tokens where the media stand."""
        gap = "\n" if media_first else ""
        return "".join(
            gap + part.text if part.kind == "text" else self._tokens[part.kind] for part in placed
        )

    def _encode(self, prompt: str, placed: list[Placed], viewed: Viewed) -> ModelInputs:
        images = [self._image(p.frames[0], viewed) for p in placed if p.kind == "image"]
        videos = [
            viewed.once(("stacked", *map(id, p.frames)), partial(_stacked, p.frames))
            for p in placed
            if p.kind == "video"
        ]
        try:
            data = self._processor(
                text=[prompt],
                # A list of one list: the images of one question. Given flat, LLaVA-OneVision
                # takes each for a question of its own and cuts all of them into tiles.
                images=[images] if images else None,
                videos=videos or None,
                # Video-LLaVA's image processor otherwise guesses from the sizes, wrongly at 3 rows.
                images_kwargs={"input_data_format": "channels_last"},
                return_tensors="pt",
                add_special_tokens=self._begins(prompt),
            )
        except (ValueError, TypeError, RuntimeError) as error:
            raise UnsupportedInput(
                f"the processor of the model refuses {len(images)} images and {len(videos)} "
                f"videos: {error}; try another number of frames, or fewer inputs"
            ) from error
        return self._inputs(dict(data), len(images) + sum(map(len, videos)), viewed)

    def _image(self, frame: np.ndarray, viewed: Viewed) -> np.ndarray | Image.Image:
        if "image" in self._normalisations:
            return frame
        return viewed.once(("image", id(frame)), partial(Image.fromarray, frame))

    def _inputs(self, data: dict[str, Any], frames: int, viewed: Viewed) -> ModelInputs:
        input_ids = data.pop("input_ids")
        attention_mask = data.pop("attention_mask")
        videos = tuple(
            viewed.once(("row", id(video)), partial(_row, video))
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
            normalisations=self._normalisations,
        )


def _row(video: Any) -> torch.Tensor:
    return torch.as_tensor(video)[None]


def _shapes(placed: list[Placed]) -> list[Shape]:
    return [
        (part.kind, len(part.frames), *part.frames[0].shape[:2])
        for part in placed
        if part.kind != "text"
    ]


def _image_token(processor: Any, chat_template: str) -> str:
    """What stands for an image in the prompt that the processor is given: some are given another
    token than the one that the model sees (Gemma 3)."""
    names = ("image_token", "boi_token")
    found = [token for name in names if isinstance(token := getattr(processor, name, None), str)]
    for token in found:
        template = ChatTemplate(processor, chat_template, {"image": token})
        if "image" in template.renders:
            return token
    if not found:
        raise ConfigurationError(
            f"{type(processor).__name__} has no token for images in its prompts; choose another "
            "checkpoint",
            param="model",
        )
    return found[0]


def arrange(media: Sequence[Media], question: str) -> Iterator[Placed]:
    """Media and text in the order in which they are to be read."""
    marks = Counter(mark.strip("<>") for mark in MARK.findall(question))
    have = Counter(item.kind for item in media)
    if not marks:
        yield from (Placed(item.kind, frames=_checked(item)) for item in media)
        yield Placed("text", question)
        return
    if marks != have:
        raise MarkMismatch(
            f"got {marks['video']} <video> and {marks['image']} <image> marks for {have['video']} "
            f"videos and {have['image']} images; place each input once, or leave the marks out"
        )
    waiting = {
        kind: iter([item for item in media if item.kind == kind]) for kind in ("image", "video")
    }
    for piece in MARK.split(question):
        if MARK.fullmatch(piece):
            item = next(waiting[piece.strip("<>")])
            yield Placed(item.kind, frames=_checked(item))
        else:
            yield Placed("text", piece)


def _checked(item: Media) -> tuple[np.ndarray, ...]:
    if not item.frames or (item.kind == "image" and len(item.frames) > 1):
        raise UnsupportedInput(
            f"got {len(item.frames)} frames for one {item.kind}, expected "
            f"{'exactly 1' if item.kind == 'image' else 'at least 1'}"
        )
    return item.frames


def _stacked(frames: tuple[np.ndarray, ...]) -> np.ndarray:
    """uint8[T, H, W, 3]. Of a list of frames upstream makes such an array three times over."""
    sizes = [shape for shape, _ in groupby(frame.shape for frame in frames)]
    if len(sizes) > 1:
        raise UnsupportedInput(
            f"got frames of the sizes {sizes[:3]} in one video, expected one size; "
            "the picture size changes within this video"
        )
    return np.stack(frames)
