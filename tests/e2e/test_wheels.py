"""The distributions as a user gets them: built, installed without the checkout, and used.

A fresh virtual environment takes both wheels by pip. Third-party libraries are not downloaded
again: it gets links to the development environment's copies, and only to those that the wheels
declare, directly or through others. An undeclared import fails as it would for a user.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from videoqa import __version__

ROOT = Path(__file__).parents[2]
OURS = {"videoqa", "videoqa-worker"}
HEAVY = ("torch", "transformers", "numpy", "av", "PIL")

IMPORT_ALL = """
import importlib, pkgutil, sys, videoqa
for module in pkgutil.walk_packages(videoqa.__path__, "videoqa."):
    extras = ("videoqa.gateway", "videoqa.telemetry.metrics", "videoqa.telemetry.otlp")
    if not module.name.startswith(extras):
        importlib.import_module(module.name)
print(*(name for name in sys.modules if name.partition(".")[0] == "videoqa"))
"""


@dataclass(frozen=True)
class Built:
    """A distribution's wheel and source archive."""

    wheel: Path
    archive: Path

    def files(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as zipped:
            return set(zipped.namelist())

    def metadata(self) -> Message:
        name = next(name for name in self.files() if name.endswith(".dist-info/METADATA"))
        with zipfile.ZipFile(self.wheel) as zipped:
            return message_from_bytes(zipped.read(name))


@dataclass(frozen=True)
class Installed:
    """A virtual environment with wheels in it."""

    folder: Path

    def run(self, *command: str, cwd: Path, timeout_s: float = 60) -> str:
        """Runs a program of the environment, which knows nothing of the checkout; returns stdout."""
        kept = {"PATH", "HOME", "LANG", "TMPDIR", "OMP_NUM_THREADS", "LD_LIBRARY_PATH"}
        environment = {name: text for name, text in os.environ.items() if name in kept}
        done = subprocess.run(
            [self.folder / "bin" / command[0], *command[1:]],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both wheels and both source archives, as `make dist` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    for project in ("producer", "worker"):
        _run("build", "--no-isolation", "--outdir", str(folder), str(ROOT / project))
    return folder


@pytest.fixture(scope="module")
def client(dist: Path) -> Built:
    return _find_built(dist, "videoqa")


@pytest.fixture(scope="module")
def worker(dist: Path) -> Built:
    return _find_built(dist, "videoqa_worker")


def _find_built(dist: Path, name: str) -> Built:
    stem = f"{name}-{__version__}"
    return Built(dist / f"{stem}-py3-none-any.whl", dist / f"{stem}.tar.gz")


def _run(module: str, *args: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *args],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def _install(folder: Path, *built: Built, extras: tuple[str, ...] = ()) -> Installed:
    venv.create(folder, symlinks=True)
    python = str(folder / "bin" / "python")
    wheels = [str(each.wheel) for each in built]
    _run("pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", *wheels)
    (site,) = folder.glob("lib/python*/site-packages")
    wanted = (
        Requirement(text) for each in built for text in each.metadata().get_all("Requires-Dist", ())
    )
    for name in _close_over(wanted, extras):
        _link(name, site)
    _run("pip", "--python", python, "check")
    return Installed(folder)


def _close_over(requirements: Iterator[Requirement], extras: tuple[str, ...]) -> set[str]:
    """Returns the names of all distributions that these ask for, directly or through others."""
    found: set[str] = set()
    waiting = [(requirement, extras) for requirement in requirements]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        requirement, chosen = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *chosen)):
            continue
        name, wished = canonicalize_name(requirement.name), tuple(sorted(requirement.extras))
        if name in OURS or (name, wished) in seen:
            continue
        seen.add((name, wished))
        found.add(name)
        waiting += [(Requirement(text), wished) for text in distribution(name).requires or ()]
    return found


def _link(name: str, site: Path) -> None:
    """Links what a distribution has in the development environment into another one."""
    source = distribution(name)
    tops = {
        path.parts[0] for path in source.files or () if path.parts[0] not in ("..", "__pycache__")
    }
    for top in tops:
        if not (site / top).exists():
            (site / top).symlink_to(source.locate_file(top))


@pytest.fixture(scope="module")
def asking(client: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The client alone, without extras."""
    return _install(tmp_path_factory.mktemp("asking") / "venv", client)


@pytest.fixture(scope="module")
def answering(client: Built, worker: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Both, with the private servers that `videoqa demo` needs at least."""
    folder = tmp_path_factory.mktemp("answering") / "venv"
    return _install(folder, client, worker, extras=("embedded",))


def test_the_distributions_pass_the_check_of_the_package_index(dist: Path) -> None:
    files = sorted(map(str, dist.iterdir()))
    assert len(files) == 4
    _run("twine", "check", "--strict", *files)


@pytest.mark.parametrize("name", ["videoqa", "videoqa_worker"])
def test_a_page_of_the_package_index_links_to_no_file_beside_it(dist: Path, name: str) -> None:
    metadata = _find_built(dist, name).metadata()
    page = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert isinstance(page, str)
    assert page.strip().startswith(f"# {metadata['Name']}\n")
    assert re.findall(r"\]\((?!https?://)", page) == []


@pytest.mark.parametrize("project", ["producer/videoqa", "worker/videoqa_worker"])
def test_a_wheel_and_a_source_archive_hold_the_whole_package(dist: Path, project: str) -> None:
    package = ROOT / project
    built = _find_built(dist, package.name)
    files = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in files if name.endswith("py.typed")} == {f"{package.name}/py.typed"}
    assert files <= built.files()
    stem = built.archive.name.removesuffix(".tar.gz")
    with tarfile.open(built.archive) as archive:
        assert {f"{stem}/{name}" for name in files} <= set(archive.getnames())


@pytest.mark.parametrize("name", ["videoqa", "videoqa_worker"])
def test_a_wheel_and_a_source_archive_bring_the_licence(dist: Path, name: str) -> None:
    built = _find_built(dist, name)
    licence = (ROOT / "LICENSE").read_bytes()
    stem = f"{name}-{__version__}"
    with zipfile.ZipFile(built.wheel) as wheel, tarfile.open(built.archive) as archive:
        assert wheel.read(f"{stem}.dist-info/licenses/LICENSE") == licence
        found = archive.extractfile(f"{stem}/LICENSE")
        assert found is not None
        assert found.read() == licence
    assert built.metadata()["License-Expression"] == "Apache-2.0"


def test_the_client_with_all_extras_asks_for_no_deep_learning_library(client: Built) -> None:
    metadata = client.metadata()
    extras = tuple(metadata.get_all("Provides-Extra", ()))
    wanted = _close_over(map(Requirement, metadata.get_all("Requires-Dist", ())), extras)
    assert {"celery", "pydantic", "pyarrow", "fakeredis"} <= wanted
    assert not wanted & {"torch", "transformers", "numpy", "av", "pillow"}


def test_the_client_is_whole_without_a_deep_learning_library(
    asking: Installed, tmp_path: Path
) -> None:
    code = f"{IMPORT_ALL}\nimport importlib.util as u; print(*filter(u.find_spec, {HEAVY}))"
    modules, heavy = asking.run("python", "-c", code, cwd=tmp_path).split("\n")[:2]
    assert {"videoqa.client", "videoqa.testing"} <= set(modules.split())
    assert heavy == ""
    assert asking.run("videoqa", "--version", cwd=tmp_path) == f"videoqa {__version__}\n"


def test_the_installed_demo_model_answers_what_is_truly_in_its_clips(
    answering: Installed, tmp_path: Path
) -> None:
    code = (
        "import videoqa, videoqa_worker as w, sys; print(videoqa.__file__, w.__file__, *sys.path)"
    )
    client, worker, *path = answering.run("python", "-c", code, cwd=tmp_path).split()
    assert Path(client).is_relative_to(answering.folder)
    assert Path(worker).is_relative_to(answering.folder)
    assert not [entry for entry in path if Path(entry).is_relative_to(ROOT)]
    said = answering.run("videoqa", "demo", cwd=tmp_path, timeout_s=110)
    assert "What is moving?  ->  a red circle  (right)" in said
    assert "nothing is left running" in said
