"""The block-causal video and action model (LingBot-VA's kind): one backbone over noisy and clean frames and actions."""
