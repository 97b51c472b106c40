"""What importing nexcage costs and shows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import nexcage

INIT = Path(nexcage.__file__)
SLOW = {"anyio", "asyncio", "asyncssh", "rich", "trio", "logging", "subprocess", "msgspec", "cryptography"}


def loaded_by(program: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after ``program``."""
    whole = (
        f"import sys; sys.path.insert(0, {str(INIT.parents[1])!r}); before = set(sys.modules)\n"
        f"{program}\n"
        "print(*set(sys.modules) - before, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-I", "-c", whole], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def under_type_checking() -> set[str]:
    """The names that a type checker sees in nexcage/__init__.py."""
    names: set[str] = set()
    for node in ast.parse(INIT.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for inner in node.body:
                if isinstance(inner, ast.ImportFrom):
                    names |= {alias.asname or alias.name for alias in inner.names}
    return names


def test_importing_nexcage_loads_no_loop_no_ssh_and_nothing_slow() -> None:
    assert not loaded_by("import nexcage") & SLOW


def test_importing_nexcage_loads_nothing_of_nexcage_but_its_version() -> None:
    ours = {module for module in loaded_by("import nexcage") if module.startswith("nexcage")}

    assert ours == {"nexcage", "nexcage._version"}


def test_importing_the_test_kit_loads_no_ssh() -> None:
    assert not loaded_by("import nexcage.testing") & (SLOW - {"msgspec"})


def test_opening_this_machine_loads_no_ssh() -> None:
    program = (
        "import anyio, nexcage, tempfile\n"
        "async def main():\n"
        "    with tempfile.TemporaryDirectory() as home:\n"
        "        async with nexcage.open_fleet(state_dir=home + '/state', run_dir=home + '/run'): pass\n"
        "anyio.run(main)"
    )

    assert not loaded_by(program) & {"asyncssh", "rich", "cryptography", "trio"}


def test_every_public_name_can_be_had() -> None:
    for name in nexcage.__all__:
        assert getattr(nexcage, name) is not None


def test_the_lazy_names_are_those_that_type_checkers_see() -> None:
    assert set(nexcage.__all__) - {"__version__"} == under_type_checking() - {"__version__"}


def test_the_public_names_are_sorted_and_dir_shows_them() -> None:
    def order(name: str) -> tuple[bool, bool, str]:  # as ruff sorts: constants, classes, the rest
        return not name.isupper(), not name[0].isupper(), name

    assert list(nexcage.__all__) == sorted(nexcage.__all__, key=order)
    assert set(nexcage.__all__) <= set(dir(nexcage))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    try:
        _ = nexcage.Flet  # type: ignore[attr-defined]
    except AttributeError as error:
        assert "Flet" in str(error)
    else:
        raise AssertionError("nexcage.Flet exists")


def test_every_public_class_and_function_has_a_docstring() -> None:
    public = {name: getattr(nexcage, name) for name in nexcage.__all__}

    undocumented = [name for name, value in public.items() if callable(value) and not getattr(value, "__doc__", None)]

    assert undocumented == []
