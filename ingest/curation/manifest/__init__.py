"""Manifests: what a training run reads, how often, with which statistics of the trained representation."""
