"""The forty cases that the first release must stand: where each of them is tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from protections_table import ROWS

HERE = Path(__file__).parent
FORTY = {
    "L01": ("test_memory.py::test_memory_limit_ends_the_run",),
    "L07": ("test_tasks.py::test_fork_bomb_is_over_in_time",),
    "R09": ("test_killed.py::test_runner_is_killed_at_any_moment",
            "test_killed.py::test_gc_cleans_what_nobody_else_could"),
    "S01": ("test_escape_calls.py::test_s01_no_capabilities_no_new_privileges_and_a_filter",),
    "S02": ("test_escape_calls.py::test_s02_calls_that_are_denied",),
    "L14": ("test_refusals.py::test_what_v1_lacks_is_refused", "test_refusals.py::test_what_v2_lacks_is_refused",
            "test_refusals.py::test_without_cgroups_a_memory_limit_is_refused",
            "test_refusals.py::test_best_effort_lists_what_is_unmet"),
    "R01": ("test_ends.py::test_exit_code_is_the_commands_own", "test_ends.py::test_signal_is_128_plus_n",
            "test_ends.py::test_missing_command", "test_ends.py::test_not_executable", "test_ends.py::test_directory",
            "test_ends.py::test_bad_interpreter"),
    "L06": ("test_tasks.py::test_fork_fails_at_the_limit", "test_escape_limits.py::test_l06_threads_count_as_tasks"),
    "R16": ("test_units.py::test_limits_survive_reloads_and_a_reexec",),
    "R18": ("test_units.py::test_commands_that_end_at_once", "test_units.py::test_starting_while_systemd_reloads",
            "test_units.py::test_a_command_outside_its_cgroup_never_starts"),
    "S11": ("test_escape_cgroups.py::test_s11_limits_stay_and_nobody_leaves",
            "test_escape_cgroups.py::test_s11_its_own_cgroup_is_the_root_to_it",
            "test_escape_cgroups.py::test_s11_the_cgroups_of_the_host_do_not_show"),
    "S08": ("test_escape_files.py::test_s08_only_the_standard_streams_are_open",
            "test_inside.py::test_only_the_standard_fds"),
    "R08": ("test_killed.py::test_signal_ends_the_tree", "test_killed.py::test_tree_that_ignores_the_signal_is_killed",
            "test_killed.py::test_second_signal_does_not_wait", "test_terminal.py::test_ctrl_c_arrives_once"),
    "R07": ("test_escape_limits.py::test_r07_a_command_that_would_be_pid_1_obeys",),
    "R06": ("test_inside.py::test_no_zombies",),
    "L08": ("test_cpu.py::test_two_loops_share_half_a_cpu",),
    "L10": ("test_time.py::test_timeout", "test_cpu.py::test_cpu_time_of_the_tree",
            "test_cpu.py::test_sleeping_uses_no_cpu_time"),
    "S24": ("test_escape_files.py::test_s24_mounts_cannot_be_changed",
            "test_escape_files.py::test_s24_nothing_but_private_memory_is_writable",
            "test_escape_files.py::test_s24_a_read_only_volume_is_so_to_its_last_mount"),
    "S23": ("test_escape_files.py::test_s23_devices",),
    "S18": ("test_escape_neighbours.py::test_s18_processes_of_the_host",),
    "S17": ("test_escape_neighbours.py::test_s17_no_network",),
    "S20": ("test_escape_files.py::test_s20_set_id_programs_and_file_capabilities_give_nothing",),
    "S25": ("test_escape_files.py::test_s25_what_tells_about_the_host_is_empty",),
    "R11": ("test_escape_limits.py::test_r11_cgroups_made_below_are_removed",
            "../kernel/test_gc.py::test_a_dead_claim_goes_with_its_processes_and_sub_cgroups"),
    "R12": ("../kernel/test_init.py::test_a_busy_cgroup_is_removed_when_it_is_empty",
            "../kernel/test_init.py::test_what_cannot_be_removed_is_told"),
    "R15": ("test_units.py::test_gone_after_an_oom_kill_and_the_name_is_free",
            "test_units.py::test_what_is_left_of_a_failed_unit_is_no_hindrance"),
    "R17": ("test_units.py::test_a_restart_of_dbus_changes_nothing",
            "../lab/test_bus.py::test_a_user_without_a_manager_is_told_what_to_do"),
    "L11": ("test_io.py::test_direct_writes_are_limited", "test_io.py::test_report_says_what_v1_does_not_limit"),
    "L12": ("test_io.py::test_path_becomes_the_disk", "test_io.py::test_what_has_no_disk_is_refused"),
    "R13": ("test_refusals.py::test_value_the_kernel_does_not_take", "test_memory.py::test_limit_is_verified"),
    "L03": ("test_escape_limits.py::test_l03_files_in_memory_are_charged",),
    "S30": ("test_inside.py::test_environment_is_an_allow_list",),
    "S31": ("test_escape_neighbours.py::test_s31_control_sockets_of_the_host",),
    "S29": ("test_escape_files.py::test_s29_the_report_goes_nowhere_else",
            "test_names.py::test_symlink_at_the_reports_path"),
    "R19": ("../lab/test_bus.py::test_a_user_without_a_manager_is_told_what_to_do",),
    "R27": ("test_many.py::test_32_threads",),
    "R26": ("test_escape_config.py::test_r26_broken_files_are_refused_in_one_line",),
    "S12": ("test_escape_rootfs.py::test_s12_a_dev_that_is_made_up",
            "test_escape_rootfs.py::test_s12_other_places_that_are_symlinks"),
    "S13": ("test_escape_rootfs.py::test_s13_fixed_places_that_are_symlinks",
            "test_escape_rootfs.py::test_s13_a_proc_that_is_made_up"),
    "parity": ("test_parity.py::test_the_kernel_holds_the_same", "test_parity.py::test_disk_limits"),
    "S04": ("test_escape_calls.py::test_s04_calls_of_other_architectures",),
    "S05": ("test_escape_calls.py::test_s05_clone3_and_unknown_calls_do_not_exist",
            "test_escape_calls.py::test_s05_threads_work"),
}
"""One id may need several tests; two lines of the forty name two ids each."""


@pytest.mark.parametrize("case", FORTY)
def test_every_case_is_a_test(case: str) -> None:
    for place in FORTY[case]:
        file, _, name = place.partition("::")
        assert re.search(rf"^def {name}\(", (HERE / file).read_text(), re.MULTILINE), f"{case}: there is no {place}"


def test_there_are_forty() -> None:
    assert len(FORTY) == 40 + len(("S13", "S05"))


@pytest.mark.parametrize("case", FORTY)
def test_what_protects_it_can_be_taken_away(case: str) -> None:
    """``make test-protections`` does so, and looks whether the tests fail: its table must keep up with the sources."""
    rows = [row for row in ROWS if row.case == case]
    assert rows
    for row in rows:
        assert set(row.tests) <= {*FORTY[case]}
        for edit in row.edits:
            text = (HERE.parents[1] / edit.file).read_text()
            assert text.count(edit.old) == 1, f"{edit.file}: once, and not {text.count(edit.old)} times: {edit.old}"
