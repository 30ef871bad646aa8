.PHONY: help setup train check test
help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'
setup: ## install into the active Python environment
	pip install -e ".[dev]" -c constraints.txt
train: ## the main job: train an encoder on the built-in domain
	python train.py
check: ## lint, format and types
	ruff check . && ruff format --check . && mypy
test: ## the tests
	pytest -n 4 --dist loadfile
