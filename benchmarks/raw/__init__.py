"""Writers of raw data that benchmarks measure with and tests use too. Those of the demo are in `jobs/demo/raw`, all others in `tests/generators`."""
