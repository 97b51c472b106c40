#!/usr/bin/perl
# A `pct` that takes no time: it knows create, start, shutdown, stop, status and destroy, and keeps what a look reads.
# Whether a container runs is a line of fixed length in proc/net/unix, so that a start is one write.
use Fcntl ':flock';
my ($verb, $id, @rest) = @ARGV;
my $R = $ENV{NEXCAGE_NODE_ROOT} or exit 0;
my $line = "00000000: 00000002 00000000 00010000 0001 01 $id @/var/lib/lxc/$id/command\n";

sub spit { my ($path, $text) = @_; open my $f, '>', "$R/$path" or die "$path: $!\n"; print $f $text; close $f }

sub unix {
    my ($text) = @_;
    open my $f, '+<', "$R/proc/net/unix" or die "unix: $!\n";
    flock $f, LOCK_EX;
    my $slot = do { open my $s, '<', "$R/slots/$id" or do { seek $f, 0, 2; undef }; $s ? <$s> : undef };
    if (defined $slot) { seek $f, $slot, 0 } else { spit("slots/$id", tell $f) }
    print $f $text;
    close $f;
}

if ($verb eq 'create') {
    exit 255 if -e "$R/etc/pve/lxc/$id.conf";
    my %option;
    for (my $n = 1; $n < @rest; $n += 2) { $option{$rest[$n]} = $rest[$n + 1] }
    my $pid = 5_000_000 + $id;
    mkdir "$R/$_" for "sys/fs/cgroup/lxc.monitor/$id", "proc/$id", "proc/$id/task", "proc/$id/task/$id", "proc/$pid";
    spit("sys/fs/cgroup/lxc.monitor/$id/cgroup.procs", "$id\n");
    spit("proc/$id/task/$id/children", "$pid \n");
    spit("proc/$pid/stat", "$pid (init) S $id " . join(' ', 1 .. 40) . "\n");
    unix('-' x (length($line) - 1) . "\n");
    spit("etc/pve/lxc/$id.conf",
        join('', map { "#$_\n" } split /\n/, $option{'--description'}) . "hostname: $option{'--hostname'}\nmemory: 512\n");
} elsif ($verb eq 'start') {
    unix($line);
} elsif ($verb eq 'shutdown' || $verb eq 'stop') {
    unix('-' x (length($line) - 1) . "\n");
} elsif ($verb eq 'status') {
    print "status: running\n";
} elsif ($verb eq 'destroy') {
    unlink "$R/etc/pve/lxc/$id.conf";
}
