"""A sweep over tags: each value alone on a small file costs neither the frames nor, unsaid, their colours.

The clips show four patches whose Y'CbCr come from the definition of BT.601. A tag of another matrix makes
them other colours, which follow from the definition too. All bytes from 0 to 255 are tried, not only those
that FFmpeg's headers name today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.bitstream import BitStreamFilterContext
from av.packet import PacketSideData
from av.video.stream import VideoStream
from support.videos import share_cores

from videoqa.contract import Sampling
from videoqa_worker.frames import sample_frames
from videoqa_worker.frames.container.demuxer import read_packets
from videoqa_worker.frames.decode import picture_stream

PATCHES = np.array([(200, 60, 30), (40, 180, 60), (50, 70, 200), (190, 190, 40)])
WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Weights of red and of blue in the luma by matrix coefficients (ITU-T H.273, table 4)."""
BT601 = 5
HDR_TRANSFERS = (16, 18)
WIDE_PRIMARIES = (9, 11, 12)
"""BT.2020's and P3's: colours change by more than the matrix, see `test_frames_hdr.py`."""
SIZE = 64
TOLERANCE = 4
FEW_NUMBERS = (*range(24), 31, 32, 64, 127, 128, 200, 255)
QUIET = "log-level=none:qp=4:bframes=0:frame-threads=1:pools=1:repeat-headers=1"
ENCODERS = {
    "libx264": {"qp": "4", "preset": "ultrafast"},
    "libx265": {"x265-params": QUIET, "preset": "ultrafast"},
    "libvpx-vp9": {"crf": "4", "b": "0", "deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"crf": "8", "preset": "12", "svtav1-params": "lp=1"},
    "mpeg4": {"qscale": "2", "flags": "+qscale"},
}


def store(matrix: int, colours: npt.NDArray[np.int64] = PATCHES) -> npt.NDArray[np.float64]:
    """Returns the Y'CbCr of the patches in limited range, before rounding."""
    of_red, of_blue = WEIGHTS[matrix]
    red, green, blue = (colours / 255).T
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    chroma = (blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)
    return np.stack([16 + 219 * luma, *(128 + 224 * value for value in chroma)], axis=1)


def show(stored: npt.NDArray[np.float64], matrix: int, *, full: bool) -> npt.NDArray[np.float64]:
    """Returns the colours that these Y'CbCr are by this matrix."""
    of_red, of_blue = WEIGHTS[matrix]
    luma, blue, red = stored.T
    luma = luma / 255 if full else (luma - 16) / 219
    blue, red = ((part - 128) / (255 if full else 224) for part in (blue, red))
    r, b = luma + (2 - 2 * of_red) * red, luma + (2 - 2 * of_blue) * blue
    g = (luma - of_red * r - of_blue * b) / (1 - of_red - of_blue)
    return np.clip(np.stack([r, g, b], axis=1), 0, 1) * 255


def draw_patches(width: int, height: int, matrix: int) -> av.VideoFrame:
    picture = av.VideoFrame(width, height, "yuv420p")
    stored = np.round(store(matrix)).astype(np.uint8)
    for plane, values in zip(picture.planes, stored.T, strict=True):
        pixels = np.zeros((plane.height, plane.line_size), np.uint8)
        for n, value in enumerate(values):
            y, x = (n // 2) * plane.height // 2, (n % 2) * plane.width // 2
            pixels[y : y + plane.height // 2, x : x + plane.width // 2] = value
        plane.update(pixels.tobytes())
    return picture


def filter_packet(options: str, codec: str, packet: bytes) -> bytes:
    """Returns the packet as a bitstream filter with these options makes it."""
    padded: av.Packet[VideoStream] = av.Packet(len(packet))  # filters read beyond the end
    padded.update(packet)
    return b"".join(bytes(out) for out in BitStreamFilterContext(options, codec).filter(padded))


def read_patches(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    height, width = pixels.shape[:2]
    rows, columns = (height // 4, height * 3 // 4), (width // 4, width * 3 // 4)
    return np.array([pixels[y, x] for y in rows for x in columns], dtype=np.int64)


def write_patches(
    path: Path,
    codec: str,
    *,
    size: tuple[int, int] = (SIZE, SIZE),
    matrix: int = BT601,
    tags: tuple[int, int, int, int] | None = None,
    frames: int = 1,
) -> None:
    """Writes a clip; `tags` are primaries, transfer, matrix and range, all of them named ones."""
    with av.open(str(path), "w") as out:
        stream: VideoStream = out.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt, stream.options = "yuv420p", ENCODERS[codec]
        stream.codec_context.thread_count = 1
        for number in range(frames):
            picture = draw_patches(*size, matrix)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            for about in (stream.codec_context, picture) if tags else ():
                about.color_primaries, about.color_trc, about.colorspace, about.color_range = tags
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    if codec == "libsvtav1":
        share_cores()


@dataclass
class Sweep:
    """A sweep over files; keeps a line for each that comes out wrong."""

    path: Path
    mistakes: list[str]
    tried: int = 0

    def check(
        self, content: bytes, what: str, matrix: int | None, *, full: bool = False, **about: bool
    ) -> None:
        """Samples the file: its patches have this matrix, or, if None, a warning tells that they may differ.

        `any_colours`: neither is asked for.
        """
        self.path.write_bytes(content)
        self.tried += 1
        try:
            video = sample_frames(self.path, Sampling(frames=1))
        except Exception as error:  # noqa: BLE001 - the sweep goes on, and fails at its end
            self.mistakes.append(f"{what}: {type(error).__name__}: {error}")
            return
        codes = [warning.code for warning in video.warnings]
        found = read_patches(video.frames[0].pixels)
        if about.get("any_colours") or "colours_approximated" in codes:
            return
        expected = show(np.round(store(BT601)), matrix or BT601, full=full)
        if matrix is None or np.abs(found - expected).max() > TOLERANCE:
            self.mistakes.append(f"{what}: {found.tolist()}, {codes}")


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    tried = Sweep(tmp_path / "tagged", [])
    yield tried
    assert tried.tried
    assert not tried.mistakes, "\n".join(tried.mistakes[:20])


def find_matrix(number: int, *, read_as_none: bool) -> int | None:
    """Returns the matrix of a tag; None for one that the scaler lacks.

    `read_as_none`: the decoder reads reserved numbers as no tag.
    """
    if number in WEIGHTS:
        return number
    is_reserved = number == 3 or number > 17
    return BT601 if number == 2 or (read_as_none and is_reserved) else None


def check_tag(sweep: Sweep, field: str, number: int, content: bytes, *, lenient: bool) -> None:
    matrix: int | None = BT601
    if field == "matrix":
        matrix = find_matrix(number, read_as_none=lenient)
    is_hdr = field == "transfer" and number in HDR_TRANSFERS
    is_wide = field == "primaries" and number in WIDE_PRIMARIES
    sweep.check(content, f"{field} {number}", matrix, any_colours=is_hdr or is_wide)


NUMBERS = (*range(24), *range(24, 255, 32), 255)
"""All numbers that FFmpeg's headers name, and some of the reserved ones beyond."""
PARAMETER_FIELDS = {
    "primaries": "colour_primaries",
    "transfer": "transfer_characteristics",
    "matrix": "matrix_coefficients",
}


@pytest.mark.parametrize(("codec", "name"), [("libx264", "h264"), ("libx265", "hevc")])
def test_no_tag_of_a_parameter_set_costs_the_frames(
    codec: str, name: str, sweep: Sweep, tmp_path: Path
) -> None:
    plain = tmp_path / f"plain.{name}"
    write_patches(plain, codec)
    sweep.path = tmp_path / f"tagged.{name}"
    with av.open(str(plain)) as source:
        (packet,) = (bytes(packet) for packet in read_packets(source, source.streams.video[0]))

    def tag(option: str, number: int) -> bytes:
        return filter_packet(f"{name}_metadata={option}={number}", name, packet)

    for field, option in PARAMETER_FIELDS.items():
        for number in NUMBERS:
            check_tag(sweep, field, number, tag(option, number), lenient=True)
    for number in (0, 1):
        content = tag("video_full_range_flag", number)
        sweep.check(content, f"range {number}", BT601, full=number == 1)
    for number in range(6):
        sweep.check(tag("chroma_sample_loc_type", number), f"chroma location {number}", BT601)


def test_no_tag_of_a_vp9_header_costs_the_frames(sweep: Sweep, tmp_path: Path) -> None:
    """VP9 has numbers of its own: 1 and 3 are BT.601, 2 BT.709, 4 SMPTE 240M, 5 BT.2020."""
    plain = tmp_path / "plain.webm"
    write_patches(plain, "libvpx-vp9")
    sweep.path = tmp_path / "tagged.webm"
    with av.open(str(plain)) as source:
        (packet,) = (bytes(packet) for packet in read_packets(source, source.streams.video[0]))
    matrices = {0: BT601, 1: 5, 2: 1, 3: 6, 4: 7, 5: 9, 6: None}
    for number, matrix in matrices.items():
        tagged = filter_packet(f"vp9_metadata=color_space={number}", "vp9", packet)
        sweep.check(plain.read_bytes().replace(packet, tagged), f"colour space {number}", matrix)


def find_sequence_header(packet: bytes) -> bytes:
    """Returns the sequence header of a packet of AV1, an open bitstream unit of type 1."""
    at = 0
    while packet[at] >> 3 & 15 != 1:
        at += 2 + packet[at + 1]
    assert packet[at + 1] < 128
    return packet[at : at + 2 + packet[at + 1]]


def test_no_tag_of_an_av1_sequence_costs_the_frames(sweep: Sweep, tmp_path: Path) -> None:
    plain = tmp_path / "plain.mp4"
    write_patches(plain, "libsvtav1", tags=(1, 1, BT601, 1))
    sweep.path = tmp_path / "tagged.mp4"
    with av.open(str(plain)) as source:
        packet = next(bytes(packet) for packet in read_packets(source, source.streams.video[0]))
    content, header = plain.read_bytes(), find_sequence_header(packet)

    def tag(option: str, number: int) -> bytes:
        other = find_sequence_header(
            filter_packet(f"av1_metadata={option}={number}", "av1", packet)
        )
        assert len(other) == len(header)
        return content.replace(header, other)

    fields = {**PARAMETER_FIELDS, "primaries": "color_primaries"}
    for field, option in fields.items():
        for number in NUMBERS:
            check_tag(sweep, field, number, tag(option, number), lenient=False)
    sweep.check(tag("color_range", 1), "full range", BT601, full=True)
    for number in range(3):  # the filter does not write the reserved fourth
        sweep.check(tag("chroma_sample_position", number), f"chroma position {number}", BT601)


MATROSKA_IDS = {
    "matrix": b"\x55\xb1\x81",
    "range": b"\x55\xb9\x81",
    "transfer": b"\x55\xba\x81",
    "primaries": b"\x55\xbb\x81",
}
"""Elements of `Colour` (RFC 9559, 5.1.4.1.28.16), each with a length of one byte."""


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_no_tag_of_a_container_costs_the_frames(
    container: str, sweep: Sweep, tmp_path: Path
) -> None:
    """MPEG-4 part 2 has no tags here, so those of the container hold."""
    plain = tmp_path / f"plain.{container}"
    write_patches(plain, "mpeg4", tags=(1, 1, 6, 1))
    sweep.path = tmp_path / f"tagged.{container}"
    content = plain.read_bytes()
    if container == "mp4":
        box = content.index(b"colrnclx") + 9
        places = {"primaries": box, "transfer": box + 2, "matrix": box + 4, "range": box + 5}
    else:
        places = {field: content.index(mark) + 3 for field, mark in MATROSKA_IDS.items()}
    for field, at in places.items():
        for number in FEW_NUMBERS:
            tagged = content[:at] + bytes([number]) + content[at + 1 :]
            if field == "range":
                full = number == 2 if container == "mkv" else number >= 128
                sweep.check(tagged, f"range {number}", BT601, full=full)
            else:
                check_tag(sweep, field, number, tagged, lenient=True)


@pytest.mark.parametrize(
    ("codec", "container", "size", "matrix"),
    [
        ("libx264", "mp4", (640, 360), 5),
        ("libx264", "mp4", (1024, 576), 5),
        ("libx264", "mp4", (1280, 720), 1),
        ("libx264", "mkv", (720, 1280), 1),
        ("mpeg4", "mp4", (1280, 720), 1),
        ("libvpx-vp9", "webm", (1280, 720), 1),
        ("libvpx-vp9", "webm", (320, 180), 5),
    ],
)
def test_an_untagged_picture_has_the_matrix_that_players_take(
    codec: str, container: str, size: tuple[int, int], matrix: int, tmp_path: Path
) -> None:
    path = tmp_path / f"untagged.{container}"
    write_patches(path, codec, size=size, matrix=matrix)
    video = sample_frames(path, Sampling(frames=1))
    assert np.abs(read_patches(video.frames[0].pixels) - PATCHES).max() <= TOLERANCE
    assert not video.warnings


JUNK = (b"\xff" * 5, bytes(range(1, 65)), b"\x80" * 200, bytes(36))
NEEDED = {"param_change", "new_extradata", "palette"}
"""Side data of packets that decoding needs; if it is broken, so is the video."""
LAST_TYPE = 64


@pytest.mark.parametrize(
    ("codec", "container"),
    [("libx264", "mp4"), ("libx265", "mp4"), ("libvpx-vp9", "webm"), ("libsvtav1", "mp4")],
)
def test_no_side_data_of_a_packet_costs_the_frames(
    codec: str, container: str, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders hand it on with the picture; numbers go beyond those that PyAV and FFmpeg know."""
    sweep.path = tmp_path / f"clip.{container}"
    write_patches(sweep.path, codec, frames=2)
    content = sweep.path.read_bytes()
    added: list[PacketSideData] = []

    def read(*arguments: object) -> Iterator[av.Packet[av.stream.Stream]]:
        read_of_library: Callable[..., Iterator[av.Packet[av.stream.Stream]]] = read_packets
        for packet in read_of_library(*arguments):
            for data in added:
                data.to_packet(packet)
            yield packet

    monkeypatch.setattr(picture_stream, "read_packets", read)
    for number in range(LAST_TYPE):
        for junk in JUNK:
            data = PacketSideData(number, len(junk))
            data.update(junk)
            added[:] = [data]
            if number >= 40 or data.data_type not in NEEDED:
                sweep.check(content, f"side data {number} of {len(junk)} bytes", BT601)
