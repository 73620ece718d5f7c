"""A run that was killed twenty times is bitwise the run that was not (`make soak`: two hundred times)."""

from tests.training.kills import compare


def test_twenty_kills(tmp_path):
    assert compare(tmp_path, kills=20) > 50
