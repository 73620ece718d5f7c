"""SIGKILL at random moments, in the middle of checkpoint writes too: bitwise the run that was left alone."""

from tests.training.clocks import jumping_clock
from tests.training.kills import OPTIONS, compare


def test_six_kills(tmp_path):
    """Two while it starts, four while it trains, with all that a run keeps on the host; `make soak` kills 200 times.

    Meanwhile the wall clock jumps (where there is a C compiler), and the time zone changes from start to start.
    """
    assert compare(tmp_path, kills=6, fields=OPTIONS, clock=jumping_clock(tmp_path)) > 50
