r"""One hook of a bundle, run on a node: exactly its argv and environment, the state on its standard input, and no longer than its time.

Perl of ``perl-base``, because a shell cannot give a program another name than its path, nor wait with a deadline for it alone. What
is to be run comes by standard input (an environment may hold secrets): records of a tag, a length of 32 bits, the value and a NUL. The hook
is in a session of its own; when its time is over its whole process group is killed, and given a second to be gone. Only the hook itself is
waited for: what it left running in the background may hold its output open as long as it likes.
"""

from __future__ import annotations

import struct
from typing import Any

from nexcage._core.bundle_plan.model import Call
from nexcage._core.command import Command, Result, nothing, shown
from nexcage.errors import CommandFailed, NexcageError

__all__ = ["HOOK", "records", "run"]

FAILED = 7
_SLACK = 60.0  # seconds beyond its own timeout: then the link or the node is the trouble
_FOREVER = 24 * 3600.0

HOOK = r"""command -v perl >/dev/null || { echo 'nexcage: there is no perl, which hooks need' >&2; exit 6; }
exec perl -e '
use strict; use POSIX ();
local $/; binmode STDIN;
my ($in, %one, @argv, @env) = (scalar <STDIN>);
while (length $in >= 6) {
    my ($tag, $length) = unpack "aV", $in;
    my $value = substr $in, 5, $length;
    substr($in, 0, 6 + $length) = "";
    if ($tag eq "h") { push @argv, $value } elsif ($tag eq "v") { push @env, $value } else { $one{$tag} = $value }
}
my $once;
sub refuse {
    my $said = "nexcage: $one{n} hook \"$one{H}\" failed: $_[0]\n";
    syswrite $once, $said if $once;
    print STDERR $said;
    exit 7;
}
exists $one{z} or do { print STDERR "nexcage: the hook came incomplete\n"; exit 6 };
if (length $one{o}) {
    my $noted = ($ENV{NEXCAGE_NODE_ROOT} // "") . $one{o};
    if (!sysopen $once, $noted, 193, 0600) {
        refuse("cannot note it: $!") if !$!{EEXIST};
        open my $before, "<", $noted; my $said = <$before> // "";
        print STDERR length $said ? $said : "nexcage: it was begun before, and is not run again\n"; exit(length $said ? 7 : 0);
    }
}
my ($path, $state, $most) = (($ENV{NEXCAGE_NODE_ROOT} // "") . $one{H}, $one{s}, $one{t});
@argv = ($path) if !@argv;
-e $path or refuse("no such file or directory");
pipe my $stdin, my $give or refuse("no pipe: $!");
pipe my $get, my $stdout or refuse("no pipe: $!");
pipe my $wrong, my $tell or refuse("no pipe: $!");
sub now { (POSIX::times())[0] / POSIX::sysconf(POSIX::_SC_CLK_TCK()) }
my ($until, $ended, $stop, $said) = (defined $most ? now() + $most : undef, 0, 0, "");
$SIG{CHLD} = sub { $ended = 1 };
$SIG{PIPE} = "IGNORE";
$SIG{$_} = sub { $stop = 1 } for qw(TERM INT HUP);
my $pid = fork // refuse("no process: $!");
if (!$pid) {
    POSIX::setsid();
    $SIG{$_} = "DEFAULT" for qw(CHLD PIPE TERM INT HUP);
    my $root = $ENV{NEXCAGE_NODE_ROOT} // ""; # the processes of a simulated node have no namespaces
    for my $kind (length $one{p} && (!length $root || -e "$root/proc/$one{p}/ns") ? split(/,/, $one{k}) : ()) {
        my $no = "namespace $kind of process $one{p}";
        open my $space, "<", "$root/proc/$one{p}/ns/$kind" or do { syswrite $tell, "$no: $!"; POSIX::_exit(127) };
        my $number = (POSIX::uname())[4] eq "x86_64" ? 308 : 268;
        syscall($number, fileno $space, 0) == 0 or do { syswrite $tell, "$no: $!"; POSIX::_exit(127) };
    }
    POSIX::dup2(fileno $stdin, 0); POSIX::dup2(fileno $stdout, 1); POSIX::dup2(fileno $stdout, 2);
    chdir $one{c} or chdir "/";
    %ENV = (); for (@env) { my ($name, $value) = split /=/, $_, 2; $ENV{$name} = $value if defined $value }
    no warnings;
    exec { $path } @argv;
    syswrite $tell, lc "$!"; POSIX::_exit(127);
}
close $_ for $stdin, $stdout, $tell;
my $flags = fcntl $give, 3, 0; fcntl $give, 4, $flags | 2048;
my ($giving, $getting, $status) = (1, 1);
sub take {
    my $n = sysread $get, my $some, 65536;
    if ($n) { $said .= $some; $said = substr $said, -4096 if length $said > 4096 } elsif (defined $n) { $getting = 0 }
}
while (1) {
    if (waitpid($pid, 1) == $pid) { $status = $?; last }
    if ($stop || defined $until && now() >= $until) {
        kill "KILL", -$pid; kill "KILL", $pid; waitpid $pid, 0;
        for (1 .. 100) { last if !kill 0, -$pid; select undef, undef, undef, 0.01 } # a killed process ends in its own time
        refuse($stop ? "it was interrupted" : "it took longer than its timeout of $most s");
    }
    my ($reading, $writing) = ("", "");
    vec($reading, fileno $get, 1) = 1 if $getting;
    vec($writing, fileno $give, 1) = 1 if $giving;
    my $left = defined $until ? $until - now() : 1; $left = 0.1 if $left > 0.1; $left = 0 if $left < 0;
    next if select($reading, $writing, undef, $left) <= 0;
    take() if $getting && vec $reading, fileno $get, 1;
    if ($giving && vec $writing, fileno $give, 1) {
        my $n = syswrite $give, $state;
        if (defined $n) { substr($state, 0, $n) = "" } elsif (!$!{EAGAIN}) { $state = "" }
        if (!length $state) { close $give; $giving = 0 }
    }
}
while ($getting) { my $ready = ""; vec($ready, fileno $get, 1) = 1; last if select($ready, undef, undef, 0) <= 0; take() }
my $why = "";
{ my $ready = ""; vec($ready, fileno $wrong, 1) = 1; sysread $wrong, $why, 4096 if select($ready, undef, undef, 0) > 0 }
print STDERR $said, length $said && $said !~ /\n\z/ ? "\n" : "";
refuse($why) if length $why;
refuse("signal " . ($status & 127)) if $status & 127;
refuse("exit status " . ($status >> 8)) if $status;
exit 0;
' "$@"
"""


def run(
    kind: str, index: int, call: Call, state: bytes, *, cwd: str, pid: int = 0, inside: bool = False, once: str = ""
) -> Command[None]:
    """Run the hook ``index`` of ``kind`` with ``state`` on its standard input; raises CommandFailed when it fails.

    In ``cwd`` where the node has such a directory, else in ``/``. ``inside``: in the network, host name and IPC namespaces of ``pid``.
    ``once``: a file of the node that is made when it begins; where that is there already it does not run, and fails if it failed then.
    """
    limit = _FOREVER if call.timeout is None else call.timeout + _SLACK
    given = records(kind, call, state, cwd=cwd, pid=pid if inside else 0, once=once)
    argv = ("sh", "-c", HOOK, "hook", f"{kind}/{index}", call.path)
    facts = {"hook": f"{kind}/{index}"}
    return Command(argv, nothing, stdin=given, timeout=limit, tries=facts, classify=_failed)


def records(kind: str, call: Call, state: bytes, *, cwd: str, pid: int = 0, once: str = "") -> bytes:
    """The standard input of the script."""
    given = [
        (b"n", kind),
        (b"H", call.path),
        (b"c", cwd),
        (b"p", str(pid) if pid else ""),
        (b"k", "net,ipc,uts"),
        (b"o", once),
    ]
    given += [(b"h", word) for word in call.argv] + [(b"v", word) for word in call.env]
    if call.timeout is not None:
        given.append((b"t", str(call.timeout)))
    lines = [(tag, text.encode("utf-8", "surrogateescape")) for tag, text in given]
    return b"".join(
        tag + struct.pack("<I", len(data)) + data + b"\0" for tag, data in [*lines, (b"s", state), (b"z", b"")]
    )


def _failed(command: Command[Any], result: Result, node: str) -> NexcageError:
    return CommandFailed(node, ("hook", *command.argv[4:]), result.exit or 1, shown(result.stderr))
