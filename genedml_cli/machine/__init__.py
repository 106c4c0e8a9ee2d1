"""This machine: devices, memory, processes and signals."""
