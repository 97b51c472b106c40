"""``-p tests.planted.plugin --planted NAME``: run tests with a known mistake in the library."""

from __future__ import annotations

import pytest

from tests.planted.bugs import plant


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--planted", default="", help="the mistake to make")


def pytest_configure(config: pytest.Config) -> None:
    if name := config.getoption("--planted"):
        plant(name)
