"""One real sshd for what goes over a wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nexcage.testing.real_sshd import RealSshd, missing


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    if missing():
        pytest.skip(missing())
    with RealSshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server
