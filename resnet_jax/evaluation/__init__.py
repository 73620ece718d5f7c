"""Scores of trained nets."""
