"""Which pictures of a video the model sees, and their pixels."""

from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.image import read_image
from videoqa_worker.frames.limits import FrameLimits
from videoqa_worker.frames.sample import sample_frames
from videoqa_worker.frames.segmented import SampledSegment, sample_segments

__all__ = [
    "Frame",
    "FrameLimits",
    "SampledSegment",
    "SampledVideo",
    "VideoInfo",
    "read_image",
    "sample_frames",
    "sample_segments",
]
