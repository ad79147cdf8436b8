"""What `eicorpus.Corpus` is: one snapshot, its episodes and manifests, for notebooks and programs."""
