"""Palette: the colours of the dashboard and of reports, light and dark, as custom properties of CSS."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["read_palette"]


def read_palette() -> str:
    """Returns the style sheet that goes before a page's own."""
    return (files("videoqa") / "palette.css").read_text(encoding="utf-8")
