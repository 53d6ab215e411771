"""Experiments, tables and figures: what `planaria-lab bench` and `planaria-lab demo` run."""
