"""Models of vLLM with a fault repaired; imported only by vLLM's own processes and its front end."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.llava_onevision import LlavaOnevisionForConditionalGeneration

__all__ = ["LlavaOnevision"]


class LlavaOnevision(LlavaOnevisionForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-OneVision in vLLM 0.32 ends the engine when videos of one step differ in their number of frames."""

    def _process_video_pixels(self, inputs: Any) -> Any:
        """Returns features of each video, [tokens, d]: of videos that differ, vLLM's have one dimension too many."""
        found = super()._process_video_pixels(inputs)
        return [each.flatten(0, -2) for each in found] if isinstance(found, list) else found
