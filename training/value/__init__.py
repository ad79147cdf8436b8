"""A value head: how near an image is to the end of an episode that succeeds."""
