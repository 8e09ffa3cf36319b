/*
 * The start of the init, outside: clone3(2) into its namespaces, and the id maps of its user namespace. The guard goes on
 * with guard.c afterwards, the init with init.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "descendants.h"
#include "files.h"
#include "guard.h"
#include "namespaces.h"
#include "ops.h"
#include "process.h"
#include "record.h"
#include "tool.h"

enum {
    NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |
                 CLONE_NEWNET | CLONE_NEWTIME,
};

static int maps = -1; /* eventfd that releases the init when its id maps are written */

bool plan_has(const char *op)
{
    for (uint32_t i = 0; i < run.plan->count; i++)
        if (run.plan->steps[i].op == op_named(op))
            return true;
    return false;
}

bool is_timed(void)
{
    return plan_has("deadline") || plan_has("watch");
}

/*
 * Without its own pid namespace, the init's kill(-1) would reach the whole machine: it must look for its descendants
 * then. If it is killed itself, they become ours.
 */
static int prepare_for_init(uint64_t flags)
{
    bool adopts = plan_has("subreaper");

    if ((flags & ~(uint64_t)NAMESPACES) != 0 || ((flags & CLONE_NEWPID) == 0) != adopts || run.init >= 0)
        return EINVAL;
    return adopts ? descendants_adopt() : 0;
}

int step_clone3(const struct step *step)
{
    uint64_t flags = (uint64_t)step->args[0].number;
    int error = prepare_for_init(flags);

    if (error != 0)
        return error;
    if (run.orphan)
        return ALREADY_SAID;
    if ((flags & CLONE_NEWUSER) != 0 && (plan_has("id_map") || plan_has("new_id_map")) &&
        (maps = eventfd(0, EFD_CLOEXEC)) < 0)
        return errno;
    int pidfd = -1, self = pidfd_of(getpid());

    if (self < 0)
        return errno;
    run.init_pid = clone_process(flags, -1, &pidfd);
    if (run.init_pid == 0)
        init_run(run.plan, self, maps);
    error = run.init_pid < 0 ? errno : 0;
    close(self);
    run.init = error == 0 ? pidfd : -1;
    return error;
}

int step_tell_init(const struct step *step)
{
    (void)step;
    if (run.init < 0)
        return EINVAL;
    say("init %d", (int)run.init_pid);
    return 0;
}

static int release_init(void)
{
    static const uint64_t RELEASE = 1;

    return write(maps, &RELEASE, sizeof RELEASE) < 0 ? errno : 0;
}

/* Of the init, or of the holder, which is there before. */
int step_id_map(const struct step *step)
{
    static const char *const FILES[] = {"setgroups", "uid_map", "gid_map"};
    char path[32] = "/proc/";
    pid_t pid = run.init >= 0 ? run.init_pid : holder.pid;
    int error = 0;

    if (pid < 0)
        return EINVAL;
    number_text(path + strlen(path), pid);
    int directory = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (directory < 0)
        return errno;
    for (unsigned i = 0; error == 0 && i < 3; i++)
        if (step->args[i].text[0] != '\0')
            error = write_text(directory, FILES[i], step->args[i].text);
    close(directory);
    if (run.init < 0)
        holder_mapped(step->args[1].text, step->args[2].text);
    else if (error == 0)
        error = release_init();
    return error;
}

/* Without root, the ids that /etc/subuid lends to us can be mapped by newuidmap(1) and newgidmap(1) alone. */
int step_new_id_map(const struct step *step)
{
    char pid[24], said[256];

    if (run.init < 0 || maps < 0)
        return EINVAL;
    number_text(pid, run.init_pid);
    for (unsigned i = 0; i < 2; i++) {
        char **argv = step->args[i].list;

        if (argv[0] == NULL || argv[1] == NULL)
            return EINVAL;
        argv[1] = pid; /* in the place of what stands for it in the plan */
        int error = run_tool(argv, said, sizeof said);

        if (error != 0 && said[0] == '\0')
            return error;
        if (error != 0) {
            say("failed %d 0 guard %s", step->number, said);
            return ALREADY_SAID;
        }
    }
    return release_init();
}
