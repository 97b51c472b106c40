"""The specification's own samples, and documents that real programs print."""

from __future__ import annotations

import json

import msgspec
import pytest

from nexcage import InvalidBundle, Machine, State, oci
from nexcage._core.oci import oci_state
from tests.core.bundle.documents import SAMPLES, samples

DECODE = {"config": oci.decode_config, "state": oci.decode_state, "features": oci.decode_features}
GOOD = [(kind, path) for kind in DECODE for path in samples(kind, "good")]
BAD = [(kind, path) for kind in DECODE for path in samples(kind, "bad")]
PLACES = {
    "freebsd-vnet-disable.json": "/freebsd/jail/vnet",
    "invalid-json.json": "",
    "linux-hugepage.json": "/linux/resources/hugepageLimits/0/pageSize",
    "linux-netdevice.json": "/linux/netDevices/eth0/name",
    "linux-rdma.json": "/linux/resources/rdma/mlx5_1/hcaHandles",
    "missing-ociVersionMax.json": "/ociVersionMax",
}


def test_there_are_all_samples():
    assert (len(GOOD), len(BAD)) == (12, 7)


@pytest.mark.parametrize(("kind", "path"), GOOD, ids=[f"{kind}-{path.stem}" for kind, path in GOOD])
def test_a_good_sample_is_valid(kind, path):
    read = DECODE[kind](path.read_bytes())

    versions = [note.pointer for note in read.warnings if note.pointer == "/ociVersion"]
    assert bool(versions) == json.loads(path.read_text()).get("ociVersion", "1").startswith("0.")


@pytest.mark.parametrize(("kind", "path"), BAD, ids=[f"{kind}-{path.stem}" for kind, path in BAD])
def test_a_bad_sample_names_its_place(kind, path):
    with pytest.raises(InvalidBundle) as caught:
        DECODE[kind](path.read_bytes())

    assert caught.value.pointer == PLACES[path.name]


@pytest.mark.parametrize("name", ["runc-spec-default", "runc-spec-rootless", "umoci-unpacked-config"])
def test_what_real_programs_write_as_config_is_valid(name):
    config = oci.decode_config((SAMPLES / "observed" / f"{name}.json").read_bytes()).document

    assert config.process
    assert config.process.args


@pytest.mark.parametrize("status", ["created", "paused", "running", "stopped"])
def test_what_runc_prints_as_state_is_valid(status):
    state = oci.decode_state((SAMPLES / "observed" / f"runc-state-{status}.json").read_bytes())

    assert state.document.status == status
    assert not state.warnings


def test_what_runc_prints_as_features_is_valid():
    features = oci.decode_features((SAMPLES / "observed" / "runc-features.json").read_bytes()).document

    assert features.linux
    assert features.linux.cgroup
    assert features.linux.cgroup.v1 is True


def test_the_typed_example_says_what_the_document_says():
    config = oci.decode_config((SAMPLES / "config/good/spec-example.json").read_bytes()).document

    assert config.process
    assert config.process.user.additional_gids == (5, 6)
    assert config.linux.resources.memory.kernel_tcp == -1
    assert config.linux.resources.block_io.throttle_write_iops_device[0].rate == 300
    assert config.linux.uid_mappings[0].host_id == 1000
    assert config.linux.seccomp
    assert config.linux.seccomp.syscalls[0].names == ("getcwd", "chmod")
    assert [mount.destination for mount in config.mounts][:2] == ["/proc", "/dev"]


@pytest.mark.parametrize("state", State)
def test_what_nexcage_writes_as_state_is_valid(state):
    machine = Machine("web-1", state=state, was=State.RUNNING, pid=8123, node="pve-01", vmid=104)

    read = oci.decode_state(msgspec.json.encode(oci_state(machine, run_dir="/run/nexcage")))

    assert read.document.id == "web-1"
    assert [note.pointer for note in read.warnings] in ([], ["/pid"] if read.document.status == "created" else [])


def test_the_form_that_a_value_should_have_is_said_as_it_is():
    with pytest.raises(InvalidBundle) as caught:
        oci.decode_config((SAMPLES / "config/bad/linux-hugepage.json").read_bytes())

    assert caught.value.reason == "'64kB' is not of the form ^[1-9][0-9]*[KMG]B$"
