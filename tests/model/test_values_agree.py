"""What the library's values take is what the pretend pct takes: both follow PVE's rules, and were written apart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexcage.errors import InvalidSpec
from nexcage.testing._model.pct.options import DEV, FEATURES, MP, NET, ROOTFS
from nexcage.testing._model.schema import FORMATS, Prop, Refused, parse_properties
from nexcage.tools import values

GRAMMARS: dict[str, tuple[type[values.Value], dict[str, Prop]]] = {
    "net": (values.Net, dict(NET)),
    "rootfs": (values.Rootfs, dict(ROOTFS)),
    "mp": (values.MountPoint, dict(MP)),
    "dev": (values.Device, dict(DEV)),
    "features": (values.Features, dict(FEATURES)),
}
WORDS = st.sampled_from(
    "0 1 2 yes No ON off -1 64 63 1500 65535 65536 4094 4095 4G 0T 1.5M 10k 1.2.3 eth0 vmbr0 e+h x-y_z.1 veth tap dhcp auto manual "
    "10.0.0.1 10.0.0.1/24 10.0.0.1/7 10.0.0.1/33 010.0.0.1 1.2.3 256.1.1.1 fd00::1 fd00::1/64 fd00::1/7 fd00::1/129 ::ffff:1.2.3.4 "
    "fd00::1%eth0 BC:24:11:00:00:01 bc:24:11:aa:bb:cc 01:24:11:00:00:01 BC:24:11:00:00 12.5 1e3 .5 5. 1;2;3 1;x discard "
    "discard;noatime suid passthrough u:0:1000:1 u:0:1000:1;g:0:1000:1 x:0:0:1 0666 666 0999 /dev/fuse /dev/net/tun /etc/passwd "
    "/dev/../x /srv /srv/../x ../x /a/./b a/b local:100/vm-100-disk-0.raw local:8 8 nfs nfs;cifs n&s".split()
)
KEYS = sorted({key for _, schema in GRAMMARS.values() for key in schema} | {"bogus"})


def takes(kind: type[values.Value], text: str) -> bool:
    try:
        kind.parse(text, strict=True)
    except InvalidSpec:
        return False
    return True


def pretended(schema: dict[str, Prop], text: str) -> bool:
    try:
        parse_properties(schema, text)
    except Refused:
        return False
    return True


@pytest.mark.parametrize("name", sorted(GRAMMARS))
@settings(max_examples=150)
@given(data=st.data())
def test_a_value_is_taken_by_both_or_by_neither(name: str, data: st.DataObject) -> None:
    kind, schema = GRAMMARS[name]
    keys = data.draw(st.lists(st.sampled_from([*schema, *schema, "bogus"]), max_size=3, unique=True))
    parts = {key: data.draw(WORDS) for key in keys}
    start = data.draw(
        st.sampled_from(["", {"net": "name=eth0", "mp": "local:1,mp=/x"}.get(name, "local:1"), "/dev/fuse"])
    )
    text = ",".join([*([start] if start else []), *(f"{key}={word}" for key, word in parts.items())])

    ours, theirs = takes(kind, text), pretended(schema, text)

    if ours and theirs and isinstance(value := kind.parse(text), values.Net):
        assert pretended(schema, str(value))
    if name == "dev":  # that a path must be there is found out later than by the schema
        theirs = theirs and ("path" in parts or start.startswith(("/", "local")))
    slaac = name == "net" and parts.get("ip6") == "auto" and parts.get("host-managed") in ("1", "yes", "ON")
    assert ours == (theirs and not slaac), text


@pytest.mark.parametrize("name", sorted(GRAMMARS))
def test_both_know_the_same_keys(name: str) -> None:
    kind, schema = GRAMMARS[name]

    assert set(kind.kinds) == set(schema)


@given(st.text(max_size=12) | WORDS)
def test_a_start_order_is_taken_by_both_or_by_neither(text: str) -> None:
    try:
        FORMATS["pve-startup-order"](text)
        theirs = True
    except Refused:
        theirs = False
    try:
        values.Startup.parse(text)
        ours = True
    except InvalidSpec:
        ours = False

    assert ours <= theirs
