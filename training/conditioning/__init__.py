"""What the network is told in words: by nothing, by a small table of words, by stored features, or by a vision-language model."""
