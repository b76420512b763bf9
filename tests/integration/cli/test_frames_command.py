"""`videoqa frames`, with no Redis that answers and no model.

That the pictures are right shows by the numbers burnt into them; that the figures are, by what
real servers saw.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from support.cli import call_command, clean_environment, start_command
from support.servers import HttpServer, Route
from support.videos import Recipe, read_number

from videoqa_worker.cli.frames.command import show_fetching
from videoqa_worker.embedded import S3Server
from videoqa_worker.embedded.process import free_port

MakeClip = Callable[[Recipe], Path]
Show = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return clean_environment(
        "AWS_",
        VIDEOQA_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
        VIDEOQA_HOME=str(tmp_path / "home"),
    )


@pytest.fixture
def show(environment: dict[str, str], tmp_path: Path) -> Show:
    def show(*args: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return call_command("frames", *args, environment=environment | variables, cwd=tmp_path)

    return show


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one object on stdout of a run that went well, and silently."""
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def pixels_of(path: str | Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


# -- what is shown


def test_each_written_file_holds_the_frame_that_the_report_says(
    show: Show, make_clip: MakeClip, tmp_path: Path
) -> None:
    make_clip(Recipe(name="my clip.mp4"))
    found = report(show("my clip.mp4", "-n", "5", "--out", "new/folder", "--json"))
    assert [frame["index"] for frame in found["frames"]] == [0, 10, 20, 30, 40]
    for frame in found["frames"]:
        assert read_number(pixels_of(tmp_path / frame["file"])) == frame["index"]
        assert frame["exact"] is True
        assert frame["pts_s"] == frame["index"] / 25
    assert [frame["file"] for frame in found["frames"]] == [
        f"new/folder/frame-00{n}-{0.4 * n:.3f}s.png" for n in range(5)
    ]


def test_the_json_is_one_object_of_known_fields(show: Show, make_clip: MakeClip) -> None:
    clip = make_clip(Recipe())
    found = report(show(clip, "--times", "1.05", "--json"))
    assert found.pop("seconds") > 0
    assert found == {
        "source": clip.as_uri(),
        "kind": "video",
        "duration_s": 2.0,
        "start_offset_s": 0.0,
        "fps": 25.0,
        "width": 96,
        "height": 72,
        "codec": "h264",
        "format": "mov",
        "dynamic_range": "sdr",
        "tone_mapped": False,
        "size_bytes": clip.stat().st_size,
        "frames": [{"index": 26, "pts_s": 1.04, "asked_s": 1.05, "exact": True, "file": None}],
        "sheet": None,
        "warnings": [],
        "bytes_fetched": 0,
        "requests": 0,
    }


def test_people_get_a_table_and_what_it_cost(show: Show, make_clip: MakeClip) -> None:
    clip = make_clip(Recipe())
    done = show(clip, "--fps", "20", "-n", "2", "--start", "1")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("clip.mp4: 2.000 s, 96x72, h264 in mov, 25 frames a second, ")
    assert [line.split() for line in lines[2:5]] == [
        ["frame", "index", "asked", "for", "shown", "from", "exact"],
        ["0", "25", "1.000", "s", "1.000", "s", "yes"],
        ["1", "37", "1.500", "s", "1.480", "s", "yes"],
    ]
    assert lines[6].startswith("read from this machine, nothing fetched; ")
    assert done.stderr.startswith("note: 20 frames a second would be 20 frames")


def test_a_keyframe_says_how_far_from_the_instant_it_is(show: Show, make_clip: MakeClip) -> None:
    clip = make_clip(Recipe(gop=20, b_frames=0, codec_options={"x264-params": "scenecut=0"}))
    lines = show(clip, "-n", "3", "--keyframes").stdout.splitlines()
    assert [line.split()[1:] for line in lines[3:6]] == [
        ["0", "0.000", "s", "0.000", "s", "yes"],
        ["20", "0.667", "s", "0.800", "s", "no,", "0.133", "s", "late"],
        ["40", "1.333", "s", "1.600", "s", "no,", "0.267", "s", "late"],
    ]
    near = report(show(clip, "-n", "3", "--keyframes", "--tolerance", "0.2", "--json"))
    assert [frame["index"] for frame in near["frames"]] == [0, 20, 33]


def test_a_sheet_shows_every_frame_in_its_place(show: Show, make_clip: MakeClip) -> None:
    clip = make_clip(Recipe(size=(320, 240)))
    found = report(show(clip, "-n", "6", "--sheet", clip.with_name("sheet.png"), "--json"))
    sheet = pixels_of(found["sheet"])
    assert sheet.shape == (680, 1008, 3)
    for number, frame in enumerate(found["frames"]):
        left, top = 12 + number % 3 * 332, 76 + number // 3 * 296
        assert read_number(sheet[top : top + 240, left : left + 320]) == frame["index"]


def test_a_file_that_is_named_like_a_picture_and_moves_is_a_video(
    show: Show, make_clip: MakeClip, tmp_path: Path
) -> None:
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    pictures[0].save(tmp_path / "p.png", save_all=True, append_images=pictures[1:], duration=500)
    make_clip(Recipe()).rename(tmp_path / "v.jpg")
    for name, frames in (("p.png", 3), ("v.jpg", 8)):
        found = report(show(name, "-n", str(frames), "--json"))
        assert (found["kind"], len(found["frames"]), found["warnings"]) == ("video", frames, [])


def test_an_image_is_one_frame(show: Show, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "#123456").save(tmp_path / "p.png")
    done = show("p.png", "-n", "4", "--out", "o", "--sheet", "s.jpg", "--json")
    found = report(done)
    assert (found["kind"], found["width"], len(found["frames"])) == ("image", 40, 1)
    assert [warning["code"] for warning in found["warnings"]] == ["one_picture"]
    assert np.array_equal(pixels_of(tmp_path / found["frames"][0]["file"]),
                          pixels_of(tmp_path / "p.png"))  # fmt: skip
    with Image.open(tmp_path / "s.jpg") as sheet:
        assert (sheet.format, sheet.width) == ("JPEG", 720)


# -- where it comes from


def large(make_clip: MakeClip) -> Path:
    """11.5 MB, every picture a keyframe: more than is downloaded as a whole."""
    raw = Recipe(
        name="large.mov", codec="rawvideo", pixel_format="rgb24", size=(320, 240), b_frames=0
    )
    return make_clip(raw)


def test_an_address_of_this_machine_is_read_in_parts_and_counted(
    show: Show, make_clip: MakeClip, http_server: HttpServer
) -> None:
    clip = large(make_clip)
    route = http_server.routes["/large.mov?secret=1"] = Route(clip.read_bytes())
    found = report(show(http_server.url("/large.mov?secret=1"), "-n", "4", "--json"))
    assert [frame["index"] for frame in found["frames"]] == [0, 12, 25, 37]
    assert found["source"] == http_server.url("/large.mov")
    assert found["requests"] == len(route.seen)
    pictures_bytes = 4 * 320 * 240 * 3
    assert pictures_bytes < found["bytes_fetched"] < 0.3 * found["size_bytes"]
    assert found["size_bytes"] == clip.stat().st_size
    said = show(http_server.url("/large.mov?secret=1"), "-n", "4").stdout
    assert f"fetched {found['bytes_fetched']:,} of {found['size_bytes']:,} bytes (" in said
    assert f"in {found['requests']} requests; " in said


def test_an_object_of_s3_is_read_with_the_users_credentials(
    show: Show, make_clip: MakeClip, s3_server: S3Server
) -> None:
    clip = make_clip(Recipe())
    s3_server.client().put_object(Bucket="open", Key="a/clip.mp4", Body=clip.read_bytes())
    found = report(
        show(
            "s3://open/a/clip.mp4", "-n", "2", "--json",
            AWS_ACCESS_KEY_ID=s3_server.admin.access_key,
            AWS_SECRET_ACCESS_KEY=s3_server.admin.secret_key,
            AWS_REGION="us-east-1",
            VIDEOQA_S3_ENDPOINT_URL=s3_server.endpoint_url,
        )
    )  # fmt: skip
    assert [frame["index"] for frame in found["frames"]] == [0, 25]
    assert found["source"] == "s3://open/a/clip.mp4"
    assert found["bytes_fetched"] == clip.stat().st_size


def test_no_model_library_no_celery_and_no_bulk_is_loaded(
    make_clip: MakeClip, environment: dict[str, str]
) -> None:
    clip = make_clip(Recipe())
    code = (
        "import atexit, sys\n"
        "from videoqa.cli.main import main\n"
        "heavy = ('torch', 'transformers', 'celery', 'kombu', 'videoqa.bulk')\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules]))\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "frames", clip, "--sheet", clip.with_name("s.png"), "-n", "1"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


# -- what is refused


@pytest.mark.parametrize(
    ("args", "status", "code", "says"),
    [
        (["no.mp4"], 1, "source_not_found", "there is no file 'no.mp4'"),
        (["."], 1, "source_denied", "a folder, expected a file"),
        (["page.mp4"], 1, "not_a_video", "a web page"),
        (["sound.mp4"], 1, "no_video_stream", "audio"),
        (["clip.mp4", "--start", "9"], 1, "clip_out_of_range", "9"),
        (["ftp://host/clip.mp4"], 2, "invalid_request", "'ftp'"),
        (["clip.mp4", "-n", "0"], 2, "invalid_request", "sampling.frames"),
        (["clip.mp4", "--start", "2", "--end", "1"], 2, "invalid_request", "end=1.0 s"),
        (["clip.mp4", "--times", "1", "--keyframes"], 2, "invalid_request", "one of them"),
        (["clip.mp4", "--sheet", "s.gif"], 2, "invalid_request", ".jpg, .jpeg or .png"),
        (["clip.mp4", "--sheet", "mine.png"], 6, "output_denied", "not a sheet of this command"),
        (["clip.mp4", "--out", "clip.mp4/x"], 6, "output_denied", "not a folder"),
        (["clip.mp4", "--out", "/proc/x"], 6, "output_", "/proc"),
    ],
)
def test_what_cannot_be_is_one_line_and_a_status(
    show: Show,
    make_clip: MakeClip,
    tmp_path: Path,
    args: list[str],
    status: int,
    code: str,
    says: str,
) -> None:
    make_clip(Recipe())
    make_clip(Recipe(name="sound.mp4", video=False, sound_s=1.0))
    (tmp_path / "page.mp4").write_text("<!doctype html><title>Sign in</title>")
    Image.new("RGB", (4, 4)).save(tmp_path / "mine.png")
    mine = (tmp_path / "mine.png").read_bytes()
    done = show(*args, "--json")
    assert (done.returncode, done.stdout) == (status, "")
    error = json.loads(done.stderr)["error"]
    assert error["code"].startswith(code)
    assert says in error["message"]
    assert (tmp_path / "mine.png").read_bytes() == mine


def test_without_json_an_error_is_one_line(show: Show) -> None:
    done = show("no.mp4")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("videoqa: there is no file")
    assert line.endswith("(source_not_found)")


def test_a_later_run_replaces_its_own_files_and_no_others(
    show: Show, make_clip: MakeClip, tmp_path: Path
) -> None:
    make_clip(Recipe())
    run = ("clip.mp4", "--out", "o", "--sheet", "o/sheet.jpg")
    assert show(*run, "-n", "5").returncode == 0
    (tmp_path / "o" / "frame-of-mind.png").write_text("mine")
    first = (tmp_path / "o" / "sheet.jpg").read_bytes()
    assert show(*run, "-n", "2").returncode == 0
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        "frame-000-0.000s.png", "frame-001-1.000s.png", "frame-of-mind.png", "sheet.jpg",
    }  # fmt: skip
    assert (tmp_path / "o" / "sheet.jpg").read_bytes() != first


# -- while it takes


def test_ctrl_c_ends_it_and_leaves_nothing_behind(
    environment: dict[str, str], http_server: HttpServer, tmp_path: Path
) -> None:
    asked = threading.Event()
    http_server.routes["/clip.mp4"] = Route(
        b"x" * 1000, wait_s=60, on_request=lambda route: asked.set()
    )
    spool = tmp_path / "spool"
    spool.mkdir()
    process = start_command(
        "frames", http_server.url("/clip.mp4"), "--out", "o",
        environment=environment | {"TMPDIR": str(spool)}, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert asked.wait(30)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (130, "")
    assert stderr == "videoqa: interrupted (interrupted)\n"
    assert list(spool.rglob("*")) == []
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_sees_how_much_is_fetched(terminal: bool) -> None:
    seen = StringIO()
    console = Console(file=seen, force_terminal=terminal, width=80, no_color=True)
    with show_fetching(console, quiet=False) as on_bytes:
        on_bytes(1_500_000, 9_000_000)
    assert ("1.5 of 9.0 MB fetched" in seen.getvalue()) is terminal
    assert bool(seen.getvalue()) is terminal


# -- sheets


def test_a_sheet_is_no_wider_than_a_screen_whatever_it_holds() -> None:
    from videoqa_worker.cli.frames.sheet import choose_layout

    for width, height in ((1920, 1080), (1080, 1920), (96, 72), (4000, 40), (40, 4000)):
        for count in range(1, 257):
            layout = choose_layout(count, width, height)
            assert 720 <= layout.width <= 2400
            assert layout.picture_width >= 160
            assert layout.columns * layout.rows >= count > layout.columns * (layout.rows - 1)
            assert layout.height <= 10_000


def test_labels_say_when_which_and_whether_exact() -> None:
    from videoqa_worker.cli.frames.sheet import draw_sheet, format_labels
    from videoqa_worker.frames import Frame

    black = np.zeros((90, 160, 3), np.uint8)
    exact = Frame(7, 3723.25, True, black)
    assert format_labels(exact) == ("3723.250 s (1:02:03)", "index 7")
    odd = Frame(None, 1 / 3, False, np.zeros((30, 60, 3), np.uint8))
    assert format_labels(odd) == ("0.333 s", "index unknown, not exact")
    sheet = np.asarray(draw_sheet([exact, odd], "日本 é" * 90, "2 s, 160x90"))
    assert sheet[:70, :700].max() == 255, "a title"
    assert not sheet[76:166, 12:172].any(), "the first picture"
    assert sheet[166:215, 12:172].max() == 255, "its label"


def test_half_a_file_is_never_left_under_a_frames_name(
    show: Show, make_clip: MakeClip, tmp_path: Path
) -> None:
    """A folder of the name that a frame gets makes its writing fail."""
    make_clip(Recipe(fps=Fraction(25)))
    (tmp_path / "o" / "frame-001-1.000s.png").mkdir(parents=True)
    done = show("clip.mp4", "-n", "2", "--out", "o")
    assert done.returncode == 6
    assert "can't be written to" in done.stderr
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names == {"frame-000-0.000s.png", "frame-001-1.000s.png"}
