"""The engine as a library: questions about videos in this process, without a queue and without Redis."""

from videoqa_worker.library.video_qa import VideoQA

__all__ = ["VideoQA"]
