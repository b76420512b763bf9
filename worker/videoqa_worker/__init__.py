"""videoqa-worker: holds a LLaVA model, samples frames and answers questions about videos.

As the worker of a queue it is started by `videoqa worker`. As a library it is `VideoQA`:

    with VideoQA("llava-hf/llava-interleave-qwen-0.5b-hf") as qa:
        print(qa.ask("clip.mp4", "What happens?").answers[0].text)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videoqa_worker.library import VideoQA as VideoQA

__version__ = "0.1.0"
__all__ = ["VideoQA", "__version__"]


def __getattr__(name: str) -> object:
    """Imports `VideoQA` at its first use: decoding processes import this package, and need no client."""
    if name == "VideoQA":
        from videoqa_worker.library import VideoQA

        return VideoQA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
