"""SIGKILL at random moments, in the middle of checkpoint writes too: bitwise the run that was left alone."""

from tests.training.kills import compare


def test_twenty_kills(tmp_path):
    assert compare(tmp_path, kills=20) > 50
