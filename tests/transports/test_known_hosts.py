"""Checked against ssh-keygen, which writes and hashes such files."""

import base64
import shutil
import subprocess

import pytest

from nexcage._transports.known_hosts import Known, KnownHosts, fingerprint


def key(seed: int) -> str:
    kind = b"ssh-ed25519"
    blob = len(kind).to_bytes(4, "big") + kind + (32).to_bytes(4, "big") + bytes([seed]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


ONE, TWO = key(1), key(2)


@pytest.mark.parametrize(
    "pattern, host, port, matches",
    [
        ("pve-01", "pve-01", 22, True),
        ("pve-01", "PVE-01", 22, True),
        ("pve-01,10.0.0.1", "10.0.0.1", 22, True),
        ("pve-*", "pve-01", 22, True),
        ("pve-*,!pve-01", "pve-01", 22, False),
        ("pve-0?", "pve-01", 22, True),
        ("pve-[01]", "pve-0", 22, False),
        ("[pve-01]:2222", "pve-01", 2222, True),
        ("[pve-01]:2222", "pve-01", 22, False),
        ("pve-01", "pve-01", 2222, True),
        ("pve-01", "pve-01x", 22, False),
        ("pve.01", "pvex01", 22, False),
    ],
)
def test_a_pattern_names_what_it_names_for_ssh(pattern, host, port, matches):
    assert bool(KnownHosts(f"{pattern} {ONE}\n").find(host, port)) is matches


def test_a_port_of_its_own_beats_the_bare_name():
    known = KnownHosts(f"pve {ONE}\n[pve]:2222 {TWO}\n")

    assert known.find("pve", 2222).keys == (TWO,)
    assert known.find("pve", 2223).keys == (ONE,)
    assert known.first_seen("pve", 2223)
    assert not known.first_seen("pve", 2222)


def test_markers_are_kept_apart():
    known = KnownHosts(f"@cert-authority *.lan {ONE}\n@revoked * {TWO}\n")

    assert known.find("a.lan", 22) == Known((), (ONE,), (TWO,))


def test_a_line_that_cannot_be_read_costs_only_itself():
    bad = [
        "#",
        "pve",
        "pve ssh-ed25519",
        "pve ssh-ed25519 !!!",
        "pve ssh-rsa " + ONE.split()[1],
        "@what pve " + ONE,
        "|1|x pve y z",
    ]

    assert KnownHosts("\n".join(bad), f"pve {ONE} comment with words\n").find("pve", 22).keys == (ONE,)


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen: apt-get install openssh-client")
def test_hashed_names_and_fingerprints_are_those_of_ssh_keygen(tmp_path):
    file = tmp_path / "known_hosts"
    file.write_text(f"pve-01 {ONE}\n[pve-01]:2222 {TWO}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)

    known = KnownHosts(file.read_text())

    assert "pve" not in file.read_text()
    assert known.find("pve-01", 22).keys == (ONE,)
    assert known.find("pve-01", 2222).keys == (TWO,)
    assert not known.find("pve-02", 22)
    (tmp_path / "key").write_text(ONE + "\n")
    said = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key"], check=True, capture_output=True, text=True).stdout
    assert fingerprint(ONE).split()[1] in said
