# Everything a user or developer runs. Needs: make, Python 3.11 or later with venv, and a network
# for the first run. All packages come from requirements/dev.txt, each checked against its hash.

# The distribution's Python where it is new enough: it is built for speed, and what figures are told
# of; else the one in the path.
PYTHON ?= $(shell for one in /usr/bin/python3 python3; do \
	$$one -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$one && exit; \
	done; echo python3)
UV ?= uv
JOBS ?= 2
ENVIRONMENT := .venv
RUN := $(ENVIRONMENT)/bin

# The stamp carries the hash of the locks, of the place of this checkout and of the Python in use,
# so that a change of any of them makes the environment anew.
STAMP := $(ENVIRONMENT)/made-$(shell { cat requirements/dev.txt; echo '$(CURDIR)'; \
	$(PYTHON) -V 2>&1; } | sha256sum | cut -c1-16)

# Folders without a Python file yet are left out: mypy refuses them.
CHECKED := ksz_router tests $(wildcard bench/*.py contrib/*.py contrib/*/*.py)

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz lint format lock wheel bench-router bench-peers bench-crash bench-reload bench-abuse bench-soak bench-idle bench-decide bench-start bench-privacylog bench-directory bench-log-faults clean environment

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: environment ## a router, its sources and requesters on this machine, with every step shown
	@$(RUN)/python contrib/demo/run.py

test: environment ## all tests
	@$(RUN)/python -m pytest -n $(JOBS)

fuzz: environment ## broken and hostile peers, for as long as it takes; with atheris if it is installed
	@$(RUN)/python contrib/fuzz/run.py $(FUZZ)

lint: environment ## format, lint rules and types
	@$(RUN)/python -m ruff format --check .
	@$(RUN)/python -m ruff check .
	@$(RUN)/python -m mypy $(CHECKED)

format: environment ## put the code in its format
	@$(RUN)/python -m ruff format .
	@$(RUN)/python -m ruff check --fix .

bench-router: environment ## exchanges per second, latency and CPU of one router
	@$(RUN)/python bench/router.py

bench-peers: environment ## the router beside HAProxy and nats-server, on the same work
	@PATH=$$PATH:/usr/sbin; { command -v haproxy && command -v nats-server; } >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo 'installing haproxy and nats-server with apt-get; their services stay off'; \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends haproxy nats-server; \
			systemctl disable --now haproxy nats-server 2>/dev/null || :; \
		else \
			echo 'HAProxy and nats-server are needed: sudo apt-get install haproxy nats-server'; exit 1; \
		fi; }
	@$(RUN)/python bench/peers.py

bench-crash: environment ## kill a router under load, and count what is missing afterwards
	@$(RUN)/python bench/crash.py

bench-log-faults: environment ## torn writes, failing steps, power cuts, flipped bytes; counts what is lost
	@$(RUN)/python bench/log_faults.py

bench-reload: environment ## reload everything, good and bad, at 2,000/s, and count what is missing
	@$(RUN)/python bench/reload.py

bench-abuse: environment ## hurt a router each way in turn, with a good client beside it
	@$(RUN)/python bench/abuse.py

bench-soak: environment ## a quarter of an hour at 5,000/s: memory, stalls, pauses
	@$(RUN)/python bench/soak.py

bench-idle: environment ## memory of a connection that does nothing, and of one that says nothing
	@$(RUN)/python bench/idle.py

bench-decide: environment ## decisions per second, against other decision engines
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--only-binary :all: --require-hashes -r requirements/bench.txt
	@$(RUN)/python bench/decide.py

bench-start: environment ## time from exec to ready, with ten million persons
	@$(RUN)/python bench/start.py

bench-privacylog: environment ## the privacy log: sustained, sealed, verified, asked over ten years; 30 GB of disk
	@$(RUN)/python -m bench.privacylog $(PRIVACYLOG)

bench-directory: environment ## 25 million persons: built, looked up, opened, changed, checked; 30 GB of disk
	@$(RUN)/python -m bench.directory $(DIRECTORY)

lock: ## take the newest versions that pyproject.toml allows into requirements/*.txt (needs uv)
	@command -v $(UV) >/dev/null || { echo 'make lock needs uv: pipx install uv, or make lock UV=path'; exit 1; }
	@$(COMPILE) --output-file requirements/run.txt
	@$(COMPILE) --extra audit --constraint requirements/run.txt --output-file requirements/audit.txt
	@$(COMPILE) --extra audit --group dev --constraint requirements/audit.txt --output-file requirements/dev.txt
	@$(COMPILE) --group bench --constraint requirements/run.txt --output-file requirements/bench.txt

# Wheels only, so that no code of a package runs while it is installed; hashes of every wheel of a
# version, so that x86-64 and ARM and later Pythons install from the same lock.
COMPILE = $(UV) pip compile pyproject.toml --quiet --upgrade --no-config --generate-hashes \
	--python-platform linux --python-version 3.11 --only-binary :all: \
	--default-index https://pypi.org/simple --custom-compile-command 'make lock'

wheel: environment ## the wheel to install on a server, in dist/
	@$(RUN)/python -m hatchling build --target wheel

clean: ## remove the environment and every cache
	@rm -rf $(ENVIRONMENT) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Python 3.11 or later is needed; name it with: make PYTHON=python3.11'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo 'installing python3-venv with apt-get'; \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv; \
		fi; }
	@test ! -L $(ENVIRONMENT) || rm $(ENVIRONMENT)  # else another checkout's would be emptied
	@echo 'making $(ENVIRONMENT) from requirements/dev.txt'
	@$(PYTHON) -m venv --clear $(ENVIRONMENT) >/dev/null 2>&1 || python3 -m venv --clear $(ENVIRONMENT) || { \
		echo 'Python has no ensurepip here. Install it: sudo apt-get install python3-venv'; exit 1; }
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--only-binary :all: --require-hashes -r requirements/dev.txt
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --editable .
	@touch $@
