"""Builds prompts: question and pictures in the model's own chat format, through its own processor."""

from videoqa_worker.prompt.arrangement import PromptPart
from videoqa_worker.prompt.chat import (
    ChatForm,
    build_chat_content,
    build_system_messages,
    describe_videos,
)
from videoqa_worker.prompt.model_inputs import ModelInputs
from videoqa_worker.prompt.normalisation import Normalisation
from videoqa_worker.prompt.picture_limits import NO_LIMITS, PictureLimits
from videoqa_worker.prompt.placeholder_runs import collapse_runs
from videoqa_worker.prompt.prepared_media import FrameInput, PreparedMedia, PreparedPixels
from videoqa_worker.prompt.prompt_form import compute_form
from videoqa_worker.prompt.prompter import Prompter, RenderedPrompt
from videoqa_worker.prompt.video_metadata import describe_video

__all__ = [
    "NO_LIMITS",
    "ChatForm",
    "FrameInput",
    "ModelInputs",
    "Normalisation",
    "PictureLimits",
    "PreparedMedia",
    "PreparedPixels",
    "PromptPart",
    "Prompter",
    "RenderedPrompt",
    "build_chat_content",
    "build_system_messages",
    "collapse_runs",
    "compute_form",
    "describe_video",
    "describe_videos",
]
