"""Transparency: pictures are put on white, as a page of text or a browser shows them.

Mixing is done on the stored values, as browsers do it, not in linear light.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from PIL import Image, PngImagePlugin

__all__ = ["has_alpha", "mix_with_white", "put_on_white", "read_alpha", "scale_transparent_colour"]

Pixels = npt.NDArray[np.uint8]

_WHITE = 255
_BITS = {"L;2": 2, "L;4": 4, "RGB;16B": 16}
"""Bits of a PNG's channels by Pillow's name of its storage, where Pillow makes other numbers of them."""


def has_alpha(picture: VideoFrame) -> bool:
    """Returns True if a decoded picture may be transparent; colours of palettes may be as well."""
    layout = picture.format
    return layout.has_palette or any(part.is_alpha for part in layout.components)


def mix_with_white(rgba: Pixels, *, zero_means_none: bool = False) -> Pixels:
    """Returns uint8[H, W, 4] as uint8[H, W, 3] on white.

    Arguments:
        zero_means_none: a picture that is transparent everywhere has no transparency.
    """
    alpha = rgba[:, :, 3]
    least = alpha.min()
    if least == _WHITE or (zero_means_none and alpha.max() == 0):
        return rgba[:, :, :3]
    return np.asarray(_paste_on_white(Image.fromarray(rgba)))


def put_on_white(image: Image.Image) -> Image.Image:
    """Returns a still picture without transparency; the same one, if it has none."""
    if not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16"):
        greys = np.asarray(image)
        greys = np.where(greys == image.info["transparency"], np.uint16(65535), greys)
        return Image.fromarray(greys.astype(np.uint16))
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    # Windows bitmaps may leave the fourth byte of their pixels unused.
    if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):
        return rgba.convert("RGB")
    return _paste_on_white(rgba)


def _paste_on_white(rgba: Image.Image) -> Image.Image:
    white = Image.new("RGB", rgba.size, (_WHITE, _WHITE, _WHITE))
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def scale_transparent_colour(image: Image.Image) -> None:
    """Scales the transparent colour of a PNG that is not loaded yet, as Pillow scales its pixels."""
    colour = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or colour is None:
        return
    bits = next((_BITS[tile.args] for tile in image.tile if tile.args in _BITS), None)
    if bits is None:
        return
    if isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    elif isinstance(colour, int):
        image.info["transparency"] = colour * _WHITE // ((1 << bits) - 1)


def read_alpha(layer: VideoFrame) -> Pixels:
    """Returns the transparency that an alpha layer stores as the luma of a picture, as uint8[H, W]."""
    plane = layer.planes[0]
    depth = layer.format.components[0].bits
    if depth > 8:
        stored = (np.frombuffer(bytes(plane), np.uint16) >> (depth - 8)).astype(np.uint8)
    else:
        stored = np.frombuffer(bytes(plane), np.uint8)
    return stored.reshape(plane.height, -1)[:, : plane.width]
