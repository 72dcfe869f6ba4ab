"""The command `sda`."""
