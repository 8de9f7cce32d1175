"""The jobs of `harborctl.toml`: what the file says, running it, and telling others how it went."""
