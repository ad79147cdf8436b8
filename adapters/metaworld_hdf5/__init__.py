"""The `metaworld_hdf5` source; its page is adapter.py."""
