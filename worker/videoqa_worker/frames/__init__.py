"""Frame sampling: which pictures of a video the model sees, and their pixels."""

from videoqa_worker.frames.budget import Watch, no_check
from videoqa_worker.frames.container.demuxer import OpenVideo, open_video
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.image import read_image
from videoqa_worker.frames.sample import fewer, sample_frames
from videoqa_worker.frames.segments import SampledSegment, sample_segments
from videoqa_worker.frames.selection.clip import clip_of
from videoqa_worker.frames.selection.instants import instants_of
from videoqa_worker.frames.selection.plan import planned_spans
from videoqa_worker.frames.sparse_file import LocalMedia, Media, Span, Spans
from videoqa_worker.settings import FrameLimits

__all__ = [
    "Frame",
    "FrameLimits",
    "LocalMedia",
    "Media",
    "OpenVideo",
    "SampledSegment",
    "SampledVideo",
    "Span",
    "Spans",
    "VideoInfo",
    "Watch",
    "clip_of",
    "fewer",
    "instants_of",
    "no_check",
    "open_video",
    "planned_spans",
    "read_image",
    "sample_frames",
    "sample_segments",
]
