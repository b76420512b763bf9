"""Builds the model's inputs from question and frames.

A model with a token for videos gets each video as one item, through its video processor.
A model that knows images only gets each sampled frame as an image. Marks in the question
(`<video>`, `<image>`) say where the media stand; without marks the media come first, in
the order given, then the text. Content goes through the checkpoint's chat template as
typed items; where the template would reorder them (see `chat_template`), as one text with
the model's own tokens in their places.

Knows the processor and the numbers of the model's configuration, not the model.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken

from videoqa.contract import IMAGE_MARK, VIDEO_MARK, Warn
from videoqa.errors import ConfigurationError, MarkMismatch, PromptTooLong, UnsupportedInput
from videoqa_worker.prompt.chat_template import ChatTemplate
from videoqa_worker.prompt.control_tokens import ControlTokens
from videoqa_worker.prompt.model_inputs import ModelInputs
from videoqa_worker.prompt.placeholder_runs import collapse_runs
from videoqa_worker.prompt.prepared_media import FrameInput, PreparedMedia, make_pixel_cache
from videoqa_worker.prompt.token_budget import Shape, TokenBudget

__all__ = ["PromptPart", "Prompter", "arrange"]

Kind = Literal["image", "video"]
_UNSTATED = 1 << 20
"""Tokens of context for a model that states no limit: some derive positions from the input."""
_NO_TEMPLATE = Warn(
    code="no_chat_template",
    message="the checkpoint has no chat template, so the prompt had the plain format: the media, then "
    "`USER: question`, then `ASSISTANT:`; set VIDEOQA_CHAT_TEMPLATE to the format that it was trained with",
)
MARK = re.compile(f"({re.escape(VIDEO_MARK)}|{re.escape(IMAGE_MARK)})")


@dataclass(frozen=True, eq=False)
class PromptPart:
    """A picture, a video or a text, in the order of the prompt."""

    kind: Literal["text", "image", "video"]
    text: str = ""
    frames: tuple[np.ndarray, ...] = field(default=())


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
        self.pixel_cache = make_pixel_cache(pixel_cache_bytes)
        self._tokens: dict[str, str] = {"image": _find_image_token(processor, chat_template)}
        if getattr(processor, "video_processor", None) is not None:
            self._tokens["video"] = processor.video_token
        self._token_ids = torch.tensor(_list_token_ids(processor, self._tokens))
        self._encoder = copy.copy(processor)
        named = (getattr(processor, f"{kind}_token", None) for kind in ("image", "video"))
        placeholders = [token for token in named if isinstance(token, str)]
        self._encoder.tokenizer = collapse_runs(processor.tokenizer, placeholders)
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
        self._budget = TokenBudget(self.max_context, self._count_media_tokens)
        self.takes_videos = "video" in self._tokens
        """True if the model has a token for a whole video; otherwise each frame is an image."""

    @property
    def pixels(self) -> dict[str, str]:
        """Path of each kind of media that the model takes: `fast` or `reference`."""
        return {
            kind: "fast" if kind in self._normalisations else "reference" for kind in self._tokens
        }

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """Remarks on all answers with these prompts."""
        return (_NO_TEMPLATE,) if self._template.is_plain else ()

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        """Frames (`num_frames`) and `fps` that the checkpoint's video processor states, if it does."""
        stated = getattr(self._processor, "video_processor", None)
        return getattr(stated, "num_frames", None), getattr(stated, "fps", None)

    def build(
        self, media: Sequence[FrameInput] | PreparedMedia, question: str, *, max_new_tokens: int = 0
    ) -> ModelInputs:
        """Builds the inputs of a prompt; with `PreparedMedia`, pixels of an earlier call are used again.

        Raises:
            UnsupportedInput: the model's processor cannot take these pictures.
            MarkMismatch: the question's marks are not those of the media.
            PromptTooLong: prompt and `max_new_tokens` are longer than the context.
        """
        prepared = PreparedMedia.of(media)
        parts = self._arrange_parts(prepared.media, question)
        prompt = self._render(parts)
        self._budget.check(
            _list_shapes(parts), lambda: self._count_text_tokens(prompt, parts) + max_new_tokens
        )
        inputs = self._encode(prompt, parts, prepared)
        self.check_length(inputs, max_new_tokens)
        return inputs

    def count_tokens(self, media: Sequence[FrameInput], question: str) -> int:
        """Returns the length of the prompt that `build` would make, by the sizes of the pictures only.

        Raises:
            UnsupportedInput, MarkMismatch: as `build`.
        """
        parts = self._arrange_parts(media, question)
        text_tokens = self._count_text_tokens(self._render(parts), parts)
        return text_tokens + self._budget.count_tokens(_list_shapes(parts))

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
        raise self._budget.make_error(length, inputs.frames, 0, media, length - media)

    def _count_text_tokens(self, prompt: str, parts: list[PromptPart]) -> int:
        """Returns the number of tokens that are no pictures."""
        tokens = self._processor.tokenizer(prompt, add_special_tokens=self._needs_bos(prompt))
        return len(tokens["input_ids"]) - sum(part.kind != "text" for part in parts)

    def _needs_bos(self, prompt: str) -> bool:
        """Returns True if the tokenizer has to add the begin token, since the template did not."""
        bos = self._processor.tokenizer.bos_token
        return not (bos and prompt.startswith(bos))

    def _count_media_tokens(self, kind: str, items: Sequence[Sequence[np.ndarray]]) -> int:
        """Returns the tokens of a prompt of media alone, with those that the processor writes around them."""
        parts = [PromptPart(kind, frames=tuple(frames)) for frames in items]  # type: ignore[arg-type]
        prompt = self._tokens[kind] * len(parts)
        encoded = self._encode(prompt, parts, PreparedMedia(()))
        return encoded.length - self._count_text_tokens(prompt, parts)

    def _arrange_parts(self, media: Sequence[FrameInput], question: str) -> list[PromptPart]:
        return [part for item in arrange(media, question) for part in self._expand(item)]

    def _expand(self, item: PromptPart) -> Iterator[PromptPart]:
        """Yields the parts that the template gets of one item: for an image model, a video's frames."""
        if item.kind == "text":
            text = self._control.neutralise(item.text)
            if text:
                yield PromptPart("text", text)
        elif item.kind == "video" and not self.takes_videos:
            for frame in item.frames:
                yield PromptPart("image", frames=(frame,))
        else:
            yield item

    def _render(self, placed: list[PromptPart]) -> str:
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
                ]
            )
        if kinds and not self._template.takes_tokens:
            raise UnsupportedInput(
                "the model's chat template writes media before the text only; expected inputs of one "
                "kind and a question without marks, or a template of yours as chat_template"
            )
        return self._template.render_text(self._render_text(placed, media_first))

    def _render_text(self, placed: list[PromptPart], media_first: bool) -> str:
        """Returns all parts as one text, with the model's own tokens in place of the media."""
        gap = "\n" if media_first and len(placed) > 1 else ""
        return "".join(
            gap + part.text if part.kind == "text" else self._tokens[part.kind] for part in placed
        )

    def _encode(
        self, prompt: str, placed: list[PromptPart], prepared: PreparedMedia
    ) -> ModelInputs:
        images = [self._convert(p.frames[0], prepared) for p in placed if p.kind == "image"]
        videos = [
            prepared.compute_once(("stacked", *map(id, p.frames)), partial(_stack, p.frames))
            for p in placed
            if p.kind == "video"
        ]
        given = {
            # A list of one list: the images of one question. In a flat list LLaVA-OneVision
            # takes each for a question of its own and cuts all of them into tiles.
            "images": [images] if images else None,
            "videos": videos or None,
            # Video-LLaVA's image processor otherwise guesses from the sizes, wrongly at 3 rows.
            "images_kwargs": {"input_data_format": "channels_last"},
        }
        try:
            data = prepared.bind(self._encoder, self.pixel_cache)(
                text=[prompt],
                **given,
                return_tensors="pt",
                add_special_tokens=self._needs_bos(prompt),
            )
        except (ValueError, TypeError, RuntimeError) as error:
            raise UnsupportedInput(
                f"the processor of the model refuses {len(images)} images and {len(videos)} "
                f"videos: {error}; try another number of frames, or fewer inputs"
            ) from error
        inputs = self._make_inputs(dict(data), len(images) + sum(map(len, videos)), prepared)
        return replace(inputs, media_digest=prepared.digest(given)) if inputs.frames else inputs

    def _convert(self, frame: np.ndarray, prepared: PreparedMedia) -> np.ndarray | Image.Image:
        """Returns a frame as the image processor takes it."""
        if "image" in self._normalisations:
            return frame
        return prepared.compute_once(("image", id(frame)), partial(Image.fromarray, frame))

    def _make_inputs(
        self, data: dict[str, Any], frames: int, prepared: PreparedMedia
    ) -> ModelInputs:
        input_ids = data.pop("input_ids")
        attention_mask = data.pop("attention_mask")
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
            normalisations=self._normalisations,
            pixels=prepared.pixels,
        )


def _make_tensor(video: Any) -> torch.Tensor:
    return torch.as_tensor(video)[None]


def _list_shapes(parts: list[PromptPart]) -> list[Shape]:
    return [
        (part.kind, len(part.frames), *part.frames[0].shape[:2])
        for part in parts
        if part.kind != "text"
    ]


def _list_token_ids(processor: Any, tokens: dict[str, str]) -> list[int]:
    """Returns all tokens that stand for media: of some processors, a picture is written with several."""
    found = set(processor.tokenizer.convert_tokens_to_ids(list(tokens.values())))
    for kind in tokens:
        found |= set(getattr(processor, f"{kind}_token_ids", None) or ())
    return sorted(token for token in found if isinstance(token, int))


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
    except (ValueError, TypeError, RuntimeError):
        return False
    return True


def arrange(media: Sequence[FrameInput], question: str) -> Iterator[PromptPart]:
    """Yields media and text in the order of the prompt."""
    marks = Counter(mark.strip("<>") for mark in MARK.findall(question))
    if not marks:
        yield from (PromptPart(item.kind, frames=_check_frames(item)) for item in media)
        yield PromptPart("text", question)
        return
    marked = next(
        (names for names in _name_kinds(media) if Counter(names) == marks), None
    )  # fmt: skip
    if marked is None:
        have = Counter(item.kind for item in media)
        raise MarkMismatch(
            f"got {marks['video']} <video> and {marks['image']} <image> marks for {have['video']} "
            f"videos and {have['image']} images; place each input once, or leave the marks out"
        )
    waiting = {
        kind: iter([item for item, name in zip(media, marked, strict=True) if name == kind])
        for kind in ("image", "video")
    }
    for text in MARK.split(question):
        if MARK.fullmatch(text):
            item = next(waiting[text.strip("<>")])
            yield PromptPart(item.kind, frames=_check_frames(item))
        else:
            yield PromptPart("text", text)


def _name_kinds(media: Sequence[FrameInput]) -> Iterator[list[str]]:
    """Yields the kinds by which marks may place the media: as the request names them, and as their bytes are."""
    yield [item.asked or item.kind for item in media]
    yield [item.kind for item in media]


def _check_frames(item: FrameInput) -> tuple[np.ndarray, ...]:
    if not item.frames or (item.kind == "image" and len(item.frames) > 1):
        raise UnsupportedInput(
            f"got {len(item.frames)} frames for one {item.kind}, expected "
            f"{'exactly 1' if item.kind == 'image' else 'at least 1'}"
        )
    return item.frames


def _stack(frames: tuple[np.ndarray, ...]) -> np.ndarray:
    """Returns uint8[T, H, W, 3]; of a list of frames upstream would make such an array three times over."""
    sizes = [shape for shape, _ in groupby(frame.shape for frame in frames)]
    if len(sizes) > 1:
        raise UnsupportedInput(
            f"got frames of the sizes {sizes[:3]} in one video, expected one size; "
            "the picture size changes within this video"
        )
    return np.stack(frames)
