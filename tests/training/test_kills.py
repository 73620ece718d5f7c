"""SIGKILL at random moments, in the middle of checkpoint writes too: bitwise the run that was left alone."""

import pytest

from tests.training.clocks import jumping_clock
from tests.training.kills import OPTIONS, compare


@pytest.mark.parametrize("kills", [2, pytest.param(6, marks=pytest.mark.long)])
def test_kills(tmp_path, kills):
    """The first (and sixth) while it starts, the others while it trains, with all that a run keeps on the host.

    Meanwhile the wall clock jumps (where there is a C compiler), and the time zone changes from start to start.
    `make soak` kills 200 times.
    """
    assert compare(tmp_path, kills, fields=OPTIONS, clock=jumping_clock(tmp_path)) > 50
