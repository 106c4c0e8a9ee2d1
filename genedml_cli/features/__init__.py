"""Feature files: the tiles around spots, encoded once."""
