"""The methods, a paper a file: losses as pure functions, the training step, and its settings."""
