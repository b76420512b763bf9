"""Runs, queues, keys and webhooks in a browser: by keyboard, live, and each action once."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect
from support.browser import Watched
from support.gateway import make_key
from support.worker import begin

from videoqa.client import Client
from videoqa.contract import Failure, RunReport

from .conftest import HOSTILE, Site

OpenPage = Callable[..., Watched]
MODEL = "pages/to-be-paused"


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_a_run_goes_on_while_it_is_looked_at(open_page: OpenPage, site: Site) -> None:
    watched = open_page("/runs")
    page = watched.page
    row = page.locator(f"#{site.ids['run_id']}")
    expect(row).to_contain_text("401 / 1,000")
    expect(row).to_contain_text(HOSTILE)
    report = RunReport(id=site.ids["run_id"], kind="caption", name=HOSTILE, total=1000, done=777)
    with Client(settings=site.settings) as client:
        client.announce_run(report)
    expect(row).to_contain_text("777 / 1,000")
    press(page, "/")
    page.keyboard.type("nothing like it")
    press(page, "Enter")
    expect(page.get_by_role("heading", name="No such run")).to_be_visible()
    page.go_back()
    press(page, "j", "Enter")
    expect(page).to_have_url(re.compile(f"/runs/{site.ids['run_id']}$"))
    assert watched.mistakes == []


def test_a_queue_is_paused_by_keyboard_after_a_question(open_page: OpenPage, site: Site) -> None:
    with Client(settings=site.settings) as client:
        client.submit(inputs=["s3://b/x.mp4"], questions=["?"], model=MODEL)
        watched = open_page("/queues")
        page = watched.page
        row = page.get_by_role("row", name=MODEL)
        row.get_by_role("button", name="Pause").focus()
        press(page, "Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(
            f"No job for {MODEL} (interactive) starts until the queue is"
        )
        press(page, "Escape")
        expect(dialog).to_be_hidden()
        assert not any(queue.paused for queue in client.queues())
        press(page, "Enter")
        dialog.get_by_role("button", name="Pause").focus()
        press(page, "Enter", "Enter")
        expect(page.get_by_role("status").filter(has_text="Paused:")).to_be_visible()
        expect(row).to_contain_text("paused")
        row.get_by_role("button", name=f"Resume {MODEL}").focus()
        press(page, "Enter")
        expect(row.get_by_role("button", name="Pause")).to_be_visible()
        assert not any(queue.paused for queue in client.queues())
    reader = open_page("/queues", key=make_key(site.settings, "read"))
    expect(reader.page.get_by_role("row", name=MODEL)).to_be_visible()
    expect(reader.page.get_by_role("button", name="Pause")).to_have_count(0)
    assert watched.mistakes + reader.mistakes == []


def test_dead_letters_are_purged_by_keyboard_once_their_number_is_typed(
    open_page: OpenPage, site: Site
) -> None:
    with Client(settings=site.settings) as client:
        dead = [
            client.submit(
                inputs=[f"s3://b/{n}.mp4"], questions=[HOSTILE], model="pages/dead", tenant="t"
            )
            for n in range(2)
        ]
        for job in dead:
            claim = begin(site.ledger, job.id, model="pages/dead")
            failure = Failure(code="no_media", message=HOSTILE, attempt=1)
            site.ledger.fail(claim.job_id, claim.token, failure, delay_s=0)
        watched = open_page("/dead", key=make_key(site.settings, tenant="t"))
        page = watched.page
        page.get_by_role("link", name="2 no_media, 1 h").focus()
        press(page, "Enter")
        expect(page.locator(f"#{dead[0].id}")).to_contain_text(HOSTILE)
        page.get_by_role("button", name=f"Retry {dead[0].id}").focus()
        press(page, "Enter")
        expect(page.get_by_role("status").filter(has_text="Queued again")).to_be_visible()
        expect(page.locator(f"#{dead[0].id}")).to_have_count(0)
        assert client.get(dead[0].id).state == "queued"
        page.get_by_role("link", name="Delete these").focus()
        press(page, "Enter")
        page.get_by_label("Type the number of jobs").focus()
        page.keyboard.type("1")
        press(page, "Enter")
        expect(page.get_by_text("completed")).to_be_visible()
        assert client.get_many([dead[1].id]) == [None]
    assert watched.mistakes == []


def test_a_key_is_made_shown_once_rotated_and_revoked(open_page: OpenPage, site: Site) -> None:
    watched = open_page("/keys")
    page = watched.page
    page.get_by_role("link", name="New key").focus()
    press(page, "Enter")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.type(HOSTILE)
    page.get_by_label("Open jobs").fill("5")
    press(page, "Enter")
    expect(page.get_by_role("alert")).to_contain_text("expected a tenant")
    assert page.get_by_label("Name", exact=True).input_value() == HOSTILE
    watched.mistakes.clear()  # the browser's own line about the answer 400
    page.get_by_label("Tenant", exact=True).fill("acme")
    press(page, "Enter")
    secret = page.locator("code", has_text=re.compile("^vqa_"))
    expect(secret).to_be_visible()
    text = secret.text_content() or ""
    watched.check()
    page.reload()  # the form once more
    expect(page.get_by_role("status").filter(has_text="made already")).to_be_visible()
    page.get_by_role("link", name=HOSTILE).click()
    assert text not in page.content()
    page.get_by_role("button", name="Rotate").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    expect(secret).to_be_visible()
    assert secret.text_content() != text
    page.get_by_role("link", name="Done").click()
    page.get_by_role("button", name="Revoke").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("refuses")
    dialog.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status").filter(has_text="Revoked:")).to_be_visible()
    expect(page.get_by_role("link", name=HOSTILE)).to_have_count(0)
    assert watched.mistakes == []
