"""Side data, tags and failures of libraries that nobody foresaw do not cost the frames.

Every number of a colour tag, of an SEI message and of PyAV's table of side data is tried, not only
those that FFmpeg names today.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import kinds
import numpy as np
import numpy.typing as npt
import pytest
from av.bitstream import BitStreamFilterContext
from av.sidedata.sidedata import Type
from PIL import Image
from support.videos import Recipe, draw_number, read_number, write_clip

from videoqa.contract import Sampling
from videoqa.errors import VideoCorrupt
from videoqa_worker.frames import SampledVideo, read_image, sample_frames
from videoqa_worker.frames.container.demuxer import read_packets

MakeClip = Callable[[Recipe], Path]

TINY = Recipe(name="tiny.h264", frames=3, gop=3, b_frames=0)
FOREIGN_MATRICES = {8, *range(10, 18)}
"""Those that the scaler lacks; H.264 itself reads reserved ones as unspecified."""
SPATIAL_VIDEO = Path(kinds.__file__).parent / "mvhevc.mov"


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """The packets of one small clip in H.264 and in HEVC, each a list of NAL units with start codes."""
    folder = tmp_path_factory.mktemp("units")
    found: dict[str, list[bytes]] = {}
    for codec, name in (("libx264", "h264"), ("libx265", "hevc")):
        path = folder / f"clip.{name}"
        options = {"x265-params": "log-level=none:repeat-headers=1"} if name == "hevc" else {}
        write_clip(path, Recipe(**{**vars(TINY), "codec": codec, "codec_options": options}))
        with av.open(str(path)) as source:
            found[name] = [
                bytes(packet) for packet in read_packets(source, source.streams.video[0])
            ]
    return found


def sample(path: Path) -> SampledVideo:
    video = sample_frames(path, Sampling(frames=3))
    assert [read_number(frame.pixels) for frame in video.frames] == [0, 1, 2]
    return video


def tag(packets: list[bytes], path: Path, options: str) -> None:
    """Writes the clip as H.264 with these options of the filter `h264_metadata`."""
    filtered = BitStreamFilterContext(f"h264_metadata={options}", "h264")
    with path.open("wb") as file:
        for packet in packets:
            for out in filtered.filter(av.Packet(packet)):
                file.write(bytes(out))


@pytest.mark.parametrize(
    ("field", "numbers"),
    [
        ("matrix_coefficients", (*range(24), 255)),
        ("colour_primaries", (*range(24), 255)),
        ("transfer_characteristics", (*range(24), 255)),
        ("video_full_range_flag", (0, 1)),
    ],
)
def test_no_number_of_a_colour_tag_costs_the_frames(
    field: str, numbers: tuple[int, ...], units: dict[str, list[bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "tagged.h264"
    for number in numbers:
        tag(units["h264"], path, f"{field}={number}")
        codes = [warning.code for warning in sample(path).warnings]
        is_foreign = field == "matrix_coefficients" and number in FOREIGN_MATRICES
        assert codes == ["colours_approximated"] * is_foreign, number


def test_a_matrix_without_a_converter_says_which(
    units: dict[str, list[bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "ycgco.h264"
    tag(units["h264"], path, "matrix_coefficients=8")
    (warning,) = sample(path).warnings
    assert "matrix coefficients 8 (YCgCo)" in warning.message


SEI_HEADERS = {"h264": b"\0\0\1\6", "hevc": b"\0\0\1\x4e\1"}
PAYLOAD = bytes(value | 0x80 for value in range(40))
"""No byte is 0, so no start code can arise."""


def name_messages() -> Iterator[tuple[str, bytes]]:
    """Yields an SEI message of every type, and T.35 messages of known providers."""
    for number in range(255):
        yield f"type {number}", bytes([number, len(PAYLOAD)]) + PAYLOAD
    for provider in (
        b"\xb5\0\x31GA94\3",
        b"\xb5\0\x31DTG1\x48",
        b"\xb5\0\x3c\0\1\4\1",
        b"\x26\0\4\0\5",
    ):
        body = provider + PAYLOAD
        yield f"T.35 {provider.hex()}", bytes([4, len(body)]) + body


@pytest.mark.parametrize("codec", SEI_HEADERS)
def test_no_sei_message_costs_the_frames(
    codec: str, units: dict[str, list[bytes]], tmp_path: Path
) -> None:
    """A malformed one may cost the exactness of its picture, which is told."""
    path = tmp_path / f"message.{codec}"
    first, *rest = units[codec]
    slice_at = first.rindex(b"\0\0\1")
    for name, message in name_messages():
        unit = SEI_HEADERS[codec] + message + b"\x80"
        path.write_bytes(first[:slice_at] + unit + first[slice_at:] + b"".join(rest))
        try:
            sample(path)
        except AssertionError as error:
            raise AssertionError(name) from error


def test_every_number_of_side_data_has_a_type() -> None:
    for number in range(200):
        assert Type(number).value == number


EXIF_SIZE = (64, 48)


def write_motion_jpeg(path: Path, orientation: int) -> None:
    """Writes an AVI of three JPEGs with EXIF, as time-lapse programs join them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = *EXIF_SIZE, "yuvj420p"
        for number in range(3):
            with io.BytesIO() as file:
                Image.fromarray(draw_number(number, *EXIF_SIZE)).save(file, "JPEG", exif=exif)
                packet = av.Packet(file.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            out.mux(packet)


TURNS: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}
"""Turns that undo each EXIF orientation (CIPA DC-008, 4.6.4)."""


@pytest.mark.parametrize("orientation", TURNS)
def test_pictures_with_exif_are_read_upright(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "lapse.avi"
    write_motion_jpeg(path, orientation)
    frames = sample_frames(path, Sampling(frames=3)).frames
    for number, frame in enumerate(frames):
        expected = TURNS[orientation](draw_number(number, *EXIF_SIZE))
        assert frame.pixels.shape == expected.shape
        assert np.abs(frame.pixels.astype(int) - expected).mean() < 20
    assert len(frames) == 3


def read_barcode(pixels: npt.NDArray[np.uint8]) -> int:
    """Reads the number of 20 bits in the top twelfth; fails if its checksum of 4 bits is wrong."""
    height, width = pixels.shape[:2]
    row = pixels[height // 48 : height // 16].mean(axis=(0, 2))
    bits = [int(row[int((n + 0.5) * width / 24)] > 128) for n in range(24)]
    number, checksum = (
        sum(bit << n for n, bit in enumerate(part)) for part in (bits[:20], bits[20:])
    )
    assert sum(number >> 4 * n & 15 for n in range(5)) % 16 == checksum
    return number


def test_spatial_video_of_phones_gives_its_base_layer() -> None:
    """Each picture has side data that PyAV's table lacks; the edit list belongs to missing times."""
    video = sample_frames(SPATIAL_VIDEO, Sampling(frames=50))
    assert [read_barcode(frame.pixels) for frame in video.frames] == list(range(50))
    assert [frame.index for frame in video.frames] == list(range(50))
    assert not video.warnings


@pytest.mark.parametrize("kind", [IndexError, KeyError, TypeError, ZeroDivisionError, EOFError])
def test_no_exception_of_the_image_library_is_an_internal_error(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's readers cannot be made to raise each of them by a file, so one raises here."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(path)

    def fail(image: Image.Image) -> None:
        raise kind("unforeseen")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(VideoCorrupt, match=r"a PNG image that cannot be decoded: .*unforeseen"):
        read_image(path)
