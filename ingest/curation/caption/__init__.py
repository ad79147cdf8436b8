"""Re-captioning: what happens in a segment, said again as an English imperative, with where it comes from. The source's text stays."""
