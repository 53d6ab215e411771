"""A referee: plays models, guards, damages and masks drawn at random, and judges each repair by the intact model.

One number, the seed, decides everything about a draw: `PYTHONPATH=tests python -m referee SEED` plays it again.
"""
