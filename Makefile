PYTHON ?= python

.PHONY: format lint test slow faults demo backends lock licences

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --select I --fix .

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

test:
	$(PYTHON) -m pytest

slow:
	$(PYTHON) -m pytest -m slow

# As `make slow` has it, but for how much: 30 kills in each place, every state of a run's folder, and
# 10,000 cases for what is read.
faults:
	KILLS=30 EVERY=1 CASES=10000 $(PYTHON) -m pytest -m "slow or not slow" --timeout=7200 tests/faults

demo:
	$(PYTHON) -m simsiam_keras pretrain --flagfile=flags/digits.cfg
	$(PYTHON) -m simsiam_keras linear-probe --encoder=saved_models/digits/encoder --dataset=digits

# Environments without TensorFlow, for the tests of the other backends.
backends: .venv-jax .venv-torch

.venv-%: requirements-%.txt requirements-onnx-%.txt
	$(PYTHON) -m venv $@
	$@/bin/pip install -q $(addprefix -r ,$^)

# Every package of TensorFlow's environment and of the tests, pinned with hashes, without an index.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q "pip-tools>=7.5,<8"
	CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile -q --upgrade --generate-hashes \
		--allow-unsafe --strip-extras --no-annotate --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host -o requirements.lock requirements-dev.txt

# What the packages say of themselves that are installed in .venv and by `make backends`.
licences:
	$(PYTHON) tools/licences.py > docs/licences.new
	mv docs/licences.new docs/licences.md
