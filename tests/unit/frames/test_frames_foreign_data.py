"""Side data, tags and failures of libraries that nobody foresaw do not cost the frames.

Every number of an SEI message and of PyAV's table of side data is tried, not only those that FFmpeg names
today; `test_frames_tags.py` tries those of colour tags.
"""

from __future__ import annotations

import io
import struct
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
from kinds.surgery import box, element, with_child, with_video_elements
from PIL import Image
from support.decoding import outcome
from support.sparse_files import make_empty_copy
from support.videos import Recipe, draw_number, read_number, write_clip

from videoqa.contract import Sampling
from videoqa.errors import SourceTimeout, VideoCorrupt
from videoqa_worker.frames import SampledVideo, read_image, sample_frames
from videoqa_worker.frames.container.demuxer import read_packets

MakeClip = Callable[[Recipe], Path]

TINY = Recipe(name="tiny.h264", frames=3, gop=3, b_frames=0)
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


UNSPECIFIED = {
    "h264": [bytes([0x60 | kind]) for kind in (*range(13, 19), *range(22, 32))],
    "hevc": [bytes([kind << 1, 1]) for kind in (*range(41, 64),)],
}
"""Headers of reserved and unspecified NAL units: 62 of HEVC has Dolby Vision's RPU, 63 its second layer."""


@pytest.mark.parametrize("codec", UNSPECIFIED)
def test_no_unspecified_unit_costs_the_frames(
    codec: str, units: dict[str, list[bytes]], tmp_path: Path
) -> None:
    path = tmp_path / f"unit.{codec}"
    first, *rest = units[codec]
    for header in UNSPECIFIED[codec]:
        unit = b"\0\0\1" + header + PAYLOAD + b"\x80"
        path.write_bytes(first + unit + b"".join(packet + unit for packet in rest))
        assert not sample(path).warnings, header.hex()


def split_av1(packet: bytes) -> Iterator[bytes]:
    """Yields the OBUs of a temporal unit, each with its size of up to two bytes."""
    at = 0
    while at < len(packet):
        low, high = packet[at + 1], packet[at + 2]
        size = 2 + low if low < 128 else 3 + (low & 127) + (high << 7)
        yield packet[at : at + size]
        at += size


def test_no_metadata_of_av1_costs_the_frames(tmp_path: Path) -> None:
    """Malformed OBUs of metadata, padding and reserved kinds, in a stream with film grain."""
    path = tmp_path / "clip.mkv"
    options = {"preset": "12", "svtav1-params": "lp=1:film-grain=8"}
    recipe = {**vars(TINY), "name": path.name, "codec": "libsvtav1", "codec_options": options}
    write_clip(path, Recipe(**recipe))
    sample(path)
    foreign = [bytes([5 << 3 | 2, 41, number]) + PAYLOAD for number in (*range(7), 31, 32, 127)]
    foreign += [bytes([kind << 3 | 2, 40]) + PAYLOAD for kind in (*range(9, 15), 15)]
    with av.open(str(path)) as source:
        packets = list(read_packets(source, source.streams.video[0]))
        for unit in foreign:
            with av.open(str(tmp_path / "foreign.mkv"), "w") as out:
                stream = out.add_stream("libsvtav1", rate=25)
                stream.width, stream.height, stream.pix_fmt = *TINY.size, "yuv420p"
                stream.options = options
                for packet in packets:
                    *others, last = split_av1(bytes(packet))
                    copy = av.Packet(b"".join((*others, unit, last)))
                    copy.stream, copy.time_base = stream, packet.time_base
                    copy.pts, copy.dts, copy.is_keyframe = (
                        packet.pts,
                        packet.dts,
                        packet.is_keyframe,
                    )
                    out.mux(copy)
            video = sample(tmp_path / "foreign.mkv")
            assert not video.warnings, unit[:3]
            assert all(frame.exact for frame in video.frames), unit[:3]


ORDERS = (0, 1, 2, 6, 9, 14, 15, 255)
"""Field orders of MP4 and Matroska, and numbers that are none."""


def test_no_tag_of_fields_or_of_light_costs_the_frames(tmp_path: Path) -> None:
    """Field orders of Matroska and MP4, and mastering metadata with any bytes."""
    entry = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    path = tmp_path / "clip.mp4"
    write_clip(path, Recipe(**{**vars(TINY), "name": path.name}))
    plain = path.read_bytes()
    fields = [box(b"fiel", bytes([count, order])) for count in (1, 2) for order in ORDERS]
    light = [box(b"mdcv", bytes([value] * 24)) for value in (0, 1, 255)]
    light += [box(b"clli", bytes([value] * 4)) for value in (0, 255)]
    for tagged in (*fields, *light):
        path.write_bytes(with_child(plain, entry, tagged))
        assert not sample(path).warnings, tagged
    path = tmp_path / "clip.mkv"
    write_clip(path, Recipe(**{**vars(TINY), "name": path.name}))
    plain = path.read_bytes()
    for order in ORDERS:
        elements = element(0x9A, order % 3), element(0x9D, order)
        path.write_bytes(with_video_elements(plain, *elements))
        assert not sample(path).warnings, order


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("failure", [SourceTimeout("no bytes"), OSError(5, "disk")])
def test_what_a_source_raises_is_no_damage_of_the_picture(
    failure: Exception, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    noise = np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, kind)
    calls = iter(range(1000))

    def fail() -> None:
        if next(calls) > 0:  # the beginning, which tells the format, comes
            raise failure

    sparse = make_empty_copy(path, tmp_path, fail)
    sparse.ensure([(0, 4096)])
    with pytest.raises(type(failure), match=r"no bytes|disk"):
        read_image(sparse)


FAILURES = (
    ValueError("odd"),
    KeyError(99),
    IndexError("odd"),
    OverflowError("odd"),
    ZeroDivisionError("odd"),
    AttributeError("odd"),
    TypeError("odd"),
    NotImplementedError("odd"),
    AssertionError("odd"),
    SystemError("odd"),
    BufferError("odd"),
    EOFError("odd"),
    struct.error("odd"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
)
"""Exceptions of PyAV, numpy and Python on numbers and texts that they do not know."""
CALLS = (
    "videoqa_worker.frames.container.demuxer.av.open",
    "videoqa_worker.frames.container.packets.read_packets",
    "videoqa_worker.frames.decode.picture_stream.read_packets",
    "videoqa_worker.frames.decode.picture_stream.decode_packet",
    "videoqa_worker.frames.picture.orientation.np.frombuffer",
    "videoqa_worker.frames.picture.colour.scaler.Scaler._reformat",
)


@pytest.mark.parametrize("call", CALLS)
def test_no_exception_of_a_library_is_an_internal_error(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file makes the libraries raise each of them, so the call raises here."""
    path = tmp_path / "clip.mkv"
    write_clip(path, Recipe(**{**vars(TINY), "name": path.name, "turned_degrees": 180}))
    for failure in FAILURES:

        def fail(*_: object, failure: Exception = failure, **__: object) -> None:
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(call, fail)
            ended = outcome(lambda: sample_frames(path, Sampling(frames=3)))
            assert isinstance(ended, SampledVideo) or not ended.retryable
