"""Addresses that lead to a page, a playlist, an error text or nothing, each with its own words."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.servers import HttpServer, Odd, Route

from videoqa.errors import NotAVideo, SourceEmpty
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources
from videoqa_worker.sources.web_pages import find_page

HTML = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>...</body></html>"
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(4000)


def refusal(url: str, spool: Path, **settings: object) -> str:
    config = SourceConfig(spool_dir=spool, **{"private_addresses": True, **settings})  # type: ignore[arg-type]
    with Sources(config) as sources, pytest.raises(NotAVideo) as caught, sources.open(url):
        pass
    assert not caught.value.retryable
    return str(caught.value)


def test_pages_and_playlists_by_http_say_what_to_do(
    http_server: HttpServer, tmp_path: Path
) -> None:
    for kind, body, told in (
        ("text/html; charset=utf-8", HTML, "is a web page"),
        ("video/mp4", HTML, "is a web page"),
        ("text/html", b"  please enable JavaScript", "is a web page"),
        ("application/vnd.apple.mpegurl", b"#EXTM3U\n#EXT-X-VERSION:3\n", "is an HLS playlist"),
        ("Application/X-MpegURL", b"# made by us\n#EXTM3U\n", "is an HLS playlist"),
        ("application/dash+xml", b'<?xml version="1.0"?><MPD></MPD>', "is a DASH manifest"),
        ("application/json", b'{"error": "no such video"}', "is JSON"),
    ):
        route = http_server.routes["/a.mp4?token=marker"] = Route(
            body, headers={"Content-Type": kind}
        )
        message = refusal(http_server.url("/a.mp4?token=marker"), tmp_path)
        assert told in message
        assert "expected the file itself" in message
        assert "marker" not in message
        assert len(route.seen) == 1


def test_a_redirect_to_a_page_names_where_it_led(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a.mp4"] = Route(status=302, headers={"Location": "/login?next=marker"})
    http_server.routes["/login?next=marker"] = Route(HTML, headers={"Content-Type": "text/html"})
    message = refusal(http_server.url("/a.mp4"), tmp_path)
    assert "/login, a web page, perhaps one to log in" in message
    assert "marker" not in message


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://www.youtube.com/watch?v=abc", "of YouTube"),
        ("https://youtu.be/abc", "of YouTube"),
        ("https://vimeo.com/1", "of Vimeo"),
        ("https://drive.google.com/file/d/ID/view", "export=download"),
        ("https://www.dropbox.com/s/x/a.mp4?dl=0", "dl=1"),
        ("https://team.sharepoint.com/a", "download=1"),
        ("https://HuggingFace.co/a/blob/main/v.mp4", "/resolve/"),
    ],
)
def test_pages_of_known_sites_are_named(url: str, told: str) -> None:
    found = find_page(url, url, "text/html", HTML)
    assert told in str(found)
    assert find_page(url, url, "text/html", MP4) is None, "the bytes decide"


def test_a_video_of_any_content_type_is_one(http_server: HttpServer, tmp_path: Path) -> None:
    for kind in (
        "text/html",
        "application/vnd.apple.mpegurl",
        "text/plain",
        "multipart/byteranges",
        "x",
    ):
        http_server.routes["/a"] = Route(MP4, headers={"Content-Type": kind})
        config = SourceConfig(spool_dir=tmp_path, private_addresses=True)
        with Sources(config) as sources, sources.open(http_server.url("/a")) as copy:
            assert copy.path.read_bytes() == MP4


def test_one_range_in_several_parts_is_fetched_without_ranges(
    http_server: HttpServer, tmp_path: Path
) -> None:
    parts = b"--x\r\nContent-Range: bytes 0-9/4024\r\n\r\n0123456789\r\n--x--\r\n"
    odd = Odd(206, parts, {"Content-Type": "multipart/byteranges; boundary=x", "ETag": '"v1"'})
    http_server.routes["/a"] = Route(MP4, on_range=lambda start, end: odd)
    config = SourceConfig(spool_dir=tmp_path, private_addresses=True)
    with Sources(config) as sources, sources.open(http_server.url("/a")) as copy:
        assert copy.path.read_bytes() == MP4


def test_nothing_is_empty_however_it_is_sent(http_server: HttpServer, tmp_path: Path) -> None:
    config = SourceConfig(spool_dir=tmp_path, private_addresses=True)
    for route in (
        Route(b"", headers={"Content-Type": "text/html"}),
        Route(b"", declares_length=False),
        Route(b"", ranges=False, headers={"Content-Encoding": "br"}),
        Route(status=204),
    ):
        http_server.routes["/a"] = route
        with (
            Sources(config) as sources,
            pytest.raises(SourceEmpty, match="expected a video or an image"),
            sources.open(http_server.url("/a")),
        ):
            pass
        assert len(route.seen) == 1
