"""Detectors: operations on boxes with static shapes, and the net of Faster R-CNN."""
