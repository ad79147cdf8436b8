"""A seeded mutation fuzzer over raw data and corpora: `python -m tests.fuzz [--family F] [--seconds N] [--seed S]`."""
