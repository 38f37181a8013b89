# Everything a newcomer or a developer does with Ragstone. `make` alone lists it.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BUF    := node_modules/.bin/buf
# The compiled protos: buf needs them so, since protovalidate's own .proto is not kept here.
IMAGE  := .cache/ragstone.binpb
# A vLLM that runs on a CPU, and small models for it: for tests and benchmarks only.
VLLM   := .venv-vllm
MODELS := .cache/vllm
# The first Python that runs and is new enough; `make setup PYTHON=...` chooses another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check format proto crash-test bench-search bench-ingest bench-rebuild bench-reembed bench-adapters bench-embed bench-rerank bench-ann bench-stores bench-footprint bench-prefix bench-answers bench-similar vllm test-vllm clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install everything into it

$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Ragstone needs Python 3.11 or later: none was found" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--constraint constraints.txt --editable ./client --editable '.[dev]'
	@touch $@

demo: setup ## Index this machine's Python documentation and ask it questions, over gRPC
	@$(BIN)/ragstone demo

test: setup ## Run all tests; those against a real vLLM where `make vllm` was run
	@$(BIN)/pytest --numprocesses 2 --dist loadfile

test-fast: setup ## Run the tests that need no server process and little time
	@$(BIN)/pytest --numprocesses 2 --dist loadfile -m 'not slow and not e2e and not vllm'

vllm: $(MODELS)/tiny/config.json $(MODELS)/mid/config.json ## Make .venv-vllm (2.4 GB), a real vLLM for the CPU, and models for it

test-vllm: setup vllm ## Run the tests that need a real vLLM
	@$(BIN)/pytest -m vllm

$(VLLM)/.installed: tests/vllm/requirements.txt
	@test -n "$(PYTHON)" || { echo "vLLM needs Python 3.11 or later: none was found" >&2; exit 1; }
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@echo "Installing into $(VLLM) (some minutes)"
	@$(VLLM)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --requirement $<
	@touch $@

$(MODELS)/%/config.json: tests/vllm/make_model.py | $(VLLM)/.installed
	@mkdir -p $(MODELS)
	@HF_HUB_OFFLINE=1 $(VLLM)/bin/python $< $* $(MODELS)/$*
	@touch $@

check: setup $(BUF) ## Lint, types, import rules, the API's lint, generated stubs
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/generate_stubs.py --check
	@if [ -x $(BUF) ]; then mkdir -p $(dir $(IMAGE)) && \
		$(BIN)/python tools/generate_stubs.py --image $(IMAGE) && \
		$(BUF) lint $(IMAGE) --path ragstone --config proto/buf.yaml; fi

# buf checks the .proto files. It comes through npm; without npm that one check is left out, except in CI.
$(BUF): package.json
	@if command -v npm >/dev/null; then \
		npm install --silent --no-package-lock --no-audit --no-fund && touch $@; \
	else \
		echo "npm is missing: buf lint is left out" >&2; test -z "$$CI"; \
	fi

format: setup ## Let ruff put the code in shape
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

proto: setup ## Generate the stubs in client/ragstone/v1 from proto/
	@$(BIN)/python tools/generate_stubs.py

crash-test: setup ## Kill the server, and a writer of indexes, 200 times each: is anything lost or revived?
	@$(BIN)/pytest --crash-rounds 200 --kill-rounds 200 tests/e2e/test_crash.py tests/indexes/dense/test_kill.py

bench-search: $(VENV)/.bench ## Search beside pgvector, a bare gRPC echo and the raw libraries
	@$(BIN)/python -m benchmarks.search

bench-ingest: $(VENV)/.bench ## Ingest beside the raw model
	@$(BIN)/python -m benchmarks.ingest

bench-rebuild: $(VENV)/.bench ## Rebuilds under steady traffic: latency, failures, what was lost
	@$(BIN)/python -m benchmarks.rebuild

bench-reembed: $(VENV)/.bench ## Re-embedding jobs beside the raw model, several workers and Ray beside one
	@$(BIN)/python -m benchmarks.reembed

bench-adapters: $(VENV)/.bench ## Query adapters: a new model over an old index, beside embedding all anew
	@$(BIN)/python -m benchmarks.adapters

bench-embed: $(VENV)/.bench ## The embedder beside raw Sentence Transformers: speed and quality
	@$(BIN)/python -m benchmarks.embed

bench-rerank: $(VENV)/.bench ## Reranking: its cost beside raw models, and nDCG@10 with and without it
	@$(BIN)/python -m benchmarks.rerank

bench-answers: $(VENV)/.bench ## What answers add to a search, and how good extracted ones are
	@$(BIN)/python -m benchmarks.answers

bench-similar: $(VENV)/.bench ## How often an answer is given to another question, and how often wrongly
	@$(BIN)/python -m benchmarks.similar

bench-ann: $(VENV)/.bench ## The dense index beside raw FAISS, hnswlib and qdrant-edge
	@$(BIN)/python -m benchmarks.ann

bench-footprint: $(VENV)/.bench ## What a chunk takes in a server's memory and files, beside the calculator's formulas
	@$(BIN)/python -m benchmarks.footprint

bench-stores: $(VENV)/.bench ## The dense index in PostgreSQL beside psycopg and pgvector themselves
	@$(BIN)/python -m benchmarks.stores

bench-prefix: setup vllm ## The order of passages and a real vLLM's prefix cache: cached share, time to first token
	@$(BIN)/python -m benchmarks.prefix

$(VENV)/.bench: $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--constraint constraints.txt --editable ./client --editable '.[bench]'
	@touch $@

clean: ## Remove what the targets made, .venv included; the benchmarks' embeddings stay
	rm -rf $(VENV) node_modules build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
