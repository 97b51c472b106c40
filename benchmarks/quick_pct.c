/* A `pct` that takes no time: it knows create, start, shutdown, stop, status and destroy, and keeps what a look reads.
   Whether a container runs is a line of fixed length in proc/net/unix, so that a start is one write. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *root, *id;

static void fail(const char *path) {
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    exit(1);
}

static char *say(const char *format, ...) {
    char *text;
    va_list words;
    va_start(words, format);
    if (vasprintf(&text, format, words) < 0) exit(1);
    va_end(words);
    return text;
}

static char *below(const char *path) { return say("%s/%s", root, path); }

static void spit(const char *path, const char *text) {
    int file = open(below(path), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (file < 0 || write(file, text, strlen(text)) != (ssize_t)strlen(text)) fail(path);
    close(file);
}

static void dir(const char *path) { mkdir(below(path), 0777); }

static void running(int so) {
    char *line = say("00000000: 00000002 00000000 00010000 0001 01 %s @/var/lib/lxc/%s/command\n", id, id), was[32] = "";
    char *slot = say("slots/%s", id);
    size_t length = strlen(line);
    if (!so) memset(line, '-', length - 1);
    int file = open(below("proc/net/unix"), O_RDWR);
    if (file < 0 || flock(file, LOCK_EX)) fail("unix");
    int known = open(below(slot), O_RDONLY);
    if (known >= 0 && read(known, was, sizeof was - 1) > 0) lseek(file, atoll(was), SEEK_SET);
    else spit(slot, say("%lld", (long long)lseek(file, 0, SEEK_END)));
    if (write(file, line, length) != (ssize_t)length) fail("unix");
}

static char *commented(const char *text) {
    char *found = calloc(2 * strlen(text) + 3, 1), *at = found;
    for (int first = 1; *text; text++) {
        if (first) *at++ = '#';
        first = *text == '\n';
        *at++ = *text;
    }
    if (at > found && at[-1] != '\n') *at++ = '\n';
    return found;
}

static void create(int count, char **words) {
    const char *name = "", *description = "";
    char *config = say("etc/pve/lxc/%s.conf", id);
    if (access(below(config), F_OK) == 0) exit(255);
    for (int n = 4; n + 1 < count; n += 2) {
        if (!strcmp(words[n], "--hostname")) name = words[n + 1];
        if (!strcmp(words[n], "--description")) description = words[n + 1];
    }
    int pid = 5000000 + atoi(id);
    dir(say("sys/fs/cgroup/lxc.monitor/%s", id));
    dir(say("proc/%s", id));
    dir(say("proc/%s/task", id));
    dir(say("proc/%s/task/%s", id, id));
    dir(say("proc/%d", pid));
    spit(say("sys/fs/cgroup/lxc.monitor/%s/cgroup.procs", id), say("%s\n", id));
    spit(say("proc/%s/task/%s/children", id, id), say("%d \n", pid));
    char *stat = say("%d (init) S %s", pid, id);
    for (int n = 1; n <= 40; n++) stat = say("%s %d", stat, n);
    spit(say("proc/%d/stat", pid), say("%s\n", stat));
    running(0);
    spit(config, say("%shostname: %s\nmemory: 512\n", commented(description), name));
}

int main(int count, char **words) {
    root = getenv("NEXCAGE_NODE_ROOT");
    if (!root || !*root || count < 3) return 0;
    const char *verb = words[1];
    id = words[2];
    if (!strcmp(verb, "create")) create(count, words);
    else if (!strcmp(verb, "start")) running(1);
    else if (!strcmp(verb, "shutdown") || !strcmp(verb, "stop")) running(0);
    else if (!strcmp(verb, "status")) puts("status: running");
    else if (!strcmp(verb, "destroy")) unlink(below(say("etc/pve/lxc/%s.conf", id)));
    return 0;
}
