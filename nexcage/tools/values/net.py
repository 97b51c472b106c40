"""``netN``: one network interface with every key that PVE has (pve-commands 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nexcage._core import spec
from nexcage.errors import InvalidSpec
from nexcage.tools.values._kinds import Kind, address, choice, cidr, flag, integer, listed, matching, number
from nexcage.tools.values._property import Value

__all__ = ["Net"]

_WORD = matching(r"[-_.A-Za-z0-9]{1,64}", "1 to 64 of A-Z a-z 0-9 - _ .")


class Net(Value, frozen=True, kw_only=True, omit_defaults=True):
    """A network interface. ``rate`` in megabytes per second; ``host_managed`` (PVE 9.1) lets the node set the addresses."""

    kinds: ClassVar[Mapping[str, Kind]] = {
        "name": _WORD,
        "bridge": _WORD,
        "firewall": flag,
        "gw": address(4),
        "gw6": address(6),
        "host-managed": flag,
        "hwaddr": matching("[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}", "a unicast MAC address XX:XX:XX:XX:XX:XX"),
        "ip": cidr(4, "dhcp", "manual"),
        "ip6": cidr(6, "auto", "dhcp", "manual"),
        "link_down": flag,
        "mtu": integer(64, 65535),
        "rate": number(0, 1e9),
        "tag": integer(1, 4094),
        "trunks": listed(integer(0, (1 << 31) - 1)),  # PVE has no bound
        "type": choice("veth"),
    }
    required: ClassVar[tuple[str, ...]] = ("name",)
    label: ClassVar[str] = "net"

    name: str
    bridge: str | None = None
    firewall: bool | None = None
    gw: str | None = None
    gw6: str | None = None
    host_managed: bool | None = None
    hwaddr: str | None = None
    ip: str | None = None
    ip6: str | None = None
    link_down: bool | None = None
    mtu: int | None = None
    rate: float | None = None
    tag: int | None = None
    trunks: tuple[int, ...] = ()
    type: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.host_managed and self.ip6 == "auto":
            raise InvalidSpec("net.ip6", "auto", "not auto when the host manages the addresses")

    @classmethod
    def of(cls, net: spec.Net) -> Net:
        """The same interface as a :class:`nexcage.Net` describes it."""
        return cls(**{field: getattr(net, field) for field in net.__struct_fields__})
