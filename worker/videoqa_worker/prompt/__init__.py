"""The prompt: question and pictures in the model's own chat format, through its own processor."""

from videoqa_worker.prompt.chat import chat_content
from videoqa_worker.prompt.normalisation import Normalisation
from videoqa_worker.prompt.per_tensor import PerTensor
from videoqa_worker.prompt.placeholder_runs import collapse_runs
from videoqa_worker.prompt.prompter import ModelInputs, Prompter
from videoqa_worker.prompt.viewed import Media, Remembering, Viewed

__all__ = [
    "Media",
    "ModelInputs",
    "Normalisation",
    "PerTensor",
    "Prompter",
    "Remembering",
    "Viewed",
    "chat_content",
    "collapse_runs",
]
