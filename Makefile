# One command per need; `make` alone prints them. The machine needs git, make and Python 3.10 or
# newer with its venv module; everything else is installed into .venv, and nothing outside it.

PYTHON ?= python3
# Without `ros` (its wheels are for Linux on x86_64 only), all but the nodes works.
EXTRAS ?= ros,sim,test
ARGS ?=
# What else pip installs, and what pins it: Kilted's wheels come in this way.
WHEELS :=
PINS := constraints.txt

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The wheels in .venv are a whole ROS of their own: parts of a sourced one would break them.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONHOME \
	PYTHONPATH RMW_IMPLEMENTATION ROS_DISTRO ROS_PYTHON_VERSION ROS_VERSION \
	_ROS_WHEELS_BOOTSTRAP_COMPLETE

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-kilted bench lint clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.* ## (.*)/  make \1\t\2/p' Makefile | expand -t 20
	@echo
	@echo "  ARGS='...'      passed on to demo, test (pytest) and bench"
	@echo "  PYTHON=...      the interpreter a new $(VENV) is made with (now: $(PYTHON))"
	@echo "  EXTRAS=...      what is installed with the package (now: $(EXTRAS))"

venv: $(INSTALLED) ## install into .venv; does nothing where that is done

demo: $(INSTALLED) ## a robot learns, forgets nothing and says when it is unsure
	$(BIN)/lifelong-bayes demo $(ARGS)

test: lint ## style and every test
	$(BIN)/python -m pytest -n 2 --dist loadfile test $(ARGS)

# Those that import ROS or a node, whatever they are called: a new one is tried, too.
test-kilted: build/kilted.txt ## the tests that need ROS on ROS 2 Kilted, in .venv-kilted
	$(MAKE) venv VENV=.venv-kilted EXTRAS=sim,test WHEELS='-r test/kilted.txt' PINS=$<
	.venv-kilted/bin/python -m pytest -n 2 --dist loadfile $(shell grep -lE 'rclpy|_ros\.nodes' test/test_*.py) $(ARGS)

# All but the wheels of Jazzy.
build/kilted.txt: constraints.txt
	@mkdir -p $(@D)
	grep -v '^ros-' $< > $@

bench: $(INSTALLED) ## every published number again, resumably, into BENCHMARKS.md
	$(BIN)/lifelong-bayes bench all $(ARGS)

lint: $(INSTALLED) ## style only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## remove what builds and tests leave; .venv and results (out/) stay
	rm -rf build install log dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# The stamp comes last, so the next call takes up an interrupted installation: pip keeps what it had
# finished, once that which it had only begun (no INSTALLER yet) is out of its sight.
$(INSTALLED): setup.py pyproject.toml $(PINS)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
			echo "'$(PYTHON)' is no Python 3.10 or newer. Name one that is:" \
				"make venv PYTHON=python3.12" >&2; exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "'$(PYTHON)' has no venv module. Install it (Debian and Ubuntu: sudo apt" \
				"install python3-venv), or name another: make venv PYTHON=python3.12" >&2; \
			exit 1; }; \
		$(PYTHON) -m venv --clear $(VENV); }
	@find $(VENV) -name '*.dist-info' -prune ! -exec test -e '{}/INSTALLER' ';' -exec rm -r {} +
	$(BIN)/python -m pip install -e '.[$(EXTRAS)]' $(WHEELS) -c $(PINS)
	@touch $@
