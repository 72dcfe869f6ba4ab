"""The other temporal methods of the paper's tables, one small room each, found through the registry."""
