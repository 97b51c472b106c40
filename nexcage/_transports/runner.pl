# The runner: many commands of a driver on one channel, and claims that outlive it. The protocol is in docs/runner.md, the
# claim directories in nexcage/tools/claims.py. Runs from `perl -e`, on nothing but perl-base; nothing of it is installed.
#
# One process, one select loop, no call that blocks on anybody. Beside it: a warden, which ends what the runner leaves behind
# when it is killed; a supervisor for each claimed command, which goes on when everything else is gone; a sweep now and then.
#
# What a command costs is mostly memory: a fork copies the tables of all pages, and each page that is written afterwards is
# copied, in both processes. So: few modules, and little done between a fork and an exec, or after a fork.
use strict;
BEGIN { $^W = 1 }                                                      # what `use warnings` says, without 300 KB of it
BEGIN { require XSLoader; XSLoader::load($_) for qw(Fcntl POSIX) }    # their C parts; of the rest, 800 KB, nothing is used

my $PROTOCOL = 1;
my $WINDOW   = 256 * 1024;          # bytes of a streamed command that nobody has taken yet
my $PIECE    = 64 * 1024;           # of output in one frame
my $LONGEST  = (1 << 20) + 64;      # frame that we take
my $MOST     = 256;                 # commands at once
my $INPUT    = 64 << 20;            # bytes of input that wait for one command
my $KEPT     = 6 * 3600;            # seconds that an ended claim stays
my $GRACE    = 1;                   # seconds between TERM and KILL
my $DRAIN    = 1;                   # seconds of silence that end output which somebody holds open, 5 of them at most
my $BEAT     = $ARGV[2] || 15;      # the driver pings so often; after 4 times that without a word it is gone
my @TOOLS    = qw(pct qm zfs crun runc lxc-info);
my $PIDFD_OPEN = 434;               # the same on every architecture; perl has no name for them
my $CLOSE_RANGE = 436;

my $ROOT = $ENV{NEXCAGE_NODE_ROOT} // '';
my $OPS  = "$ROOT/run/nexcage-ops";
my %BASE = (PATH => $ENV{PATH} || '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME => $ENV{HOME} || '/', LC_ALL => 'C');
$BASE{NEXCAGE_NODE_ROOT} = $ROOT if $ROOT ne '';
%ENV = %BASE;                       # here, where it is done once, and not in each process
my $UMASK = umask 077;              # what is made here is ours alone; a command gets the login's
open my $void, '+<', '/dev/null' or die "/dev/null: $!\n";
my $HZ = POSIX::sysconf(POSIX::_SC_CLK_TCK()) || 100;

sub now { (POSIX::times())[0] / $HZ }    # of a clock that nobody sets

sub slurp {
    my ($path, $most) = @_;
    open my $file, '<:raw', $path or return undef;
    my $text = '';
    while (sysread $file, $text, $most ? $most - length $text : 65536, length $text) { last if $most && length $text >= $most }
    return $text;
}

sub uptime { (slurp('/proc/uptime', 64) // '0') =~ /^([0-9.]+)/ ? $1 : 0 }
sub boot_id { (slurp("$ROOT/proc/sys/kernel/random/boot_id", 64) // '') =~ /^(\S+)/ ? $1 : '' }

# Whether a process lives, and when it started (in ticks): what tells it from a later one with the same number.
sub started {
    my ($pid) = @_;
    open my $file, '<:raw', "/proc/$pid/stat" or return '';
    sysread $file, my $stat, 4096 or return '';
    my @word = split ' ', substr($stat, rindex($stat, ')') + 1), 21;
    return @word > 19 && $word[0] !~ /[ZX]/ ? $word[19] : '';
}

# --- The loop: who waits for which descriptor, and until when.

my ($rbits, $wbits) = ('', '');
my ($on_read, $on_write, $timer) = ({}, {}, {});
my $timers = 0;

sub reading { my ($fd, $do) = @_; $on_read->{$fd}  = $do; vec($rbits, $fd, 1) = 1 }
sub writing { my ($fd, $do) = @_; $on_write->{$fd} = $do; vec($wbits, $fd, 1) = 1 }
sub deaf    { my ($fd) = @_; if (delete $on_read->{$fd})  { vec($rbits, $fd, 1) = 0 } }
sub mute    { my ($fd) = @_; if (delete $on_write->{$fd}) { vec($wbits, $fd, 1) = 0 } }
sub after   { my ($seconds, $do) = @_; $timer->{++$timers} = [now() + $seconds, $do]; return $timers }
sub forget  { delete $timer->{$_[0]} if $_[0]; return 0 }

sub turn {
    my ($longest) = @_;
    my $until = now() + $longest;
    for (values %$timer) { $until = $_->[0] if $_->[0] < $until }
    my ($r, $w) = ($rbits, $wbits);
    my $wait = $until - now();
    my $ready = select $r, $w, undef, $wait > 0 ? $wait + 0.002 : 0;
    if ($ready > 0) {
        # A handler may close a descriptor whose number the next one is given: only those that were asked about are called.
        my @todo = ((map { vec($r, $_, 1) ? [$on_read, $_, $on_read->{$_}] : () } keys %$on_read),
            (map { vec($w, $_, 1) ? [$on_write, $_, $on_write->{$_}] : () } keys %$on_write));
        for (@todo) {
            my ($table, $fd, $do) = @$_;
            $do->() if ($table->{$fd} // 0) == $do;
        }
    }
    my $now = now();
    for my $id (keys %$timer) {
        next unless $timer->{$id} && $timer->{$id}[0] <= $now;
        (delete $timer->{$id})->[1]->();
    }
}

sub unblock { my ($file) = @_; fcntl $file, Fcntl::F_SETFL, (fcntl $file, Fcntl::F_GETFL, 0) | Fcntl::O_NONBLOCK }

# Call back when a process has ended. It stays a zombie: whoever asked has to reap it, so its number is nobody else's till then.
sub watch {
    my ($pid, $do) = @_;
    my $fd = syscall $PIDFD_OPEN, $pid + 0, 0;
    if ($fd >= 0) {
        reading($fd, sub { deaf($fd); POSIX::close($fd); $do->() });
        return;
    }
    my $look;
    $look = sub { if (started($pid) eq '') { undef $look; $do->() } else { after(0.02, $look) } };
    $look->();
}

# A new process, in a session of its own. A TERM sent to it before it is ready waits for it. Our other signals have handlers that
# do nothing, since those end by themselves at an exec, and what is ignored goes on to be.
my $TERM = POSIX::SigSet->new(POSIX::SIGTERM());

sub process {
    my ($body) = @_;
    POSIX::sigprocmask(POSIX::SIG_BLOCK(), $TERM);
    my $pid = fork;
    if (defined $pid && !$pid) {
        eval {
            POSIX::setsid();
            $body->();
        };
        POSIX::_exit(120);
    }
    POSIX::sigprocmask(POSIX::SIG_UNBLOCK(), $TERM);
    return $pid;
}

sub ready { POSIX::sigprocmask(POSIX::SIG_UNBLOCK(), $TERM) }

# In a new process that stays this program: let go of the session's descriptors and of everybody else's. Perl counts who uses a
# descriptor: one that it has open and that is only closed by number would stay open when its number is used again.
# The tables are kept as they are, unused: to free them would be to copy them.
my ($alone, @left);
my %command;              # number => what runs
my %claim;                # directory => the claim that is waited for here, with its askers
my ($warden, $warden_pid, $waker);

sub alone {
    $alone = 1;
    POSIX::dup2(fileno $void, $_) for 0 .. 2;
    close $_ for grep { defined } $warden, $waker, (map { @$_{qw(o e feed)} } values %command), map { $_->{life} } values %claim;
    my $from = 3;
    for (sort { $a <=> $b } map { fileno $_ } $void, @_) { let_go($from, $_ - 1); $from = $_ + 1 }
    let_go($from, 0xffffffff);
    @left = ($on_read, $on_write, $timer);
    ($rbits, $wbits, $on_read, $on_write, $timer) = ('', '', {}, {}, {});
}

sub let_go {
    my ($from, $to) = @_;
    return if $from > $to || syscall($CLOSE_RANGE, $from, $to, 0) == 0;
    opendir my $dir, '/proc/self/fd' or POSIX::_exit(120);    # a kernel before 5.9
    my @open = grep { /^\d+$/ && $_ >= $from && $_ <= $to } readdir $dir;
    closedir $dir;
    POSIX::close($_) for @open;
}

sub mortal { $SIG{$_} = 'DEFAULT' for qw(TERM HUP INT PIPE) }

# --- The warden: told of every command of ours; when the runner is gone and has not taken them back, it ends them.
# What it is told stays in a pipe, and it sleeps on another one, until that ends or the first is about to be full.

my ($unread, $untold) = (0, '');

sub start_warden {
    pipe(my $notes, my $pen) or return;
    pipe(my $ear, my $mouth) or return;
    $warden_pid = process(sub { alone($notes, $ear); mortal(); ready(); $0 = 'nexcage warden'; guard($notes, $ear) }) or return;
    unblock($_) for $pen, $mouth;
    ($warden, $waker) = ($pen, $mouth);
}

sub guard {
    my ($notes, $ear) = @_;
    my ($text, $awake, %live) = ('', 1);
    unblock($notes);
    while ($awake) {
        my $n = sysread $ear, my $call, 4096;
        next if !defined $n && $! == POSIX::EINTR;
        $awake = $n;
        while (sysread $notes, $text, 65536, length $text) { }
        while ($text =~ s/^([-+])(\d+) (\w+)\n//) { if ($1 eq '+') { $live{$2} = $3 } else { delete $live{$2} } }
    }
    for (keys %live) { kill 'TERM', $live{$_} eq 'kill' ? -$_ : $_ }
    my @kill = grep { $live{$_} eq 'kill' } keys %live;
    for (1 .. 10) { @kill = grep { kill 0, -$_ } @kill; last unless @kill; select undef, undef, undef, 0.1 * $GRACE }
    kill 'KILL', map { -$_ } @kill if @kill;
    POSIX::_exit(0);
}

# A command's beginning is said twice: by its own process, which has the warden's pipes open till its exec, so that a runner that
# is killed meanwhile leaves nothing; and by us, who say it later when the pipe is full.
sub enlist { my ($p) = @_; syswrite $warden, "+$$ $p->{cancel}\n" if $warden && !$p->{supervised} }

sub tell_warden {
    my ($sign, $p) = @_;
    return if !$warden || $p->{supervised};
    $untold .= "$sign$p->{pid} $p->{cancel}\n";
    my $n = syswrite($warden, $untold) || 0;
    substr $untold, 0, $n, '';
    $unread += 2 * $n;
    if ($unread > 32768 || length $untold) { $unread = 0; syswrite $waker, '.' }
}

# --- A process of a command: its pipes, its deadline, its end. The session and the supervisors use it alike.
# Fields given: argv env cancel timeout cap stream in (input so far) open (more input comes); over() is called once, at its end.

sub begin {
    my ($p) = @_;
    my ($stdin, $feed);
    my $piped = $p->{open} || length $p->{in};
    my ($out, $err, $out_end, $err_end);
    pipe $out, $out_end and pipe $err, $err_end or return "no pipe: $!";
    if ($piped) { pipe $stdin, $feed or return "no pipe: $!" }
    my $pid = process(sub {
        POSIX::dup2(fileno($stdin || $void), 0);
        POSIX::dup2(fileno $out_end, 1);
        POSIX::dup2(fileno $err_end, 2);
        umask $UMASK;
        $ENV{$_} = $p->{env}{$_} for keys %{ $p->{env} };
        $SIG{TERM} = 'DEFAULT';
        $^W = 0;
        enlist($p);
        ready();
        exec { $p->{argv}[0] } @{ $p->{argv} } or
        my ($exit, $why) = $! == POSIX::ENOENT || $! == POSIX::ENOTDIR ? (127, 'not found') : (126, "$!");
        my $said = "$p->{argv}[0]: $why\n";
        POSIX::write(2, $said, length $said);
        POSIX::_exit($exit);
    });
    return "no process: $!" unless defined $pid;
    $p->{pid}   = $pid;
    $p->{began} = now();
    tell_warden('+', $p);
    $p->{left}  = 5 * $DRAIN;
    $p->{kept}  = { map { $_ => { head => '', tail => '', total => 0 } } 'o', 'e' };
    for my $kind ('o', 'e') {
        my $pipe = $p->{$kind} = $kind eq 'o' ? $out : $err;
        fcntl $pipe, Fcntl::F_SETFL, Fcntl::O_NONBLOCK;    # who has the other end can open this one too, and be the first to read
        reading(fileno $pipe, $p->{read}{$kind} = sub { take($p, $kind) });
    }
    if ($feed) { unblock($feed); $p->{feed} = $feed; feed($p) }
    watch($pid, sub { $p->{ended} = 1; $p->{deadline} = forget($p->{deadline}); rest($p) });
    $p->{deadline} = after($p->{timeout}, sub { $p->{late} = 1; finish_off($p) }) if defined $p->{timeout};
    return '';
}

sub take {
    my ($p, $kind) = @_;
    my $data;
    my $n = sysread $p->{$kind}, $data, $PIECE;
    return if !defined $n && ($! == POSIX::EAGAIN || $! == POSIX::EINTR);
    if (!$n) { hang_up($p, $kind); return rest($p) }
    if ($p->{stream}) {
        out($kind, $p->{n}, $data);
        $p->{owed} += $n;
        listen_up($p);
    }
    else { keep($p->{kept}{$kind}, $p->{cap}, $data) }
    if ($p->{ended}) { pause_drain($p); drain($p) }
}

# The first half and the last half of the cap; trimmed only at twice the room, so each byte is moved once or twice.
sub keep {
    my ($k, $cap) = @_;
    my $head = $cap - int $cap / 2;
    my $tail = int $cap / 2;
    $k->{total} += length $_[2];
    my $room = $head - length $k->{head};
    my $used = 0;
    if ($room > 0) { $k->{head} .= substr $_[2], 0, $room; $used = $room }
    return if $used >= length $_[2] || !$tail;
    $k->{tail} .= $used ? substr $_[2], $used : $_[2];
    $k->{tail} = substr $k->{tail}, -$tail if length $k->{tail} > 2 * $tail + $PIECE;
}

sub kept {
    my ($k, $cap) = @_;
    my $tail = int $cap / 2;
    substr $k->{tail}, 0, -$tail, '' if $tail && length $k->{tail} > $tail;
    return $k->{total} - length($k->{head}) - length $k->{tail};
}

sub hang_up {
    my ($p, $kind) = @_;
    my $pipe = delete $p->{$kind} or return;
    deaf(fileno $pipe);
    close $pipe;
}

# Read a streamed command's pipes only while its reader keeps up.
sub listen_up {
    my ($p) = @_;
    my $full = $p->{stream} && $p->{owed} >= $WINDOW;
    for my $kind (grep { $p->{$_} } 'o', 'e') {
        my $fd = fileno $p->{$kind};
        if ($full) { deaf($fd) } elsif (!$on_read->{$fd}) { reading($fd, $p->{read}{$kind}) }
    }
    $p->{full} = $full;
}

sub feed {
    my ($p) = @_;
    my $pipe = $p->{feed} or return;
    while (length $p->{in}) {
        my $n = syswrite $pipe, $p->{in}, $PIECE;
        if (!defined $n) {
            next if $! == POSIX::EINTR;
            if ($! == POSIX::EAGAIN) { writing(fileno $pipe, sub { feed($p) }); return }
            return starve($p);    # it does not read: its own affair
        }
        substr $p->{in}, 0, $n, '';
        $p->{taken} += $n;
    }
    mute(fileno $pipe);
    starve($p) unless $p->{open};
}

sub starve {
    my ($p) = @_;
    my $pipe = delete $p->{feed} or return;
    $p->{taken} += length $p->{in};
    $p->{in} = '';
    mute(fileno $pipe);
    close $pipe;
}

# After its end, what it started may hold its output open: that is waited for while there is output, and not for ever.
sub rest {
    my ($p) = @_;
    return if $p->{over_} || !$p->{ended};
    if ($p->{o} || $p->{e}) { pause_drain($p); return drain($p) }
    settle($p);
}

sub drain {
    my ($p) = @_;
    return if $p->{full} || $p->{over_};
    my $wait = $p->{left} < $DRAIN ? $p->{left} : $DRAIN;
    $p->{drained} = now();
    $p->{drain} = after($wait, sub { hang_up($p, $_) for 'o', 'e'; settle($p) });
}

sub pause_drain {
    my ($p) = @_;
    return unless $p->{drain};
    $p->{drain} = forget($p->{drain});
    $p->{left} -= now() - $p->{drained};
    $p->{left} = 0 if $p->{left} < 0;
}

# It has ended, its output too: reap it. In class kill nothing of its group stays after a deadline or a cancel.
sub settle {
    my ($p) = @_;
    return if $p->{over_}++;
    kill 'KILL', -$p->{pid} if $p->{ending} && $p->{cancel} eq 'kill';
    forget($p->{$_}) for qw(deadline grace drain lost);
    starve($p);
    tell_warden('-', $p);
    my $status = waitpid($p->{pid}, 0) == $p->{pid} ? $? : -1;
    my $signal = $status & 127;
    $p->{signalled} = $status >= 0 && $signal ? 1 : 0;
    $p->{exit}      = $status < 0 ? '-' : $signal ? 128 + $signal : $status >> 8;
    $p->{seconds}   = sprintf '%.2f', now() - $p->{began};
    $p->{dropped}   = kept($p->{kept}{o}, $p->{cap}) + kept($p->{kept}{e}, $p->{cap});
    $p->{over}->($p);
}

# End it by its class. Afterwards it always comes to `settle`, but in class term only when the tool wants to.
sub finish_off {
    my ($p) = @_;
    return if $p->{ending}++ || $p->{over_};
    if ($p->{stream}) { $p->{stream} = 0; listen_up($p); rest($p) }    # what comes now is kept for the answer
    if ($p->{cancel} eq 'term') {
        kill 'TERM', $p->{pid} unless $p->{ended};
        $p->{lost} = after($p->{patience}, sub { $p->{lost} = 0; $p->{given_up}->($p) if $p->{given_up} });
        return;
    }
    # Before it has its own session it is in nobody's group.
    kill 'TERM', -$p->{pid} or kill 'TERM', $p->{pid};
    $p->{grace} = after($GRACE, sub { $p->{grace} = 0; kill 'KILL', -$p->{pid} or kill 'KILL', $p->{pid} });
}

# --- Frames.

my ($inbuf, $outbuf) = ('', '');
my @results;              # answers on their way out: long ones go in pieces, in turns
my $session = 1;          # until the driver is gone
my $heard = now();
my $told = 0;             # by a signal, to end

sub out { my ($kind, $n, $payload) = @_; $outbuf .= pack('N a1 N', length($payload) + 5, $kind, $n) . $payload if $session }

sub answer {
    my ($n, $fields, $attached, $outlen, @data) = @_;
    my $left = 0;
    $left += length $_ for @data;
    push @results, { n => $n, head => join("\0", @$fields, $outlen, $attached, ''), data => \@data, left => $left, at => 0 };
}

# Put frames of waiting answers into the buffer, but never so many that memory would notice.
sub pump {
    while (@results && length $outbuf < 4 * $PIECE) {
        my $r = shift @results;
        if ($r->{left} <= $PIECE - length $r->{head}) {
            $r->{data}[0] = substr $r->{data}[0], $r->{at} if @{ $r->{data} };
            out('X', $r->{n}, join '', $r->{head}, @{ $r->{data} });
            next;
        }
        my $piece = substr $r->{data}[0], $r->{at}, $PIECE;
        $r->{at} += length $piece;
        $r->{left} -= length $piece;
        if ($r->{at} >= length $r->{data}[0]) { shift @{ $r->{data} }; $r->{at} = 0 }
        out('C', $r->{n}, $piece) if length $piece;
        push @results, $r;
    }
}

sub flush {
    for my $p (values %command) {
        next unless $p->{credits} && $p->{taken};
        out('W', $p->{n}, "$p->{taken}\0");
        $p->{taken} = 0;
    }
    while (1) {
        pump();
        last unless length $outbuf;
        my $n = syswrite STDOUT, $outbuf;
        if (!defined $n) {
            next if $! == POSIX::EINTR;
            if ($! == POSIX::EAGAIN) { writing(1, sub { }); return }
            return hush();
        }
        substr $outbuf, 0, $n, '';
    }
    mute(1);
}

sub quit { my ($why) = @_; out('Q', 0, "$why\0"); farewell(); hush() }

# What is still to be said, if somebody listens within a second.
sub farewell {
    my $until = now() + 1;
    my $bits = '';
    vec($bits, 1, 1) = 1;
    while (length $outbuf && now() < $until) {
        my $w = $bits;
        select undef, $w, undef, 0.1;
        my $n = syswrite STDOUT, $outbuf;
        last if !defined $n && $! != POSIX::EAGAIN && $! != POSIX::EINTR;
        substr $outbuf, 0, $n, '' if $n;
    }
}

# The session is over: commands without a claim are ended by their class, and then we go too.
sub hush {
    return unless $session;
    $session = 0;
    ($inbuf, $outbuf, @results) = ('', '');
    deaf(0);
    mute(1);
    POSIX::dup2(fileno $void, $_) for 0 .. 2;
    for my $p (values %command) {
        if ($p->{claimed} || !$p->{pid}) { delete $command{ $p->{n} } } else { finish_off($p) }
    }
    %claim = ();
}

sub hear {
    my $n = sysread STDIN, $inbuf, 256 * 1024, length $inbuf;
    return if !defined $n && ($! == POSIX::EAGAIN || $! == POSIX::EINTR);
    return hush() unless $n;
    $heard = now();
    my $at = 0;
    while (length($inbuf) - $at >= 4) {
        my $length = unpack 'N', substr $inbuf, $at, 4;
        return quit("a frame of $length bytes") if $length < 5 || $length > $LONGEST;
        last if length($inbuf) - $at < 4 + $length;
        my ($kind, $number) = unpack 'a1 N', substr $inbuf, $at + 4, 5;
        my $why = obey($kind, $number, substr $inbuf, $at + 9, $length - 5);
        return quit($why) if $why;
        return unless $session;
        $at += 4 + $length;
    }
    substr $inbuf, 0, $at, '' if $at;
}

sub obey {
    my ($kind, $n, $payload) = @_;
    if ($kind eq 'R') { return order($n, $payload) }
    if ($kind eq 'P') { out('p', $n, $payload); return '' }
    return "no such kind of frame: " . sprintf '%02x', ord $kind if $kind !~ /^[IEWK]$/;
    my $p = $command{$n} or return '';    # it has ended meanwhile
    if ($kind eq 'K') { cancel($p); return '' }
    if ($kind eq 'W') {
        return 'a credit that is not a number' unless $payload =~ /^(\d{1,15})\0$/;
        return '' unless $p->{stream};
        $p->{owed} -= $1;
        return 'more credit than output' if $p->{owed} < 0;
        listen_up($p);
        rest($p) if !$p->{full} && $p->{ended} && !$p->{drain};
        return '';
    }
    return $kind eq 'I' ? input($p, $payload) : end_input($p);
}

sub input {
    my ($p, $data) = @_;
    if ($p->{wanted}) {
        return 'more input than announced' if length($p->{in}) + length $data > $p->{wanted};
        $p->{in} .= $data;
        if (length $p->{in} == $p->{wanted}) { $p->{wanted} = 0; go($p) }
        return '';
    }
    return 'input for a command that takes none' unless $p->{credits};
    return 'input after its end' unless $p->{open};
    return 'too much input' if length($p->{in}) + length $data > $INPUT;
    if ($p->{feed}) { $p->{in} .= $data; feed($p) } else { $p->{taken} += length $data }
    return '';
}

sub end_input {
    my ($p) = @_;
    return '' unless $p->{credits};
    $p->{open} = 0;
    feed($p);
    return '';
}

sub cancel {
    my ($p) = @_;
    if ($p->{wanted}) { delete $command{ $p->{n} }; return refuse($p->{n}, 'full', 'it was ended before it began') }
    if ($p->{claimed}) { end_claim($p) } else { finish_off($p) }
}

sub refuse { my ($n, $kind, $why) = @_; out('N', $n, join "\0", $kind, substr($why, 0, 1000), ''); return '' }

# --- A new command.

sub fields {
    my ($text, $at) = @_;
    my @found;
    my $left = 1;
    my $first = 1;
    while ($left > 0) {
        my $end = index $$text, "\0", $$at;
        return undef if $end < 0;
        my $word = substr $$text, $$at, $end - $$at;
        $$at = $end + 1;
        if ($first) {
            return undef unless $word =~ /^\d{1,6}$/;
            ($first, $left) = (0, $word);
            next;
        }
        push @found, $word;
        $left--;
    }
    return \@found;
}

my %OPTION = (
    cancel => qr/^(?:kill|term)$/, timeout => qr/^\d{1,9}(?:\.\d+)?$/, cap => qr/^\d{1,10}$/, patience => qr/^\d{1,9}(?:\.\d+)?$/,
    stream => qr/^[01]$/, claim => qr/^/, id => qr/^/, boot => qr/^/, epoch => qr/^\d{1,18}$/, seq => qr/^\d{1,18}$/, stdin => qr/^\d{1,12}$/,
);

sub order {
    my ($n, $payload) = @_;
    my $at = 0;
    my ($options, $env, $argv) = map { fields(\$payload, \$at) // return 'a command that cannot be read' } 1 .. 3;
    return 'a number that is taken' if !$n || $command{$n};
    my $p = { n => $n, cancel => 'kill', cap => 1 << 20, patience => 90, stream => 0, epoch => 0, seq => 0, owed => 0, taken => 0, late => 0 };
    for (@$options) {
        my ($name, $value) = split /=/, $_, 2;
        return "no such option: $name" unless defined $value && $OPTION{$name} && $value =~ $OPTION{$name};
        $p->{$name} = $value;
    }
    for (@$env) { /^([^=]+)=(.*)$/s or return 'an environment that cannot be read'; $p->{env}{$1} = $2 }
    return 'a command without a program' if !@$argv || $argv->[0] eq '';
    @$p{qw(env argv in)} = ($p->{env} || {}, $argv, substr $payload, $at);
    return refuse($n, 'full', "it runs $MOST commands already") if keys(%command) + @results >= $MOST;
    $p->{wanted} = delete $p->{stdin};
    if ($p->{wanted}) {
        return 'a stream with its input announced' if $p->{stream};
        return refuse($n, 'invalid', "more than $INPUT bytes of input") if $p->{wanted} > $INPUT;
    }
    if (defined $p->{claim}) {
        return refuse($n, 'invalid', 'a claim cannot be streamed') if $p->{stream};
        return refuse($n, 'invalid', 'no such claim name') unless named($p);
    }
    $command{$n} = $p;
    $p->{open} = $p->{credits} = $p->{stream};
    go($p) unless $p->{wanted};
    return '';
}

sub named {
    my ($p) = @_;
    my ($fleet, $step) = $p->{claim} =~ m{^([^/]+)/([^/]+\.\d+)$} or return 0;
    for ($fleet, $step, $p->{id} // 'none') { return 0 if /^\.|[\/\n]/ || $_ eq '' || length > 200 }
    $p->{fleet} = $fleet;
    return 1;
}

sub go {
    my ($p) = @_;
    return claim($p) if defined $p->{claim};
    $p->{over}     = \&reply;
    $p->{given_up} = \&abandon;
    my $why = begin($p);
    if ($why) { delete $command{ $p->{n} }; return refuse($p->{n}, 'full', $why) }
    out('B', $p->{n}, "$p->{pid}\0") if $p->{stream};
}

sub reply {
    my ($p) = @_;
    delete $command{ $p->{n} };
    return if $p->{abandoned} || !$session;
    my @data = map { @{ $p->{kept}{$_} }{ 'head', 'tail' } } 'o', 'e';
    answer($p->{n}, [@$p{qw(exit signalled dropped late seconds)}], 0, length($data[0]) + length $data[1], @data);
}

# It goes on by itself; its output is read and dropped for as long as we live, and we live as long as it does.
sub abandon {
    my ($p) = @_;
    my ($n, $k) = ($p->{n}, $p->{kept});
    kept($_, $p->{cap}) for values %$k;
    my @data = map { @{ $k->{$_} }{ 'head', 'tail' } } 'o', 'e';
    my $fields = ['-', 0, 0, $p->{late}, sprintf '%.2f', now() - $p->{began}];
    answer($n, $fields, 0, length($data[0]) + length $data[1], @data) if $session;
    @$p{qw(abandoned cap credits)} = (1, 0, 0);
    %$_ = (head => '', tail => '', total => 0) for values %$k;
    delete $command{$n};
    $command{ $p->{n} = "left $n" } = $p;
}

# --- Claims.

# True when it is there.
sub own_dir {
    my ($path) = @_;
    return mkdir($path) || ($! == POSIX::EEXIST && -d $path);
}

sub own_dirs { my ($path) = @_; return own_dir($path) || ($path =~ m{^(.+)/[^/]+$} && own_dirs($1) && own_dir($path)) }

sub claim {
    my ($p) = @_;
    my $dir = $p->{claimed} = "$OPS/$p->{claim}";
    my $c = $claim{$dir};
    if (!$c && !-l "$dir/go") {
        return turn_down($p, 'rebooted', 'it was rebooted since this operation began') if length $p->{boot} && $p->{boot} ne boot_id();
        return turn_down($p, 'claims', "cannot make $dir: $!") unless own_dirs($dir);
        pipe(my $life, my $end) or return turn_down($p, 'full', "no pipe: $!");
        my $pid = process(sub { close $life; supervise($p, $dir, $end) }) // return turn_down($p, 'full', "no process: $!");
        $p->{in} = '';
        $c = $claim{$dir} = { dir => $dir, pid => $pid, own => 1, askers => {}, life => $life };
        unblock($life);
        my $said = '';
        reading(fileno $life, sub {
            my $n = sysread $life, $said, 4096, length $said;
            return if $n || (!defined $n && ($! == POSIX::EAGAIN || $! == POSIX::EINTR));
            deaf(fileno $life);
            close $life;
            delete $c->{life};
            waitpid $pid, 0;
            return if ($claim{$dir} // 0) != $c;
            if ($said =~ /^refused (\w+) (.*)/s) { delete $claim{$dir}; turn_down($_, $1, $2) for values %{ $c->{askers} } }
            else                                 { look_up($c) }
        });
        $c->{askers}{ $p->{n} } = $p;
    }
    else {
        $p->{attached} = 1;
        $p->{in}       = '';
        my $known = $c;
        $c //= $claim{$dir} = { dir => $dir, pid => 0, askers => {} };
        $c->{askers}{ $p->{n} } = $p;
        look_up($c) unless $known;
    }
    $p->{lost} = after($p->{timeout} + patience($p), sub { $p->{late} = 1; leave($p) }) if defined $p->{timeout} && $command{ $p->{n} };
    return '';
}

sub patience { my ($p) = @_; return $p->{cancel} eq 'kill' ? $GRACE + 6 * $DRAIN : $p->{patience} }

sub turn_down { my ($p, $kind, $why) = @_; forget($p->{lost}); delete $command{ $p->{n} }; return refuse($p->{n}, $kind, $why) }

# What the directory says now; a supervisor that works there is waited for.
sub look_up {
    my ($c) = @_;
    my $go     = readlink "$c->{dir}/go";
    my @askers = values %{ $c->{askers} };
    if (!defined $go || $go eq 'void') {
        delete $claim{ $c->{dir} };
        my @why = defined $go ? ('void', 'somebody has found this step not begun and called it off') : ('full', 'it was ended before it began');
        turn_down($_, @why) for @askers;
        return;
    }
    my ($pid, $start) = $go =~ /^run:(\d+):(\d+):/ ? ($1, $2) : (0, '-');
    my $ours = $c->{own} && $pid == $c->{pid};
    # In this order: the status is written before its writer ends.
    if (!$ours && started($pid) eq $start) {
        @$c{qw(pid own)} = ($pid, 0);
        return watch($pid, sub { look_up($c) if ($claim{ $c->{dir} } // 0) == $c });
    }
    delete $claim{ $c->{dir} };
    my $status = slurp("$c->{dir}/status", 200);
    my @word = ($status // '') =~ /^(-|\d{1,3}) ([01]) (\d{1,18}) ([01]) (\d{1,15}(?:\.\d{1,9})?) [\d.]+$/;
    if (!@word) { leave($_) for @askers; return }    # there is none, or what somebody has put there is no answer
    my @data = map { slurp("$c->{dir}/$_", 0) // '' } 'out', 'err';
    for (@askers) {
        forget($_->{lost});
        delete $command{ $_->{n} };
        answer($_->{n}, [@word[0 .. 4]], $_->{attached} ? 1 : 0, length $data[0], @data);
    }
}

# The asker waits no longer; the claim goes on, or nobody knows.
sub leave {
    my ($p) = @_;
    forget($p->{lost});
    my $c = $claim{ $p->{claimed} };
    delete $c->{askers}{ $p->{n} } if $c;
    delete $command{ $p->{n} };
    answer($p->{n}, ['-', 0, 0, $p->{late}, 0], $p->{attached} ? 1 : 0, 0);
}

sub end_claim {
    my ($p) = @_;
    my $c = $claim{ $p->{claimed} } or return;
    kill 'TERM', $c->{pid} if $c->{pid};
    forget($p->{lost});
    $p->{lost} = after(patience($p), sub { leave($p) });
}

# The supervisor, in a process of its own.
sub supervise {
    my ($p, $dir, $end) = @_;
    alone($end);
    $0 = "nexcage claim $p->{claim}";
    $told = 0;
    ready();
    my $refused = win($p, $dir);
    if ($refused ne '') {
        syswrite $end, "refused $refused" if $refused ne 'taken';
        POSIX::_exit(0);
    }
    my $over = 0;
    $p->{supervised} = 1;
    $p->{over} = sub { $over = 1 };
    my $why = begin($p);
    if ($why) { @$p{qw(exit signalled dropped seconds)} = (126, 0, 0, 0); $p->{kept}{e}{head} = "$p->{argv}[0]: $why\n" }
    until ($over || $why) {
        finish_off($p) if $told;
        turn(0.5);    # a signal may come just before the select
    }
    record($p, $dir);
    POSIX::_exit(0);
}

# The fence, then the link that decides, under one lock: no older driver's command begins once a newer one's has.
sub win {
    my ($p, $dir) = @_;
    my $fence;
    if ($p->{epoch} || $p->{seq}) {
        return 'invalid a fence needs a container' unless length($p->{id} // '');
        own_dir("$OPS/$p->{fleet}/fence") or return "claims cannot make the fence: $!";
        sysopen $fence, "$OPS/$p->{fleet}/fence/$p->{id}", Fcntl::O_RDWR | Fcntl::O_CREAT, 0600 or return "claims cannot open the fence: $!";
        until (flock $fence, Fcntl::LOCK_EX) {
            return "claims cannot lock the fence: $!" if $! != POSIX::EINTR;
            last if $told;
        }
        my $text = '';
        sysread $fence, $text, 64;
        my ($epoch, $seq) = $text =~ /^(\d+) (\d+)/ ? ($1, $2) : (0, 0);
        return "fenced $epoch $seq" if $p->{epoch} < $epoch || ($p->{epoch} == $epoch && $p->{seq} < $seq);
        # One write, then the rest of what was longer: whoever is killed in between leaves a first line that is whole.
        my $pair = "$p->{epoch} $p->{seq}\n";
        sysseek $fence, 0, 0;
        (syswrite($fence, $pair) // 0) == length $pair or return "claims cannot write the fence: $!";
        truncate $fence, length $pair;
    }
    return 'full it was ended before it began' if $told;
    symlink "run:$$:" . started($$) . ':' . time, "$dir/go" or return $! == POSIX::EEXIST ? 'taken' : "claims cannot make the claim: $!";
    return '';
}

sub save {
    my ($path, @data) = @_;
    sysopen my $file, $path, Fcntl::O_WRONLY | Fcntl::O_CREAT | Fcntl::O_TRUNC, 0600 or return 0;
    for my $text (@data) {
        my $at = 0;
        while ($at < length $text) { $at += syswrite($file, $text, length($text) - $at, $at) || return 0 }
    }
    return close $file;
}

sub record {
    my ($p, $dir) = @_;
    for my $part (['out', $p->{kept}{o}], ['err', $p->{kept}{e}]) {
        my ($name, $k) = @$part;
        my @data = grep { length } $k->{head}, $k->{tail};
        next if !@data || save("$dir/$name", @data);
        unlink "$dir/$name";    # no room: the status is what counts
        $p->{dropped} += length for @data;
    }
    my $exit = $p->{late} && $p->{cancel} eq 'kill' ? '-' : $p->{exit};
    my $line = join(' ', $exit, @$p{qw(signalled dropped late seconds)}, uptime()) . "\n";
    for (1 .. 60) {
        last if save("$dir/status.new", $line) && rename "$dir/status.new", "$dir/status";
        unlink "$dir/out", "$dir/err";
        select undef, undef, undef, 1;
    }
}

# --- The sweep: claims that ended long ago are moved away first, so that nobody ever sees half of one.

sub sweep {
    my $pid = process(sub {
        alone();
        mortal();
        ready();
        my $up = uptime();
        for my $dir (glob "\Q$OPS\E/*/*.*") {
            my $status = slurp("$dir/status", 200);
            my $go = readlink "$dir/go";
            my $ended = defined $status ? (split ' ', $status)[5] : undef;
            if (!defined $ended && ($go // '') eq 'void') { save("$dir/status.$$", "- 0 0 0 0 $up\n") && rename "$dir/status.$$", "$dir/status" }
            if (!defined $go && time - ((stat $dir)[9] // time) > $KEPT) { symlink 'void', "$dir/go" }
            next unless defined $ended && $up - $ended > $KEPT;
            my $gone = $dir =~ s{/([^/]+)$}{/.swept.$1}r;
            rename $dir, $gone;
        }
        for my $dir (glob "\Q$OPS\E/*/.swept.*") { unlink glob("\Q$dir\E/*"); rmdir $dir }
        POSIX::_exit(0);
    });
    watch($pid, sub { waitpid $pid, 0 }) if $pid;
    after(3600, \&sweep);
}

# --- And go.

sub hello {
    my %here;
    for my $tool (@TOOLS) { for (split /:/, $BASE{PATH}) { $here{$tool} = 1 if length && -x "$_/$tool" } }
    my $ops = own_dirs($OPS) && -w $OPS;
    my %fact = (
        protocol => $PROTOCOL, boot_id => boot_id(), time => time, uptime => uptime(), uid => $>, perl => sprintf('%vd', $^V), pid => $$,
        tools => join(' ', grep { $here{$_} } @TOOLS), ops => $ops ? 1 : 0,
    );
    out('H', 0, join '', map { "$_=$fact{$_}\0" } sort keys %fact);
    after(2, \&sweep) if $ops;
}

$SIG{$_} = sub { } for qw(PIPE HUP);
$SIG{TERM} = sub { $told = 1 };
$SIG{INT} = sub { $told = 1 unless $alone };
$SIG{ALRM} = 'DEFAULT';
start_warden();
unblock(\*STDIN);
unblock(\*STDOUT);
unblock(\*STDERR);
reading(0, \&hear);
hello();
while ($session || %command) {
    flush() if $session;
    turn($session ? $BEAT : 5);
    hush() if $told || ($session && now() - $heard > 4 * $BEAT);
    $told = 0;
    next unless $session;
    if    (length $outbuf > 4 << 20) { deaf(0) }
    elsif (!$on_read->{0})             { reading(0, \&hear) }
}
if ($warden) { close $warden; close $waker; waitpid $warden_pid, 0 }
POSIX::_exit(0);
