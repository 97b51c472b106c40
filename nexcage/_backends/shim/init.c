/* The init of containers that are made from a bundle: waits at a gate, then becomes the program of the bundle.
 *
 * It runs as pid 1 from a directory that the node binds read-only to /.nexcage (another one may be named as the only argument):
 *
 *   launch   what to do, as nexcage._backends.shim writes it: "NEXCAGE1", then records of a tag, the length of the value (32 bits,
 *            little endian), the value and a NUL, up to the record 'z'
 *   gate     a FIFO: a line "open OPERATION" lets it pass
 *   said     a FIFO: "failed STATUS REASON" is written there before it ends for a reason of its own
 *   open     when this exists it does not wait: the container has been started before
 *
 * /proc/PID/exe of whoever waits is the node's own copy of this program, and its comm is "nexcage-gate"; both change when it passes.
 * There is no libc: gcc -static -nostdlib -ffreestanding -Os.
 */

#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/signal.h>
#include <linux/signalfd.h>
#include <linux/stat.h>
#include <linux/time.h>
#include <asm/errno.h>
#include <asm/poll.h>
#include <asm/unistd.h>

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

enum { HOOK_FAILED = 121, NO_LAUNCH = 122, NO_IDENTITY = 123, CANNOT_RUN = 126, NOT_FOUND = 127 };

#if defined(__x86_64__)
static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
#elif defined(__aarch64__)
static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x0,sp\n and sp,x0,#-16\n bl begin\n");
#else
#error "this machine is not known"
#endif

#define S(name, ...) sys_(__NR_##name, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define sys_(n, a, b, c, d, e, f, ...) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

void *memcpy(void *to, const void *from, u64 n)
{
	u8 *t = to;
	const u8 *f = from;
	while (n--)
		*t++ = *f++;
	return to;
}

void *memset(void *to, int c, u64 n)
{
	u8 *t = to;
	while (n--)
		*t++ = (u8)c;
	return to;
}

static u64 len(const char *s)
{
	u64 n = 0;
	while (s[n])
		n++;
	return n;
}

static int starts(const char *s, const char *with)
{
	while (*with)
		if (*s++ != *with++)
			return 0;
	return 1;
}

static int has(const char *s, char c)
{
	for (; *s; s++)
		if (*s == c)
			return 1;
	return 0;
}

/* ---- saying why ------------------------------------------------------------------------------------------------------------- */

static int said = -1;

struct text {
	char bytes[1024];
	u64 n;
};

static void add(struct text *t, const char *s)
{
	for (; *s && t->n < sizeof t->bytes - 2; s++)
		t->bytes[t->n++] = (u8)*s < 32 || *s == 127 ? '?' : *s;
}

static void add_number(struct text *t, u64 value)
{
	char digits[24];
	int at = 23;
	digits[at] = 0;
	do
		digits[--at] = (char)('0' + value % 10);
	while (value /= 10);
	add(t, digits + at);
}

static const char *why(long error)
{
	switch (-error) {
	case ENOENT: return "no such file or directory";
	case EACCES: return "permission denied";
	case EPERM: return "operation not permitted";
	case ENOTDIR: return "not a directory";
	case EISDIR: return "is a directory";
	case ENOEXEC: return "exec format error";
	case ELOOP: return "too many levels of symbolic links";
	case ENOMEM: return "cannot allocate memory";
	case E2BIG: return "argument list too long";
	case ENAMETOOLONG: return "file name too long";
	case EINVAL: return "invalid argument";
	case EAGAIN: return "resource temporarily unavailable";
	case EROFS: return "read-only file system";
	default: return 0;
	}
}

static void add_error(struct text *t, long error)
{
	const char *known = why(error);
	if (known)
		return add(t, known);
	add(t, "error ");
	add_number(t, (u64)-error);
}

static void end(int status)
{
	for (;;)
		S(exit_group, status);
}

static void fail(int status, struct text *reason)
{
	struct text t = { .n = 0 };
	add(&t, "failed ");
	add_number(&t, (u64)status);
	add(&t, " ");
	reason->bytes[reason->n] = 0;
	add(&t, reason->bytes);
	t.bytes[t.n++] = '\n';
	if (said >= 0)
		S(write, said, t.bytes, t.n);
	S(write, 2, "nexcage: ", 9);
	S(write, 2, reason->bytes, reason->n);
	S(write, 2, "\n", 1);
	end(status);
}

static void fail_at(int status, const char *what, const char *name, long error)
{
	struct text t = { .n = 0 };
	add(&t, what);
	if (name) {
		add(&t, " \"");
		add(&t, name);
		add(&t, "\"");
	}
	if (error) {
		add(&t, ": ");
		add_error(&t, error);
	}
	fail(status, &t);
}

/* ---- what to do ------------------------------------------------------------------------------------------------------------- */

struct hook {
	char *path, **argv, **env;
	u32 argc, envc, timeout;
};

static struct {
	char **argv, **env, *cwd, *state;
	u32 argc, envc, statelen;
	u32 uid, gid, *groups, groupc, umask, has_umask, no_new_privs, has_caps;
	u64 caps[5]; /* bounding, permitted, effective, inheritable, ambient */
	struct hook *hooks;
	u32 hookc;
} launch;

static void *room(u64 size)
{
	long at = S(mmap, 0, size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at < 0 && at > -4096)
		fail_at(NO_LAUNCH, "no memory", 0, at);
	return (void *)at;
}

static u32 number(const u8 *at)
{
	return (u32)at[0] | (u32)at[1] << 8 | (u32)at[2] << 16 | (u32)at[3] << 24;
}

static u64 number8(const u8 *at)
{
	return (u64)number(at) | (u64)number(at + 4) << 32;
}

static void record(u8 tag, u8 *value, u32 n)
{
	struct hook *hook = launch.hookc ? &launch.hooks[launch.hookc - 1] : 0;
	const char *caps = "bpfiA";
	switch (tag) {
	case 'a': launch.argv[launch.argc++] = (char *)value; return;
	case 'e': launch.env[launch.envc++] = (char *)value; return;
	case 'c': launch.cwd = (char *)value; return;
	case 's': launch.state = (char *)value; launch.statelen = n; return;
	case 'H':
		launch.hooks[launch.hookc].path = (char *)value;
		launch.hookc++;
		return;
	}
	if (hook && tag == 'h') {
		hook->argv[hook->argc++] = (char *)value;
		return;
	}
	if (hook && tag == 'v') {
		hook->env[hook->envc++] = (char *)value;
		return;
	}
	if (n == 8)
		for (int i = 0; i < 5; i++)
			if (caps[i] == (char)tag) {
				launch.caps[i] = number8(value);
				launch.has_caps = 1;
				return;
			}
	if (n == 4) {
		u32 v = number(value);
		switch (tag) {
		case 'u': launch.uid = v; return;
		case 'g': launch.gid = v; return;
		case 'G': launch.groups[launch.groupc++] = v; return;
		case 'm': launch.umask = v; launch.has_umask = 1; return;
		case 'n': launch.no_new_privs = v; return;
		case 't':
			if (hook) {
				hook->timeout = v;
				return;
			}
		}
	}
	fail_at(NO_LAUNCH, "the launch file has a record that is not known", 0, 0);
}

static void read_launch(int dir)
{
	long fd = S(openat, dir, "launch", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail_at(NO_LAUNCH, "the launch file cannot be opened", 0, fd);
	long size = S(lseek, fd, 0, 2);
	if (size < 8)
		fail_at(NO_LAUNCH, "the launch file is cut short", 0, 0);
	u8 *data = (u8 *)S(mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if ((long)data < 0 && (long)data > -4096)
		fail_at(NO_LAUNCH, "the launch file cannot be read", 0, (long)data);
	S(close, fd);
	if (!starts((char *)data, "NEXCAGE1"))
		fail_at(NO_LAUNCH, "the launch file is not one", 0, 0);
	/* A record takes six bytes at least, so this is how many there can be. */
	u64 most = (u64)size / 6 + 2;
	launch.argv = room(most * 8);
	launch.env = room(most * 8);
	launch.groups = room(most * 4);
	launch.hooks = room((most + 1) * sizeof *launch.hooks);
	char **more_argv = room(2 * most * 8), **more_env = room(2 * most * 8);
	u64 at = 8;
	while (at + 5 < (u64)size) {
		u8 tag = data[at];
		u32 n = number(data + at + 1);
		if (n >= (u64)size - at - 5 || data[at + 5 + n])
			break;
		if (tag == 'z')
			return;
		record(tag, data + at + 5, n);
		if (tag == 'H') {
			struct hook *hook = &launch.hooks[launch.hookc - 1];
			if (launch.hookc > 1) { /* behind those of the one before, and its final null */
				more_argv += hook[-1].argc + 1;
				more_env += hook[-1].envc + 1;
			}
			hook->argv = more_argv;
			hook->env = more_env;
		}
		at += 6 + n;
	}
	fail_at(NO_LAUNCH, "the launch file is cut short", 0, 0);
}

/* ---- waiting ---------------------------------------------------------------------------------------------------------------- */

static int signals = -1;

static void quiet(void)
{
	/* All signals come by a descriptor, so that there are no handlers; pid 1 would never see those that it does not take. */
	u64 all = ~0UL, none[4] = { 1 /* SIG_IGN */, 0, 0, 0 };
	S(rt_sigprocmask, SIG_SETMASK, &all, 0, 8);
	S(rt_sigaction, SIGPIPE, none, 0, 8);
	signals = (int)S(signalfd4, -1, &all, 8, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void loud(void)
{
	u64 none = 0, action[4] = { 0 };
	for (int i = 1; i < 65; i++)
		if (i != SIGKILL && i != SIGSTOP)
			S(rt_sigaction, i, action, 0, 8);
	S(rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
}

static void take_signals(void)
{
	struct signalfd_siginfo info;
	while (S(read, signals, &info, sizeof info) == sizeof info)
		switch (info.ssi_signo) {
		case SIGCHLD: case SIGCONT: case SIGWINCH: case SIGURG: case SIGPIPE:
		case SIGTSTP: case SIGTTIN: case SIGTTOU:
			break;
		default:
			end(128 + (int)info.ssi_signo);
		}
}

static long open_gate(int dir)
{
	long fd = S(openat, dir, "gate", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fail_at(NO_LAUNCH, "the gate cannot be opened", 0, fd);
	return fd;
}

static int is_open(int dir)
{
	return S(faccessat, dir, "open", 0) == 0;
}

static int lets_pass(const char *line)
{
	if (!starts(line, "open "))
		return 0;
	const char *c = line + 5;
	for (; *c; c++)
		if (!((*c >= '0' && *c <= '9') || ((*c | 32) >= 'a' && (*c | 32) <= 'z') || has("_.-", *c)))
			return 0;
	return c > line + 5;
}

static void wait_at(int dir)
{
	char line[128];
	u64 n = 0;
	int skip = 0;
	struct pollfd { int fd; short events, revents; } fds[2] = { { -1, POLLIN, 0 }, { signals, POLLIN, 0 } };
	if (is_open(dir))
		return;
	fds[0].fd = (int)open_gate(dir);
	S(prctl, PR_SET_NAME, "nexcage-gate");
	for (;;) {
		fds[0].revents = fds[1].revents = 0;
		S(ppoll, fds, 2, 0, 0, 8);
		if (fds[1].revents)
			take_signals();
		if (!fds[0].revents)
			continue;
		if (is_open(dir)) { /* a copy of the container may read from the same FIFO, and have taken the line */
			S(close, fds[0].fd);
			return;
		}
		char c;
		long got;
		while ((got = S(read, fds[0].fd, &c, 1)) == 1) {
			if (c == '\n') {
				line[n] = 0;
				if (!skip && lets_pass(line)) {
					S(close, fds[0].fd);
					return;
				}
				n = 0;
				skip = 0;
			} else if (!c || n == sizeof line - 1)
				skip = 1;
			else
				line[n++] = c;
		}
		if (got == 0) { /* everybody has closed it: the next one opens another, and there is a reader at any time */
			long fresh = open_gate(dir);
			S(close, fds[0].fd);
			fds[0].fd = (int)fresh;
			n = 0;
			skip = 0;
		}
	}
}

/* ---- hooks ------------------------------------------------------------------------------------------------------------------ */

static u64 now(void)
{
	struct { long s, ns; } t;
	S(clock_gettime, 1, &t);
	return (u64)t.s * 1000 + (u64)t.ns / 1000000;
}

static void become(struct hook *hook, int in)
{
	char *none[2] = { hook->path, 0 };
	loud();
	S(setsid);
	if (in)
		S(dup3, in, 0, 0);
	else
		S(fcntl, in, F_SETFD, 0);
	S(chdir, "/");
	S(execve, hook->path, hook->argc ? hook->argv : none, hook->env);
	end(NOT_FOUND);
}

static void hook_failed(struct hook *hook, const char *how, long value)
{
	struct text t = { .n = 0 };
	add(&t, "startContainer hook \"");
	add(&t, hook->path);
	add(&t, "\" failed: ");
	add(&t, how);
	if (value >= 0)
		add_number(&t, (u64)value);
	fail(HOOK_FAILED, &t);
}

static void run_hook(struct hook *hook)
{
	int in[2], status = 0;
	u32 written = 0;
	long error = S(faccessat, AT_FDCWD, hook->path, 1);
	if (error) {
		const char *known = why(error);
		hook_failed(hook, known ? known : "error ", known ? -1 : -error);
	}
	if (S(pipe2, in, O_CLOEXEC) < 0)
		hook_failed(hook, "no pipe", -1);
	long pid = S(clone, SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		hook_failed(hook, "no process: error ", -pid);
	if (pid == 0)
		become(hook, in[0]);
	S(close, in[0]);
	S(fcntl, in[1], F_SETFL, O_NONBLOCK);
	u64 until = hook->timeout ? now() + (u64)hook->timeout * 1000 : 0;
	struct pollfd { int fd; short events, revents; } fds[2] = { { signals, POLLIN, 0 }, { in[1], POLLOUT, 0 } };
	for (;;) {
		long ended = S(wait4, pid, &status, 1 /* WNOHANG */, 0);
		if (ended == pid)
			break;
		u64 at = now();
		if (until && at >= until) {
			S(kill, -pid, SIGKILL);
			S(kill, pid, SIGKILL);
			S(wait4, pid, &status, 0, 0);
			hook_failed(hook, "it took longer than its timeout in seconds, ", hook->timeout);
		}
		u64 left = until ? until - at : 1000;
		struct { long s, ns; } nap = { (long)(left / 1000), (long)(left % 1000) * 1000000 };
		fds[0].revents = fds[1].revents = 0;
		S(ppoll, fds, 2, &nap, 0, 8);
		if (fds[0].revents)
			take_signals();
		if (fds[1].revents && fds[1].fd >= 0) {
			long some = written < launch.statelen
				? S(write, in[1], launch.state + written, launch.statelen - written) : -EPIPE;
			if (some > 0)
				written += (u32)some;
			if (some != -EAGAIN && (some < 0 || written == launch.statelen)) {
				S(close, in[1]);
				fds[1].fd = -1;
			}
		}
	}
	if (fds[1].fd >= 0)
		S(close, in[1]);
	if (status & 127)
		hook_failed(hook, "signal ", status & 127);
	if (status)
		hook_failed(hook, "exit status ", (status >> 8) & 255);
}

static void reap(void)
{
	int status;
	while (S(wait4, -1, &status, 1, 0) > 0)
		;
}

/* ---- becoming the program --------------------------------------------------------------------------------------------------- */

static long make_all(char *path)
{
	long done = 0;
	for (char *c = path + 1;; c++)
		if (*c == '/' || !*c) {
			char kept = *c;
			*c = 0;
			done = S(mkdirat, AT_FDCWD, path, 0755);
			*c = kept;
			if (!kept)
				return done;
		}
}

/* As runc does: as root, and where root may not, as the user that it becomes. */
static int go_to(char *path, int again)
{
	long error = S(chdir, path);
	if (error == -ENOENT && make_all(path) == 0)
		error = S(chdir, path);
	if (error == -EACCES && again)
		return 0;
	if (error)
		fail_at(NO_IDENTITY, "chdir to cwd", path, error);
	return 1;
}

static void drop_bounding(void)
{
	for (u64 i = 0; i < 64; i++)
		if (!(launch.caps[0] >> i & 1) && S(prctl, PR_CAPBSET_READ, i) == 1) {
			long error = S(prctl, PR_CAPBSET_DROP, i);
			if (error)
				fail_at(NO_IDENTITY, "the bounding set of capabilities cannot be changed", 0, error);
		}
}

static void set_capabilities(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct have[2], want[2];
	if (S(capget, &head, have) < 0)
		return;
	u64 held = (u64)have[0].permitted | (u64)have[1].permitted << 32;
	/* One that cannot be granted is a warning and no error (runtime-spec, config.md). */
	for (int i = 0; i < 2; i++) {
		want[i].permitted = (u32)((launch.caps[1] & held) >> 32 * i);
		want[i].effective = (u32)((launch.caps[2] & launch.caps[1] & held) >> 32 * i);
		want[i].inheritable = (u32)((launch.caps[3] & held) >> 32 * i);
	}
	long error = S(capset, &head, want);
	if (error)
		fail_at(NO_IDENTITY, "the capabilities cannot be set", 0, error);
	S(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (u64 i = 0; i < 64; i++)
		if (launch.caps[4] >> i & 1)
			S(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0);
}

static void change_identity(void)
{
	long error;
	int there = go_to(launch.cwd, 1);
	if (launch.has_caps) {
		drop_bounding();
		S(prctl, PR_SET_KEEPCAPS, 1);
	}
	if ((error = S(setgroups, launch.groupc, launch.groups)) && (error != -EPERM || launch.groupc))
		fail_at(NO_IDENTITY, "the additional groups cannot be set", 0, error);
	if ((error = S(setresgid, launch.gid, launch.gid, launch.gid)))
		fail_at(NO_IDENTITY, "the group cannot be set", 0, error);
	if ((error = S(setresuid, launch.uid, launch.uid, launch.uid)))
		fail_at(NO_IDENTITY, "the user cannot be set", 0, error);
	if (!there)
		go_to(launch.cwd, 0);
	if (launch.has_caps) {
		S(prctl, PR_SET_KEEPCAPS, 0);
		set_capabilities();
	}
	if (launch.has_umask)
		S(umask, launch.umask);
	if (launch.no_new_privs && (error = S(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))
		fail_at(NO_IDENTITY, "no_new_privs cannot be set", 0, error);
}

static int is_directory(const char *path)
{
	u8 info[256]; /* struct statx: the mode is its 15th and 16th byte from 28 on */
	if (S(statx, AT_FDCWD, path, 0, 1 /* STATX_TYPE */, info))
		return 0;
	return ((u32)info[28] | (u32)info[29] << 8) >> 12 == 4;
}

static void cannot_run(const char *name, const char *path, long error)
{
	struct text t = { .n = 0 };
	add(&t, "exec: \"");
	add(&t, name);
	add(&t, "\": ");
	if (!path)
		add(&t, "executable file not found in $PATH");
	else if (error == -ENOENT || error == -ENOTDIR) {
		add(&t, "stat ");
		add(&t, path);
		add(&t, ": ");
		add_error(&t, error);
	} else
		add_error(&t, error);
	fail(!path || error == -ENOENT || error == -ENOTDIR ? NOT_FOUND : CANNOT_RUN, &t);
}

static void run(const char *name, const char *path)
{
	if (is_directory(path))
		cannot_run(name, path, -EACCES);
	loud();
	cannot_run(name, path, S(execve, path, launch.argv, launch.env));
}

static void find_and_run(void)
{
	const char *name = launch.argv[0], *path = 0;
	u64 n = len(name);
	int denied = 0;
	if (has(name, '/')) {
		long error = S(faccessat, AT_FDCWD, name, 1);
		if (error)
			cannot_run(name, name, error);
		run(name, name);
	}
	for (u32 i = 0; i < launch.envc; i++)
		if (starts(launch.env[i], "PATH="))
			path = launch.env[i] + 5; /* of several the last one counts */
	char *tried = room((path ? len(path) : 0) + n + 4);
	while (n && path && *path) {
		u64 at = 0;
		while (*path && *path != ':')
			tried[at++] = *path++;
		if (!at)
			tried[at++] = '.';
		tried[at++] = '/';
		memcpy(tried + at, name, n + 1);
		long error = S(faccessat, AT_FDCWD, tried, 1);
		if (error == 0 && !is_directory(tried))
			run(name, tried);
		if (error == -EACCES && S(faccessat, AT_FDCWD, tried, 0) == 0)
			denied = 1;
		if (*path == ':')
			path++;
	}
	if (denied)
		cannot_run(name, name, -EACCES);
	cannot_run(name, 0, 0);
}

__attribute__((noreturn, used)) void begin(long *stack)
{
	char **argv = (char **)(stack + 1);
	const char *where = stack[0] > 1 ? argv[1] : "/.nexcage";
	quiet();
	long dir = S(openat, AT_FDCWD, where, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		fail_at(NO_LAUNCH, "its directory cannot be opened", where, dir);
	said = (int)S(openat, dir, "said", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	read_launch((int)dir);
	wait_at((int)dir);
	if (said < 0)
		said = (int)S(openat, dir, "said", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	S(prctl, PR_SET_NAME, "nexcage-init");
	if (S(getpid) == 1) /* what runs from now on is not ours, and need not see it */
		S(umount2, where, 2 /* MNT_DETACH */);
	S(close, dir);
	for (u32 i = 0; i < launch.hookc; i++)
		run_hook(&launch.hooks[i]);
	reap();
	if (!launch.argc || !launch.cwd || launch.cwd[0] != '/')
		fail_at(NO_LAUNCH, "the launch file names no program, or no directory for it", 0, 0);
	change_identity();
	find_and_run();
	end(NOT_FOUND);
	__builtin_unreachable();
}
