# Everything from a bare machine: `make demo`, `make test`. Needs Python 3.11 or newer with pip, and make.
PYTHON ?= python3
VENV ?= .venv
# With a GPU and another build of torch in mind: make TORCH="torch==2.13.0 --index-url ..." demo
TORCH ?= torch==2.13.0

BIN = $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Torch's threads wait asleep, not spinning, when the machine is shared (docs/experiment-log.md).
export GOMP_SPINCOUNT ?= 2000

.PHONY: demo docs test test-all check format constraints bench wheel photos-model inside imagenette fashion-mnist clean

demo: $(VENV)/.demo
	$(BIN)/alexnet train quickstart --out runs/quickstart --resume
	@echo
	@echo "look at   runs/quickstart/report.html"
	@echo "then try  $(BIN)/alexnet predict runs/quickstart IMAGE... --views 10"

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not long" -n auto --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks fuzz examples
	$(BIN)/ruff format --check src tests benchmarks fuzz examples
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix src tests benchmarks fuzz examples
	$(BIN)/ruff format src tests benchmarks fuzz examples

# The versions in .venv, written down: after `make check test` in a new .venv. Triton and CUDA's packages are those that the
# machine's build of torch names.
constraints: $(VENV)/.dev $(VENV)/.docs
	{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed -e 's/+.*//' -e '/@/d' -e '/^nvidia-/d' -e '/^cuda-/d' -e '/^triton==/d'; } > constraints.new
	mv constraints.new constraints.txt

# The documentation as a site, in site/. It is checked for dead links and for anything that it would load from elsewhere.
docs: $(VENV)/.docs
	$(BIN)/python benchmarks/documentation.py gather build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python benchmarks/documentation.py check site

# docs/benchmarks.md, measured again: some fifteen minutes on a quiet machine. Exit 3 if a figure misses its line.
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/cpu.py

# What is published: an sdist, and wheels with the C sources compiled for this machine and, with a compiler for it, for arm64.
wheel: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build
	if command -v aarch64-linux-gnu-gcc; then CC=aarch64-linux-gnu-gcc $(BIN)/python -m build --wheel; fi
	$(BIN)/python -m twine check --strict dist/*

# The network that docs/inside.md looks into: some 30 minutes. Stopped, it goes on. $ALEXNET_DATA names the data.
photos-model: $(VENV)/.dev
	$(BIN)/alexnet train paper2012_photos --out runs/paper2012_photos --resume
	$(BIN)/python benchmarks/collect.py photos-model runs/paper2012_photos

# Every figure of docs/inside.md but those of CaffeNet and of search: some 20 minutes after `make photos-model`.
inside: photos-model
	$(BIN)/alexnet probe kernels runs/paper2012_photos
	$(BIN)/alexnet probe towers runs/paper2012_photos
	$(BIN)/alexnet probe maps runs/paper2012_photos --channels 0 5 9 100 200 255 --precision bfloat16
	for kind in neighbors codes tsne linear saliency inputs; do \
	  $(BIN)/alexnet probe $$kind runs/paper2012_photos --data imagenette --precision bfloat16 || exit; done
	$(BIN)/alexnet report runs/paper2012_photos
	$(BIN)/python benchmarks/collect_probes.py runs/paper2012_photos

# The tables of the README on real photographs; likewise.
imagenette: photos-model
	for recipe in code2012_photos modern_photos; do \
	  $(BIN)/alexnet train $$recipe --out runs/$$recipe --resume || exit; done
	$(BIN)/python benchmarks/collect.py imagenette runs/code2012_photos runs/modern_photos runs/paper2012_photos

fashion-mnist: $(VENV)/.dev
	$(BIN)/alexnet train lenet --out runs/lenet --resume
	$(BIN)/alexnet train d2l_fashion_mnist --epochs 1 --precision bfloat16 --out runs/d2l_fashion_mnist --resume
	$(BIN)/python benchmarks/collect.py fashion-mnist runs/lenet runs/d2l_fashion_mnist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m pip install --user virtualenv && $(PYTHON) -m virtualenv $(VENV); }
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q $(TORCH)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[fast]"
	@touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[docs]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[all,dev]"
	@touch $@

clean:
	rm -rf $(VENV) runs
