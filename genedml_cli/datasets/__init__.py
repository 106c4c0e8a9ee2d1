"""Data sets: their sections, folds, files and panels."""
