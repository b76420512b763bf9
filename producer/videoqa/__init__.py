"""videoqa: questions about videos, answered at scale.

This distribution submits jobs and reads their answers; it never imports a deep learning library.
The distribution that answers them is `videoqa-worker`.
"""

from videoqa.async_client import AsyncClient
from videoqa.client import Client
from videoqa.contract import (
    Answer,
    Event,
    Failure,
    FrameUsed,
    Generation,
    Image,
    Job,
    JobPage,
    JobRequest,
    Question,
    RequestFields,
    Result,
    Sampling,
    Segment,
    TextPiece,
    Video,
    Webhook,
)
from videoqa.errors import VideoQAError
from videoqa.settings import Settings
from videoqa.webhooks import WebhookCall, verify_webhook

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "Event",
    "Failure",
    "FrameUsed",
    "Generation",
    "Image",
    "Job",
    "JobPage",
    "JobRequest",
    "Question",
    "RequestFields",
    "Result",
    "Sampling",
    "Segment",
    "Settings",
    "TextPiece",
    "Video",
    "VideoQAError",
    "Webhook",
    "WebhookCall",
    "__version__",
    "verify_webhook",
]
