"""The SDA block, the networks it sits in, what they cost, and their files."""
