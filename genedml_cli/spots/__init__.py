"""Spots: their tables, arrays and places on a slide."""
