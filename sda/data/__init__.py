"""From official annotation files and folders of clips to batches."""
