"""Corpus specs: what `eicorpus init`, `plan` and `build` do. docs/how-to/build.md is the page."""
