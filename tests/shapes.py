"""The check of the shapes in signatures; an int passes for a float, as it does in Python's own type hints."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
