"""Predictions as files of every kind, and the names of a run folder."""
