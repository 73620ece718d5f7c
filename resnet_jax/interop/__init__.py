"""Weights from elsewhere and to elsewhere; nothing here knows of runs or data sets."""
