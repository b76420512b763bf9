"""KeyQuota: the API key that submits jobs, and the limits to which the scripts hold it.

They are checked and counted by the script that records a job, so that they hold over all gateways, and that a job
which is refused, or was recorded before, is not counted. Does no I/O.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from videoqa.errors import RateLimited

__all__ = ["DAY_S", "KeyQuota", "seconds_left_of_day"]

DAY_S = 86_400
_NEXT_OPEN_S = 10.0
"""Time after which a job may be submitted again where too many are open: nobody knows when one ends."""
_MEANINGS = {
    "jobs": "jobs submitted today (UTC)",
    "open_jobs": "jobs of its tenant queued or running",
    "frames": "frames of jobs that ended today (UTC)",
    "tokens": "tokens of jobs that ended today (UTC)",
}
"""Names of the limits, in the order of the scripts."""


@dataclass
class KeyQuota:
    """A key, its limits, and what it had used when a script last looked."""

    key_id: str
    jobs: int | None = None
    open_jobs: int | None = None
    frames: int | None = None
    tokens: int | None = None
    used: dict[str, int] | None = None
    """Use by the limits' names, of those that are set; None: no script has looked."""

    @property
    def limits(self) -> dict[str, int]:
        """The limits that are set."""
        found = {name: getattr(self, name) for name in _MEANINGS}
        return {name: most for name, most in found.items() if most is not None}

    def lua_args(self) -> list[str]:
        """Returns the key's id, and its limits as the scripts read them; empty: none."""
        limits = self.limits
        if not limits:
            return [self.key_id, ""]
        return [self.key_id, " ".join(str(limits.get(name, "-")) for name in _MEANINGS)]

    def note(self, used: str) -> None:
        """Takes the use from a script's reply."""
        numbers = zip(_MEANINGS, used.split(), strict=False)
        self.used = {name: int(float(number)) for name, number in numbers if name in self.limits}

    def refuse(self, name: str) -> RateLimited:
        """Makes the error of a limit that is reached."""
        wait_s = _NEXT_OPEN_S if name == "open_jobs" else seconds_left_of_day()
        meaning = _MEANINGS.get(name, name)
        return RateLimited(
            f"the limit {name!r} of this API key is reached: {self.limits.get(name, 0):,} {meaning}; nothing was "
            f"recorded, submit it again in {wait_s:,.0f} s",
            limit=name,
            retry_after_s=wait_s,
        )


def seconds_left_of_day() -> float:
    """Returns the time until the next UTC day."""
    return DAY_S - time.time() % DAY_S
