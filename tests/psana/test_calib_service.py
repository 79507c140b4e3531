"""psana finds constants in the stand-in of the calibration service, by experiment and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffb.testing.calib_service import CalibService
from ffb.testing.fabricate import RunSpec

# psana reads the service's address when it is imported: hence a process of its own
READER = """
import sys, json, numpy as np
from ffb.sources.standins import import_psana
from ffb.testing.guard import no_network
with no_network():
    ds = import_psana().DataSource(files=sys.argv[1], log_level="ERROR")
    run = next(ds.runs())
    c = run.Detector("jungfrau").calibconst
    np.save(sys.argv[2], c["pedestals"][0])
    print(json.dumps([c["pedestals"][1]["_id"], c["geometry"][0]]))
"""


@pytest.mark.psana
def test_psana_takes_constants_from_it(run_file: Path, run_spec: RunSpec, tmp_path: Path) -> None:
    pedestals = run_spec.constants["pedestals"]
    with CalibService() as service:
        uid = "jungfrau_jf-sn0000"
        service.add(run_spec.exp, uid, "pedestals", pedestals + 1, runs=(1, 6))
        key = service.add(run_spec.exp, uid, "pedestals", pedestals, runs=(7, 7))
        service.add(run_spec.exp, uid, "geometry", run_spec.geometry)
        saved = tmp_path / "pedestals.npy"
        out = subprocess.run(
            [sys.executable, "-c", READER, str(run_file), str(saved)],
            env={**os.environ, "LCLS_CALIB_HTTP": service.url},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        assert json.loads(out.splitlines()[-1]) == [key, run_spec.geometry]
        np.testing.assert_array_equal(np.load(saved), pedestals)
        assert any("gridfs" in path for path in service.requests)
