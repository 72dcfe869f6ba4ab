"""Settings, optimiser, the trainer, exact resume, and callbacks."""
