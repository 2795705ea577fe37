PYTHON ?= python

.PHONY: format lint test slow demo backends

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

demo:
	$(PYTHON) -m simsiam_keras pretrain --flagfile=flags/digits.cfg
	$(PYTHON) -m simsiam_keras linear-probe --encoder=saved_models/digits/encoder --dataset=digits

# Environments without TensorFlow, for the tests of the other backends.
backends: .venv-jax .venv-torch

.venv-%: requirements-%.txt
	$(PYTHON) -m venv $@
	$@/bin/pip install -q -r $<
