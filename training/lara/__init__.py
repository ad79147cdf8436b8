"""LARA (models.md 2): a latent action model learns from video what changed, and the policy's hidden state is aligned with what it found."""
