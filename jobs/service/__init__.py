"""The service over one corpus: REST, pictures and metrics. `app.create_app` makes it; `eicorpus serve` runs it.

What is asked often comes from a cache that is derived from one snapshot (`cache_build.py` writes it, `snapshot_cache.py` reads it). Everything
else is read from the corpus through the rooms of `ingest/`.
"""
