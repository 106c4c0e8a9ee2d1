"""How fast this machine reads, encodes, trains and predicts."""
