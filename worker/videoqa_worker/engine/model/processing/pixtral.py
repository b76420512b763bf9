"""Pixtral's prompts: a picture is lines of placeholder tokens, with a token between two and one at the end.

transformers' class does this only where torchvision is installed, although it needs nothing of
it. The prompts of both are equal; only this one is used, so that they do not depend on what else
is installed.
"""

from __future__ import annotations

from typing import Any

from transformers.processing_utils import ProcessorMixin

__all__ = ["PixtralProcessor"]


class PixtralProcessor(ProcessorMixin):
    """Image processor and tokenizer of Pixtral and Mistral 3. A checkpoint's settings are its arguments."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: Any = None,
        image_token: str = "[IMG]",  # noqa: S107 - a word of the prompt
        image_break_token: str = "[IMG_BREAK]",  # noqa: S107
        image_end_token: str = "[IMG_END]",  # noqa: S107
        **_: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)  # type: ignore[no-untyped-call]
        self.patch_size, self.spatial_merge_size = patch_size, spatial_merge_size
        self.image_token = image_token
        self.image_break_token, self.image_end_token = image_break_token, image_end_token
        tokens = [image_token, image_break_token, image_end_token]
        self.image_token_ids = tokenizer.convert_tokens_to_ids(tokens)
        self.image_token_id = self.image_token_ids[0]

    @property
    def _cell(self) -> int:
        """Pixels on each side of what one placeholder token stands for."""
        return self.patch_size * self.spatial_merge_size

    def _process_images(self, images: Any, **settings: Any) -> Any:
        return super()._process_images(images, **{**settings, "patch_size": self._cell})

    def replace_image_token(self, image_inputs: Any, image_idx: int, **_: Any) -> str:
        """Returns the text that stands for a picture, by the size that it was resized to."""
        height, width = (int(edge) // self._cell for edge in image_inputs["image_sizes"][image_idx])
        line = self.image_token * width
        return self.image_break_token.join([line] * height) + self.image_end_token
