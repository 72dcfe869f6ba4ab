"""The generated benchmark: rendered clips whose truth is known."""
