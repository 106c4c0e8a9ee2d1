"""Networks that predict expression."""
