"""Counts, the labels made from them, and gene panels."""
