"""Gene-DML: the network, its losses, the frozen encoders and the checkpoint format.

This package knows tensors, not slides: reading sections, training and writing results live in ``genedml_cli``.
"""
