"""Ways to move information between frames: one small module per method."""
