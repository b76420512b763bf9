"""Two stacks in one folder would spoil each other's append-only file."""

from __future__ import annotations

from pathlib import Path

import pytest

from videoqa.errors import ConfigurationError
from videoqa_worker.embedded.stack import Stack


def test_a_second_stack_in_a_folder_is_refused_while_the_first_one_starts(tmp_path: Path) -> None:
    environ = {"VIDEOQA_MODEL": "/nowhere", "PATH": "/usr/bin"}
    with (
        Stack(tmp_path, environ),
        pytest.raises(ConfigurationError, match="already runs"),
        Stack(tmp_path, environ),
    ):
        pass
    with Stack(tmp_path, environ) as again:
        assert again.redis.running()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="VIDEOQA_HOME"), Stack(tmp_path / "file", {}):
        pass
