"""The one exception that a user is meant to read."""


class GeneDMLError(Exception):
    """Something the user can mend. The message says what, where and what next.

    Context is added on the way up with ``add_note``; the command line prints message and notes and exits with 1.
    """
