"""What a network is held against: linear models, depth, novelty."""
