"""`videoqa login` and `videoqa logout`: the gateway and the API key that the other commands use."""

from __future__ import annotations

import getpass
import os
import sys
from contextlib import closing, suppress
from typing import Annotated

import typer

from videoqa import errors
from videoqa.backends.http.address import GatewayAddress
from videoqa.backends.http_backend import HttpBackend
from videoqa.cli.output import print_note
from videoqa.contract import split_url
from videoqa.login import Login, config_folder, find_login
from videoqa.net import LOOPBACK_NAMES

__all__ = ["add_login_commands"]


def add_login_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the app."""
    app.command()(login)
    app.command()(logout)


def login(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="Address of the gateway, as https://videoqa.example.com; left out: VIDEOQA_URL, or that of the last "
            "login.",
        ),
    ] = None,
) -> None:
    """Keep a gateway's address and your API key for the other commands; the key is asked for, or read from stdin."""
    chosen = url or os.environ.get("VIDEOQA_URL")
    if chosen is None:
        with suppress(errors.ConfigurationError):  # a broken file is replaced
            before = find_login()
            chosen = before.url if before else None
    if chosen is None:
        raise errors.InvalidRequest(
            "got no URL, expected that of a gateway: videoqa login https://videoqa.example.com",
            param="url",
        )
    GatewayAddress.parse(chosen, None)
    address = GatewayAddress.parse(chosen, _read_key(chosen))
    _check(address)
    path = Login(address.url, address.key or "").save(config_folder(os.environ))
    print_note(f"logged in at {address.shown}; the key is kept in {path}, which only you can read")
    parts = split_url(address.url)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_NAMES:
        print_note("without https:// whoever is on the way to the gateway can read the key")
    for name in ("VIDEOQA_URL", "VIDEOQA_REDIS_URL"):
        if os.environ.get(name) and os.environ[name] != chosen:
            print_note(f"{name} is set, and wins over this login; unset it to use the login")


def _read_key(url: str) -> str:
    if sys.stdin.isatty():
        text = getpass.getpass(f"API key for {GatewayAddress.parse(url, None).shown}: ")
    else:
        text = sys.stdin.readline(1000)
    if not text.strip():
        raise errors.InvalidRequest(
            "got no API key, expected vqa_ID_SECRET on stdin or at the prompt; `videoqa keys create` makes one where "
            "the gateway runs",
            param="api_key",
        )
    return text.strip()


def _check(address: GatewayAddress) -> None:
    """Calls the gateway with the key; raises if either is not usable."""
    with closing(HttpBackend(address)) as backend, suppress(errors.OperatorOnly):
        backend.list_models()  # a key that may only submit is a right one, too


def logout() -> None:
    """Forget the gateway and the API key of `videoqa login`."""
    if Login.delete(config_folder(os.environ)):
        print_note("the login is forgotten; `videoqa keys revoke` ends the key itself")
    else:
        print_note("there was no login")
