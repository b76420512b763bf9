"""Frame sampling: chooses the frames of a video that the model sees, and decodes them."""

from videoqa_worker.frames.budget import DecodeBudget, no_check
from videoqa_worker.frames.container.demuxer import OpenVideo, open_video
from videoqa_worker.frames.container.sniff import identify_head
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.guide import import_opencv
from videoqa_worker.frames.header import VideoHeader, read_header
from videoqa_worker.frames.image import read_image
from videoqa_worker.frames.picture.thumbnail import make_thumbnail
from videoqa_worker.frames.sample import sample_frames, warn_if_fewer
from videoqa_worker.frames.segment_sampler import SampledSegment, sample_segments
from videoqa_worker.frames.selection.clip import resolve_clip
from videoqa_worker.frames.selection.fetch_plan import plan_spans
from videoqa_worker.frames.selection.instants import compute_instants
from videoqa_worker.frames.sparse_file import CompleteFile, Span, Spans, SparseFile

__all__ = [
    "CompleteFile",
    "DecodeBudget",
    "Frame",
    "OpenVideo",
    "SampledSegment",
    "SampledVideo",
    "Span",
    "Spans",
    "SparseFile",
    "VideoHeader",
    "VideoInfo",
    "compute_instants",
    "identify_head",
    "import_opencv",
    "make_thumbnail",
    "no_check",
    "open_video",
    "plan_spans",
    "read_header",
    "read_image",
    "resolve_clip",
    "sample_frames",
    "sample_segments",
    "warn_if_fewer",
]
