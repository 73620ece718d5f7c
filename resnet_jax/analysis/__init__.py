"""What a trained net is like inside: layer responses, gradient norms, the loss around it, blocks removed.

Each file has functions on arrays, and one that takes a run's folder and writes a JSON file into it; `report.analysis`
draws those files. Nothing here draws.
"""
