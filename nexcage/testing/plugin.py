"""A pytest plugin: tests against a simulated cluster, under virtual time, from a seed.

Fixtures: ``sim`` (a `SimCluster`), ``virtual_time`` (the clock alone). Marker: ``sim(nodes=3, seed=0, pace=None, real_time=False)``.
Options: ``--sim-seeds N`` runs every test that uses ``sim`` with N seeds, ``--sim-seed S`` with that one. A failing test prints its
seed and the option that repeats it. Coroutine tests run under anyio's own plugin. Nothing is imported before a test asks for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nexcage.testing.cluster import SimCluster

_OURS = frozenset({"sim", "virtual_time"})
_SEEDS = 1000  # where the seeds of --sim-seeds begin to differ from those that tests name


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nexcage", "simulated clusters")
    group.addoption("--sim-seeds", type=int, default=0, metavar="N", help="run each simulated test with N seeds")
    group.addoption("--sim-seed", type=int, default=None, metavar="S", help="run each simulated test with this seed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "sim(nodes=3, seed=0, pace=None, real_time=False): the simulated cluster that the test's `sim` fixture is",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(name: str, obj: object) -> None:
    """A coroutine test that asks for ``sim`` or ``virtual_time`` runs in an event loop, whatever anyio's mode is."""
    if name.startswith("test") and inspect.iscoroutinefunction(obj) and _OURS & set(inspect.signature(obj).parameters):
        pytest.mark.anyio(obj)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    count = metafunc.config.getoption("--sim-seeds")
    if count > 1 and "sim_seed" in metafunc.fixturenames:
        first = _first_seed(metafunc.config, metafunc.definition.get_closest_marker("sim"))
        seeds = [first, *range(_SEEDS, _SEEDS + count - 1)]
        metafunc.parametrize("sim_seed", seeds, indirect=True, ids=[f"seed={seed}" for seed in seeds])


@pytest.fixture
def sim_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run of the test."""
    marker = request.node.get_closest_marker("sim")
    return int(getattr(request, "param", _first_seed(request.config, marker)))


def _first_seed(config: pytest.Config, marker: pytest.Mark | None) -> int:
    asked = config.getoption("--sim-seed")
    if asked is not None:
        return int(asked)
    return int(marker.kwargs.get("seed", 0)) if marker else 0


@pytest.fixture
def sim(request: pytest.FixtureRequest, sim_seed: int) -> SimCluster:
    """A simulated cluster as the test's ``sim`` marker describes it, in memory and under virtual time."""
    from nexcage.testing.cluster import SimCluster

    marker = request.node.get_closest_marker("sim")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}  # Any: the marker's own words
    options.pop("seed", None)
    options.pop("real_time", None)
    if marker and marker.args:
        options.setdefault("nodes", marker.args[0])
    return SimCluster(seed=sim_seed, **options)


@pytest.fixture
def virtual_time() -> Callable[[], float]:
    """The test's clock jumps to the next timer when nothing else can happen; calling the value tells the time in seconds."""
    import anyio

    return anyio.current_time


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, None]:  # Any: pluggy's result
    """Before anyio's plugin runs the test: the same backend, under virtual time."""
    if _virtual(pyfuncitem) and "anyio_backend" in pyfuncitem.funcargs:
        from nexcage.testing.clock import backend

        given = pyfuncitem.funcargs["anyio_backend"]
        pyfuncitem.funcargs["anyio_backend"] = backend(given if isinstance(given, str) else given[0])
    yield


def _virtual(item: pytest.Function) -> bool:
    if not inspect.iscoroutinefunction(item.obj) or not _OURS & set(item.fixturenames):
        return False
    marker = item.get_closest_marker("sim")
    return not (marker and marker.kwargs.get("real_time"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:  # Any: pluggy's result
    outcome = yield
    report = outcome.get_result()
    if not report.failed or not isinstance(item, pytest.Function):
        return
    seed = item.funcargs.get("sim_seed")
    if seed is not None:
        report.sections.append(("simulation", f"seed {seed}; the same run again: --sim-seed {seed}"))
