"""AnswerText: the part of an answer that its caller has been sent, over all attempts of the job."""

from __future__ import annotations

from videoqa.contract import Event
from videoqa.gateway.http.problems import HttpError

__all__ = ["AnswerText"]


class AnswerText:
    """Turns a job's text events into pieces that are never repeated, whatever attempt they come from.

    A later attempt begins again. It is sent on from where the earlier one ended, if it generates the same text up
    to there; space around the answer is not sent, as a result has none.
    """

    def __init__(self) -> None:
        self.sent = ""
        self._heard = ""

    def add(self, event: Event) -> str:
        """Returns what is new in an event; raises HttpError if it does not continue what was sent."""
        # Another run begins; one that a worker gave back has the same attempt.
        if event.type == "state":
            self._heard = ""
        if event.type != "text" or not event.text:
            return ""
        self._heard += event.text
        found = self._heard.strip()
        return "" if self.sent.startswith(found) else self._advance(found)

    def complete(self, answer: str) -> str:
        """Returns the rest of the whole answer; raises HttpError if it does not continue what was sent."""
        return self._advance(answer.strip())

    def _advance(self, found: str) -> str:
        if not found.startswith(self.sent):
            raise HttpError(
                500,
                "answer_changed",
                "the job was tried again after a part of its answer had been sent, and its next attempt answers "
                "otherwise; what was sent is void: send the request again, with a seed for repeatable answers",
            )
        rest = found[len(self.sent) :]
        self.sent = found
        return rest
