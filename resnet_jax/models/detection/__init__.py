"""Detectors: operations on boxes with static shapes, and the net of Faster R-CNN."""

#: The longer side of an image is at most so many times the shorter side that it is resized to: 1,000 for 600.
LONGEST = 5 / 3
