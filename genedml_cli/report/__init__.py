"""A run or a prediction as one HTML page that needs nothing else."""
