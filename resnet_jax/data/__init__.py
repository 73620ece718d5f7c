"""Feeds the steps: `pipeline.make_pipeline` opens a set, in memory (`resident`) or decoded meanwhile (`streaming`).

`sampling` chooses the examples of each batch on the host; `augment` changes their images inside the jitted step.
"""
