# `make help` lists the targets.

PROFILE ?= release
# Those that `make test-engines` tries: `system`, and those that tests/support/engines.sh knows.
ENGINES ?= system 28.5 26.1
PLUGIN ?= dso:latest
# Another content for each creation: see PLUGIN_MARK in plugin/rootfs.sh.
MARK = $(PLUGIN) $(shell git describe --always --dirty 2>/dev/null) $(shell date +%s%N)

# Cargo's folder for the profile `dev` is called debug.
built = target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
staged = target/plugin/$(PROFILE)
# 16 MiB, promised for the release build; a dev build is larger, and no one downloads it.
limit = $(if $(filter release,$(PROFILE)),16777216)
world = target/world
# Engine tests share two cores with the engine: .config/nextest.toml says how many run at once. Without nextest, two.
run_tests = $(if $(shell command -v cargo-nextest),cargo nextest run,cargo test -- --test-threads=2)
run_engine_tests = $(if $(shell command -v cargo-nextest),cargo nextest run --test engine --test docker,cargo test --test engine --test docker -- --test-threads=2)

scripts = .ci/run plugin/*.sh tests/support/*.sh

.DEFAULT_GOAL := help
.PHONY: help build rootfs plugin plugin-push install-cli demo test test-engines check bench pictures test-world clean-world

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo "Settings: PLUGIN=$(PLUGIN) PROFILE=$(PROFILE) (or dev)"

demo: ## Show a secret served and rotated in a real container, then remove everything again
	@PLUGIN=$(PLUGIN) PROFILE=$(PROFILE) plugin/demo.sh

test: test-world ## Run every test (root and a Docker engine needed)
	@tests/support/sweep.sh
	@status=0; $(run_tests) || status=$$?; tests/support/sweep.sh || status=1; exit $$status

# The build comes first: inside, the network is the engine's.
test-engines: test-world ## Run the tests of the engine on the system's engine and on newer ones (ENGINES="28.5")
	@cargo test --test engine --test docker --no-run
	@tests/support/sweep.sh
	@status=0; for engine in $(ENGINES); do \
		echo "== engine $$engine"; \
		if [ $$engine = system ]; then $(run_engine_tests); \
		else tests/support/engines.sh with $$engine $(run_engine_tests); fi || status=1; \
	done; tests/support/sweep.sh || status=1; exit $$status

check: ## Check format, lints, docs, licences, scripts and unit tests
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	@# It looks at crates of every platform, also those that no build here has fetched.
	cargo fetch --locked
	cargo deny --offline check licenses bans sources
	@for script in $(scripts); do bash -n $$script || exit 1; done
	$(if $(shell command -v shellcheck),shellcheck --external-sources --severity=warning,@echo No shellcheck here; not checked:) $(scripts)
	cargo test --lib --test house

bench: test-world ## Print the figures: Mount, Unmount, docker run, memory, rotation
	@tests/support/sweep.sh
	@status=0; cargo bench --bench mount || status=$$?; cargo bench --bench rotate || status=$$?; tests/support/sweep.sh || status=1; exit $$status

pictures: test-world ## Draw what docker dso shows on a terminal, under docs/pictures
	cargo test --test pictures --no-run
	@# Over the host's own /etc, where nobody else sees it.
	unshare --mount sh -ec 'mount -t tmpfs none /mnt; mkdir /mnt/upper /mnt/work; \
		mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc; \
		install -d -m 0700 /etc/dso; exec cargo test --test pictures'

plugin: rootfs ## Create and enable the plugin from the work tree (SET="DSO_LOG=debug …")
	@plugin/install.sh $(PLUGIN) $(staged) $(SET)

plugin-push: rootfs ## Push the plugin to a registry: PLUGIN=host:port/name:tag
	@plugin/push.sh $(PLUGIN) $(staged)

install-cli: build ## Install `docker dso` and its manual for this user
	install -D -m 0755 $(built)/docker-dso "$${DOCKER_CONFIG:-$$HOME/.docker}/cli-plugins/docker-dso"
	$(built)/docker-dso man "$${XDG_DATA_HOME:-$$HOME/.local/share}/man/man1"

build: ## Build the binaries (PROFILE=release, or dev)
	cargo build --bins --profile $(PROFILE)

rootfs: build ## Assemble what the plugin is created from, under target/plugin
	@PLUGIN_MARK="$(MARK)" ROOTFS_LIMIT=$(limit) plugin/rootfs.sh $(built)/dso $(staged)

test-world: ## Fetch and make what the tests need, under target/world
	@tests/support/world.sh

clean-world: ## Remove that again, and the tests' images
	@tests/support/sweep.sh
	@tests/support/world.sh clean
