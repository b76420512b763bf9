"""Ranged reads over HTTP: only what is asked for, in parallel, all of one state of the file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from support.servers import HttpServer, Odd, Route
from support.sources import open_source

from videoqa.contract import JobRequest, Sampling
from videoqa.errors import (
    AddressForbidden,
    InputChanged,
    JobCanceled,
    SourceDenied,
    SourceError,
    SourceHttpError,
    SourceTimeout,
    SourceTooLarge,
    SourceUnavailable,
)
from videoqa_worker.job.answer_cache import compute_fingerprint
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import LocalCopy, Sources, identify_source
from videoqa_worker.sources.ranges import fetcher

MIB = 1 << 20
BODY = Random(3).randbytes(4 * MIB)
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
FAR = [(n * 400_000, n * 400_000 + 1000) for n in range(1, 9)]
"""Eight spans too far apart to be joined."""


def refusal(
    kind: type[SourceError], url: str, spool: Path, spans: list[tuple[int, int]], **settings: object
) -> str:
    with open_source(url, spool, **settings) as copy:
        with pytest.raises(kind) as caught:
            copy.ensure(spans)
        assert type(caught.value) is kind
        with pytest.raises(kind):
            copy.ensure([(0, 1), *spans])
        return str(caught.value)


def piece(copy: LocalCopy, start: int, end: int) -> bytes:
    with copy.path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def test_of_a_large_file_only_the_head_comes_unasked(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        assert (copy.size_bytes, copy.path.stat().st_size) == (len(BODY), len(BODY))
        assert list(copy.present) == [(0, 65536)]
        assert (copy.fetched_bytes, copy.requests, copy.etag) == (65536, 1, "v1")
        assert copy.path.stat().st_blocks * 512 < 2 * 65536, "holes take no room"
        copy.ensure([(0, 100), (MIB, MIB + 100)])
        assert piece(copy, MIB, MIB + 100) == BODY[MIB : MIB + 100]
        assert list(copy.present) == [(0, 65536), (MIB, MIB + 100)]
        assert (copy.fetched_bytes, copy.requests) == (65636, 2)
        copy.ensure([(MIB + 10, MIB + 90)])
        assert copy.requests == 2
    assert route.ranges_seen == ["0-65535", f"{MIB}-{MIB + 99}"]
    assert [seen.get("if-range") for seen in route.seen] == [None, '"v1"']


def test_a_small_file_is_all_there_at_once(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a"] = Route(BODY)
    http_server.routes["/tiny"] = Route(b"tiny")
    with open_source(http_server.url("/a"), tmp_path, download_below_bytes=len(BODY)) as copy:
        assert list(copy.present) == [(0, len(BODY))]
        assert copy.path.read_bytes() == BODY
        assert (copy.requests, copy.fetched_bytes) == (2, len(BODY))
    with open_source(http_server.url("/tiny"), tmp_path) as copy:
        assert (copy.path.read_bytes(), copy.requests) == (b"tiny", 1)


def test_ranges_come_in_parallel_and_never_more_than_set(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    all_there = threading.Barrier(4, timeout=30)

    def meet(route: Route) -> None:
        if len(route.seen) > 1:
            all_there.wait()  # the eight requests go on in fours, or never

    route.on_request = meet
    with open_source(http_server.url("/a"), tmp_path, range_parallel=4) as copy:
        copy.ensure(FAR)
        for start, end in FAR:
            assert piece(copy, start, end) == BODY[start:end]
        assert copy.requests == 9
        assert copy.waited_s > 0
    assert route.most_at_once == 4


def test_ranges_share_kept_connections(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        for span in FAR:
            copy.ensure([span])
    assert http_server.connections == 1


def test_most_of_a_file_is_fetched_whole(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path, range_bytes=MIB) as copy:
        copy.ensure([(MIB, 4 * MIB)])
        assert copy.path.read_bytes() == BODY
        assert (copy.fetched_bytes, copy.requests) == (len(BODY), 5)


# One state of the file


def replaced(route: Route) -> None:
    route.etag, route.body = '"v2"', BODY[::-1]


@pytest.mark.parametrize("heeds", [True, False], ids=["If-Range", "If-Range ignored"])
def test_a_file_replaced_meanwhile_is_input_changed(
    heeds: bool, http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        replaced(route)
        route.heeds_if_range = heeds
        with pytest.raises(InputChanged):
            copy.ensure([(MIB, MIB + 10)])
        assert list(copy.present) == [(0, 65536)]


@pytest.mark.parametrize(
    ("etag", "headers"),
    [('W/"v1"', {}), (None, {"Last-Modified": DATE})],
    ids=["a weak ETag", "a date"],
)
def test_weaker_names_are_compared_too(
    etag: str | None, headers: dict[str, str], http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, etag=etag, headers=dict(headers))
    with open_source(http_server.url("/a"), tmp_path, whole_read_bytes=0) as copy:
        copy.ensure([(MIB, MIB + 10)])
        assert piece(copy, MIB, MIB + 10) == BODY[MIB : MIB + 10]
        assert copy.requests == 2
        assert route.seen[1].get("if-range") == headers.get("Last-Modified")
        route.heeds_if_range = False
        if etag:
            route.etag = 'W/"v2"'
        else:
            route.headers["Last-Modified"] = "Thu, 22 Oct 2015 07:28:00 GMT"
        with pytest.raises(InputChanged):
            copy.ensure([(2 * MIB, 2 * MIB + 10)])


def test_a_date_that_is_none_is_no_condition(http_server: HttpServer, tmp_path: Path) -> None:
    dates = {"Last-Modified": f"Wed, 21 Oct {10**20} 07:28:00 GMT", "Date": DATE}
    route = http_server.routes["/a"] = Route(BODY, etag=None, headers=dates)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([(MIB, MIB + 10)])
    assert "if-range" not in route.seen[-1]


def test_a_date_of_this_very_second_is_no_condition(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, etag=None)

    def now(route: Route) -> None:
        route.headers["Last-Modified"] = "Wed, 21 Oct 2099 07:28:00 GMT"

    route.on_request = now
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([(MIB, MIB + 10)])
    assert all("if-range" not in seen for seen in route.seen)


def test_without_any_name_the_file_comes_in_one_response(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, etag=None)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        assert copy.path.read_bytes() == BODY
        assert list(copy.present) == [(0, len(BODY))]
    assert route.ranges_seen == ["0-65535", None]


def test_a_small_file_without_a_name_that_ends_early_is_fetched_anew(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(b"x" * 5000, etag=None, cuts=[1000])
    with open_source(http_server.url("/a"), tmp_path) as copy:
        assert copy.path.read_bytes() == b"x" * 5000
    assert route.ranges_seen == ["0-65535", None]


def test_a_file_that_grows_or_shrinks_is_input_changed(
    http_server: HttpServer, tmp_path: Path
) -> None:
    for name, body in (("/longer", BODY + b"x"), ("/shorter", BODY[: MIB // 2])):
        route = http_server.routes[name] = Route(BODY)
        with open_source(http_server.url(name), tmp_path) as copy:
            route.body = body
            with pytest.raises(InputChanged):
                copy.ensure([(MIB, MIB + 10)])


def test_412_is_input_changed(http_server: HttpServer, tmp_path: Path) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    route.on_range = lambda start, end: Odd(412) if start else None
    url = http_server.url("/a")
    refusal(InputChanged, url, tmp_path, [(MIB, MIB + 10)], whole_read_bytes=0)


# Servers that do not do as they should


def test_without_ranges_the_very_response_is_read_on(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, ranges=False)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        assert copy.path.read_bytes() == BODY
        assert (copy.requests, copy.fetched_bytes) == (1, len(BODY))
    assert len(route.seen) == 1


HEAD = BODY[:65536]


@pytest.mark.parametrize(
    "odd",
    [
        Odd(206, HEAD),
        Odd(206, HEAD, {"Content-Range": "bytes 0-65535/*", "ETag": '"v1"'}),
        Odd(206, HEAD, {"Content-Range": f"bytes 5-65540/{len(BODY)}", "ETag": '"v1"'}),
        Odd(206, HEAD, {"Content-Range": "octets 0 to 9", "ETag": '"v1"'}),
        Odd(206, HEAD, {"Content-Range": f"bytes 0-65535/{10**30}", "ETag": '"v1"'}),
        Odd(206, HEAD, {"Content-Range": f"bytes 0-65535/{'9' * 5000}", "ETag": '"v1"'}),
        Odd(416, b"no"),
    ],
    ids=["no Content-Range", "no total", "another range", "nonsense", "2^100", "digits", "416"],
)  # fmt: skip
def test_a_first_answer_that_is_of_no_use_makes_a_whole_download(
    odd: Odd, http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY, on_range=lambda start, end: odd)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        assert copy.path.read_bytes() == BODY
        assert copy.requests == 2
    assert route.ranges_seen == ["0-65535", None]


@pytest.mark.parametrize(
    "odd",
    [
        Odd(206, b"x" * 10, {"Content-Range": f"bytes 7-16/{len(BODY)}", "ETag": '"v1"'}),
        Odd(206, b"x" * 10, {"ETag": '"v1"'}),
    ],
    ids=["another range", "no Content-Range"],
)
def test_another_range_than_asked_for_is_refused(
    odd: Odd, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(BODY, on_range=lambda start, end: odd if start else None)
    message = refusal(SourceHttpError, http_server.url("/a"), tmp_path, [(MIB, MIB + 10)])
    assert f"another range than bytes={MIB}-{MIB + 9}" in message


def test_a_server_that_gives_less_than_asked_is_asked_for_the_rest(
    http_server: HttpServer, tmp_path: Path
) -> None:
    def stingy(start: int, end: int) -> Odd | None:
        if not start:
            return None
        end = min(end, start + 400)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(BODY)}", "ETag": '"v1"'}
        return Odd(206, BODY[start:end], headers)

    route = http_server.routes["/a"] = Route(BODY, on_range=stingy)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure([(MIB, MIB + 1000)])
        assert piece(copy, MIB, MIB + 1000) == BODY[MIB : MIB + 1000]
        assert copy.fetched_bytes == 65536 + 1000
    assert len(route.seen) == 4


def test_one_range_that_ends_early_is_fetched_on_alone(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        route.cuts = [300]
        copy.ensure(FAR)
        for start, end in FAR:
            assert piece(copy, start, end) == BODY[start:end]
        assert (copy.requests, copy.fetched_bytes) == (1 + 8 + 1, 65536 + 8000)


def test_a_busy_server_is_asked_again_for_the_range_alone(
    http_server: HttpServer, tmp_path: Path
) -> None:
    refused: list[int] = []

    def busy(start: int, end: int) -> Odd | None:
        if start == FAR[2][0] and not refused:
            refused.append(start)
            return Odd(503, b"slow down")
        return None

    http_server.routes["/a"] = Route(BODY, on_range=busy)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        copy.ensure(FAR)
        assert copy.requests == 1 + 8 + 1


def test_a_server_that_stays_busy_is_unavailable(http_server: HttpServer, tmp_path: Path) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    route.on_range = lambda start, end: Odd(503) if start else None
    assert "503" in refusal(
        SourceUnavailable, http_server.url("/a"), tmp_path, [(MIB, MIB + 10)], range_attempts=2
    )
    assert len(route.seen) == 3


def test_a_compressed_range_is_refused(http_server: HttpServer, tmp_path: Path) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        route.headers["Content-Encoding"] = "gzip"
        with pytest.raises(SourceHttpError, match="gzip"):
            copy.ensure([(MIB, MIB + 10)])


def test_of_a_file_above_the_limit_parts_come_and_not_all(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    limits = {"max_bytes": len(BODY) - 1, "download_below_bytes": 0}
    with open_source(http_server.url("/a"), tmp_path, **limits) as copy:
        copy.ensure([(MIB, MIB + 10)])
        asked = len(route.seen)
        with pytest.raises(SourceTooLarge, match=str(len(BODY))):
            copy.ensure([(0, len(BODY))])
        assert len(route.seen) == asked


# Redirects


@pytest.fixture
def other_server() -> Iterator[HttpServer]:
    with HttpServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.stopped.set()
        server.shutdown()


def test_ranges_go_straight_to_where_the_first_request_landed(
    http_server: HttpServer, other_server: HttpServer, tmp_path: Path
) -> None:
    first = http_server.routes["/a"] = Route(
        status=302, headers={"Location": other_server.url("/b")}
    )
    landed = other_server.routes["/b"] = Route(BODY)
    url = http_server.url("/a").replace("http://", "http://ann:hush@")
    with open_source(url, tmp_path) as copy:
        copy.ensure(FAR)
        assert copy.requests == 2 + 8
    assert (len(first.seen), len(landed.seen)) == (1, 9)
    assert all("authorization" not in seen for seen in landed.seen)


def test_a_landing_that_expired_is_looked_up_again(
    http_server: HttpServer, other_server: HttpServer, tmp_path: Path
) -> None:
    first = http_server.routes["/a"] = Route(
        status=302, headers={"Location": other_server.url("/b")}
    )
    other_server.routes["/b"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        other_server.routes["/b"] = Route(status=403)
        other_server.routes["/c"] = Route(BODY)
        first.headers["Location"] = other_server.url("/c")
        copy.ensure([(MIB, MIB + 10)])
        assert piece(copy, MIB, MIB + 10) == BODY[MIB : MIB + 10]
        assert copy.requests == 2 + 3
        copy.ensure([(2 * MIB, 2 * MIB + 10)])
        assert copy.requests == 2 + 3 + 1


def test_a_landing_that_stays_forbidden_is_denied(
    http_server: HttpServer, other_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(status=302, headers={"Location": other_server.url("/b")})
    landed = other_server.routes["/b"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        landed.status = 403
        with pytest.raises(SourceDenied):
            copy.ensure([(MIB, MIB + 10)])


def test_each_range_may_be_redirected_to_another_host_and_each_is_guarded(
    http_server: HttpServer, other_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    other_server.routes["/b"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path) as copy:
        route.status, route.headers["Location"] = 307, other_server.url("/b")
        copy.ensure([(MIB, MIB + 10)])
        assert piece(copy, MIB, MIB + 10) == BODY[MIB : MIB + 10]
        other_server.routes["/b"].status = 307
        other_server.routes["/b"].headers["Location"] = "http://169.254.169.254/latest/meta-data/"
        with pytest.raises(AddressForbidden):
            copy.ensure([(2 * MIB, 2 * MIB + 10)])


def test_a_name_is_looked_up_once_however_many_connections_lead_to_it(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    config = SourceConfig(spool_dir=tmp_path, private_addresses=True, download_below_bytes=0)
    url = f"http://clips.example:{http_server.server_port}/a"
    with (
        Sources(config, resolve=lambda host, port: answers.pop(0)) as sources,
        sources.open(url) as copy,
    ):
        route.wait_s = 0.05
        copy.ensure(FAR)
    assert http_server.connections > 1
    assert answers == [["169.254.169.254"]]


# Cancel, deadline, threads


def fetching_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("videoqa-fetch")]


def test_cancel_in_the_middle_of_parallel_ranges_stops_them_all(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    asked_on: set[str] = set()

    def check() -> None:
        asked_on.add(threading.current_thread().name)
        if len(route.seen) == 1 + 8:
            raise JobCanceled("canceled")

    with open_source(http_server.url("/a"), tmp_path, check=check) as copy:
        route.wait_s = 60
        with pytest.raises(JobCanceled):
            copy.ensure(FAR)
        assert list(copy.present) == [(0, 65536)]
    assert fetching_threads() == []
    assert asked_on == {threading.current_thread().name}
    assert [path.name for path in tmp_path.rglob("*")] == []


def test_one_failed_range_stops_the_others(http_server: HttpServer, tmp_path: Path) -> None:
    gone: list[int] = []

    def refuse(start: int, end: int) -> Odd | None:
        if start == FAR[0][0]:
            gone.append(start)
            return Odd(404)
        if start:
            http_server.stopped.wait(60)
        return None

    http_server.routes["/a"] = Route(BODY, on_range=refuse)
    with (
        open_source(http_server.url("/a"), tmp_path) as copy,
        pytest.raises(SourceError, match="404"),
    ):
        copy.ensure(FAR)
    assert fetching_threads() == []
    assert gone == [FAR[0][0]]


def test_ranges_that_drip_do_not_outlast_the_deadline(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path, deadline_s=2.0) as copy:
        route.drip_s = 0.02
        with pytest.raises(SourceTimeout, match="not complete after"):
            copy.ensure(FAR)


def test_silence_in_a_range_is_a_timeout(http_server: HttpServer, tmp_path: Path) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    with open_source(http_server.url("/a"), tmp_path, read_timeout_s=0.2, range_attempts=2) as copy:
        route.wait_s = 30
        with pytest.raises(SourceTimeout, match="sent nothing for"):
            copy.ensure([(MIB, MIB + 10)])
    assert len(route.seen) == 3


def test_what_came_before_a_silence_does_not_count_twice(
    http_server: HttpServer, tmp_path: Path
) -> None:
    route = http_server.routes["/a"] = Route(BODY)
    limits = {"read_timeout_s": 0.5, "max_bytes": len(HEAD) + 1000}
    with open_source(http_server.url("/a"), tmp_path, **limits) as copy:

        def falls_silent(route: Route) -> None:
            route.drip_s = 0.0 if len(route.seen) > 2 else 0.01
            threading.Timer(0.2, lambda: setattr(route, "drip_s", route.drip_s and 30.0)).start()

        route.on_request = falls_silent
        copy.ensure([(MIB, MIB + 1000)])
        assert piece(copy, MIB, MIB + 1000) == BODY[MIB : MIB + 1000]
        assert copy.fetched_bytes > len(HEAD) + 1000


# Anything may go wrong at any time


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_server_does_no_wrong_byte_is_called_present(
    seed: int, http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "_RETRY_PAUSE_S", 0.001)
    random = Random(seed)
    body, changed, blank = BODY[:500_000], BODY[500_000:1_000_000], bytes(500_000)
    route = Route(body, etag=random.choice(['"v1"', 'W/"v1"', None]))
    if random.random() < 0.5:
        route.headers["Last-Modified"] = DATE
    route.ranges = random.random() < 0.8
    route.heeds_if_range = random.random() < 0.5

    odd_names = {"ETag": '"v3"', "Last-Modified": "Fri, 23 Oct 2015 07:28:00 GMT"}

    def odd(start: int, end: int) -> Odd | None:
        named = {"ETag": route.etag} if route.etag else {}
        named |= route.headers
        total = {"Content-Range": f"bytes {start}-{end - 1}/{len(body)}"}
        content = route.body[start:end]
        return random.choice(
            [
                *[None] * 12,
                Odd(503),
                Odd(206, blank[start:end], {**total, **{n: odd_names[n] for n in named}}),
                Odd(206, content[:100], {**named, **total}),
                Odd(206, content + b"more", {**named, **total}),
                Odd(206, content[1:], named),
            ]
        )

    def now_and_then(route: Route) -> None:
        if random.random() < 0.15:
            route.cuts.append(random.randrange(60_000))
        if random.random() < 0.03:
            route.body, route.etag = changed, '"v2"'
            if "Last-Modified" in route.headers:
                route.headers["Last-Modified"] = "Thu, 22 Oct 2015 07:28:00 GMT"

    # One at a time: the server itself could mix two states of a file.
    settings = {"range_bytes": 50_000, "range_parallel": 1}
    route.on_range, route.on_request = odd, now_and_then
    http_server.routes["/a"] = route
    with (
        suppress(InputChanged, SourceHttpError, SourceUnavailable),
        open_source(http_server.url("/a"), tmp_path, **settings) as copy,
    ):
        for _ in range(6):
            start = random.randrange(len(body))
            copy.ensure([(start, start + random.randrange(100_000))])
            whole = [state for state in (body, changed, blank) if _agree(copy, state)]
            assert whole, "what is present is all of one state of the file"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def _agree(copy: LocalCopy, state: bytes) -> bool:
    content = copy.path.read_bytes()
    return all(content[start:end] == state[start:end] for start, end in copy.present)


LATER = "Thu, 22 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("names", "later"),
    [
        ((None, {}), (None, {})),
        ((None, {"Last-Modified": DATE}), (None, {"Last-Modified": LATER})),
        (('W/"v1"', {"Last-Modified": DATE}), ('W/"v1"', {"Last-Modified": LATER})),
        (('"v1"', {}), ('"v2"', {})),
    ],
    ids=["no name", "a date", "a weak ETag and a date", "an ETag"],
)
def test_other_bytes_of_the_same_size_have_another_fingerprint(
    names: tuple[str | None, dict[str, str]],
    later: tuple[str | None, dict[str, str]],
    http_server: HttpServer,
    tmp_path: Path,
) -> None:
    def found(body: bytes, etag: str | None, headers: dict[str, str]) -> str:
        http_server.routes["/a"] = Route(body, etag=etag, headers=dict(headers))
        with open_source(url, tmp_path) as copy:
            versions = [identify_source(request.inputs[0].url, copy)]
        return compute_fingerprint(request, Sampling(), versions, model="demo", revision=None)

    url = http_server.url("/a")
    request = JobRequest.model_validate({"inputs": [url], "questions": ["What?"]})
    first = found(BODY, *names)
    assert found(BODY, *names) == first
    assert found(BODY[::-1], *later) != first
