"""Model: the base of the contract's models, and parsing of JSON that another process wrote."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from videoqa import errors

__all__ = ["Model", "parse_stored"]


class Model(BaseModel):
    """A frozen pydantic model that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


M = TypeVar("M", bound=Model)


def parse_stored(kind: type[M], text: str | bytes) -> M:
    """Parses JSON that another process wrote, and ignores fields that this release does not know.

    In a rolling upgrade the writer may be a newer release.

    Raises:
        InvalidRequest: a value is not understood by this release.
    """
    try:
        return kind.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, (kind.__name__, *first["loc"])))
        raise errors.InvalidRequest(
            f"this release does not understand {where:.120}: {first['msg']:.200}; a newer release or another "
            "program wrote it: upgrade this side"
        ) from error
