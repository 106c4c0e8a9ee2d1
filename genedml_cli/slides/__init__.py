"""Slides: pixels, tissue and regions."""
