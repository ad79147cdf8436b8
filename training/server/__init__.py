"""A trained policy behind a websocket: messages as openpi and starVLA shape them, absolute targets back. Docs: docs/how-to/serve.md."""
