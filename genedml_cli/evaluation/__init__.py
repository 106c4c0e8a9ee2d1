"""Scores of predictions against measured expression, and the references beside them."""
