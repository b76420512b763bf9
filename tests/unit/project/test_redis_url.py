"""Options of a Redis URL: taken by the ledger's library and by the broker's, or refused by name at once."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from support.broker import make_channel

from videoqa import AsyncClient, Client, Settings
from videoqa.broker import make_celery
from videoqa.errors import ConfigurationError
from videoqa.jobs import connect


def broker_arguments(settings: Settings) -> dict[str, Any]:
    """Returns the arguments of the broker's connections."""
    found: dict[str, Any] = make_channel(settings)._connparams()
    return found


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("socket_timeout=7.5", 7.5),
        ("socket_connect_timeout=1.5", 1.5),
        ("socket_keepalive=false", False),
        ("health_check_interval=3", 3),
        ("protocol=2", 2),
        ("client_name=shop", "shop"),
        ("db=2", 2),
        ("max_connections=12", 12),
        ("ssl_cert_reqs=none", ssl.CERT_NONE),
        ("ssl_cert_reqs=CERT_NONE", ssl.CERT_NONE),
        ("ssl_cert_reqs=CERT_REQUIRED", ssl.CERT_REQUIRED),
        ("ssl_check_hostname=false", False),
        ("ssl_min_version=TLSv1.3", ssl.TLSVersion.TLSv1_3),
        (f"ssl_ca_certs={__file__}", __file__),
        (f"ssl_ca_path={Path(__file__).parent}", str(Path(__file__).parent)),
        (f"ssl_certfile={__file__}", __file__),
        (f"ssl_keyfile={__file__}", __file__),
    ],
)
def test_an_option_reaches_both_libraries(option: str, value: Any) -> None:
    name = option.partition("=")[0]
    scheme = "rediss" if name.startswith("ssl_") else "redis"
    settings = Settings(redis_url=f"{scheme}://:pw@h:1?{option}")
    pool = connect(settings).connection_pool
    assert (pool.connection_kwargs | {"max_connections": pool.max_connections})[name] == value
    pool.connection_class(**pool.connection_kwargs)
    of_broker = broker_arguments(settings)
    assert of_broker[name] == value
    assert "SSL" in of_broker["connection_class"].__name__ or scheme == "redis"


def test_a_certificate_is_asked_for_unless_the_url_says_otherwise() -> None:
    arguments = broker_arguments(Settings(redis_url="rediss://:pw@h:1/0"))
    connection = arguments["connection_class"](**{
        name: value for name, value in arguments.items()
        if name not in ("connection_class", "max_connections")
    })  # fmt: skip
    assert connection.cert_reqs == ssl.CERT_REQUIRED


def test_a_url_of_sentinels_leads_both_libraries_to_them() -> None:
    url = "rediss+sentinel://me:pw@h1,h2:7,[::1]:8/jobs/2?sentinel_password=sp%40&socket_timeout=7&ssl_cert_reqs=none"
    settings = Settings(redis_url=url)
    of_broker = broker_arguments(settings)
    ledger = connect(settings).connection_pool
    for kind, arguments in (
        (of_broker["connection_class"], of_broker),
        (ledger.connection_class, ledger.connection_kwargs),
    ):
        assert {name: arguments[name] for name in ("username", "password", "db", "socket_timeout")} == {
            "username": "me", "password": "pw", "db": 2, "socket_timeout": 7.0,
        }  # fmt: skip
        assert "SSL" in kind.__name__
        assert kind.finder._sentinels == [("h1", 26379), ("h2", 7), ("::1", 8)]
        assert (kind.finder.name, kind.finder._options["password"]) == ("jobs", "sp@")
        assert kind.finder._options["ssl_cert_reqs"] == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("127.0.0.1:6379", "127.0.0.1:6379"),
        ("localhost:6379/0", "localhost:6379/0"),
        ("redis://", "redis://"),
        ("redis:///0", "redis:///0"),
        ("redis://:secret@/0", "redis:///0"),
        ("unix://", "unix://"),
        ("sentinel://u:secret@h:1", "sentinel://h:1"),
        ("amqp://u:secret@h", "amqp://h"),
        ("u:secret@h:1", "h:1"),
    ],
)
def test_a_url_without_redis_or_a_host_is_refused_with_the_form_that_is_expected(
    url: str, got: str
) -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(ConfigurationError) as caught:
            make(url)
        said = f"the URL of this client: got {got!r}, expected redis://HOST:PORT/0, "
        assert str(caught.value).startswith(said)
        assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://:secret@h1,h2:26379", "expected /NAME after the Sentinels"),
        ("redis+sentinel://:secret@h1,h2:x/jobs", "expected HOST or HOST:PORT of each Sentinel"),
        (
            "redis+sentinel://:secret@h1,h2:99999/jobs",
            "expected HOST or HOST:PORT of each Sentinel",
        ),
        ("redis+sentinel://:se/cret@h1/jobs", "expected HOST or HOST:PORT of each Sentinel"),
        ("redis+sentinel://:secret@/jobs/0", "expected HOST or HOST:PORT of each Sentinel"),
    ],
)
def test_a_wrong_url_of_sentinels_is_refused_at_once(url: str, said: str) -> None:
    for name in ("redis_url", "broker_url"):
        with pytest.raises(ConfigurationError, match=f"VIDEOQA_{name.upper()}=") as caught:
            Settings.from_environment({}, **{name: url})
        assert said in str(caught.value)
        assert "cret" not in str(caught.value)
        assert caught.value.param == name


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/0?socket_timout=5", "'socket_timout' is unknown; did you mean socket_timeout?"),
        ("redis://h/0?decode_responses=no", "'decode_responses' is unknown; expected one of db, "),
        ("redis://h/0?socket_timeout=1", "got socket_timeout='1', expected seconds, more than 2"),
        ("redis://h/0?socket_timeout=", "got socket_timeout='', expected seconds"),
        ("redis://h/0?socket_timeout=nan", "expected seconds"),
        ("redis://h/0?max_connections=0", "expected a number from 1 on"),
        ("redis://h/0?db=two", "got db=that, expected a number"),
        ("redis://h/0?protocol=4", "expected 2 or 3"),
        ("redis://h/0?db=1&db=2", "db is there twice"),
        ("redis://h/1?db=2", "both after the / and as db"),
        ("redis://h/0?ssl_cert_reqs=none", "write rediss:// in place of redis://"),
        ("rediss://h/0?ssl_cert_reqs=maybe", "expected required, optional or none"),
        ("rediss://h/0?ssl_ca_certs=/no/such.pem", "expected a readable file of certificates"),
        ("redis://h/0?password=secret", "password belongs before the host"),
        ("unix:///run/r.sock?socket_keepalive=yes", "is of TCP"),
        ("rediss://h/0?ssl_password=", "got ssl_password=''"),
        (
            "redis://h/0?sentinel_password=secret",
            "is of Sentinels; write redis+sentinel://HOST,HOST/",
        ),
        (
            "redis+sentinel://h1,h2/jobs/0?ssl_cert_reqs=none",
            "write rediss+sentinel:// in place of redis+",
        ),
        ("redis+sentinel://h1,h2/jobs/x", "expected a number for the database"),
        (
            "redis+sentinel://h1,h2/jobs/0?sentinel_pasword=secret",
            "did you mean sentinel_password?",
        ),
    ],
)
def test_a_wrong_option_is_refused_by_its_name_at_once(url: str, said: str) -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(ConfigurationError) as caught:
            make(url)
        assert said in str(caught.value)
        assert str(caught.value).startswith("the URL of this client, for ")
        assert caught.value.param == "redis_url"
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        make_celery(Settings(broker_url=url))
    assert said in str(caught.value)
    assert caught.value.param == "broker_url"
