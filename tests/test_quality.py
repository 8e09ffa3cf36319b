"""What the sources must keep to: linters, types, sizes, names, and what an import may load."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted(path for name in ("sandbox", "cli", "benchmarks") for path in (ROOT / name).rglob("*.py"))
C_SOURCES = sorted([*(ROOT / "sandbox" / "init").glob("*.c"), *(ROOT / "sandbox" / "init").glob("*.h")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TEXTS = [*LIBRARY, *C_SOURCES, *TESTS,
         *(path for name in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "setup.py", "benchmarks/demo",
                                     "docs/inside-containers.md")
           if (path := ROOT / name).exists()), *(ROOT / ".ci").iterdir()]
MAX_MODULE = 400
"""Lines of a file in Python or C."""
MAX_FUNCTION = 60
"""Lines of a function in Python or C, from its name to its end; of the tests, too."""
C_FUNCTION = re.compile(r"^\w[^\n;]*?(?P<name>\w+)\([^;{}]*\)\n\{\n.*?^\}\n", re.MULTILINE | re.DOTALL)
"""A definition: in our C sources only its braces stand alone in the first column."""


def _tool(name: str, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", name, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    _tool("ruff", "check", "--no-cache", "sandbox", "cli", "tests", "benchmarks",
          *(["setup.py"] if (ROOT / "setup.py").exists() else []))


@pytest.mark.timeout(300)
def test_mypy() -> None:
    # A cache of one's own: what root wrote, another user could not renew.
    _tool("mypy", "--strict", "--cache-dir", str(ROOT / "build" / f"mypy-{os.geteuid()}"))


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name of each function in a file of Python or C, and its number of lines."""
    if path.suffix == ".py":
        for node in ast.walk(_parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, (node.end_lineno or 0) - node.lineno + 1
        return
    for found in C_FUNCTION.finditer(path.read_text()):
        yield found["name"], found[0].count("\n")


@pytest.mark.parametrize("files", [LIBRARY, C_SOURCES, TESTS], ids=["library", "c", "tests"])
def test_sizes(files: list[Path]) -> None:
    long_files = {str(path): lines for path in files if (lines := len(path.read_text().splitlines())) > MAX_MODULE}
    assert long_files == {}
    long_functions = {f"{path}:{name}": lines for path in files for name, lines in _functions(path)
                      if lines > MAX_FUNCTION}
    assert long_functions == {}


def test_every_function_in_c_is_measured() -> None:
    ends = {path: path.read_text().splitlines().count("}") for path in C_SOURCES}
    assert sum(ends.values()) > 200
    assert {path: len([*_functions(path)]) for path in C_SOURCES} == ends


def test_names_of_modules() -> None:
    banned = re.compile(r"(.*_)?(utils?|common|helpers?|managers?|base|misc)")
    assert [str(path) for path in LIBRARY if banned.fullmatch(path.stem)] == []


def test_no_write_that_swallows_the_error() -> None:
    """CPython ignores what close(2) says of a file that was never closed by name: ``open(p, "w").write(v)``."""
    found = [f"{path}:{node.lineno}" for path in LIBRARY for node in ast.walk(_parsed(path))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "write"
             and isinstance(node.func.value, ast.Call)]
    assert found == []


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of every module that a file imports from; ``.`` stands for a relative import."""
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." if node.level else str(node.module)


def test_tests_share_nothing_but_the_package_support() -> None:
    """Several directories have a ``conftest``: the order of the path would decide which of them an import gets."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["pythonpath"] == ["tests"]
    tests = ROOT / "tests"
    unshared = {".", "tests", *(path.stem for path in tests.iterdir())} - {"support"}
    found = [f"{path}:{line}: {name}" for path in TESTS for line, name in _imports(path)
             if name == "." or name.partition(".")[0] in unshared]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in LIBRARY if not ast.get_docstring(_parsed(path))] == []


# Put together here, so that this file does not find itself.
BANNED = (r"/wo" + r"rk/", r"/ro" + r"ot/", r"/tmp/v" + r"/", "py" + r"pi\.")


@pytest.mark.parametrize("pattern", BANNED)
def test_nothing_of_the_machine_it_was_built_on(pattern: str) -> None:
    found = [f"{path}: {line.strip()}" for path in TEXTS for line in path.read_text().splitlines()
             if re.search(pattern, line, re.IGNORECASE)]
    assert found == []


def test_c_builds_without_warnings(tmp_path: Path) -> None:
    for source in C_SOURCES:
        if source.suffix == ".c":
            done = subprocess.run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wshadow", "-Werror",
                                   "-O2", "-c", str(source), "-o", str(tmp_path / "object.o")],
                                  text=True, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


def test_shell_scripts() -> None:
    import shutil

    scripts = [str(path) for path in (*(ROOT / ".ci").iterdir(), ROOT / "benchmarks" / "demo")]
    for script in scripts:
        assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
        assert os.access(script, os.X_OK), script
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_readme_commands_exist() -> None:
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?m)(?:^|`)make ([a-z-]+)", text)
    assert {"demo", "test"} <= set(targets)
    made = {word for rule in re.findall(r"(?m)^([a-z][a-z -]*):", makefile) for word in rule.split()}
    assert set(targets) <= made
    flags = {"--help", *_flags_of_the_program()}
    commands = [line for line in text.splitlines() if re.match(r"\$? ?(\.venv/bin/)?sandbox ", line.strip())]
    assert commands
    for command in commands:
        for flag in re.findall(r"(?<= )--[a-z-]+", command.split(" -- ")[0]):
            assert flag in flags, f"{flag} in {command}"


def _flags_of_the_program() -> set[str]:
    import typer
    from sandbox_cli.application import application

    found, waiting = set(), [typer.main.get_command(application(""))]
    while waiting:
        command = waiting.pop()
        found |= {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
        waiting += getattr(command, "commands", {}).values()
    return found


def test_changelog_has_the_version() -> None:
    import tomllib

    import sandbox

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert sandbox.__version__ == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_package_is_shipped() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "sandbox").rglob("__init__.py")}
    assert listed == there | {"sandbox_cli"}


def test_every_op_is_explained() -> None:
    from sandbox.init.wire import OPS
    from sandbox.teach.explain import OPS as EXPLAINED

    assert set(OPS) <= set(EXPLAINED)
