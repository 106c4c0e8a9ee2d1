"""Runs: folds trained and tested in one folder, and grids of them."""
