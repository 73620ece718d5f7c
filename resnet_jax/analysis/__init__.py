"""Analyses of trained nets: layer responses, gradient norms, loss surface, lesions, Grad-CAM.

Each file has functions on arrays, and one that writes a JSON file into a run's folder; `report.analysis` draws them.
"""
