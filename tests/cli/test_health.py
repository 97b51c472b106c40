"""What the health checks make of what tools say: values, not existence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Result
from nexcage.tools import health

STATUS = """Name             Type     Status     Total (KiB)      Used (KiB) Available (KiB)        %
local             dir     active        98497780         8123404        85324828    8.25%
local-zfs     zfspool     active       450000000       441000000         9000000   98.00%
slow              nfs   inactive               0               0               0    0.00%
off               nfs   disabled               0               0               0      N/A
"""


def said(stdout: str = "", stderr: str = "", exit: int | None = 0, seconds: float = 0.0) -> Result:
    return Result(exit=exit, stdout=stdout.encode(), stderr=stderr.encode(), seconds=seconds)


def verdicts(probe: health.Probe, result: Result) -> dict[str, str]:
    return {check.check: check.verdict for check in health.read(probe, result)}


@pytest.mark.parametrize(
    "line, verdict",
    [
        ("rpool\t1000\t100\t900\t10\tONLINE", "PASS"),
        ("rpool\t1000\t100\t900\t10%\tONLINE", "PASS"),
        ("rpool\t1000\t100\t900\t10\tDEGRADED", "FAIL"),
        ("rpool\t1000\t100\t900\t10\tSUSPENDED", "FAIL"),
        ("rpool\t1000\t850\t150\t85\tONLINE", "WARN"),
        ("rpool\t1000\t990\t10\t99\tONLINE", "FAIL"),
    ],
)
def test_a_pool_that_is_ill_or_full_does_not_pass(line: str, verdict: str) -> None:
    assert verdicts(health.pools(), said(line + "\n")) == {"pool rpool": verdict}


def test_a_node_without_zfs_has_no_pool_to_fail() -> None:
    assert health.read(health.pools(), said(exit=127, stderr="zpool: not found")) == ()
    assert health.read(health.pools(), said("")) == ()


def test_a_storage_that_is_full_or_away_fails_and_a_disabled_one_is_left_out() -> None:
    found = {"storage local": "PASS", "storage local-zfs": "FAIL", "storage slow": "FAIL"}

    assert verdicts(health.storages(), said(STATUS)) == found


def test_a_node_whose_storages_take_no_templates_fails() -> None:
    assert verdicts(health.templates(), said(STATUS.splitlines()[0])) == {"templates": "FAIL"}
    active = health.read(health.templates(), said(STATUS))
    assert health.template_storages(active) == ("local", "local-zfs")


def test_a_template_storage_without_a_template_says_how_to_get_one() -> None:
    header = "Volid Format Type Size VMID\n"
    (empty,) = health.read(health.template_list("local"), said(header))
    (full,) = health.read(health.template_list("local"), said(header + "local:vztmpl/a.tar.zst tzst vztmpl 12\n"))

    assert (empty.verdict, full.verdict, full.value) == ("WARN", "PASS", "1 templates")
    assert "pveam download local" in empty.todo


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("pve-manager/9.1.1/42db4a6cf33dac83 (running kernel: 6.14.8-2-pve)", "PASS"),
        ("pve-manager/7.4-3/9002ab8a (running kernel: 5.15.102-1-pve)", "WARN"),
        ("hello", "WARN"),
    ],
)
def test_an_old_or_unreadable_version_is_a_warning(text: str, verdict: str) -> None:
    assert verdicts(health.version(), said(text)) == {"pve": verdict}


def test_a_machine_that_is_no_pve_node_fails_and_names_the_simulated_cluster() -> None:
    (check,) = health.read(health.version(), said(exit=127))

    assert check.verdict == "FAIL"
    assert "nexcage sim up" in check.todo


@pytest.mark.parametrize("used, verdict", [(10, "PASS"), (86, "WARN"), (96, "FAIL"), (100, "FAIL")])
def test_a_disk_is_judged_by_its_room(used: int, verdict: str) -> None:
    text = f"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 1000000 {used}0000 {100 - used}0000 {used}% /\n"

    assert verdicts(health.disk("/"), said(text)) == {"disk /": verdict}


@pytest.mark.parametrize(
    "there, verdict", [(1000, "PASS"), (1001, "PASS"), (1010, "WARN"), (900, "FAIL"), (2000, "FAIL")]
)
def test_a_clock_that_is_off_does_not_pass(there: int, verdict: str) -> None:
    assert verdicts(health.clock(lambda: 1000.4), said(str(there), seconds=0.2)) == {"clock": verdict}


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("port 22\nmaxsessions 10\nmaxstartups 10:30:100\n", "PASS"),
        ("maxsessions 4\nmaxstartups 10:30:100\n", "WARN"),
        ("maxstartups 2:30:100\n", "WARN"),
    ],
)
def test_low_sshd_limits_are_a_warning(text: str, verdict: str) -> None:
    assert verdicts(health.sshd(), said(text)) == {"sshd": verdict}


@pytest.mark.parametrize(
    "mode, fencing, local, verdict, said",
    [
        ("runner", True, False, "PASS", "fencing is on; Perl 5.36.0"),
        ("", True, True, "PASS", "fencing is on"),
        ("", False, True, "PASS", "fencing is off"),
        ("exec: no perl there", False, False, "WARN", "fencing is off: no perl there"),
        ("exec: the runner is switched off", False, False, "WARN", "switched off"),
        ("", False, False, "WARN", "not known"),
    ],
)
def test_whether_the_runner_is_used_or_why_not_and_what_it_costs(
    mode: str, fencing: bool, local: bool, verdict: str, said: str
) -> None:
    check = health.runner(mode, fencing=fencing, local=local, perl="5.36.0")

    assert check.verdict == verdict
    assert said in check.value
    assert bool(check.todo) == ("is on" not in check.value)


def test_the_version_of_perl_is_read_and_nothing_else_is_taken_for_one() -> None:
    (check,) = health.read(health.perl(), said("5.36.0"))
    assert check.value == "5.36.0"
    assert health.read(health.perl(), said(exit=127, stderr="perl: not found")) == ()
    assert [check.verdict for check in health.read(health.perl(), said("hello"))] == ["WARN"]


@pytest.mark.parametrize(
    "ours, expires, epoch, verdict, text",
    [
        (True, 1060.0, 3, "PASS", "epoch 3, this state directory (abc), for 60 s"),
        (False, 1060.0, 3, "WARN", "another state directory (abc on pve-9), for 60 s"),
        (False, 900.0, 3, "PASS", "expired 100 s ago"),
        (False, 0.0, 0, "PASS", "nobody holds it"),
    ],
)
def test_who_holds_the_lease_is_said_and_another_holder_is_a_warning(
    ours: bool, expires: float, epoch: int, verdict: str, text: str
) -> None:
    check = health.lease("/s/lease", "abc", epoch=epoch, ours=ours, expires=expires, now=1000.0, host="pve-9")

    assert check.verdict == verdict
    assert text in check.value


@given(
    stdout=st.binary(max_size=200),
    stderr=st.binary(max_size=80),
    exit=st.sampled_from([0, 1, 2, 127, 255, None]),
)
def test_nothing_that_a_node_says_raises(stdout: bytes, stderr: bytes, exit: int | None) -> None:
    probes = (
        *health.probes(),
        health.perl(),
        health.templates(),
        health.template_list("local"),
        health.clock(lambda: 0.0),
    )
    for probe in probes:
        for check in health.read(probe, Result(exit=exit, stdout=stdout, stderr=stderr)):
            assert check.verdict in ("PASS", "WARN", "FAIL")
