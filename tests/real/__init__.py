"""Measurements on real samples for the second table of docs/results/fidelity.md; `tests/fidelity_real.py` gathers them."""
