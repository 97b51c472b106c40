"""What checking a bundle's config.json costs: the specification's example, read, typed, checked by the rules, planned.

Beside it, on the same document in the same run: `jsonschema` with the specification's schema (made once, as anybody would), which looks at
types only. The pass that finds properties named twice is shown alone, and beside it what plain `json.loads` takes without looking for them.

    python -m benchmarks.documents [--rounds 15] [--calls 40] [--json FILE]
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from benchmarks._rounds import Numbers, add_ratio, interleaved, options, show
from nexcage._core.bundle import Config, decode_config
from nexcage._core.bundle.rules import config_flaws
from nexcage._core.bundle.strict import read
from nexcage._core.bundle_plan.decide import plan
from nexcage._core.bundle_plan.model import Bundle

DATA = Path(__file__).parents[1] / "tests" / "data" / "oci"
METHOD = "median of the calls of a round; ways take turns, medians of rounds"


def checker() -> jsonschema.Draft4Validator:
    registry: Registry[Any] = Registry()
    for path in (DATA / "schema").glob("*.json"):
        resource = Resource.from_contents(json.loads(path.read_text()), default_specification=DRAFT4)
        registry = registry.with_resource(path.name, resource)
    schema = json.loads((DATA / "schema" / "config-schema.json").read_text())
    return jsonschema.Draft4Validator(schema, registry=registry)


def timed(act: Callable[[], object], calls: int) -> Callable[[], Numbers]:
    def way() -> Numbers:
        taken: list[float] = []
        for _ in range(calls):
            began = time.perf_counter()
            act()
            taken.append(time.perf_counter() - began)
        return {"µs": 1e6 * statistics.median(taken)}

    return way


def main() -> None:
    parser = options(__doc__ or "", rounds=15)
    parser.add_argument("--calls", type=int, default=40, help="calls in a round")
    given = parser.parse_args()
    data = (DATA / "samples" / "config" / "good" / "spec-example.json").read_bytes()
    config = decode_config(data).document
    typed = msgspec.json.Decoder(Config)
    schema = checker()
    bundle = Bundle("/var/lib/bundles/example")

    def validated() -> None:
        schema.validate(json.loads(data))

    def whole() -> None:
        plan(decode_config(data), bundle, backend="lxc")

    acts: dict[str, Callable[[], object]] = {
        "decode + validate + plan": whole,
        "decode + validate": lambda: decode_config(data),
        "  of it: properties named twice": lambda: read("config.json", data),
        "  of it: types": lambda: typed.decode(data),
        "  of it: rules of the text": lambda: list(config_flaws(config)),
        "json.loads": lambda: json.loads(data),
        "json.loads + jsonschema": validated,
    }
    results = interleaved({name: timed(act, given.calls) for name, act in acts.items()}, given.rounds)
    add_ratio(results, "µs", "decode + validate + plan")
    show(
        "documents",
        results,
        packages=["msgspec", "jsonschema"],
        method=METHOD,
        json_file=given.json,
        bytes=len(data),
    )


if __name__ == "__main__":
    main()
