"""Side data of pictures whose type is newer than PyAV's table of them."""

from __future__ import annotations

from av.sidedata.sidedata import Type

__all__ = ["accept_unknown_side_data"]


def accept_unknown_side_data() -> None:
    """Makes PyAV pass on side data of unknown types; it must be called before a picture's is read.

    One unknown number otherwise makes all side data of a picture unreadable, the display matrix too. PyAV 18.1
    lacks those of EXIF and of 3D reference displays, for example.
    """
    Type._missing_ = classmethod(_add_unknown_type)  # type: ignore[assignment]


def _add_unknown_type(kind: type[Type], value: object) -> Type:
    """Returns a new member for a number that PyAV's table of side data does not have."""
    member: Type = object.__new__(kind)
    member._name_ = f"UNKNOWN_{value}"
    member._value_ = value  # type: ignore[assignment]
    return member
