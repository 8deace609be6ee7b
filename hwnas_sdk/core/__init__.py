"""Types, errors and small helpers everything else stands on; numpy at most."""
