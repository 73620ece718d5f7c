"""Launchers: on this machine (`local`) or on a Ray cluster (`ray_cluster`)."""
