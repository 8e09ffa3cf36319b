# make demo, make test: each does all its own set-up, and is quick the second time.

VENV := .venv
PYTHON := $(VENV)/bin/python
INIT := sandbox/init/sandbox-init
INIT_SOURCES := $(wildcard sandbox/init/*.c sandbox/init/*.h)
PYTEST_FLAGS ?=
INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check --editable
# setuptools maps cli/ to sandbox_cli by a finder that loads pathlib and more into each start, 8 ms; two links do the same.
LINK = site=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	&& mkdir -p $(VENV)/editable \
	&& ln -sfn "$(CURDIR)/sandbox" $(VENV)/editable/sandbox \
	&& ln -sfn "$(CURDIR)/cli" $(VENV)/editable/sandbox_cli \
	&& echo "$(CURDIR)/$(VENV)/editable" >"$$(ls "$$site"/__editable__.sandbox_runner-*.pth)"

.PHONY: help demo test test-all test-host test-user test-container test-vm test-rootless test-lab test-tools test-labels \
	test-bookworm test-sid test-protections bench \
	setup setup-test compile clean

help:
	@echo 'make demo    a real workload under memory, CPU and task limits, with its report'
	@echo 'make test    every test, each where its behaviour can differ; those that make cgroups here need root'
	@echo 'make test-all        every test everywhere, other tools, and each protection taken away: an hour without KVM'
	@echo 'make test-host       one part, everything of it: the sources, and the behaviour suite on this machine'
	@echo 'make test-user       what a command can reach, when a normal user of this machine runs it'
	@echo 'make test-container  the same suite in a container with its own systemd'
	@echo 'make test-vm         the same in a VM with systemd and cgroup v2; slow without KVM'
	@echo 'make test-rootless   the same as a normal user of that VM'
	@echo 'make test-tools      exports and seccomp filters, checked with docker, podman and others in a VM'
	@echo 'make test-labels      labels of SELinux and AppArmor, each in a VM that has it'
	@echo 'make test-bookworm    units and limits with systemd 252; test-sid with the newest'
	@echo 'make test-protections  each of the forty cases must notice that its protection is gone; CASES="S01 S02" takes two'
	@echo 'make test-lab        the labs themselves: boot, use and end each'
	@echo 'make bench   launch time and memory, beside other tools'
	@echo 'make clean   remove what was built'

demo: setup
	@benchmarks/demo

# The parts are in tests/suite.py. Images of VMs are built on first use.
SUITE = $(PYTHON) tests/suite.py

test: setup-test
	@.ci/packages lab
	@$(SUITE) --tier quick host user container lab rootless vm -- $(PYTEST_FLAGS)

test-all: setup-test
	@.ci/packages lab
	@$(SUITE) host user container rootless vm lab tools labels bookworm sid -- $(PYTEST_FLAGS)
	@.ci/as-root $(PYTHON) tests/protections.py

test-host test-user: setup-test
	@$(SUITE) $(@:test-%=%) -- $(PYTEST_FLAGS)

test-container test-vm test-rootless test-tools test-labels test-bookworm test-sid test-lab: setup-test
	@.ci/packages lab
	@$(SUITE) $(@:test-%=%) -- $(PYTEST_FLAGS)

test-protections: setup-test
	@.ci/packages lab
	@.ci/as-root $(PYTHON) tests/protections.py $(CASES)

bench: setup
	@.ci/as-root $(PYTHON) benchmarks/launch.py
	@.ci/as-root $(PYTHON) benchmarks/memory.py

setup: $(VENV)/.installed $(INIT) compile

setup-test: $(VENV)/.installed-test $(INIT) compile

# Some environments keep Python from writing bytecode, and then each start would compile it all again.
compile: $(VENV)/.installed
	@$(PYTHON) -m compileall -q sandbox cli

$(VENV)/.installed: pyproject.toml setup.py .ci/packages .ci/python Makefile
	@.ci/packages
	@test -x $(PYTHON) || "$$(.ci/python)" -m venv $(VENV)
	@echo 'Installing into $(VENV)'
	@$(INSTALL) .
	@$(LINK)
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@.ci/packages test
	@$(INSTALL) '.[test]'
	@$(LINK)
	@touch $@

$(INIT): $(INIT_SOURCES) setup.py | $(VENV)/.installed
	@$(INSTALL) . --no-deps
	@$(LINK)
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info $(INIT) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find sandbox cli tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
