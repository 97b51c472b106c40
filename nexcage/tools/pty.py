"""A terminal on the node: between the streams of a command and a pseudo-terminal stands a small Perl program.

Its input is frames, so that the size of the window can change while letters are typed: a kind (``d`` data, ``w`` window), four
bytes of length, the payload; a window is ``ROWS COLS`` in decimal. What the program on the terminal prints comes out as it is.
Modules of perl-base only, like the runner.
"""

from __future__ import annotations

from struct import Struct

__all__ = ["PTY", "data", "unframed", "window"]

PTY = r"""use strict; use POSIX ();
my ($rows, $cols, @command) = @ARGV;
sysopen my $master, '/dev/ptmx', 0x102 or die "nexcage: no terminal: $!\n";
my ($zero, $number) = (pack('i', 0)) x 2;
ioctl $master, 0x40045431, $zero   or die "nexcage: cannot unlock a terminal: $!\n";
ioctl $master, 0x80045430, $number or die "nexcage: a terminal without a name: $!\n";
sub window { my $size = pack 'S4', @_, 0, 0; ioctl $master, 0x5414, $size }
window($rows, $cols);
my $child = fork // die "nexcage: no process: $!\n";
if (!$child) {
    POSIX::setsid();
    sysopen my $slave, '/dev/pts/' . unpack('i', $number), 2 or die "nexcage: no terminal: $!\n";
    ioctl $slave, 0x540E, 0;
    POSIX::dup2(fileno $slave, $_) for 0 .. 2;
    POSIX::close($_) for 3 .. 20;
    exec { $command[0] } @command or POSIX::_exit(127);
}
my ($end, $left) = (0, 0);
$SIG{PIPE} = 'IGNORE';
$SIG{CHLD} = sub { };
$SIG{$_} = sub { $end ||= 1 } for qw(TERM INT HUP);
my ($in, $typed, $open, $status) = ('', '', 1);
while (1) {
    if ($end == 1) { kill 'HUP', -$child; kill 'CONT', -$child; ($end, $left) = (2, 5) }
    elsif ($end && !$left--) { kill 'KILL', -$child }
    $status = $? if !defined $status && waitpid($child, 1) == $child;
    my ($reading, $writing) = ('', '');
    vec($reading, 0, 1) = 1 if $open && length $typed < 65536;
    vec($reading, fileno $master, 1) = 1;
    vec($writing, fileno $master, 1) = 1 if length $typed;
    my $ready = select $reading, $writing, undef, $end || defined $status ? 0.1 : 1;
    next if $ready < 0;
    last if !$ready && defined $status;
    if ($open && vec $reading, 0, 1) {
        my $n = sysread STDIN, $in, 65536, length $in;
        if (!$n && !(!defined $n && $!{EINTR})) { $open = 0; $typed .= "\cD" }
        while (length $in >= 5) {
            my ($kind, $length) = unpack 'aN', $in;
            last if length $in < 5 + $length;
            my $payload = substr $in, 5, $length;
            substr($in, 0, 5 + $length) = '';
            if    ($kind eq 'd')                             { $typed .= $payload }
            elsif ($kind eq 'w' && $payload =~ /^(\d+) (\d+)$/) { window($1, $2) }
        }
    }
    if (vec $writing, fileno $master, 1) {
        my $n = syswrite $master, substr $typed, 0, 1024;
        substr($typed, 0, $n) = '' if $n;
    }
    if (vec $reading, fileno $master, 1) {
        my $n = sysread $master, my $said, 65536;
        if (!$n && !(!defined $n && $!{EINTR})) { $status //= (waitpid($child, 0), $?)[1]; last }
        my $at = 0;
        while ($n && $at < $n) { $at += syswrite(STDOUT, $said, $n - $at, $at) // ($!{EINTR} ? 0 : last) }
    }
}
POSIX::_exit($status & 127 ? 128 + ($status & 127) : $status >> 8);
"""

_HEAD = Struct(">cI")
_MOST = 1 << 20


def data(typed: bytes) -> bytes:
    """What was typed, as a frame."""
    return _HEAD.pack(b"d", len(typed)) + typed


def window(rows: int, columns: int) -> bytes:
    """The size of the window has changed."""
    size = b"%d %d" % (rows, columns)
    return _HEAD.pack(b"w", len(size)) + size


def unframed(stream: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The whole frames of ``stream`` as (kind, payload), and what is left; raises ValueError for what is none."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while len(stream) - at >= _HEAD.size:
        kind, length = _HEAD.unpack_from(stream, at)
        if kind not in (b"d", b"w") or length > _MOST:
            raise ValueError("not a frame of a terminal's input")
        end = at + _HEAD.size + length
        if end > len(stream):
            break
        found.append((kind, stream[at + _HEAD.size : end]))
        at = end
    return found, stream[at:]
