"""`eicorpus demo`: the whole way from raw data to a trained policy, on data that it generates."""
