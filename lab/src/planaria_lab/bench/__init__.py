"""Experiments, tables and figures: what `planaria bench` and `planaria demo` run."""
