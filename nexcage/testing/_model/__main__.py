"""The body of every executable of a simulated node on disk."""

from __future__ import annotations

import sys

from nexcage.testing._model.drive import leave
from nexcage.testing._model.main import main

leave(main(sys.argv[1:]))
