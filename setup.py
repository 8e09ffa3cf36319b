"""Builds sandbox-init, the one part of the package that is not Python. Everything else is in pyproject.toml."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.dist import Distribution

SOURCES = Path("sandbox", "init")
PROGRAM = SOURCES / "sandbox-init"


class BuildInit(Command):
    """Compile sandbox-init into the package, or in place for an editable install."""

    description = "compile sandbox-init"
    user_options: ClassVar = [("build-lib=", "b", "directory to build into")]
    build_lib: str | None
    editable_mode: bool

    def initialize_options(self) -> None:
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        target = PROGRAM if self.editable_mode else Path(self.get_outputs()[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        runpy.run_path(str(SOURCES / "build.py"))["build"](target)

    def get_source_files(self) -> list[str]:
        """What the source distribution must have."""
        return sorted(str(file) for pattern in ("*.c", "*.h") for file in SOURCES.glob(pattern))

    def get_outputs(self) -> list[str]:
        assert self.build_lib is not None
        return [str(Path(self.build_lib) / PROGRAM)]

    def get_output_mapping(self) -> dict[str, str]:
        """An editable install has nothing to link to: it is built in place."""
        return {}


class Build(build):
    """The build with sandbox-init."""

    sub_commands: ClassVar = [*build.sub_commands, ("build_init", None)]


class NativeDistribution(Distribution):
    """Python code that is the same everywhere, with a program that is not."""

    def has_ext_modules(self) -> bool:
        return True


class Wheel(bdist_wheel):
    """A wheel for any Python 3 on this kind of machine."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(distclass=NativeDistribution, cmdclass={"build": Build, "build_init": BuildInit, "bdist_wheel": Wheel})
