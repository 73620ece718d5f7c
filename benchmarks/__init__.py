"""Measurements that docs/ reports: `python -m benchmarks NAME`."""
