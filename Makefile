# `make help` lists what there is. Every target sets up what it needs.
SHELL := /bin/sh
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
.DEFAULT_GOAL := help
.PHONY: help setup doctor quickstart study test check package compat adapters prove-equal report docs ui dashboard smoke sync params lock design faults audit bench bench-pipeline bench-tuning bench-verdicts experiments screenshots clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: ## make .venv with all packages (PYTHON=... chooses the interpreter)
	@PYTHON="$(PYTHON)" sh scripts/setup.sh

# Without setup: that may be what fails.
doctor: ## is everything here? packages, memory, GPU, disk, git, DVC, data, MLflow; and how to mend what is not
	@PYTHONPATH=src $$([ -x .venv/bin/python ] && echo .venv/bin/python || echo "$(or $(PYTHON),python3)") -m lrstudy.doctor

quickstart: setup ## the whole study in minutes on the embedded sample: a look, not a result
	@dvc exp run -S data=sample -S preset=quick -S theory=none $(ARGS)
	@echo
	@python -m lrstudy.report
	@echo
	@echo "report:    reports/report.html (and report.md)"
	@echo "MLflow UI: make ui   (then open http://127.0.0.1:5000)"
	@echo "next:      make study   the same on CIFAR-10 and IMDB (hours on a CPU)"
	@echo "back to the committed study's report: git restore params.yaml metrics.json reports"

study: setup ## the study as conf/ has it, on CIFAR-10 and IMDB (ARGS='-S preset=paper' changes it)
	@dvc exp run $(ARGS)

# A file stays on one process, so that what its tests share is made once. The slow files come in the order of their names:
# by number of tests the longest would come last.
test: package ## all tests: the unit tests, then the pipeline's
	@python -m pytest -n auto --dist loadfile -m "not slow" $(ARGS)
	@python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m slow --durations=8 $(ARGS)

check: setup ## formatting, lint, types, the ledger's records, and params.yaml against conf/
	@ruff check . && ruff format --check .
	@mypy --no-error-summary
	@python -m lrstudy.ledger verify
	@python -m pytest tests/test_pipeline.py

package: setup ## the sdist and the wheel in dist/, with what an index would say of them (tests/test_package.py installs them)
	@sh scripts/package.sh

# By hand: each version is gigabytes. The first is the lowest that pyproject.toml allows.
compat: setup ## the adapter, the finder and the controllers with other versions of torch (TORCH='2.5.1 2.13.0')
	@TORCH="$(TORCH)" sh scripts/compat.sh

adapters: setup ## the examples of docs/adapters.md with the libraries that they are for, in an environment of their own
	@sh scripts/adapters.sh

prove-equal: setup ## prove that src/ trains as BASE=<revision> does, to the bit, so that its trainings stay valid
	@python -m lrstudy.prove_equal "$(BASE)" $(ARGS)

report: setup ## make reports/ anew from the ledger, as far as the study has come: no training, no data
	@python -m lrstudy.stages.compare
	@python -m lrstudy.stages.report

docs: setup ## write the parts of README.md and docs/ that are made from reports/, the ledger and the registries
	@python -m lrstudy.docs $(ARGS)
	@python -m lrstudy.preview --docs docs/schedules.md

# Without the server's jobs, which evaluate language models: eight processes more, with 1.5 GB, that nothing here uses.
ui: setup ## the MLflow UI on http://127.0.0.1:5000 (PORT=... changes it)
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}" \
	    --host 127.0.0.1 --port $(or $(PORT),5000)

dashboard: setup ## Optuna's dashboard of all searches on http://127.0.0.1:8080 (installs it the first time)
	@python -m pip install --quiet --disable-pip-version-check optuna-dashboard==0.21.0
	@optuna-dashboard --host 127.0.0.1 --port $(or $(PORT),8080) \
	    "$${LRSTUDY_OPTUNA_STORAGE:-sqlite:///$(CURDIR)/optuna.db}"

smoke: setup ## does every stage run? two models, two schedules, the sample
	@dvc exp run -S data=sample -S preset=smoke -S 'model=[resnet,lstm]' -S 'schedule=[static,cosine]' $(ARGS)

experiments: setup ## DVC's experiments side by side: what was varied most, and the headline metrics (ARGS='--sort-by ...')
	@dvc exp show --no-pager --drop '.*' --keep \
	    '^(Experiment|Created|preset|data\.source|optimizer\.name|controller\.name|(resnet|lstm|transformer)[a-z0-9_]*\.[a-z0-9_]+)$$' $(ARGS)

screenshots: setup ## take pictures of the report and of MLflow's UI into docs/images (needs chromium)
	@python tests/screenshots.py

sync: setup ## send to MLflow what could not be sent during a run
	@python -m lrstudy.sync

params: setup ## compose params.yaml from conf/ without running anything
	@python -m lrstudy.compose $(ARGS)

lock: setup ## write requirements.lock from what is installed
	@python -m pip freeze --exclude-editable --exclude lrstudy > requirements.lock

design: setup ## what can this study decide, before it trains? seeds, rows, smallest p, power, core-hours
	@python -m lrstudy.design $(ARGS)

faults: setup ## kill the stages that train at 20 random moments each, stop MLflow's server in mid-run, and compare
	@python tests/faults.py -o benchmarks/results/faults.json $(ARGS)

audit: setup ## known vulnerabilities of the packages in requirements.lock (ADVISORIES=all.zip: without a network)
	@ADVISORIES="$(ADVISORIES)" sh scripts/audit.sh

bench: setup ## training's speed against the plain PyTorch loop, on real data (ARGS=--accuracy: is it as good?)
	@dvc repro preprocess
	@python benchmarks/throughput.py $(ARGS)

bench-pipeline: setup ## seconds per stage: training against everything else (ARGS='--preset cpu -S data=hub')
	@python benchmarks/pipeline.py $(ARGS)

bench-tuning: setup ## plain search against rungs on real data, from a pool of trainings (an hour on a CPU)
	@dvc repro preprocess
	@python benchmarks/tuning.py $(or $(CELLS),lstm-exponential) $(ARGS)

bench-verdicts: setup ## are verdicts right, and the power what the design said? 7,000 simulated studies (ARGS=--resume goes on)
	@python benchmarks/verdicts.py $(ARGS)

clean: ## remove caches; ALL=1 also results, checkpoints, databases and .venv (not downloads and the DVC cache)
	@rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist src/*.egg-info dvc_plots
	@find src tests hydra_plugins -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ "$(ALL)" = 1 ]; then find artifacts -type f ! -path artifacts/outside/README.md -delete; rm -rf checkpoints data/processed mlflow.db* optuna.db* mlartifacts .venv; fi
