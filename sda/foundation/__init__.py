"""What every room shares: errors, files, statistics, devices, and the record of a run."""
