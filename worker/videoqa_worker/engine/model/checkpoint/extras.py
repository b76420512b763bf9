"""Optional packages: finds the one that an error is about, and tells how to install it.

Libraries say in words of their own what they lack, and some raise errors of any class, so the packages are
looked for by name, and only those count that cannot be found here.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from videoqa_worker.engine.model.torchvision import describe_broken

__all__ = ["describe_missing_package", "describe_packages"]


@dataclass(frozen=True)
class Package:
    """An optional package: the module that it brings, and the worker's extra that brings it, if one does."""

    module: str
    extra: str | None = None


PACKAGES: Mapping[str, Package] = {
    "torchvision": Package("torchvision", "models"),
    "timm": Package("timm", "models"),
    "num2words": Package("num2words", "models"),
    "sentencepiece": Package("sentencepiece", "models"),
    "tiktoken": Package("tiktoken", "models"),
    "protobuf": Package("google.protobuf", "models"),
    "bitsandbytes": Package("bitsandbytes", "quantized"),
    "peft": Package("peft", "adapters"),
    "gptqmodel": Package("gptqmodel"),
    "optimum-quanto": Package("optimum.quanto"),
    "optimum": Package("optimum"),
    "compressed-tensors": Package("compressed_tensors"),
    "torchao": Package("torchao"),
    "hqq": Package("hqq"),
    "aqlm": Package("aqlm"),
    "auto-round": Package("auto_round"),
    "amd-quark": Package("quark"),
    "fbgemm-gpu": Package("fbgemm_gpu"),
    "fouroversix": Package("fouroversix"),
    "fp-quant": Package("fp_quant"),
    "flute-kernel": Package("flute"),
    "vptq": Package("vptq"),
    "spqr-quant": Package("spqr_quant"),
    "sinq": Package("sinq"),
    "mistral-common": Package("mistral_common"),
    "flash-attn": Package("flash_attn"),
    "kernels": Package("kernels"),
}
"""By name on PyPI, in the order in which they are looked for: an error may suggest a second one."""


def describe_missing_package(error: BaseException) -> str | None:
    """Returns what to install if the error is about a package that is not installed; None if it is not."""
    text = "\n".join(_list_texts(error))
    for name in PACKAGES:
        pattern = re.escape(name).replace("\\-", "[-_]")
        if re.search(rf"(?<![\w/-]){pattern}(?![\w/-])", text, re.IGNORECASE) and (
            missing := describe_packages([name])
        ):
            return missing
    return None


def describe_packages(names: Sequence[str]) -> str | None:
    """Returns what to install of these packages; None if all are installed."""
    lacking = [name for name in names if not _is_found(PACKAGES[name].module)]
    if not lacking:
        return None
    listed = " and ".join(lacking)
    are = "is" if len(lacking) == 1 else "are"
    extra = PACKAGES[lacking[0]].extra
    if extra is None:
        return f"it needs {listed}, which {are} not installed: pip install {' '.join(lacking)}"
    # pip would otherwise take the newest torchvision, and with it another torch.
    pin = f" torch=={torch.__version__.partition('+')[0]}" if extra == "models" else ""
    broken = describe_broken() if lacking == ["torchvision"] else None
    state = f"is installed, but does not load here ({broken})" if broken else f"{are} not installed"
    return f"it needs {listed}, which {state}: pip install './worker[{extra}]'{pin} in your clone"


def _list_texts(error: BaseException | None) -> Iterator[str]:
    """Yields the texts of an error and of those that led to it."""
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def _is_found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
