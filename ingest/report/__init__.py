"""`eicorpus report`: a corpus on one page, as one HTML file that needs nothing else."""
