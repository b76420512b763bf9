"""A real gateway with jobs of every state, and one Chromium for all tests of the folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from support.browser import Watched, find_chromium, launch, watch
from support.gateway import make_key, serve_gateway
from support.processes import GENEROUS_S, wait_until
from support.worker import announce, begin, fail, finish

from videoqa.client import Client
from videoqa.contract import FailedRow, RunFailures, RunReport
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.sessions import COOKIE, SessionStore
from videoqa.gateway.webhooks import DeliveryStore
from videoqa.jobs import Ledger, connect
from videoqa.settings import Settings
from videoqa_worker.embedded.redis_server import RedisServer

HOOK = "https://127.0.0.1/hook?token=secret"
"""A receiver that no gateway calls."""
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
"""Words that a page must show as they are."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The browser; of the package, since its loop would be in the way of other tests' own."""
    program = find_chromium()
    if program is None:
        pytest.skip("NO CHROMIUM: the dashboard is not tested; run `sh .ci/fetch_chromium.sh`")
    expect.set_options(timeout=GENEROUS_S * 1000)  # a busy machine needs them
    with launch(program) as found:
        yield found


@dataclass
class Site:
    """A gateway with its data."""

    server: GatewayServer
    settings: Settings
    ledger: Ledger
    jobs: dict[str, str]
    """Id of a job of each state."""
    key: str
    """An administrator's key."""
    ids: dict[str, str] = field(default_factory=dict)
    """Ids that stand in paths of pages, by their names there."""

    @property
    def url(self) -> str:
        return self.server.url

    def log_in(self, key: str | None = None) -> dict[str, Any]:
        """Returns the cookie of a session of a key; None: the administrator's."""
        at = {"url": self.settings.redis_url, "prefix": self.settings.prefix}
        key_id = (key or self.key).split("_")[1]
        with connect(self.settings) as client:
            token = SessionStore(client, **at).make_session(key_id)
        return {"name": COOKIE, "value": token, "url": self.url}


def fill(settings: Settings, ledger: Ledger) -> dict[str, str]:
    """Submits jobs, and plays the worker that ends them; returns the id of one of each state."""
    asked: dict[str, Any] = {
        "inputs": ["https://user:secret@a.org/x.mp4?token=secret"],
        "questions": ["What happens?"],
    }
    jobs: dict[str, str] = {}
    with Client(settings=settings) as client:
        for name in ("succeeded", "failed", "running"):
            jobs[name] = client.submit(
                **asked, webhook=HOOK, tags=[HOSTILE[:60]], custom_id=HOSTILE[:60]
            ).id
            if name == "succeeded":
                finish(ledger, begin(ledger), q1=HOSTILE)
            elif name == "failed":
                fail(ledger)
            else:
                begin(ledger, lease_s=3600)
        jobs["queued"] = client.submit(**asked).id
        jobs["canceled"] = client.cancel(client.submit(**asked).id).id
        jobs["bulk"] = client.start_bulk("cancel", tag="nothing").id
        client.submit(**asked, priority="bulk", model="other/model-with-a-long-name-of-8b")
    return jobs


@contextmanager
def announced(ledger: Ledger) -> Iterator[None]:
    """Announces a worker again and again, since one that is silent for a minute is gone."""
    over = threading.Event()

    def announce_again() -> None:
        while True:
            announce(ledger, "demo")
            if over.wait(10):
                return

    announce(ledger, "demo")
    thread = threading.Thread(target=announce_again, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


def fill_fleet(settings: Settings, key: str) -> dict[str, str]:
    """Announces a run, and waits for the delivery of a webhook; returns the ids of what pages are about."""
    rows = (FailedRow(row=f"{HOSTILE}.mp4", message=HOSTILE, job_id="job_1"),)
    run = RunReport(
        id="run_" + "0" * 24, kind="caption", name=HOSTILE, output="s3://b/out", total=1000, done=400, failed=1,
        rate=2.0, failures=(RunFailures(code="source_not_found", count=1, examples=rows),),
    )  # fmt: skip
    with Client(settings=settings) as client:
        client.announce_run(run, begins=True)
    with connect(settings) as redis:
        store = DeliveryStore(redis, url=settings.redis_url, prefix=settings.prefix)
        delivery = wait_until(lambda: store.find(None).deliveries)[0]
    return {
        "code": "model_error",
        "run_id": run.id,
        "key_id": key.split("_")[1],
        "delivery_id": delivery.id,
    }


@pytest.fixture(scope="package")
def site(
    browser: Browser, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A gateway that all tests share, which change nothing that others read."""
    settings = Settings(redis_url=redis_server.url, prefix="browser")
    with connect(settings) as client:
        ledger = Ledger(client, url=settings.redis_url, prefix=settings.prefix)
        jobs = fill(settings, ledger)
        files = str(tmp_path_factory.mktemp("files"))
        with (
            pytest.MonkeyPatch.context() as patch,
            announced(ledger),
            serve_gateway(settings, gateway_files=files) as server,
        ):
            # For the gateway's process that takes the frames of uploaded files.
            patch.setenv("VIDEOQA_MODEL", "org/none")  # without a processor it loads in no time
            patch.setenv("VIDEOQA_FILE_ROOTS", files)
            key = make_key(settings)
            yield Site(server, settings, ledger, jobs, key, fill_fleet(settings, key))


OpenPage = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[OpenPage]:
    """Returns a function that opens a path as a key, in a context without the cookies of other tests."""
    contexts = []

    def open_page(path: str = "/", *, key: str | None = "", **options: Any) -> Watched:
        """
        Arguments:
            key: whose session it is; None: nobody's; empty: the administrator's.
        """
        context = browser.new_context(viewport={"width": 1440, "height": 900}, **options)
        context.set_default_timeout(GENEROUS_S * 1000)
        contexts.append(context)
        if key is not None:
            context.add_cookies([site.log_in(key or None)])  # type: ignore[list-item]
        watched = watch(context, site.url)
        watched.page.goto(site.url + path)
        return watched

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """The first page, as an administrator sees it."""
    return open_page("/").page


@pytest.fixture
def shots() -> Path | None:
    """The folder for pictures of the pages, where VIDEOQA_SHOTS names one."""
    folder = os.environ.get("VIDEOQA_SHOTS")
    return Path(folder) if folder else None
