"""Text features of a corpus: what a frozen vision-language model makes of instructions, stored as latents are."""
