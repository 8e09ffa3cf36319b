/* Watches: kernel files that are read again and again, because something is to end when they reach a limit, or because
 * the kernel keeps no peak of them. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "guard.h"
#include "ops.h"
#include "record.h"

enum { WATCHES = 16, LONGEST_FILE = 16384 /* memory.stat has about 5000 */ };

static struct watch {
    const char *name, *path, *key;
    int64_t limit, interval, due, highest; /* highest is -1 before the first value */
    int fd;
} watches[WATCHES];
static unsigned count;

int step_watch(const struct step *step)
{
    const union arg *args = step->args;

    if (count == WATCHES)
        return E2BIG;
    if (args[4].number < 1 || args[4].number > NEVER / 2 / MILLISECOND)
        return EINVAL;
    watches[count++] = (struct watch){
        .name = args[0].text, .path = args[1].text, .key = args[2].text, .limit = args[3].number,
        .interval = args[4].number * MILLISECOND, .due = NEVER, .highest = -1, .fd = -1,
    };
    return 0;
}

/* The line that starts with `key` and a space, behind that space. The whole text if there is no key. */
static const char *value_of(const char *text, const char *key)
{
    size_t length = strlen(key);

    if (length == 0)
        return text;
    while (text != NULL && (strncmp(text, key, length) != 0 || text[length] != ' ')) {
        text = strchr(text, '\n');
        text = text == NULL ? NULL : text + 1;
    }
    return text == NULL ? NULL : text + length + 1;
}

/* Digits only: "max" is no value. */
static int64_t number_of(const char *text)
{
    int64_t value = 0;

    if (*text < '0' || *text > '9')
        return -1;
    for (; *text >= '0' && *text <= '9'; text++)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *text - '0', &value))
            return INT64_MAX;
    return value;
}

static void look(struct watch *watch)
{
    static char text[LONGEST_FILE];

    if (watch->fd < 0)
        watch->fd = openat(AT_FDCWD, watch->path, O_RDONLY | O_CLOEXEC);
    ssize_t length = watch->fd < 0 ? -1 : pread(watch->fd, text, sizeof text - 1, 0);

    if (length <= 0)
        return;
    text[length] = '\0';
    const char *value = value_of(text, watch->key);
    int64_t number = value == NULL ? -1 : number_of(value);

    if (number > watch->highest)
        watch->highest = number;
}

void watches_start(int64_t time)
{
    for (unsigned i = 0; i < count; i++)
        watches[i].due = time + watches[i].interval;
}

int64_t watches_due(void)
{
    int64_t due = NEVER;

    for (unsigned i = 0; i < count; i++)
        if (watches[i].due < due)
            due = watches[i].due;
    return due;
}

const char *watches_look(int64_t time)
{
    const char *reached = NULL;

    for (unsigned i = 0; i < count; i++) {
        struct watch *watch = &watches[i];

        if (time < watch->due)
            continue;
        watch->due = time + watch->interval;
        look(watch);
        if (watch->limit > 0 && watch->highest >= watch->limit)
            reached = watch->name;
    }
    return reached;
}

void watches_report(void)
{
    for (unsigned i = 0; i < count; i++) {
        look(&watches[i]);
        if (watches[i].highest >= 0)
            say("sample %s %lld", watches[i].name, (long long)watches[i].highest);
    }
}
