PYTHON ?= python

.PHONY: format lint test slow demo

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
