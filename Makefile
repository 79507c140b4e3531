# Two commands matter: `make demo` and `make test`. Each makes .venv when it is missing.
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Kernels, held to independent references: compiled, and not compiled, where Python itself checks bounds.
NUMERIC := tests/unit/test_recorded.py tests/unit/test_droplets.py tests/unit/test_photons.py \
	tests/unit/test_photon_counting.py tests/unit/test_photon_map.py tests/unit/test_speckle.py \
	tests/unit/test_autocorrelation.py tests/unit/test_sparse.py tests/unit/test_area_reducers.py \
	tests/unit/test_waveform_integral.py tests/unit/test_trace.py tests/unit/test_lanes.py \
	tests/unit/test_waveform_cfd.py tests/unit/test_waveform_hits.py \
	tests/unit/test_waveform_notch.py tests/unit/test_waveform_corners.py \
	tests/unit/test_waveform_template.py tests/unit/test_waveform_svd.py \
	tests/unit/test_delay_line.py tests/unit/test_delay_line_hex.py tests/unit/test_calibration.py \
	tests/unit/test_calibration_files.py tests/unit/test_single_range.py \
	tests/unit/test_common_mode.py tests/unit/test_masks.py tests/unit/test_together.py \
	tests/unit/test_uncalibrated.py tests/unit/test_azimuthal.py tests/unit/test_azav.py \
	tests/unit/test_xtc2.py tests/unit/test_time_tool.py tests/unit/test_spectrometer.py \
	tests/unit/test_jet.py tests/unit/test_window.py \
	tests/unit/test_region.py tests/unit/test_cake.py tests/unit/test_peaks.py \
	tests/unit/test_ring_fit.py tests/psana/test_hsd.py tests/unit/test_sums.py \
	tests/unit/test_dgram_run.py tests/unit/test_dgram_lists.py tests/unit/test_combine.py
# What is made of them.
MADE := tests/contract/test_reducers.py tests/unit/test_examples.py tests/unit/test_reduce.py \
	tests/unit/test_photon_input.py tests/unit/test_plan.py tests/unit/test_plan_axes.py \
	tests/unit/test_plan_failures.py tests/unit/test_plan_origin.py tests/unit/test_plan_problems.py \
	tests/unit/test_combine_arrays.py tests/unit/test_light.py
KERNELS := $(NUMERIC) $(MADE)
OTHERS := $(filter-out $(KERNELS),$(wildcard tests/unit/test_*.py tests/contract/test_*.py))
PROCESSES := $(filter-out $(KERNELS),$(wildcard tests/process/test_*.py tests/psana/test_*.py \
	tests/browser/test_*.py))

# Files of tests side by side; those with processes and sockets of their own go one by one.
PARALLEL := -n 2 --dist loadfile --basetemp=$$(mktemp -d)

.PHONY: demo test test-processes test-kernels test-bounds lint benchmark chromium clean

demo: $(VENV)/.runtime
	$(BIN)/ffb demo $(ARGS)

test: $(VENV)/.test chromium lint
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest $(PARALLEL) $(OTHERS)
	$(MAKE) -j 2 --output-sync=target test-processes test-kernels
endif

# Processes wait for one another more than they compute: kernels are tested in what they leave free.
test-processes:
	$(BIN)/python -m pytest $(PROCESSES)

test-kernels:
	nice -n 19 $(BIN)/python -m pytest $(PARALLEL) $(KERNELS)
	NUMBA_DISABLE_JIT=1 nice -n 19 $(BIN)/python -m pytest $(PARALLEL) $(KERNELS)

# Before a release: half an hour. Most indices out of bounds show themselves where nothing is compiled.
test-bounds:
	NUMBA_BOUNDSCHECK=1 FFB_CACHE=$(VENV)/boundscheck \
		$(BIN)/python -m pytest $(PARALLEL) $(NUMERIC)

lint: $(VENV)/.test
	$(BIN)/ruff check ffb reducers writers dashboards tests
	$(BIN)/ruff format --check ffb reducers writers dashboards tests
	$(BIN)/mypy -p ffb -p tests.soak

benchmark: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks $(ARGS)

# psana goes in last and without its dependencies: two of them need a compiler or an MPI library, and
# ffb.sources.standins takes their place (they are never used on our path).
$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/python -m pip install -q -e '.[psana]'
	$(BIN)/python -m pip install -q --no-deps psana
	touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(BIN)/python -m pip install -q -e '.[psana,test]' 2>&1 | grep -v -e resolver -e 'psana .* requires' || true
	$(BIN)/python -c 'import hypothesis, mypy, pyFAI, pytest'
	touch $@

# Only the browser tests want it; without it, and without the right to install it, they are skipped.
chromium:
	@command -v chromium >/dev/null || test "$$(id -u)" != 0 || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null

clean:
	rm -rf $(VENV) build dist *.egg-info
