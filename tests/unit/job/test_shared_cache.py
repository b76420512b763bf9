"""One thread computes a value for all that need it at the same time; each of them may go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from videoqa_worker.shared_cache import Shared, SharedCache

KEY = b"key"


class GoneError(Exception):
    pass


class Waiter:
    """Asks for the key on a thread; tells when it waits for another thread."""

    def __init__(self, threads: ThreadPoolExecutor, cache: SharedCache[str], value: str) -> None:
        self.waits = threading.Event()
        self.is_gone = False
        self._cache, self._value = cache, value
        self.result: Future[Shared[str]] = threads.submit(self._ask)

    def _ask(self) -> Shared[str]:
        return self._cache.get(
            KEY, lambda: self._value, check=self._check, is_final=lambda e: isinstance(e, OSError)
        )

    def _check(self) -> None:
        self.waits.set()
        if self.is_gone:
            raise GoneError


class Stage:
    """A first caller that computes until it is told how to end, and others that wait for it."""

    def __init__(self, cache: SharedCache[str]) -> None:
        self.threads = ThreadPoolExecutor(8)
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.may_share = True
        self.first = self.threads.submit(
            lambda: cache.get(
                KEY,
                self._compute,
                may_share=lambda value: self.may_share,
                is_final=lambda error: isinstance(error, OSError),
            )
        )
        assert self.begun.wait(30)
        self.others = [Waiter(self.threads, cache, f"other {n}") for n in range(3)]
        assert all(other.waits.wait(30) for other in self.others)

    def _compute(self) -> str:
        self.begun.set()
        assert self.may_end.wait(30)
        if self.error is not None:
            raise self.error
        return "first"

    def end(self, error: Exception | None = None, *, may_share: bool = True) -> list[Shared[str]]:
        """Lets the first caller end; returns what the others got."""
        self.error, self.may_share = error, may_share
        self.may_end.set()
        return [other.result.result(30) for other in self.others]


def make(limit_bytes: int = 100, **settings: object) -> SharedCache[str]:
    return SharedCache(limit_bytes, size_of=len, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit_bytes", [0, 100])
def test_who_comes_meanwhile_gets_the_value_of_the_first(limit_bytes: int) -> None:
    cache = make(limit_bytes)
    stage = Stage(cache)
    assert stage.end() == [Shared("first", is_own=False)] * 3
    assert stage.first.result(30) == Shared("first", is_own=True)
    counts = cache.counts
    assert (counts.computed, counts.awaited, counts.found) == (1, 3, 0)
    later = cache.get(KEY, lambda: "later")
    assert later == (Shared("first", is_own=False) if limit_bytes else Shared("later", is_own=True))


def test_when_the_first_fails_the_next_computes_for_the_rest() -> None:
    stage = Stage(make())
    found = stage.end(GoneError())
    with pytest.raises(GoneError):
        stage.first.result(30)
    assert sorted(each.is_own for each in found) == [False, False, True]
    assert len({each.value for each in found}) == 1


def test_an_error_that_all_would_have_is_for_all_each_with_a_copy() -> None:
    stage = Stage(make())
    with pytest.raises(OSError, match="damaged"):
        stage.end(OSError("damaged"))
    errors = [stage.first.exception(30), *(other.result.exception(30) for other in stage.others)]
    assert [str(error) for error in errors] == ["damaged"] * 4
    assert len(set(map(id, errors))) == 4


def test_a_value_that_is_for_the_first_alone_is_computed_again() -> None:
    stage = Stage(make())
    found = stage.end(may_share=False)
    assert stage.first.result(30).value == "first"
    assert all(each.value.startswith("other") for each in found)


def test_who_waits_may_go_and_the_first_goes_on_for_the_rest() -> None:
    stage = Stage(make())
    stage.others[0].is_gone = True
    with pytest.raises(GoneError):
        stage.others[0].result.result(30)
    assert not stage.first.done()
    stage.others.pop(0)
    assert [each.value for each in stage.end()] == ["first"] * 2


def fill(cache: SharedCache[str], *keys: str) -> None:
    for key in keys:
        cache.get(key.encode(), lambda key=key: key * 10)  # type: ignore[misc]


def is_held(cache: SharedCache[str], key: str) -> bool:
    return not cache.get(key.encode(), lambda: "anew", may_share=lambda value: False).is_own


@pytest.mark.parametrize(
    "make_cache", [lambda: make(25), lambda: make(100, max_entries=2)], ids=["bytes", "entries"]
)
def test_the_least_recently_used_go_first(make_cache: Callable[[], SharedCache[str]]) -> None:
    cache = make_cache()
    fill(cache, "a", "b")
    assert is_held(cache, "a")
    fill(cache, "c")
    assert [is_held(cache, key) for key in "abc"] == [True, False, True]
    assert (cache.counts.entries, cache.counts.size_bytes) == (2, 20)


def test_a_value_beyond_the_limit_is_not_kept_and_evicts_nothing() -> None:
    cache = make(15)
    fill(cache, "a")
    cache.get(b"large", lambda: "x" * 16)
    assert is_held(cache, "a")
    assert not is_held(cache, "large")


def test_values_go_with_time_also_if_nobody_asks() -> None:
    now_s = [0.0]
    cache = make(keep_s=3600.0, clock=lambda: now_s[0])
    fill(cache, "a")
    now_s[0] = 1800.0
    fill(cache, "b")
    cache.expire()
    assert cache.counts.entries == 2
    now_s[0] = 3600.0
    assert not is_held(cache, "a")
    assert is_held(cache, "b")
    now_s[0] = 5400.0
    cache.expire()  # as its timer does
    assert (cache.counts.entries, cache.counts.size_bytes) == (0, 0)
    cache.close()
    fill(cache, "c")
    assert cache.counts.entries == 0


def test_a_timer_frees_what_nobody_asks_for() -> None:
    freed = threading.Event()

    class Watched(SharedCache[str]):
        def expire(self) -> None:
            super().expire()
            if not self.counts.entries:
                freed.set()

    fill(Watched(100, size_of=len, keep_s=0.01), "a")
    assert freed.wait(30)
