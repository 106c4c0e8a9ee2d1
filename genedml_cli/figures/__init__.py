"""Pictures of genes, settings and spots."""
