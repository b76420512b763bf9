"""The input of a model for one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from videoqa_worker.prompt.normalisation import Normalisation
from videoqa_worker.prompt.prepared_media import PreparedPixels

__all__ = ["ModelInputs"]


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """One prompt, not padded, on the CPU."""

    input_ids: torch.Tensor
    """int64[1, L]; a picture or video is as many placeholder tokens as it has features."""
    attention_mask: torch.Tensor
    """int64[1, L], ones."""
    images: Mapping[str, torch.Tensor]
    """The processor's output for images, by its own names: `pixel_values`, `image_sizes`.
    `pixel_values` is of the same type as videos."""
    videos: tuple[torch.Tensor, ...]
    """[1, T, 3, H, W] each, RGB: uint8 where `normalisations` has its kind, else float32 and
    ready for the model. Videos of one prompt may differ in T."""
    frames: int
    """Pictures of all media together."""
    media_tokens: int = 0
    """Tokens that stand for pictures."""
    normalisations: Mapping[str, Normalisation] = field(default_factory=dict)
    """Normalisation of the pixels of each kind, `image` and `video`, that is left to the device."""
    pixels: PreparedPixels = field(default_factory=PreparedPixels)
    """Page-locked copies of the tensors, shared by all questions of a job."""
    media_digest: bytes = b""
    """Digest of the frames and of all that the processor was told of them; empty without pictures. Equal ones mean
    equal pixels, whichever jobs they are of."""

    @property
    def length(self) -> int:
        """L, the tokens of the prompt."""
        return int(self.input_ids.shape[1])

    @property
    def token_inputs(self) -> dict[str, torch.Tensor]:
        """Those of `images` with a number for each token, as its kind: they belong to the prompt, not to the media."""
        return {
            name: value
            for name, value in self.images.items()
            if value.shape == self.input_ids.shape and not value.is_floating_point()
        }

    @property
    def media_inputs(self) -> dict[str, torch.Tensor]:
        """Those of `images` that are no `token_inputs`."""
        apart = self.token_inputs
        return {name: value for name, value in self.images.items() if name not in apart}

    def pin(self) -> ModelInputs:
        """Returns a copy with pictures in page-locked memory, which CUDA reads by itself."""
        pinned = {name: self.pixels.pin(value) for name, value in self.media_inputs.items()}
        return replace(
            self,
            images={**self.images, **pinned},
            videos=tuple(map(self.pixels.pin, self.videos)),
        )
