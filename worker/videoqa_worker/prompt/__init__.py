"""Question and pictures in the model's own chat format, through its own processor."""

from videoqa_worker.prompt.normalisation import Normalisation
from videoqa_worker.prompt.prompter import Media, ModelInputs, Prompter

__all__ = ["Media", "ModelInputs", "Normalisation", "Prompter"]
