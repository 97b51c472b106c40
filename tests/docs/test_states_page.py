"""The page of states is drawn from the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_states_is_what_the_table_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "diagram.py"), "--check"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
