"""Latents of a corpus: pictures on the grid are decoded, encoded, stored beside their episode, and named in the catalog."""
