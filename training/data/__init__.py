"""From a manifest to batches: where a sample can begin, what it is made of, and in which order they come."""
