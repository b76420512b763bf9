"""The worker's checks for `videoqa doctor`: model, device, video libraries, storage."""

from __future__ import annotations

import os
from pathlib import Path

from videoqa.errors import VideoQAError
from videoqa.objects import ObjectStore, file_path
from videoqa.show import Check
from videoqa_worker.settings import WorkerSettings

__all__ = ["checks"]


def checks() -> list[Check]:
    """What a worker started here, with these settings, would need."""
    try:
        settings = WorkerSettings.from_environment()
    except VideoQAError as error:
        return [
            Check("worker settings", ok=False, found=str(error), next_step="correct the variable")
        ]
    return [_device(), _model(settings), _video(), _output(settings)]


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check(
            "device", ok=True, found=f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
        )
    return Check("device", ok=True, found=f"CPU only, torch {torch.__version__}")


def _model(settings: WorkerSettings) -> Check:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            settings.model_source, revision=settings.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        return Check(
            "model",
            ok=False,
            found=f"{settings.model}: {str(error).splitlines()[0]}",
            next_step="check VIDEOQA_MODEL, the network, or download the checkpoint and name its folder",
        )
    return Check("model", ok=True, found=f"{settings.model} ({config.model_type})")


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
