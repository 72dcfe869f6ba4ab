"""What the evidence notebooks need."""
