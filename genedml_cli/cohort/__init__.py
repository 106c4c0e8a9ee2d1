"""Cohorts: every slide of a sheet predicted, and what they give together."""
