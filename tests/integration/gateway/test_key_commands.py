"""`videoqa keys`: keys with scopes and limits are made, listed, and their changes audited."""

from __future__ import annotations

import json

import pytest
from support.cli import call_command, clean_environment

from videoqa.gateway.access.keys import KeyStore, WrongKey
from videoqa.settings import Settings


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    return clean_environment() | {
        "VIDEOQA_REDIS_URL": settings.redis_url,
        "VIDEOQA_PREFIX": settings.prefix,
    }


def test_a_key_is_made_with_its_scope_and_limits(
    environment: dict[str, str], keys: KeyStore
) -> None:
    limits = (
        *("--rate", "10/s", "--jobs-per-day", "1000", "--open-jobs", "5", "--frames-per-day", "6"),
        *("--tokens-per-day", "7", "--max-file-bytes", "8", "--tenant", "a", "--expires", "30d"),
    )
    scope = (
        "--input",
        "s3://videos/a/",
        "--input",
        "https://a.org/",
        "--output",
        "s3://results/a/",
    )
    done = call_command("keys", "create", "web", *limits, *scope, environment=environment)
    assert done.returncode == 0, done.stderr
    key = keys.check(done.stdout.strip())
    assert key.inputs == ("s3://videos/a/", "https://a.org/")
    assert key.output == "s3://results/a/{job_id}.json"
    assert (key.rate, key.jobs_per_day, key.open_jobs) == ("10/s", 1000, 5)
    assert (key.frames_per_day, key.tokens_per_day, key.max_file_bytes) == (6, 7, 8)
    shown = call_command("keys", "list", "--wide", environment=environment).stdout
    assert "open_jobs=5" in shown
    assert key.expires_at is not None
    call_command("keys", "revoke", key.id, environment=environment)
    listed = call_command("keys", "audit", "--json", environment=environment).stdout
    found = [json.loads(line) for line in listed.splitlines()]
    assert [(entry["what"], entry["on"]) for entry in found] == [
        ("keys revoke", key.id),
        ("keys create", key.id),
    ]
    assert "keys create" in call_command("keys", "audit", environment=environment).stdout


def test_a_table_of_keys_shows_no_control_characters(
    environment: dict[str, str], keys: KeyStore
) -> None:
    made = keys.create("bad\x1b]0;name\u202e", ["read"])
    shown = call_command("keys", "list", environment=environment).stdout
    assert made.key.id in shown
    assert "never" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    keys.check(made.text)
    assert "never  never" not in call_command("keys", "list", environment=environment).stdout
    rows = call_command("keys", "list", "--json", environment=environment).stdout.splitlines()
    assert json.loads(rows[0])["used_at"] is not None
    assert made.text[17:] not in rows[0]


def test_a_key_is_rotated_with_an_overlap(environment: dict[str, str], keys: KeyStore) -> None:
    old = keys.create("x", ["read"])
    args = ("keys", "rotate", old.key.id)
    new = call_command(*args, "--overlap", "24h", environment=environment).stdout.strip()
    assert keys.check(new).id == keys.check(old.text).id == old.key.id
    last = call_command(*args, "--overlap", "0s", environment=environment).stdout.strip()
    assert keys.check(last).id == old.key.id
    for text in (old.text, new):
        with pytest.raises(WrongKey):
            keys.check(text)
    refused = call_command(*args, "--overlap", "90d", environment=environment)
    assert refused.returncode != 0
    assert "expected 0 to 30 days" in refused.stderr
    unknown = call_command("keys", "rotate", "nobody", environment=environment)
    assert "there is no key 'nobody'" in unknown.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--input", "s3://"),
        ("--output", "https://b/"),
        ("--rate", "fast"),
        ("--jobs-per-day", "0"),
        ("--open-jobs", "-1"),
        ("--open-jobs", "3"),
    ],
)
def test_a_wrong_option_makes_no_key(
    environment: dict[str, str], keys: KeyStore, option: str, value: str
) -> None:
    done = call_command("keys", "create", "web", option, value, environment=environment)
    assert done.returncode != 0
    assert value.removeprefix("3") in done.stderr
    assert keys.list() == []
