"""The table of differences, from two short runs in processes of their own."""

import numpy as np
import pytest

from benchmarks.differences import Case, nudged, rows, run


@pytest.mark.long
def test_two_cases_and_a_nudge(tmp_path, capsys):
    """Three steps from the same state agree within float32 rounding; exactly equal they would be the same run."""
    cases = (Case(), Case(devices=2, accumulate=2))
    run(tmp_path, 3, cases)
    notes = capsys.readouterr().err.splitlines()
    assert notes == ["1 devices in 1 processes, 1 micro-batches", "2 devices in 1 processes, 2 micro-batches"]
    first, second = rows(tmp_path, cases)
    assert first[:7] == ["1", "1", "1", "-", "-", "-", "-"] and second[:3] == ["2", "1", "2"]
    assert 0 <= float(second[5]) < 2e-5 and 0 < float(second[6]) < 2e-5
    assert 0 < float(nudged(tmp_path)[6]) < 2e-5
    assert np.isfinite(float(second[7]))
