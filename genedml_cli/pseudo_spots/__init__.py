"""Bins of Visium HD and transcripts of Xenium, summed into spots that networks of our kind can learn from."""
