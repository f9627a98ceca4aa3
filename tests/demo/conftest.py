"""A small synthetic cohort, made once for all tests of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from histill.demo.make import make

SMALL = {"patients": 12, "seed": 1, "size_px": 1024}


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    return dict(SMALL)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make(SMALL, folder)
    return folder
