"""The worker's checks for `videoqa doctor`: model, device, video libraries, storage."""

from __future__ import annotations

import os
from pathlib import Path

import httpcore2
from huggingface_hub import HfApi, try_to_load_from_cache

from videoqa.errors import VideoQAError
from videoqa.local import LocalStack, home
from videoqa.objects import ObjectStore, file_path
from videoqa.show import Check
from videoqa_worker.settings import WorkerSettings

__all__ = ["checks"]

_UNREACHABLE = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
    UnicodeError,
    ValueError,
)


def checks() -> list[Check]:
    """What a worker started here, with these settings, would need."""
    stack = LocalStack.find(home(os.environ))
    try:
        # Beside a running `videoqa up`, the model that it was started with.
        settings = WorkerSettings.from_environment(model=_model_of(stack))
    except VideoQAError as error:
        return [
            Check("worker settings", ok=False, found=str(error), next_step="correct the variable")
        ]
    model = _server(settings.server_url) if settings.server_url else _model(settings)
    return [_device(), model, _video(), _output(settings)]


def _model_of(stack: LocalStack | None) -> str | None:
    return stack.model if stack is not None and "VIDEOQA_MODEL" not in os.environ else None


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check(
            "device", ok=True, found=f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
        )
    return Check("device", ok=True, found=f"CPU only, torch {torch.__version__}")


def _server(url: str) -> Check:
    """Whether something speaks HTTP there; the first question is asked by the worker."""
    try:
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), 5.0)
        status = httpcore2.request(
            "GET", f"{url.rstrip('/')}/models", extensions={"timeout": timeouts}
        ).status
    except _UNREACHABLE as error:
        return Check(
            "model's server",
            ok=False,
            found=f"{url}: {str(error) or type(error).__name__}",
            next_step="start the server, or check VIDEOQA_SERVER_URL",
        )
    return Check("model's server", ok=True, found=f"{url} answers ({status})")


def _model(settings: WorkerSettings) -> Check:
    """Whether the checkpoint is here, or can be had; its weights are not loaded."""
    source = settings.model_source
    if (Path(source) / "config.json").is_file():
        return Check("model", ok=True, found=f"{settings.model}, on this disk")
    if isinstance(try_to_load_from_cache(source, "config.json", revision=settings.revision), str):
        return Check("model", ok=True, found=f"{settings.model}, in the hub's cache")
    try:
        HfApi().model_info(source, revision=settings.revision, timeout=5)
    except Exception as error:  # noqa: BLE001 - the hub's client raises its transport's errors too
        return Check(
            "model",
            ok=False,
            found=f"{settings.model}: {(str(error) or type(error).__name__).splitlines()[0]}",
            next_step="check VIDEOQA_MODEL and the network, or name the folder of a checkpoint",
        )
    return Check("model", ok=True, found=f"{settings.model}, to be downloaded from the hub")


def _video() -> Check:
    import av

    return Check("video", ok=True, found=f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}")


def _output(settings: WorkerSettings) -> Check:
    """Writes a small object where results go, and removes it if it is a file."""
    url = settings.output.format(job_id="doctor-check", custom_id="doctor", date="doctor")
    try:
        ObjectStore(s3_endpoint_url=settings.s3_endpoint_url).write(url, b"{}")
    except VideoQAError as error:
        return Check("output", ok=False, found=str(error), next_step="check VIDEOQA_OUTPUT")
    if url.startswith("file:"):
        _tidy(file_path(url))
    return Check("output", ok=True, found=f"may write {os.path.dirname(url)}")


def _tidy(path: Path) -> None:
    path.unlink()
    if path.parent.name == "doctor":
        path.parent.rmdir()
