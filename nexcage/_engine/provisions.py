"""What creates need of this machine besides templates: root file systems of bundles and images on their way to nodes.

Most programs never create from one, so all that packs, unpacks, plans and sends is loaded with the first create that does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from nexcage import names
from nexcage._core.config import Config
from nexcage._core.spec import Spec
from nexcage.abc import Backend

if TYPE_CHECKING:
    from nexcage._engine.bundles import Bundles
    from nexcage._engine.contents import Contents
    from nexcage._engine.supplies import Supplies

__all__ = ["Provisions"]


class Provisions:
    """``contents`` makes the one place where root file systems are packed."""

    def __init__(self, config: Config, contents: Callable[[], Contents]) -> None:
        self._config = config
        self._made = contents

    def plans(self, spec: Spec, backend: Backend) -> bool:
        """Whether ``backend`` has to be told what is in a bundle or an image of this machine."""
        if spec.source is not None or not getattr(backend, "plans", False):
            return False
        return spec.bundle is not None or names.image(spec.image).kind == "path"

    def supplied(self, spec: Spec, backend: Backend) -> bool:
        """Whether ``backend`` makes this container from content that its node has to have."""
        if spec.source is not None or spec.content is not None or not getattr(backend, "contents", False):
            return False
        return spec.bundle is not None or names.image(spec.image).path is not None

    @cached_property
    def contents(self) -> Contents:
        return self._made()

    @cached_property
    def supplies(self) -> Supplies:
        from nexcage._core.layers import Bounds
        from nexcage._engine.supplies import Supplies
        from nexcage._engine.unpacking import Unpacker

        limits = self._config.contents
        bounds = Bounds(size=limits.image_size << 30, entries=limits.entries)
        return Supplies(self.contents, Unpacker(self.contents, bounds), self._config)

    @cached_property
    def bundles(self) -> Bundles:
        from nexcage._engine.bundles import Bundles

        return Bundles(self._config, self.contents, self.supplies)
