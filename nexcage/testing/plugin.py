"""The pytest plugin: a simulated cluster and virtual time for tests.

``sim`` is a `SimCluster`; ``@pytest.mark.sim(nodes=3, seed=7)`` says which one. An ``async def`` test that takes it runs under
virtual time by itself, unless the marker says ``real_time=True`` (real sockets: ``sim.serve()``). ``virtual_time`` gives the
clock to any other async test. ``--sim-seeds N`` runs each such test with N seeds; a test that fails prints its seed and the flag
that repeats it (``--sim-seed 7``).

A run that uses none of this pays for none of it: everything is imported in the fixtures.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nexcage.testing.cluster import SimCluster

__all__ = ["sim", "virtual_time"]

_SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nexcage", "simulated clusters")
    group.addoption(
        "--sim-seeds", type=int, default=None, metavar="N", help="run each test with a simulated cluster with N seeds"
    )
    group.addoption(
        "--sim-seed",
        type=int,
        default=None,
        metavar="SEED",
        help="run each test with a simulated cluster with this seed",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "sim(nodes=3, seed=0, pace=None, real_time=False, **options): the simulated cluster that the fixture `sim` makes",
    )


def _takes(item: Any, *names: str) -> bool:  # Any: a test function, or whatever a decorator made of it
    try:
        parameters = inspect.signature(item).parameters
    except (TypeError, ValueError):
        return False
    return any(name in parameters for name in names)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: Any, name: str, obj: Any
) -> None:  # Any: pytest gives modules and classes, and anything
    """An async test with a simulated cluster is anyio's, whatever ``anyio_mode`` says."""
    inner = obj.hypothesis.inner_test if hasattr(obj, "hypothesis") else obj
    if (
        inspect.iscoroutinefunction(inner)
        and collector.istestfunction(obj, name)
        and _takes(obj, "sim", "virtual_time")
    ):
        pytest.mark.anyio(obj)
        pytest.mark.usefixtures("anyio_backend")(obj)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = metafunc.fixturenames
    marker = metafunc.definition.get_closest_marker("sim")
    if "sim" in names and "_sim_seed" in names:
        count = metafunc.config.getoption("--sim-seeds")
        if count is not None and metafunc.config.getoption("--sim-seed") is None:
            first = marker.kwargs.get("seed", 0) if marker is not None else 0
            metafunc.parametrize(
                "_sim_seed", range(first, first + count), ids=lambda seed: f"seed{seed}", indirect=True
            )
    real = marker is not None and marker.kwargs.get("real_time", False)
    wanted = "virtual_time" in names or ("sim" in names and not real)
    if wanted and "anyio_backend" in names and not _chosen(metafunc):
        from nexcage.testing.clock import VirtualLoop

        # A marker on the test wins over the `anyio_backend` of anyio's plugin and over the user's own.
        virtual = pytest.mark.parametrize(
            "anyio_backend", [("asyncio", {"loop_factory": VirtualLoop})], ids=["virtual"], scope="module"
        )
        metafunc.definition.add_marker(virtual)


def _chosen(metafunc: pytest.Metafunc) -> bool:
    """Whether the test says itself on what it runs."""
    marks = metafunc.definition.iter_markers("parametrize")
    if any("anyio_backend" in str(mark.args[:1]) for mark in marks):
        return True
    return metafunc.definition.get_closest_marker("both_loops") is not None


@pytest.fixture
def _sim_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run: the option, one of many, the marker's, 0."""
    given = request.config.getoption("--sim-seed")
    if given is not None:
        return int(given)
    if hasattr(request, "param"):
        return int(request.param)
    marker = request.node.get_closest_marker("sim")
    return int(marker.kwargs.get("seed", 0)) if marker is not None else 0


@pytest.fixture
def sim(request: pytest.FixtureRequest, _sim_seed: int) -> Iterator[SimCluster]:
    """A simulated cluster, in memory."""
    from nexcage.testing.cluster import SimCluster

    marker = request.node.get_closest_marker("sim")
    options = dict(marker.kwargs) if marker is not None else {}
    if marker is not None and marker.args:
        options.setdefault("nodes", marker.args[0])
    options.pop("real_time", None)
    options["seed"] = _sim_seed
    request.node.stash[_SEED] = _sim_seed
    with SimCluster(**options) as cluster:
        yield cluster


@pytest.fixture
def virtual_time(anyio_backend: Any) -> Any:  # Any: what anyio takes as a backend
    """The test's event loop runs under virtual time; the value is the `nexcage.testing.clock` module."""
    from nexcage.testing import clock

    return clock


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and _SEED in item.stash:
        seed = item.stash[_SEED]
        report.sections.append(
            ("nexcage sim", f"the simulated cluster had seed {seed}; repeat with: --sim-seed {seed}")
        )
    return report
