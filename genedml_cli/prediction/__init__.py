"""Expression of slides from trained networks."""
