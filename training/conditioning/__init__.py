"""How instructions condition the network: not at all, by a small table of words, by stored features, or by a vision-language model."""
