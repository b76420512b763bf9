"""videoqa: questions about videos, answered at scale. This side submits jobs and reads answers."""

from videoqa.errors import VideoQAError

__version__ = "0.1.0"
__all__ = ["VideoQAError", "__version__"]
