"""The network: two streams that attend to each other and to text, and the four tasks it is trained on."""
