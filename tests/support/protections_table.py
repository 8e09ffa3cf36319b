"""What is taken away of the package for each of the forty cases, and which of its tests must fail then."""

from __future__ import annotations

from typing import NamedTuple

GUARD, INIT = "sandbox/init/guard.c", "sandbox/init/init.c"
CGROUPFS, SYSTEMD = "sandbox/drivers/cgroupfs.py", "sandbox/drivers/systemd.py"
PROCESS = "sandbox/drivers/process.py"
FILESYSTEM = "sandbox/isolation/filesystem.py"


class Edit(NamedTuple):
    """One text replaced by another; it must be there exactly once.

    :param file: in the tree, of the package or of what is compiled for it.
    """

    file: str
    old: str
    new: str = ""


class Row(NamedTuple):
    """One protection.

    :param case: the id, of forty_cases.py.
    :param taken: what is taken away, in words.
    :param edits: how: all that would do alone, together.
    :param tests: functions of that id, as ``FILE::NAME``, FILE from tests/behaviour on; one must fail.
    :param only: for pytest's ``-k``.
    :param drivers: which the tests are run with.
    :param place: ``container``, or ``host`` for what needs a disk or a lab of its own, and can do no harm.
    :param timeout: seconds for one test; the tests' own limits are for what works.
    """

    case: str
    taken: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    only: str = ""
    drivers: str = "cgroupfs"
    place: str = "container"
    timeout: int = 60


def unwritten(field: str) -> tuple[Edit, ...]:
    """A limit that is neither written nor read back: one without the other is refused."""
    write = 'yield Step(op="write", args=(path, text), phase=Phase.PREPARE, realises=wish.realises)'
    return (Edit(CGROUPFS, write, f'if wish.knob.field != "{field}":\n            {write}'),
            Edit(CGROUPFS, "    yield read_back(index, wish, cgroup)\n",
                 f'    if wish.knob.field != "{field}":\n        yield read_back(index, wish, cgroup)\n'))


NO_FILTER = Edit("sandbox/isolation/seccomp.py", "if source != security.UNCONFINED:", "if False:")
NO_NEW_USER = Edit(PROCESS, "    yield from namespaces.enter_userns(spec, host)\n")
NO_DEADLINE = Edit(GUARD, "        guard.deadline_at = time + guard.timeout;", "        guard.deadline_at = NEVER;")

ROWS = (
    Row("L01", "the memory limit", unwritten("memory"), ("test_memory.py::test_memory_limit_ends_the_run",)),
    Row("L07", "the deadline of --timeout", (NO_DEADLINE,), ("test_tasks.py::test_fork_bomb_is_over_in_time",),
        timeout=20),
    Row("R09", "the guard's kill when the launcher is gone",
        (Edit(GUARD, "    run.orphan = true;\n    kill_init();\n", "    run.orphan = true;\n"),),
        ("test_killed.py::test_runner_is_killed_at_any_moment",), only="none"),
    Row("R09", "gc's work on the claims of the dead",
        (Edit("sandbox/gc.py", "return (*_claims(host.runtime_dir), *_orphans(host))", "return (*_orphans(host),)"),),
        ("test_killed.py::test_gc_cleans_what_nobody_else_could",)),
    Row("S01", "the step bounding",
        (Edit("sandbox/isolation/capabilities.py", '    yield _step(names, "bounding", mask(names))\n'),),
        ("test_escape_calls.py::test_s01_no_capabilities_no_new_privileges_and_a_filter",), only="none"),
    Row("S02", "the filter of system calls", (NO_FILTER,),
        ("test_escape_calls.py::test_s02_calls_that_are_denied",), only="none"),
    Row("L14", "the refusal of what cannot be enforced",
        (Edit("sandbox/box.py", "if self._plan.unmet and not self.spec.best_effort:", "if False:"),),
        ("test_refusals.py::test_what_v1_lacks_is_refused",
         "test_refusals.py::test_without_cgroups_a_memory_limit_is_refused")),
    Row("R01", "all of an exit code but whether it is 0",
        (Edit("sandbox/verdict.py", "return os.WEXITSTATUS(ending.status), None",
              "return int(os.WEXITSTATUS(ending.status) > 0), None"),),
        ("test_ends.py::test_exit_code_is_the_commands_own",), only="none"),
    Row("L06", "the limit on tasks", unwritten("pids_limit"),
        ("test_escape_limits.py::test_l06_threads_count_as_tasks",)),
    Row("R16", "the properties: limits are written into the unit's files behind systemd's back",
        (Edit(SYSTEMD, "            yield from unit.tell(told.properties, told.wish.realises)\n", "            pass\n"),
         Edit(SYSTEMD, "[read_back(index, told.wish, place)] if told.properties else write(index, told.wish, place)",
              "write(index, told.wish, place)")),
        ("test_units.py::test_limits_survive_reloads_and_a_reexec",), drivers="systemd", timeout=120),
    Row("R18", "the workload's look at its own cgroup",
        (Edit(SYSTEMD, "yield unit.in_cgroup(tree, path.removeprefix(tree.mount))", "pass"),),
        ("test_units.py::test_a_command_outside_its_cgroup_never_starts",), drivers="systemd"),
    Row("R18", "the wait for the end of the job that starts the unit",
        (Edit("sandbox/bus.py", "result = link.wait(job)", 'result = "done"'),),
        ("test_units.py::test_commands_that_end_at_once", "test_units.py::test_starting_while_systemd_reloads"),
        drivers="systemd"),
    Row("S11", "the cgroup namespace",
        (Edit("sandbox/isolation/namespaces.py", 'if "cgroup" in private(spec, host):', 'if False:'),),
        ("test_escape_cgroups.py::test_s11_its_own_cgroup_is_the_root_to_it",), only="none"),
    Row("S11", "the fresh /sys: the host's comes along, with its cgroups",
        (Edit(FILESYSTEM, '        yield step("mount", "sysfs", "/sys", KERNEL | RDONLY, "")\n', "        pass\n"),),
        ("test_escape_cgroups.py::test_s11_the_cgroups_of_the_host_do_not_show",)),
    Row("S11", "the fresh /sys, the removal of the host's, its own cgroups, the read-only root, the user namespace",
        (Edit(FILESYSTEM, '        yield step("mount", "sysfs", "/sys", KERNEL | RDONLY, "")\n', "        pass\n"),
         Edit(FILESYSTEM, 'yield from (step("discard", path) for path in ANEW if path in points)', "pass"),
         Edit("sandbox/isolation/cgroup_view.py", 'return "cgroup" in private(spec, host)', "return False"),
         Edit(FILESYSTEM, "INERT | (RDONLY if read_only else 0)", "INERT"), NO_NEW_USER),
        ("test_escape_cgroups.py::test_s11_limits_stay_and_nobody_leaves",)),
    Row("S08", "the three places where fds are closed: the guard, the init, the workload",
        (Edit("sandbox/init/main.c", "return close_range(FIRST_OTHER, ~0U, 0) == 0 && close_range(",
              "return close_range("),
         Edit(INIT, "if (!close_others(PLAN_FD, kept,", "if (!close_others(~0U - 1, kept,"),
         Edit(PROCESS, '    yield _workload("close_fds", FIRST_FD)\n')),
        ("test_escape_files.py::test_s08_only_the_standard_streams_are_open",
         "test_inside.py::test_only_the_standard_fds"), only="none"),
    Row("R08", "the SIGKILL after --stop-timeout",
        (Edit(GUARD, "    guard.hard_at = time > NEVER - guard.stop_timeout ? NEVER : time + guard.stop_timeout;\n",
              "    guard.hard_at = NEVER;\n"),),
        ("test_killed.py::test_tree_that_ignores_the_signal_is_killed",), only="TERM and none"),
    Row("R07", "the init: the command is pid 1, and the signal goes to it",
        (Edit(INIT, "workload.pid = clone_process(CLONE_VFORK, cgroup, &workload.pidfd);",
              "workload.pid = 0 * cgroup;"),
         Edit(GUARD, "    tell_init(command);\n    guard.hard_at",
              "    pidfd_signal(run.init, guard.stop_signal);\n    guard.hard_at")),
        ("test_escape_limits.py::test_r07_a_command_that_would_be_pid_1_obeys",), only="none"),
    Row("R06", "the init's wait for children that are not its own",
        (Edit(INIT, "waitpid(-1, status, WNOHANG | __WALL | WUNTRACED)",
              "waitpid(workload.pid, status, WNOHANG | __WALL | WUNTRACED)"),),
        ("test_inside.py::test_no_zombies",), only="none"),
    Row("L08", "the CPU quota", unwritten("cpus"), ("test_cpu.py::test_two_loops_share_a_fifth_of_a_cpu",)),
    Row("L10", "the deadline of --timeout", (NO_DEADLINE,), ("test_time.py::test_timeout",), only="none"),
    Row("L10", "the watch over --cpu-time", (Edit(GUARD, "    watches_start(time);\n"),),
        ("test_cpu.py::test_cpu_time_of_the_tree",)),
    Row("S24", "the recursion of read-only, nosuid and nodev",
        (Edit("sandbox/init/mounts.c", "AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr",
              "AT_EMPTY_PATH, &attr"),),
        ("test_escape_files.py::test_s24_nothing_but_private_memory_is_writable",
         "test_escape_files.py::test_s24_a_read_only_volume_is_so_to_its_last_mount"), only="none"),
    Row("S24", "the filter, the securebits and capabilities, and the user namespace",
        (NO_FILTER, NO_NEW_USER,
         Edit(PROCESS, "    yield from capabilities.before(names)\n"),
         Edit(PROCESS, "    yield from capabilities.after(names)\n")),
        ("test_escape_files.py::test_s24_mounts_cannot_be_changed",), only="none"),
    Row("S23", "the private /dev",
        (Edit(FILESYSTEM, "    yield from devices.make(spec, host, owner)\n"),),
        ("test_escape_files.py::test_s23_devices",), only="none"),
    Row("S18", "the pid namespace",
        (Edit("sandbox/isolation/namespaces.py", '(0 if spec.pid == "host" else CLONE_NEWPID)', "0"),
         Edit("sandbox/isolation/namespaces.py", 'if spec.pid == "host":\n        # Orphans',
              "if True:\n        # Orphans")),
        ("test_escape_neighbours.py::test_s18_processes_of_the_host",), only="none"),
    Row("S17", "the network namespace",
        (Edit("sandbox/isolation/namespaces.py", "            if kind not in shared and",
              '            if kind != "net" and kind not in shared and'),),
        ("test_escape_neighbours.py::test_s17_no_network",), only="none"),
    Row("S20", "no_new_privs, nosuid on the volume, and the filter, which needs no_new_privs",
        (Edit("sandbox/isolation/seccomp.py", '    yield _step("no_new_privs")\n'), NO_FILTER,
         Edit("sandbox/isolation/volumes.py", "INERT | (RDONLY if volume.read_only else 0)",
              "RDONLY if volume.read_only else 0")),
        ("test_escape_files.py::test_s20_set_id_programs_and_file_capabilities_give_nothing",), only="none"),
    Row("S25", "the masks in /proc",
        (Edit(FILESYSTEM, "    yield from _masks(spec, host)  # a mask for a file is made of the /dev/null inside\n"),),
        ("test_escape_files.py::test_s25_what_tells_about_the_host_is_empty",), only="none"),
    Row("R11", "the removal of what others made below a cgroup, by the guard and by the launcher",
        (Edit("sandbox/init/remove.c", "            unlinkat(directory, entry->d_name, AT_REMOVEDIR); /* if"," /* if"),
         Edit("sandbox/process.py", '                remove(arguments(self._plan, "remove"), arguments(self._plan, '
              '"unlink"))\n', "                pass\n")),
        ("test_escape_limits.py::test_r11_cgroups_made_below_are_removed",)),
    Row("R12", "the patience with a busy cgroup",
        (Edit("sandbox/init/remove.c", "if (now() + pause > give_up_at)", "if (now() + pause > 0)"),),
        ("../kernel/test_init_guard.py::test_a_busy_cgroup_is_removed_when_it_is_empty",), only="shipped"),
    Row("R15", "the reset of a failed unit of that name",
        (Edit("sandbox/bus.py", "            if forget:\n", "            if False:\n"),),
        ("test_units.py::test_what_is_left_of_a_failed_unit_is_no_hindrance",), drivers="service"),
    Row("R17", "systemd's own socket, the second try on a new connection, and that none is kept over the run",
        (Edit("sandbox/bus.py", '    yield True, f"{_runtime(user)}/private"\n'),
         Edit("sandbox/bus.py", "                except ConnectionError:\n                    self.close()\n"
              "                    again = True\n", ""),
         Edit("sandbox/systemd.py", "            if lent > 1:\n", "            if lent:\n")),
        ("test_units.py::test_a_restart_of_dbus_changes_nothing",), drivers="systemd"),
    Row("L11", "the limit on bytes written", unwritten("device_write_bps"),
        ("test_io.py::test_direct_writes_are_limited",), place="host"),
    Row("L12", "the way from a file system to its disk",
        (Edit("sandbox/disk.py", "return _pair(seen.st_dev) if os.major(seen.st_dev) else _source(path, root, chain)",
              "return _pair(seen.st_rdev)"),),
        ("test_io.py::test_path_becomes_the_disk",), only="directory", place="host"),
    Row("R13", "the kernel's answer to a write, and the look at what it made of it",
        (Edit("sandbox/cgroup/files.py", "        os.write(fd, os.fsencode(value))\n    except OSError as error:\n"
              '        raise failure("write", path, value, error) from error\n',
              "        os.write(fd, os.fsencode(value))\n    except OSError:\n        pass\n"),
         Edit("sandbox/verify.py", "    if not holds(limit, texts):\n", "    if False:\n")),
        ("test_refusals.py::test_value_the_kernel_does_not_take",)),
    Row("L03", "the command's way into its cgroup",
        (Edit(CGROUPFS, "        *(group.join(index) for index, group in sorted(enumerate(groups.values()), "
              "key=born_first)),\n"),),
        ("test_escape_limits.py::test_l03_files_in_memory_are_charged",)),
    Row("S30", "the list of variables that are let through",
        (Edit("sandbox/identity.py", "    result |= {name: caller[name] for name in KEPT if name in present}\n",
              "    result |= caller\n"),),
        ("test_inside.py::test_environment_is_an_allow_list",), only="none"),
    Row("S31", "the private /tmp and /run",
        (Edit(FILESYSTEM, "                    if path in host.present)\n", "                    if False)\n"),),
        ("test_escape_neighbours.py::test_s31_control_sockets_of_the_host",), only="none"),
    Row("S29", "the report's directory, opened before the command starts",
        (Edit("sandbox/output.py", '        temporary = f"{self._name}.',
              '        self._directory = os.open(os.path.dirname(self._path) or ".", os.O_PATH)\n'
              '        temporary = f"{self._name}.'),),
        ("test_escape_files.py::test_s29_the_report_goes_nowhere_else",), only="none"),
    Row("S29", "the new file that is renamed to the report's name",
        (Edit("sandbox/output.py", "flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC",
              "flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC"),
         Edit("sandbox/output.py", 'temporary = f"{self._name}.{os.getpid()}.{os.urandom(4).hex()}"',
              "temporary = self._name")),
        ("test_names.py::test_symlink_at_the_reports_path",)),
    Row("R19", "what to do, in the error of who has no manager",
        (Edit("sandbox/bus.py", 'hint=f"log in, or have root do `loginctl enable-linger {uid}`"', 'hint="log in"'),),
        ("../lab/test_bus.py::test_a_user_without_a_manager_is_told_what_to_do",), only="container", place="host",
        timeout=120),
    Row("R27", "the lock around the connection that threads share",
        (Edit("sandbox/bus.py", "        with self._lock:\n            begin, again", "        if True:\n"
              "            begin, again"),),
        ("test_many.py::test_32_threads",), drivers="systemd", timeout=110),
    Row("R26", "the refusal of a file that is not UTF-8",
        (Edit("sandbox/config.py", "except (ValueError, RecursionError)",
              "except (tomllib.TOMLDecodeError, RecursionError)"),),
        ("test_escape_config.py::test_r26_broken_files_are_refused_in_one_line",)),
    Row("S12", "that files are masked once /dev is ours, and RESOLVE_NO_SYMLINKS: the /dev/null of the root is taken",
        (Edit(FILESYSTEM, "    yield from devices.make(spec, host, owner)\n",
              "    yield from _masks(spec, host)\n    yield from devices.make(spec, host, owner)\n"),
         Edit("sandbox/init/inside.c", "is_fixed(path) ? RESOLVE_NO_SYMLINKS",
              "is_fixed(path) ? RESOLVE_NO_MAGICLINKS")),
        ("test_escape_rootfs.py::test_s12_a_dev_that_is_made_up",), only="none"),
    Row("S12", "RESOLVE_IN_ROOT",
        (Edit("sandbox/init/inside.c", "(inside_root < 0 ? 0 : RESOLVE_IN_ROOT)", "0"),
         Edit("sandbox/init/inside.c", "inside_root < 0 ? AT_FDCWD : inside_root, path, &how",
              "inside_root < 0 ? AT_FDCWD : inside_root, "
              'inside_root < 0 ? path : path[1] == 0 ? "." : path + 1, &how')),
        ("test_escape_rootfs.py::test_s12_other_places_that_are_symlinks",), only="none"),
    Row("S13", "RESOLVE_NO_SYMLINKS on the way to /proc, /sys and /dev",
        (Edit("sandbox/init/inside.c", "is_fixed(path) ? RESOLVE_NO_SYMLINKS",
              "is_fixed(path) ? RESOLVE_NO_MAGICLINKS"),),
        ("test_escape_rootfs.py::test_s13_fixed_places_that_are_symlinks",), only="none"),
    Row("S13", "the mount of /proc",
        (Edit(FILESYSTEM, '        yield step("mount", "proc", "/proc", KERNEL, "")\n'),),
        ("test_escape_rootfs.py::test_s13_a_proc_that_is_made_up",), only="none"),
    Row("parity", "the rounding to what systemd keeps",
        (Edit(SYSTEMD, "plain = rounded(wish, version)", "plain = wish"),),
        ("test_parity.py::test_the_kernel_holds_the_same",), only="odd", drivers="systemd"),
    Row("S04", "the end of who makes calls of another architecture",
        (Edit("sandbox/isolation/libseccomp.py", "context, ATTRIBUTE_BAD_ARCHITECTURE, KILL_PROCESS)",
              "context, ATTRIBUTE_BAD_ARCHITECTURE, 0x7FFF0000)"),),
        ("test_escape_calls.py::test_s04_calls_of_other_architectures",), only="none"),
    Row("S05", "ENOSYS in the filter's answer to clone3",
        (Edit("sandbox/isolation/profile/default.json",
              '"names": ["clone3"],\n   "action": "SCMP_ACT_ERRNO",\n   "errnoRet": 38,',
              '"names": ["clone3"],\n   "action": "SCMP_ACT_ERRNO",\n   "errnoRet": 1,'),),
        ("test_escape_calls.py::test_s05_clone3_and_unknown_calls_do_not_exist",), only="none"),
    Row("S05", "ENOSYS in the filter's answer to what it does not know",
        (Edit("sandbox/isolation/libseccomp.py", "(RETURN, 0, 0, ERRNO | ENOSYS),", "(RETURN, 0, 0, ERRNO | EPERM),"),),
        ("test_escape_calls.py::test_s05_clone3_and_unknown_calls_do_not_exist",), only="none"),
)
