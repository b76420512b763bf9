"""GatewayConnection: requests to a gateway, repeated where that may help, with answers of bounded size.

A request is sent again if no answer came, or one that says "later" (408, 429, 502, 503, 504), after the time of
`Retry-After` or a growing one with jitter. All requests may be: a submit has an idempotency key, and the others are
about a job's id. Redirects are not followed, so that no other host gets the key.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from videoqa import errors
from videoqa.backends.http.address import GatewayAddress
from videoqa.backends.http.problems import make_error, read_problem
from videoqa.contract import split_url
from videoqa.forks import reopen_in_children

if TYPE_CHECKING:
    import httpx2

__all__ = ["CONNECT_S", "GatewayConnection", "explain_transport", "refuse_redirect"]

CONNECT_S = 5.0
READ_S = 60.0
"""Time without a byte after which an answer is given up; a gateway answers within 5 s, even if its Redis is away."""
PATIENCE_S = 10.0
"""Time in which a request is sent again; a longer `Retry-After` is left to the caller."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 4.0
MOST_BYTES = 256_000_000
"""Largest answer, unpacked: a page of 1,000 jobs with long requests has 100 MB."""
CONNECTIONS = 32
_LATER = (408, 429, 502, 503, 504)
_UNKNOWN = (502, 503, 504)
"""Statuses of requests that may have been obeyed."""
_HEADERS = {
    "accept": "application/json, */*",
    "accept-encoding": "gzip",
    "user-agent": "videoqa-python",
}


def refuse_redirect(address: GatewayAddress, location: str) -> errors.GatewayError:
    """Makes the error of an answer that leads elsewhere."""
    try:
        parts = split_url(location)
        target = f"{parts.scheme}://{parts.hostname}" if parts.hostname else "another path"
    except ValueError:
        target = "what is no URL"
    return errors.GatewayError(
        f"{address.shown} redirects to {target!r:.200}; the API key is sent to no other address: correct VIDEOQA_URL"
    )


class GatewayConnection:
    """The requests of one client. Thread-safe; connects at its first request, and anew in a forked child."""

    def __init__(self, address: GatewayAddress) -> None:
        self.address = address
        self.is_closed = False
        self._reopen()
        reopen_in_children(self)

    def _reopen(self) -> None:
        """Starts anew in a forked child: a connection of its parent would have two readers."""
        self._lock = threading.Lock()
        self._made: httpx2.Client | None = None

    def _client(self) -> httpx2.Client:
        import httpx2  # a client of Redis does not need it

        with self._lock:
            if self.is_closed:
                raise errors.ClientClosed
            if self._made is None:
                self._made = httpx2.Client(
                    headers={**_HEADERS, **self.address.headers},
                    timeout=httpx2.Timeout(READ_S, connect=CONNECT_S),
                    limits=httpx2.Limits(
                        max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS
                    ),
                    follow_redirects=False,
                )
            return self._made

    def close(self) -> None:
        with self._lock:
            self.is_closed = True
            if self._made is not None:
                self._made.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        done_if: tuple[type[errors.VideoQAError], ...] = (),
    ) -> Any:
        """Sends a request and returns the JSON of its answer; None: it has none.

        Arguments:
            done_if: errors by which a request that was sent again tells that an earlier try was obeyed, though its
                answer was lost; a try that was refused, as with 429, was not.

        Raises:
            GatewayUnavailable: there was no answer, also not after some tries.
            VideoQAError: the gateway refuses it; the same error as of a client of Redis.
        """
        answer = self._request(method, path, query, body, done_if)
        return None if answer is None else self._parse(*answer)

    def fetch(self, path: str) -> bytes:
        """Returns the bytes of an answer that is no JSON; raises as `call`."""
        return self.get(path)[0]

    def get(self, path: str) -> tuple[bytes, Mapping[str, str]]:
        """Returns the bytes and the headers of an answer; raises as `call`."""
        return self._request("GET", path, None, None, ()) or (b"", {})

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        body: Mapping[str, Any] | None,
        done_if: tuple[type[errors.VideoQAError], ...],
    ) -> tuple[bytes, Mapping[str, str]] | None:
        """Sends a request until it is answered; None: an earlier try was obeyed."""
        content = None if body is None else json.dumps(body).encode()
        give_up_s = time.monotonic() + PATIENCE_S
        tries = 0
        may_be_done = False
        while True:
            tries += 1
            after_s: float | None = None
            try:
                status, headers, found = self._send(method, path, query, content)
            except errors.GatewayUnavailable as unavailable:
                error: errors.VideoQAError = unavailable
                may_be_done = True
            else:
                if status < 300:
                    return found, headers
                problem = read_problem(found)
                error = make_error(problem, status=status, where=self.address.shown, body=found)
                if may_be_done and isinstance(error, done_if):
                    return None
                may_be_done = may_be_done or status in _UNKNOWN
                # A queue stays full for long, and a client of Redis is told at once as well.
                if status not in _LATER or isinstance(error, errors.QueueFull):
                    raise error
                after_s = _parse_retry_after(headers.get("retry-after"))
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tries, 10))
            pause_s *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads the clients of a gateway that restarts
            if after_s is not None:
                pause_s = after_s + pause_s / 4
            if self.is_closed or time.monotonic() + pause_s > give_up_s:
                raise error
            time.sleep(pause_s)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        content: bytes | None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        import httpx2

        client = self._client()
        kind = {} if content is None else {"content-type": "application/json"}
        try:
            with client.stream(
                method, self.address.url + path, params=query, content=content, headers=kind
            ) as answer:
                if answer.is_redirect or answer.status_code in (304, *range(300, 309)):
                    raise refuse_redirect(self.address, answer.headers.get("location", ""))
                parts, size = [], 0
                for part in answer.iter_bytes():
                    size += len(part)
                    if size > MOST_BYTES:
                        raise errors.GatewayError(
                            f"{self.address.shown} answered with more than {MOST_BYTES:,} bytes; ask for fewer jobs "
                            "at a time"
                        )
                    parts.append(part)
                return answer.status_code, answer.headers, b"".join(parts)
        except httpx2.DecodingError as error:
            raise errors.GatewayError(
                f"{self.address.shown} answered with what cannot be unpacked; check the proxies before the gateway"
            ) from error
        except httpx2.TransportError as error:
            raise self._explain(error) from error
        except RuntimeError as error:  # closed by another thread meanwhile
            if self.is_closed:
                raise errors.ClientClosed from error
            raise

    def _explain(self, error: Exception) -> errors.VideoQAError:
        if self.is_closed:
            return errors.ClientClosed()
        return explain_transport(self.address, error)

    def _parse(self, body: bytes, headers: Mapping[str, str]) -> Any:
        if not body:
            return None
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if kind != "application/json":
                raise ValueError
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise errors.GatewayError(
                f"{self.address.shown} answered with {kind or 'no type'!r:.100}, which is no JSON of a gateway; check "
                "that VIDEOQA_URL is the address of a videoqa gateway"
            ) from error


def explain_transport(address: GatewayAddress, error: Exception) -> errors.GatewayUnavailable:
    """Makes the error of a request without an answer."""
    import httpx2

    if isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        why = f"no connection within {CONNECT_S:g} s"
    elif isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
        why = "it does not answer in time"
    elif isinstance(error, httpx2.ConnectError):
        why = f"no connection: {error!s:.200}"
    else:
        why = f"the connection broke: {error!s:.200}"
    return errors.GatewayUnavailable(
        f"the gateway at {address.shown} is not reached, {why}; check VIDEOQA_URL and that it runs, then try again"
    )


def _parse_retry_after(text: str | None) -> float | None:
    """Returns seconds; None for a date or garbage, which wait as if there were none."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 6:
        return None
    return float(text)
