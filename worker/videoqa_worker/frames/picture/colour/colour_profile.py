"""Embedded colour profiles (ICC) of still pictures: conversion to sRGB.

Phones write Display P3, cameras Adobe RGB, and print shops CMYK; read as sRGB, their colours are too dull
or wrong. A profile that cannot be used is ignored, as by browsers, with a warning.
"""

from __future__ import annotations

import io

from PIL import Image, ImageCms

from videoqa.contract import Warn

__all__ = ["MAX_PROFILE_BYTES", "convert_to_srgb"]

MAX_PROFILE_BYTES = 4 << 20
"""Profiles of printers have up to 3 MB; those of screens some hundred bytes."""
_SRGB = ImageCms.createProfile("sRGB")
_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}


def convert_to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, Warn | None]:
    """Returns the image as RGB with the colours of sRGB, and a warning if its profile cannot be used.

    Arguments:
        image: of mode L, RGB, CMYK or LAB.
        profile: the embedded profile.
    """
    reason = None
    if profile:
        try:
            return _apply(image, profile), None
        except _UnusableProfileError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 (Little CMS and Pillow raise several kinds on damaged profiles)
            reason = f"it cannot be read ({type(error).__name__})"
    warning = None
    if reason is not None:
        warning = Warn(
            code="colour_profile_ignored",
            message=f"the picture's colour profile was ignored, since {reason}; colours may be off: "
            "convert the picture to sRGB",
        )
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        found = ImageCms.profileToProfile(image, lab, _SRGB, outputMode="RGB")
        return found or image, warning
    return image.convert("RGB"), warning


class _UnusableProfileError(Exception):
    """The profile does not fit; the text completes "since ..."."""


def _apply(image: Image.Image, content: bytes) -> Image.Image:
    if len(content) > MAX_PROFILE_BYTES:
        raise _UnusableProfileError(f"it has {len(content)} bytes, more than {MAX_PROFILE_BYTES}")
    profile = ImageCms.getOpenProfile(io.BytesIO(content))
    space = profile.profile.xcolor_space
    if space != _SPACES.get(image.mode):
        raise _UnusableProfileError(f"it is for {space.strip()}, and the picture is {image.mode}")
    if "sRGB" in ImageCms.getProfileDescription(profile) and image.mode == "RGB":
        return image
    converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB")
    if converted is None:
        raise _UnusableProfileError("it cannot be applied")
    return converted
