"""One short file a command: it declares options, makes one call, says one line."""
