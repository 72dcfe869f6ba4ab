"""The inspector: a session of clips and a network, its view, and the page of clips."""
