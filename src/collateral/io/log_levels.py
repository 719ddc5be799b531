"""NOTE, a level of logging between INFO and WARNING."""

NOTE = 25  # between INFO and WARNING: worth a line on the terminal
