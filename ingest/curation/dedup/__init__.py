"""Episodes that are in a corpus more than once: exact copies, re-encodings and re-releases, and what of them leaks into evaluation."""
