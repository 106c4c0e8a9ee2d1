"""What a network is held against: ridge, depth, novelty."""
