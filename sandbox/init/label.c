/*
 * Labels of security modules: SELinux and AppArmor. The workload tells the kernel which label its execve is to take on;
 * afterwards the init reads which label the process got.
 */
#include "label.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "init.h"
#include "ops.h"
#include "record.h"

enum { ROOM = 1024, CONTEXT_PARTS = 4, TRIES = 100 };

#define BETWEEN_TRIES 1000000L /* nanoseconds */

static const char *const PARTS[CONTEXT_PARTS] = {"user", "role", "type", "level"};

struct text {
    char bytes[ROOM];
    size_t length;
    bool cut; /* there was not room enough */
};

struct part {
    const char *text;
    size_t length;
};

static void add(struct text *to, const char *bytes, size_t length)
{
    if (length >= ROOM - to->length) {
        to->cut = true;
        length = 0;
    }
    memcpy(to->bytes + to->length, bytes, length);
    to->length += length;
    to->bytes[to->length] = '\0';
}

static size_t length_to(const char *text, char end)
{
    const char *found = strchr(text, end);

    return found == NULL ? strlen(text) : (size_t)(found - text);
}

static bool is_apparmor(const struct step *step)
{
    return strcmp(step->args[0].text, "apparmor") == 0;
}

/* A file that somebody has put in the place of the kernel's would take any label. */
static int open_proc(const struct text *path, int flags)
{
    struct statfs status;
    int fd = openat(AT_FDCWD, path->bytes, flags | O_CLOEXEC);

    if (fd >= 0 && (fstatfs(fd, &status) != 0 || status.f_type != PROC_SUPER_MAGIC)) {
        close(fd);
        errno = EXDEV;
        return -1;
    }
    return fd;
}

/* One of the files that proc_pid_attr(5) describes; each module shows its own in attr/MODULE, SELinux in attr/ itself. */
static int open_attr(const struct step *step, const char *process, const char *file, int flags)
{
    struct text path = {.length = 0};

    add(&path, "/proc/", 6);
    add(&path, process, strlen(process));
    add(&path, "/attr/", 6);
    if (is_apparmor(step))
        add(&path, "apparmor/", 9);
    add(&path, file, strlen(file));
    return open_proc(&path, flags);
}

/* Reads a label; SELinux ends it with a NUL, AppArmor with a newline. Returns 0 or an errno. */
static int read_label(int fd, struct text *label)
{
    char found[ROOM];
    ssize_t length = pread(fd, found, sizeof found - 1, 0);

    if (length < 0)
        return errno;
    found[length] = '\0';
    *label = (struct text){.length = 0};
    add(label, found, length_to(found, '\n'));
    return 0;
}

static int read_current(const struct step *step, const char *process, struct text *label)
{
    int fd = open_attr(step, process, "current", O_RDONLY);

    if (fd < 0)
        return errno;
    int error = read_label(fd, label);

    close(fd);
    return error;
}

/* Puts other parts, "type:NAME level:S0:C1", into a context USER:ROLE:TYPE:LEVEL. Only the level has colons in it. */
static int with_parts(struct text *to, const char *context, const char *asked)
{
    struct part parts[CONTEXT_PARTS] = {{NULL, 0}};

    for (unsigned i = 0; i < CONTEXT_PARTS && *context != '\0'; i++) {
        parts[i] = (struct part){context, i + 1 < CONTEXT_PARTS ? length_to(context, ':') : strlen(context)};
        context += parts[i].length + (context[parts[i].length] == ':');
    }
    while (*asked != '\0') {
        size_t name = length_to(asked, ':'), length = length_to(asked, ' ');
        unsigned i = 0;

        while (i < CONTEXT_PARTS && (strlen(PARTS[i]) != name || memcmp(PARTS[i], asked, name) != 0))
            i++;
        if (i == CONTEXT_PARTS || name >= length)
            return EINVAL;
        parts[i] = (struct part){asked + name + 1, length - name - 1};
        asked += length + (asked[length] == ' ');
    }
    for (unsigned i = 0; i < CONTEXT_PARTS && parts[i].length > 0; i++) {
        if (i > 0)
            add(to, ":", 1);
        add(to, parts[i].text, parts[i].length);
    }
    return to->cut ? ENAMETOOLONG : 0;
}

/* What is written to attr/exec: a whole context, or "exec PROFILE". */
static int compose(const struct step *step, const struct text *current, struct text *wanted)
{
    const char *asked = step->args[1].text;

    if (!is_apparmor(step))
        return with_parts(wanted, current->bytes, asked);
    add(wanted, "exec ", 5);
    add(wanted, asked, strlen(asked));
    return wanted->cut ? ENAMETOOLONG : 0;
}

static bool ends_with(const struct text *text, const char *end)
{
    size_t length = strlen(end);

    return text->length >= length && memcmp(text->bytes + text->length - length, end, length) == 0;
}

/* AppArmor shows "PROFILE (MODE)". In other modes, complain for one, a profile forbids nothing, or not by itself. */
static bool binds(const struct text *label)
{
    return ends_with(label, " (enforce)") || ends_with(label, " (kill)");
}

/* Returns 0 or an errno; `label` is then what the kernel shows of it, or what it was told. */
static int set_for_exec(const struct step *step, const struct text *wanted, struct text *label)
{
    int fd = open_attr(step, "self", "exec", O_RDWR);

    *label = *wanted;
    if (fd < 0)
        return errno;
    int error = write(fd, wanted->bytes, wanted->length) < 0 ? errno : read_label(fd, label);

    close(fd);
    return error;
}

int step_label(const struct step *step)
{
    struct text current, wanted = {.length = 0}, label = {.length = 0};

    if (!is_apparmor(step) && strcmp(step->args[0].text, "selinux") != 0)
        return EINVAL;
    int error = read_current(step, "self", &current);

    if (error == 0)
        error = compose(step, &current, &wanted);
    if (error == 0)
        error = set_for_exec(step, &wanted, &label);
    if (error == 0 && step->args[2].number != 0 && is_apparmor(step) && !binds(&label))
        error = EOPNOTSUPP;
    current.bytes[length_to(current.bytes, ' ')] = '\0';
    if (error != 0) {
        say("failed %d %d workload %s %s", step->number, error, current.bytes, label.bytes);
        return ALREADY_SAID;
    }
    start->changes_label = strncmp(label.bytes, current.bytes, ROOM) != 0;
    say("entering %d %s %s", step->number, current.bytes, label.bytes);
    return 0;
}

/*
 * CLONE_VFORK lets us go on shortly before the kernel gives the process its new credentials (begin_new_exec() in
 * fs/exec.c), so the old label is read again for a while.
 */
static int read_new(const struct step *step, const char *process, struct text *label)
{
    struct text own;
    int error = read_current(step, "self", &own);

    for (int i = 0; error == 0 && i < TRIES; i++) {
        error = read_current(step, process, label);
        if (error != 0 || !start->changes_label || strcmp(label->bytes, own.bytes) != 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = BETWEEN_TRIES}, NULL);
    }
    return error;
}

void tell_labels(const struct plan *plan, pid_t workload)
{
    char process[24];
    struct text label;

    number_text(process, workload);
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];

        if (step->op->carry_out == step_label && read_new(step, process, &label) == 0)
            say("label %d %s", step->number, label.bytes);
    }
}
