"""Requests that cost more than they look: while the gateway answers one, others are answered at once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from videoqa.gateway import GatewayServer
from videoqa.gateway.http.compression import accepts_gzip

Connect = Callable[..., httpx.Client]

ASKED = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"]}
LONGEST_S = 2.5
"""Most CPU time of the gateway between another caller's call and its answer; a body that blocks takes more."""


def measure_others(gateway: GatewayServer, ask: Callable[[], Any]) -> float:
    """Makes a call; returns the most CPU seconds that another caller's took meanwhile.

    Those are this process', which the gateway is in: what else the machine does is not counted.
    """
    slowest, running = 0.0, threading.Thread(target=ask, daemon=True)
    with httpx.Client(base_url=gateway.url, timeout=60) as other:
        other.get("/livez")
        running.start()
        while running.is_alive():
            begun = time.process_time()
            assert other.get("/livez").status_code == 200
            slowest = max(slowest, time.process_time() - begun)
            time.sleep(0.02)
    return slowest


def test_long_header_of_encodings() -> None:
    begun = time.process_time()
    assert not accepts_gzip("gzip" + " " * 60_000 + "x")
    assert all(map(accepts_gzip, ("br, gzip ; q=0.5", "*", "X-GZIP")))
    assert not any(map(accepts_gzip, ("gzip;q=0.000, br", "gzip ; q = 0", "br", "")))
    assert time.process_time() - begun < 0.5


def _make_names() -> bytes:
    names = ",".join(f'"{n}":1' for n in range(19_000))
    return f'{{{names},"18999":1}}'.encode()


BODIES = {
    "a name that comes twice": _make_names,
    "a long name above many values": lambda: json.dumps(
        {"k" * 400_000: [0] * 5000, "x": "\ud83d\ude00"}
    ).encode(),
    "many objects": lambda: b'{"inputs":[' + b",".join([b"{}"] * 1_900_000) + b"]}",
    "many numbers": lambda: b'{"inputs":[' + b",".join([b"1"] * 3_900_000) + b"]}",
    "many escapes": lambda: b'{"inputs":["' + b"\\ud83d\\ude00" * 660_000 + b'"]}',
    "many lists": lambda: b'{"inputs":[' + b",".join([b"[]"] * 2_600_000) + b"]}",
    "many lists in lists": lambda: (
        b'{"inputs":' + b"[" + (b"[" * 900 + b"]" * 900 + b",") * 4000 + b"0]}"
    ),
    "many texts": lambda: b'{"questions":[' + b",".join([b'""'] * 2_600_000) + b"]}",
    "a long name": lambda: b'{"%s":1}' % (b"inputs" * 1_300_000),
    "many names": lambda: b"{" + b",".join(b'"%d":0' % n for n in range(190_000)) + b"}",
}


@pytest.mark.parametrize("kind", BODIES)
def test_costly_body(gateway: GatewayServer, connect: Connect, kind: str) -> None:
    body = BODIES[kind]()
    found: list[httpx.Response] = []
    with httpx.Client(
        base_url=gateway.url, headers=connect("submit").headers, timeout=120
    ) as client:
        json_type = {"content-type": "application/json"}

        def ask() -> None:
            found.append(client.post("/v1/jobs", content=body, headers=json_type))

        slowest = measure_others(gateway, ask)
    assert found[0].status_code == 400
    assert slowest < LONGEST_S
