r"""``qm guest exec``: a program inside a virtual machine, by its QEMU guest agent (pve-commands 7).

The agent collects what the program prints and ``qm`` tells it as JSON at the end, always with exit 0. The script around it checks the
mark in the same breath and turns the JSON into what `nexcage.tools.attach` says: one line on standard error when there is an end to
tell, behind it the program's bytes, and its exit status. Without that line it did not begin, or nobody knows: `refused` says which.
Perl's ``print`` in ``qm`` writes the characters of a string as bytes, so what stands in the JSON is what the program wrote.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nexcage._core.command import MIB, Command, Result, nothing, shown
from nexcage._core.seen import Mark
from nexcage.errors import (
    Blocked,
    CommandFailed,
    IllegalTransition,
    InvalidInput,
    NexcageError,
    NodeNotUsable,
    NodeTimeout,
    NotOurs,
)
from nexcage.tools.attach import measured, words

__all__ = ["GUEST_EXEC", "guest_exec", "refused"]

_SLACK = 30.0  # seconds that qm may take besides what the program was given

_PERL = r"""
my ($vmid, $seconds, $input, @words) = @ARGV;
my @command = ("qm", "guest", "exec", $vmid, "--timeout", $seconds, ($input ? ("--pass-stdin", "1") : ()), "--", @words);
open(my $complaints, "+>", undef) or die "nexcage: no temporary file: $!\n";
open(my $stderr, ">&", \*STDERR) or die;
open(STDERR, ">&", $complaints) or die;
my $pid = open(my $answer, "-|", @command);
open(STDERR, ">&", $stderr) or die;
if (!$pid) { print STDERR "nexcage: there is no qm\n"; exit 6 }
my %plain = (n => "\n", t => "\t", r => "\r", b => "\b", f => "\f");
sub coded { my $c = chr(hex($_[0])); utf8::encode($c) if ord($c) > 255; $c }
my %got;
while (my $line = <$answer>) {
  if ($line =~ /^\s*"([a-z-]+)"\s*:\s*"(.*)"\s*,?\s*$/s) {
    my ($key, $text) = ($1, $2);
    $text =~ s{\\(?:u([0-9a-fA-F]{4})|(.))}{defined $1 ? coded($1) : $plain{$2} // $2}ge;
    $got{$key} = $text;
  } elsif ($line =~ /^\s*"([a-z-]+)"\s*:\s*(-?[0-9]+)\s*,?\s*$/) { $got{$1} = $2 }
}
close $answer;
binmode STDERR; binmode STDOUT;
my $status = $got{exitcode} // (defined $got{signal} ? 128 + $got{signal} : undef);
if ($? == 0 && defined $status) {
  $| = 1;
  print STDERR "\@nexcage inside\n", $got{"err-data"} // "";
  print STDOUT $got{"out-data"} // "";
  exit($status < 0 || $status > 255 ? 255 : $status);
}
if ($? == 0 && defined $got{pid}) { print STDERR "nexcage: it still runs in the guest as pid $got{pid}\n"; exit 4 }
seek($complaints, 0, 0);
print STDERR "nexcage: qm: ", <$complaints>;
exit 5;
"""

GUEST_EXEC = r"""nexcage_fail() { echo "nexcage: $2" >&2; exit "$1"; }
R=${NEXCAGE_NODE_ROOT-}
sed '/^\[/q' "$R/etc/pve/qemu-server/$2.conf" 2>/dev/null | grep -qxF -e "#$1" || nexcage_fail 9 'the container does not carry our mark'
pid=
read -r pid < "$R/run/qemu-server/$2.pid" 2>/dev/null
case $pid in ''|*[!0-9]*) pid=0 ;; esac
grep -qsaF "qemu-server/$2.pid" "$R/proc/$pid/cmdline" || nexcage_fail 8 "virtual machine $2 has no process"
command -v qm >/dev/null || nexcage_fail 6 'there is no qm'
command -v perl >/dev/null || nexcage_fail 6 'there is no perl'
vmid=$2 perl=$3
shift 3
exec perl -e "$perl" "$vmid" "$@"
"""

_ABSENT = re.compile(r"No QEMU guest agent configured")
_SILENT = re.compile(r"QEMU guest agent is not running")
_STOPPED = re.compile(r"VM [0-9]+ (?:is )?not running")
_INSTALL = "install and start qemu-guest-agent inside"


def guest_exec(
    mark: Mark,
    argv: Sequence[str | bytes],
    *,
    given: int = 0,
    env: Mapping[str, str] | None = None,
    cwd: str = "",
    user: str = "",
    timeout: float | None = None,
    cap: int = MIB,
) -> Command[None]:
    """``argv`` inside the machine that carries ``mark``, with ``given`` bytes of standard input. Raises InvalidInput, also for what the
    agent has no way to: variables, a directory, a user.
    """
    for name, value in (("env", env), ("cwd", cwd), ("user", user)):
        if value:
            shell = f"left out: the guest agent has no word for it; run a shell inside that sets the {name}"
            raise InvalidInput(name, "(given)" if name == "env" else value, shell)
    if given > MIB:
        raise InvalidInput("stdin", f"{given} bytes", f"at most {MIB} bytes for the guest agent of a virtual machine")
    inner = words(argv)
    measured(timeout, cap)
    seconds = 0 if timeout is None else max(1, math.ceil(timeout))
    limit = None if timeout is None else seconds + _SLACK
    outer = (
        "sh",
        "-c",
        GUEST_EXEC,
        "guest",
        str(mark),
        str(mark.vmid),
        _PERL,
        str(seconds),
        "1" if given else "",
        *inner,
    )
    return Command(outer, nothing, timeout=limit, cap=cap, classify=_refusal(mark))


def _refusal(mark: Mark) -> Callable[[Command[Any], Result, str], NexcageError]:
    def classify(_: Command[Any], result: Result, node: str) -> NexcageError:
        return refused(mark, result, node)

    return classify


def refused(mark: Mark, result: Result, node: str) -> NexcageError:
    """The error of a program of which there is no end to tell; ``uncertain`` unless it surely did not begin."""
    said = shown(result.stderr).strip().removeprefix("nexcage: ")
    match result.exit:
        case 9 if "does not carry our mark" in said:
            return NotOurs(mark.id, node, mark.vmid, "it does not carry our mark")
        case 8 if "has no process" in said:
            return IllegalTransition(mark.id, "exec", "stopped", reason="it has no process")
        case 6 if "there is no" in said:
            return NodeNotUsable(node, said)
        case 4 if "still runs" in said:
            late = NodeTimeout(node, f"exec in '{mark.id}' took longer than it was given: {said}")
            late.uncertain = True
            return late
        case 5 if said.startswith("qm: "):
            return _without_agent(mark, said.removeprefix("qm: "), node)
        case _:
            return _unclear(mark, result.exit, said, node)


def _without_agent(mark: Mark, said: str, node: str) -> NexcageError:
    if _ABSENT.search(said):
        ways = f"`qm set {mark.vmid} --agent 1` (--agent at its create), {_INSTALL}, stop and start it"
        return Blocked(f"exec in '{mark.id}'", f"its config, which has no guest agent: {ways}")
    if _SILENT.search(said):
        return Blocked(f"exec in '{mark.id}'", f"its guest agent, which does not answer: {_INSTALL}")
    if _STOPPED.search(said):
        return IllegalTransition(mark.id, "exec", "stopped", reason="it has no process")
    return _unclear(mark, 5, said, node)


def _unclear(mark: Mark, status: int | None, said: str, node: str) -> NexcageError:
    failed = CommandFailed(node, ("exec", mark.id), status or 0, said)
    failed.uncertain = (
        "Failed to execute child process" not in said
    )  # what the agent says of a program that is not there
    return failed
