"""Files: whole or absent, locked while they are written, checked as they are read."""
