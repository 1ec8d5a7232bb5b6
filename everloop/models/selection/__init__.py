"""Selecting a model's inputs: ranked by what they do for it, on training rows only, with the reasons recorded.

`definitions` is pure. `ranking` and `steps` run in a step, with scikit-learn.
"""
