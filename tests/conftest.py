"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Workers of a parallel run share the cores: threads of tiny networks would wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        nargs="?",
        const="raised",
        choices=("raised", "force"),
        help="rewrite tests/golden.json for stages of a new version; =force: for every stage whose output changed",
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real reference data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("HISTILL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the reference data is not here; set HISTILL_TEST_DATA to its folder")
    return folder
