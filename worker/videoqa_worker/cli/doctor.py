"""Checks of the worker for `videoqa doctor`: device, model, video libraries, spool and storage."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpcore2
from huggingface_hub import HfApi, try_to_load_from_cache

from videoqa.cli.doctor import check_variables
from videoqa.cli.output import Check
from videoqa.contract import Sampling, WorkerInfo, check_output, fixed_part
from videoqa.errors import VideoQAError
from videoqa.local_stack import LocalStack, find_stack
from videoqa.redaction import redact_text, redact_url
from videoqa.storage import ObjectStore, file_path
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.decoding.messages import Confinement
from videoqa_worker.frames import CompleteFile
from videoqa_worker.settings import WorkerSettings

__all__ = ["checks"]

_NVIDIA = Path("/dev/nvidiactl")
_MAX_WEIGHT_SHARE = 0.9
"""Share of a GPU's memory: the rest is for the KV cache and frames."""
OUTPUT_LIMIT_S = 8.0
"""Longest wait for storage, in all: boto3 tries three times, for a minute and more."""
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4")

_UNREACHABLE = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
    UnicodeError,
    ValueError,
)


def checks(workers: Sequence[WorkerInfo] = ()) -> Iterator[Check]:
    """Yields the checks of this machine: the folders of workers that run here, else of one that would start here.

    Arguments:
        workers: all that announced themselves.
    """
    stack = find_stack()
    try:
        # A running `videoqa up` is checked with the model that it was started with.
        settings = WorkerSettings.from_environment(model=_model_of(stack))
    except VideoQAError as error:
        yield Check("worker settings", ok=False, found=str(error), next_step="correct the variable")
        return
    here = [info for info in workers if info.host == socket.gethostname()]
    stores = [
        _start(partial(_check_output, output, settings.s3_endpoint_url), output)
        for output in sorted({info.output or settings.output for info in here} or {settings.output})
    ]
    yield check_variables(os.environ, WorkerSettings)
    yield _check_device(settings)
    yield _check_server(settings.server.url) if settings.server.url else _check_model(settings)
    yield from _check_video(settings)
    most = settings.sources.max_bytes
    spools = {(Path(info.spool), info.max_source_bytes or most) for info in here if info.spool}
    own = {(settings.sources.spool_dir or Path(tempfile.gettempdir()), most)}
    for folder, max_bytes in sorted(spools or own):
        yield _check_spool(folder, max_bytes)
    for wait_for in stores:
        yield wait_for()


def _start(check: Callable[[], Check], output: str) -> Callable[[], Check]:
    """Starts a check that may hang, beside the others; returns the function that waits for it, not for ever."""
    done: list[Check] = []
    begun_s = time.monotonic()
    thread = threading.Thread(target=lambda: done.append(check()), daemon=True)
    thread.start()

    def wait() -> Check:
        thread.join(max(0.0, begun_s + OUTPUT_LIMIT_S - time.monotonic()))
        return (
            done[0]
            if done
            else Check(
                "output",
                ok=False,
                found=f"{fixed_part(output)} does not answer within {OUTPUT_LIMIT_S:g} s",
                next_step="check VIDEOQA_OUTPUT, VIDEOQA_S3_ENDPOINT_URL and the network",
            )
        )

    return wait


def _model_of(stack: LocalStack | None) -> str | None:
    return stack.model if stack is not None and "VIDEOQA_MODEL" not in os.environ else None


def _check_device(settings: WorkerSettings) -> Check:
    import torch

    from videoqa_worker.engine import choose_device

    name = f"torch {torch.__version__}"
    try:
        device = choose_device(settings.engine)
    except VideoQAError as error:
        return Check("device", ok=False, found=error.message, next_step="correct VIDEOQA_DEVICE")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        sizes = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        found = f"{torch.cuda.get_device_name(device)}, {sizes}, {name}"
        return Check("device", ok=True, found=found)
    if device.type == "cpu" and settings.engine.device == "auto" and _NVIDIA.exists():
        return Check(
            "device",
            ok=False,
            found=f"an NVIDIA GPU that {name} cannot use; the worker would run on the CPU",
            next_step="install a torch with CUDA and a driver that is new enough for it "
            "(python -m torch.utils.collect_env lists both), or set VIDEOQA_DEVICE=cpu",
        )
    return Check("device", ok=True, found=f"{device.type} only, {name}")


def _check_server(url: str) -> Check:
    """Checks that a server speaks HTTP at the URL; only the worker asks it a question."""
    shown = redact_url(url)
    try:
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), 3.0)
        status = httpcore2.request(
            "GET", f"{url.rstrip('/')}/models", extensions={"timeout": timeouts}
        ).status
    except _UNREACHABLE as error:
        return Check(
            "model's server",
            ok=False,
            found=f"{shown}: {redact_text(str(error)) or type(error).__name__}",
            next_step="start the server, or check VIDEOQA_SERVER_URL",
        )
    return Check("model's server", ok=True, found=f"{shown} answers ({status})")


def _check_model(settings: WorkerSettings) -> Check:
    """Checks that the checkpoint would load and fits the device; reads no weights."""
    from videoqa_worker.engine import inspect_checkpoint

    source = settings.engine.checkpoint
    is_here = Path(source).is_dir() or isinstance(
        try_to_load_from_cache(source, "config.json", revision=settings.revision), str
    )
    try:
        if not is_here and not source.startswith((".", "/", "~")):
            HfApi().model_info(source, revision=settings.revision, timeout=3)
        weights = inspect_checkpoint(settings.engine)
    except Exception as error:  # noqa: BLE001 - the hub's client raises its transport's errors too
        message = (str(error) or type(error).__name__).splitlines()[0]
        named = message if settings.model in message else f"{settings.model}: {message}"
        return Check(
            "model",
            ok=False,
            found=named,
            next_step="check VIDEOQA_MODEL and the network, or name the folder of a checkpoint",
        )
    where = "on this disk" if is_here else "in the hub"
    size = f", {weights.parameters / 1e6:,.0f} M parameters" if weights.parameters else ""
    todo = f", {weights.missing_files} files to download" if weights.missing_files else ""
    found = f"{settings.model}, {where}{size}{todo}"
    if not _fits_gpu(settings, weights.parameters):
        return Check(
            "model",
            ok=False,
            found=f"{found}: more than this GPU's memory",
            next_step="set VIDEOQA_QUANTIZATION=4bit, or VIDEOQA_DEVICE_MAP=auto for several GPUs, or "
            "choose a smaller model",
        )
    return Check("model", ok=True, found=found)


def _fits_gpu(settings: WorkerSettings, parameters: int) -> bool:
    """Returns False if the weights alone fill the GPU; True without one, or with a quantized model."""
    import torch

    from videoqa_worker.engine import choose_device, choose_dtype

    config = settings.engine
    if config.device_map or config.quantization or not torch.cuda.is_available():
        return True
    device = choose_device(config)
    if device.type != "cuda":
        return True
    needed = parameters * choose_dtype(config, device).itemsize
    return bool(needed < _MAX_WEIGHT_SHARE * torch.cuda.get_device_properties(device).total_memory)


def _check_video(settings: WorkerSettings) -> Iterator[Check]:
    """Checks FFmpeg's decoders, decodes a video in a process of its own, and tells what confines that."""
    import av

    found = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"
    lacking = [name for name in _DECODERS if name not in av.codecs_available]
    if lacking:
        yield Check(
            "video",
            ok=False,
            found=f"{found}, without the decoders {', '.join(lacking)}",
            next_step="install PyAV's own wheel: pip install --force-reinstall --only-binary av av",
        )
        return
    decoders = Decoders.of(settings, processes=1)
    try:
        with _silence_logs(), decoders, tempfile.TemporaryDirectory() as folder:
            confinement = decoders.start()
            decoders.sample(CompleteFile(_write_short_video(Path(folder))), Sampling(frames=2))
    except VideoQAError as error:
        yield Check(
            "video",
            ok=False,
            found=error.message,
            next_step="check VIDEOQA_DECODER_MEMORY_BYTES and the limits on processes (ulimit -a)",
        )
        return
    yield Check("video", ok=True, found=f"{found}; a process of its own decodes")
    yield _describe_confinement(confinement)


def _describe_confinement(confinement: Confinement) -> Check:
    """Names the layers that confine decoding, and each missing one with its reason."""
    held = ", ".join(confinement.held) or "none"
    missing = "".join(f"; not by {layer}" for layer in confinement.missing)
    return Check(
        "confinement",
        ok=confinement.is_closed or sys.platform != "linux",
        found=f"decoding is confined by {held}{missing}",
        next_step="allow seccomp filters or Landlock in the container: without either, a video that "
        "takes a decoder over reads what the worker's user can",
    )


@contextmanager
def _silence_logs() -> Iterator[None]:
    """Turns logging off: the check reports the failure itself, in one line."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _write_short_video(folder: Path) -> Path:
    """Writes a video of two frames with an encoder that every FFmpeg has.

    They are large enough that a process without memory to spare cannot decode them.
    """
    import av

    path = folder / "two-pictures.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame(1280, 720, "yuv420p")))
        out.mux(stream.encode(None))
    return path


def _check_spool(folder: Path, max_bytes: int) -> Check:
    """Checks that the folder for downloads can be written and has space for the largest input."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(
            "spool",
            ok=False,
            found=f"{folder}: {error.strerror or error}",
            next_step="name a folder that can be written in VIDEOQA_SPOOL_DIR",
        )
    enough = free > max_bytes
    return Check(
        "spool",
        ok=enough,
        found=f"{folder}, {free / 2**30:.1f} GiB free",
        next_step=f"an input may take {max_bytes / 2**30:.1f} GiB: name a folder on "
        "another disk in VIDEOQA_SPOOL_DIR, or lower VIDEOQA_MAX_SOURCE_BYTES",
    )


def _check_output(template: str, s3_endpoint_url: str | None) -> Check:
    """Writes a small object to the place of results, and deletes it if it is a file.

    A worker announced the place, or somebody else who writes to this Redis: without a field for the job's id the
    small object would take the place of a file.
    """
    try:
        if "job_id" not in check_output(template):
            raise ValueError("expected {job_id} in it")
    except ValueError as error:
        return Check(
            "output",
            ok=False,
            found=f"{redact_url(template)} is not an output that a worker accepts: {error}",
            next_step="find out with `videoqa workers` who announced it, and who else writes to this Redis",
        )
    url = template.format(job_id="doctor-check", custom_id="doctor", date="doctor")
    try:
        ObjectStore(s3_endpoint_url=s3_endpoint_url).write(url, b"{}")
    except VideoQAError as error:
        return Check("output", ok=False, found=str(error), next_step="check VIDEOQA_OUTPUT")
    if url.startswith("file:"):
        _delete_probe(file_path(url))
    return Check("output", ok=True, found=f"can write to {fixed_part(template)}")


def _delete_probe(path: Path) -> None:
    path.unlink()
    if path.parent.name == "doctor":
        path.parent.rmdir()
