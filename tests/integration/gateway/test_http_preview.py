"""A preview shows the frames that a job would take: those of the worker's own sampler, as thumbnails on one sheet."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from support.processes import wait_until
from support.servers import HttpServer, Route
from support.videos import Recipe

from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.resources import Resources
from videoqa_worker.cli.frames.command import load_settings
from videoqa_worker.cli.frames.take import take_frames

Connect = Callable[..., httpx.Client]

PATH = "/v1/jobs:preview"


@pytest.fixture
def http(
    environ: Path, monkeypatch: pytest.MonkeyPatch, gateway: GatewayServer, keys: KeyStore
) -> Iterator[httpx.Client]:
    """A key that may name files of the folder, and upload some."""
    key = keys.create("test", ["submit"], inputs=["http://", environ.as_uri() + "/"])
    headers = {"authorization": f"Bearer {key.text}"}
    monkeypatch.setenv("VIDEOQA_PRIVATE_ADDRESSES", "true")
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as client:
        yield client


def preview(http: httpx.Client, *inputs: Any, **fields: Any) -> dict[str, Any]:
    answer = http.post(PATH, json={"inputs": inputs, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def preview_ready(http: httpx.Client, *inputs: Any, **fields: Any) -> dict[str, Any]:
    """Asks until the process has started, which takes longer than a request's time on a busy machine."""
    found: list[dict[str, Any]] = []

    def is_ready() -> bool:
        found.append(preview(http, *inputs, **fields))
        return found[-1]["reason"] not in ("too_slow", "probe_failed", "too_busy")

    wait_until(is_ready)
    return found[-1]


def open_sheet(found: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(found["jpeg"])))


def test_the_frames_are_those_of_the_sampler_for_files_urls_uploads_and_images(
    http: httpx.Client,
    http_server: HttpServer,
    make_clip: Callable[[Recipe], Path],
    tmp_path: Path,
) -> None:
    clip = make_clip(Recipe(frames=75, size=(640, 360)))
    samplings: list[dict[str, Any]] = [
        {"frames": 3},
        {"method": "fps", "fps": 2},
        {"method": "times", "times": [0.5, 2]},
        {"method": "keyframe", "frames": 4},
    ]
    for sampling in samplings:
        video = {"url": clip.as_uri(), "start": 0.4}
        found = preview_ready(http, video, sampling=sampling)
        view = take_frames(str(clip), sampling, 0.4, None, load_settings({}), lambda *_: None)
        expected = [(one.index, one.exact, round(one.asked_s, 6)) for one in view.video.frames]
        shown = [(one["index"], one["exact"], one["asked_s"]) for one in found["shown"]]
        assert shown == expected, sampling
        assert (found["taken"], found["complete"]) == (len(expected), True)
        assert found["frames"] == found["taken"], "those that come twice are left out"
        codes = [one["code"] for one in found["warnings"]]
        assert codes == [one.code for one in view.video.warnings], sampling
    _check_pixels(found, view.video.frames)
    http_server.routes["/x.mp4"] = Route(clip.read_bytes())
    sent = http.post(
        "/v1/files", files={"file": ("a.mp4", clip.read_bytes())}, data={"purpose": "user_data"}
    )
    Image.new("RGB", (900, 300), "red").save(tmp_path / "red.png")
    gone = (tmp_path / "gone.mp4").as_uri()
    mixed = [http_server.url("/x.mp4"), sent.json()["id"], (tmp_path / "red.png").as_uri(), gone]
    found = preview(http, *mixed, questions="What is it?", sampling={"frames": 2})
    assert [one["input"] for one in found["shown"]] == [0, 0, 1, 1, 2]
    assert [one["error"] and one["error"]["code"] for one in found["inputs"]] == [
        None, None, None, "source_not_found",
    ]  # fmt: skip
    assert found["inputs"][2]["width"] == 900
    assert found["inputs"][1]["url"].startswith("file-"), "where it lies is hidden"
    sheet = open_sheet(found)
    tile = found["sheet"]
    assert (tile["tile_width"], tile["tile_height"]) == (320, 180)
    left, top = (4 % tile["columns"]) * 320 + 160, (4 // tile["columns"]) * 180 + 90
    assert sheet.getpixel((left, top)) == pytest.approx((254, 0, 0), abs=8)


def _check_pixels(found: dict[str, Any], frames: Any) -> None:
    """Compares the mean colours of the tiles with those of the frames, in the order of the sheet."""
    sheet, layout = open_sheet(found), found["sheet"]
    width, height = layout["tile_width"], layout["tile_height"]
    assert layout["frames"] == list(range(len(frames)))
    for n, frame in enumerate(frames):
        left, top = n % layout["columns"] * width, n // layout["columns"] * height
        tile = sheet.crop((left, top, left + width, top + height)).resize(
            (1, 1), Image.Resampling.BOX
        )
        assert tile.getpixel((0, 0)) == pytest.approx(frame.pixels.mean((0, 1)), abs=6)


def test_a_preview_is_bounded_in_frames_and_calls(
    http: httpx.Client,
    gateway: GatewayServer,
    make_clip: Callable[[Recipe], Path],
) -> None:
    clip = make_clip(Recipe(frames=500, size=(64, 48), fps=Fraction(25))).as_uri()
    found = preview_ready(http, clip, sampling={"frames": 200})
    assert (found["taken"], len(found["shown"])) == (200, 50), "every fourth has one"
    in_segments = {"method": "segment", "segment_s": 1, "frames": 6}
    found = preview(http, clip, sampling=in_segments)
    assert (found["frames"], found["taken"], found["complete"]) == (120, 60, False)
    resources: Resources = gateway._app.state.resources
    (key_id,) = [key.id for key in resources.keys.list()]
    resources.estimator._previews_of[key_id] = 2
    assert preview(http, clip)["reason"] == "too_busy"
    del resources.estimator._previews_of[key_id]
    assert preview(http, clip)["reason"] is None


def test_a_call_that_hangs_up_ends_its_preview(
    http: httpx.Client,
    http_server: HttpServer,
    gateway: GatewayServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page asks anew at each change of its form, and leaves the call before."""
    asked, released = threading.Event(), threading.Event()

    def hang(route: Route) -> None:
        asked.set()
        released.wait(300)

    preview_ready(http, "http://127.0.0.1:9/x.mp4")
    http_server.routes["/x.mp4"] = Route(b"x" * 1000, on_request=hang)
    resources: Resources = gateway._app.state.resources
    longer = resources.settings.model_copy(update={"gateway_validate_s": 300.0})
    monkeypatch.setattr(resources, "settings", longer)
    with pytest.raises(httpx.ReadTimeout):
        http.post(PATH, json={"inputs": [http_server.url("/x.mp4")]}, timeout=1)
    assert asked.wait(60)
    wait_until(lambda: not resources.estimator._previews_of)
    released.set()


def test_a_preview_is_refused_as_a_submit_is(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = connect("submit", tenant="a")
    for body, code in (
        ({"inputs": []}, "no_media"),
        ({"inputs": ["file:///etc/passwd"]}, "input_not_allowed"),
        ({"inputs": ["https://a.org/x.mp4"], "sampling": {"frames": 0}}, "invalid_request"),
        ({"inputs": ["https://a.org/x.mp4"], "tenant": "b"}, "invalid_request"),
        ({"inputs": ["file-" + "0" * 24]}, "file_not_found"),
    ):
        answer = http.post(PATH, json=body)
        assert (answer.status_code >= 400, answer.json()["code"]) == (True, code), body
    monkeypatch.setattr("videoqa.gateway.estimator.entry_points", lambda group: [])
    found = preview(http, "https://a.org/x.mp4")
    assert (found["estimated"], found["reason"], found["jpeg"]) == (False, "no_probe", None)
