"""HDR: difference to the SDR original of ten graded scenes, beside ffmpeg's tone mapping and other readers; cost.

    python benchmarks/frames/hdr.py [--json] [--parts accuracy cost sdr] [--before WORKTREE]

accuracy   ten scenes of 320x180, drawn in SDR, graded at 203 cd/m2 to HLG and PQ by the published formulas in float64
           (`tests/support/hdr.py`) and encoded as HEVC of 10 bits. Mean absolute difference of 255 to the scene,
           over all pixels; and beside it that of the worst scene. `HLG, luminance` is HLG whose system gamma acts
           on luminance, as in BT.2100's reference; ours acts on each component, as zimg's.
cost       CPU time to convert one 1080p picture to RGB, the least of 15: ours of 8 bits in SDR, of 10 bits in HLG,
           and FFmpeg's scaler alone on the same 10 bits. Then of 8 frames sampled from a clip of 2 s, decoding
           included.
sdr        CPU time of 8 frames of H.264 of 10 s, before (`--before`, a checkout) and now, in turns; the median of 9.

Peers that are not installed are named. They may lie in a folder of PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("worker", "producer", "tests", "benchmarks")]

from support.hdr import Grade, make_picture  # noqa: E402

from videoqa.contract import Sampling  # noqa: E402
from videoqa_worker.frames import sample_frames  # noqa: E402
from videoqa_worker.frames.picture.colour.colour_converter import ColourConverter  # noqa: E402

Pixels = npt.NDArray[np.uint8]
Reader = Callable[[Path], Pixels]

WIDTH, HEIGHT = 320, 180
GRADES = {
    "HLG": Grade("hlg"),
    "PQ": Grade("pq"),
    "HLG, luminance": replace(Grade("hlg"), on_luminance=True),
}
FULL_HD = (1920, 1080)
TO_SDR = (
    "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap={curve}:desat=0,"
    "zscale=t=bt709:m=bt709:r=tv,format=rgb24"
)


# Scenes


def scenes() -> dict[str, Pixels]:
    """Ten scenes of uint8[180, 320, 3], RGB."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    u, v = x / WIDTH, y / HEIGHT
    noise = np.random.default_rng(7).normal(0, 6, (HEIGHT, WIDTH, 1))

    def blend(*corners: tuple[int, int, int]) -> npt.NDArray[np.float64]:
        a, b, c, d = (np.array(corner, float) for corner in corners)
        return (
            a * ((1 - u) * (1 - v))[..., None] + b * (u * (1 - v))[..., None]
            + c * ((1 - u) * v)[..., None] + d * (u * v)[..., None]
        )  # fmt: skip

    def disc(at_u: float, at_v: float, radius: float) -> npt.NDArray[np.bool_]:
        return (x - at_u * WIDTH) ** 2 + (y - at_v * HEIGHT) ** 2 < (radius * HEIGHT) ** 2

    grey_ramp = np.repeat((u * 255)[..., None], 3, axis=2)
    skin = blend((255, 219, 190), (224, 172, 135), (141, 85, 36), (70, 40, 25)) + noise
    primaries = np.array(
        [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0)]
    )
    bars = primaries[(x * 6 // WIDTH)] * np.clip(1.2 - v, 0, 1)[..., None]
    sky = blend((90, 150, 230), (120, 180, 245), (250, 240, 225), (255, 250, 240))
    sky[disc(0.7, 0.3, 0.12)] = 255
    night = blend((4, 6, 14), (10, 8, 20), (24, 20, 30), (60, 40, 20)) + noise / 4
    for n in range(12):
        night[disc(0.08 * n + 0.05, 0.3 + 0.05 * (n % 4), 0.02)] = (255, 230, 160)
    forest = blend((30, 60, 20), (90, 140, 40), (20, 40, 25), (150, 170, 60)) + 3 * noise
    page = np.full((HEIGHT, WIDTH, 3), 250.0)
    page[(y % 18 < 6) & (x % 11 < 7)] = 20
    neon = np.zeros((HEIGHT, WIDTH, 3)) + 12
    for n, colour in enumerate(((255, 20, 140), (20, 240, 255), (120, 20, 255), (40, 255, 80))):
        neon[disc(0.2 + 0.2 * n, 0.5, 0.25) & ~disc(0.2 + 0.2 * n, 0.5, 0.2)] = colour
    mixed = np.stack([u * 255, v * 255, (x + y) % 256], axis=-1).astype(float)
    mixed[disc(0.2, 0.6, 1 / 6)] = (230, 40, 40)
    pastel = blend((250, 210, 220), (210, 230, 250), (220, 250, 215), (250, 245, 200))
    drawn = {
        "grey ramp": grey_ramp, "skin": skin, "primaries": bars, "sky": sky, "night": night,
        "forest": forest, "page of text": page, "neon": neon, "gradients": mixed, "pastel": pastel,
    }  # fmt: skip
    return {name: np.clip(scene, 0, 255).astype(np.uint8) for name, scene in drawn.items()}


def encode(path: Path, pictures: list[av.VideoFrame], grade: Grade) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = (
            pictures[0].width,
            pictures[0].height,
            "yuv420p10le",
        )
        stream.options = {
            "preset": "fast",
            "crf": "14",
            "x265-params": "log-level=none:bframes=0:frame-threads=1",
        }
        grade.tag(stream.codec_context)
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


# Readers: each returns the first picture


def ours(path: Path) -> Pixels:
    return sample_frames(path, Sampling(frames=1)).frames[0].pixels


def by_ffmpeg(curve: str) -> Reader:
    def read(path: Path) -> Pixels:
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", "-vf",
                   TO_SDR.format(curve=curve), "-f", "rawvideo", "-"]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True)
        return np.frombuffer(done.stdout, np.uint8).reshape(HEIGHT, WIDTH, 3)

    return read


def opencv(path: Path) -> Pixels:
    import cv2

    found, picture = cv2.VideoCapture(str(path)).read()
    assert found
    return np.asarray(picture[:, :, ::-1])


def torchcodec(path: Path) -> Pixels:
    from torchcodec.decoders import VideoDecoder

    return np.asarray(VideoDecoder(str(path), dimension_order="NHWC")[0].numpy())


def decord(path: Path) -> Pixels:
    from decord import VideoReader

    return np.asarray(VideoReader(str(path))[0].asnumpy())


def imageio(path: Path) -> Pixels:
    from imageio import v3

    return np.asarray(v3.imread(path, index=0, plugin="FFMPEG"))


def pyav(path: Path) -> Pixels:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


READERS: dict[str, Reader] = {
    "videoqa": ours,
    "ffmpeg, clip": by_ffmpeg("clip"),
    "ffmpeg, mobius": by_ffmpeg("mobius"),
    "ffmpeg, hable": by_ffmpeg("hable"),
    "OpenCV": opencv,
    "torchcodec": torchcodec,
    "decord2": decord,
    "imageio": imageio,
    "PyAV": pyav,
}


def accuracy() -> dict[str, Any]:
    rows: dict[str, Any] = {}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for grade_name, grade in GRADES.items():
            for scene_name, scene in scenes().items():
                path = Path(folder) / f"{grade_name}-{scene_name}.mp4"
                encode(path, [make_picture(scene, grade)], grade)
                for reader, read in READERS.items():
                    if reader in missing:
                        continue
                    try:
                        off = np.abs(read(path).astype(float) - scene).mean()
                    except Exception as error:  # noqa: BLE001 (a peer may fail by any)
                        missing[reader] = f"{type(error).__name__}: {str(error)[:100]}"
                        continue
                    rows.setdefault(reader, {}).setdefault(grade_name, {})[scene_name] = round(
                        float(off), 2
                    )
    return {"rows": rows, "missing": missing}


# Cost


def least_ms(call: Callable[[], object], runs: int = 15) -> float:
    call()
    spent = []
    for _ in range(runs):
        begun = time.process_time()
        call()
        spent.append(time.process_time() - begun)
    return round(min(spent) * 1000, 2)


def cost() -> dict[str, float]:
    scene = np.asarray(
        av.VideoFrame.from_ndarray(scenes()["gradients"], format="rgb24")
        .reformat(*FULL_HD)
        .to_ndarray()
    )
    grade = Grade("hlg")
    sdr = av.VideoFrame.from_ndarray(scene, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=1
    )
    hdr = make_picture(scene, grade)
    hdr.color_trc, hdr.color_primaries, hdr.colorspace = 18, 9, 9
    found = {
        "8 bits, SDR": least_ms(lambda: ColourConverter().convert(sdr).to_ndarray()),
        "10 bits, scaler alone": least_ms(
            lambda: ColourConverter(hdr="off").convert(hdr).to_ndarray()
        ),
    }
    converter = ColourConverter()
    found["10 bits, HLG mapped"] = least_ms(lambda: converter.convert(hdr).to_ndarray())
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in (
            ("8 frames of SDR, HEVC", "yuv420p"),
            ("8 frames of HLG, HEVC", "yuv420p10le"),
        ):
            path = Path(folder) / f"{kind}.mp4"
            pictures = []
            for _ in range(50):
                picture = sdr if kind == "yuv420p" else hdr
                pictures.append(picture)
            _encode_long(path, pictures, kind, grade)
            found[name] = least_ms(
                lambda path=path: sample_frames(path, Sampling(frames=8)), runs=5
            )  # type: ignore[misc]
    return found


def _encode_long(
    path: Path, pictures: list[av.VideoFrame], pixel_format: str, grade: Grade
) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = *FULL_HD, pixel_format
        stream.options = {
            "preset": "ultrafast",
            "x265-params": "log-level=none:keyint=50:bframes=0",
        }
        if pixel_format != "yuv420p":
            grade.tag(stream.codec_context)
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


SAMPLE = """
import sys, time
from videoqa.contract import Sampling
from videoqa_worker.frames import sample_frames
for path, frames in ((sys.argv[2], 4), (sys.argv[1], 8), (sys.argv[1], 8), (sys.argv[1], 8)):
    begun = time.process_time()
    sample_frames(path, Sampling(frames=frames))
    spent = min(time.process_time() - begun, locals().get("spent", 9e9)) if frames == 8 else 9e9
print(spent)
"""


def sdr(before: Path) -> dict[str, Any]:
    """Measures this checkout and the earlier one in turns."""
    folder = Path(tempfile.mkdtemp())
    clip, warm_up = str(folder / "clip.mp4"), str(folder / "warm.mp4")
    scene = av.VideoFrame.from_ndarray(scenes()["gradients"], format="rgb24")
    picture = scene.reformat(*FULL_HD, format="yuv420p", dst_colorspace=1)
    for path, count in ((clip, 250), (warm_up, 25)):
        with av.open(path, "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast"})
            stream.width, stream.height, stream.gop_size = *FULL_HD, 50
            for number in range(count):
                picture.pts, picture.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(picture))
            out.mux(stream.encode(None))
    spent: dict[str, list[float]] = {"before": [], "now": []}
    for _ in range(9):
        for name, root in (("before", before), ("now", ROOT)):
            paths = os.pathsep.join(str(root / part) for part in ("producer", "worker"))
            command = [sys.executable, "-c", SAMPLE, clip, warm_up]
            done = subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": paths},
            )
            spent[name].append(float(done.stdout))
    medians = {name: round(statistics.median(times), 4) for name, times in spent.items()}
    least = {name: round(min(times), 4) for name, times in spent.items()}
    return {"median_s": medians, "least_s": least,
            "ratio_median": round(medians["now"] / medians["before"], 3),
            "ratio_least": round(least["now"] / least["before"], 3)}  # fmt: skip


def lines(found: dict[str, Any]) -> Iterator[str]:
    if "accuracy" in found:
        yield f"| reader | {' | '.join(f'{grade}: mean, worst scene' for grade in GRADES)} |"
        yield "|---" * (len(GRADES) + 1) + "|"
        for reader, grades in found["accuracy"]["rows"].items():
            cells = (
                f"{statistics.mean(by.values()):.1f}, {max(by.values()):.1f}"
                for by in grades.values()
            )
            yield f"| {reader} | {' | '.join(cells)} |"
        for reader, why in found["accuracy"]["missing"].items():
            yield f"left out: {reader} ({why})"
    for part in ("cost", "sdr"):
        if part in found:
            yield f"{part}: {json.dumps(found[part])}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--parts", nargs="+", default=["accuracy", "cost"], choices=["accuracy", "cost", "sdr"]
    )
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {
        "ffmpeg": shutil.which("ffmpeg") is not None,
        "load": os.getloadavg()[1],
    }
    if "accuracy" in args.parts:
        found["accuracy"] = accuracy()
    if "cost" in args.parts:
        found["cost"] = cost()
    if "sdr" in args.parts:
        found["sdr"] = sdr(args.before)
    print(json.dumps(found) if args.json else "\n".join(lines(found)))


if __name__ == "__main__":
    main()
