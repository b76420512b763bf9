"""Makes an installed torchvision importable, or hides one that is broken.

transformers imports torchvision as soon as it is installed, whatever model is loaded, so one that does not fit
the installed torch would stop every worker. PyPI's wheels for Linux fit a torch with CUDA only: beside PyTorch's
CPU build their compiled operators do not load, and the import fails at `nms` (seen with 0.28.0 beside
2.13.0+cpu). Processors need only the transforms, which are plain Python, so declaring those two operators is enough.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

import torch

__all__ = ["describe_broken", "make_importable"]

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_state: dict[str, str] = {}
_declared: list[torch.library.Library] = []
"""A declaration holds as long as its library object lives."""


def make_importable() -> None:
    """Imports torchvision if it is installed; hides it from transformers if that fails."""
    if importlib.util.find_spec("torchvision") is None:
        return
    error = _import()
    if isinstance(error, RuntimeError) and "operator torchvision::" in str(error):
        _declare_operators()
        error = _import()
    if error is not None:
        _state["broken"] = f"{type(error).__name__}: {error}".splitlines()[0]
        sys.modules["torchvision"] = None  # type: ignore[assignment]


def describe_broken() -> str | None:
    """Returns the error of a torchvision that is installed, but cannot be imported."""
    return _state.get("broken")


def _import() -> Exception | None:
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # noqa: BLE001 - a wheel for another torch fails with any error
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        return error
    return None


def _declare_operators() -> None:
    """Declares the operators that `import torchvision` looks up; calling one still fails."""
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        library.define(name + _SIGNATURE)  # type: ignore[no-untyped-call]
    _declared.append(library)
