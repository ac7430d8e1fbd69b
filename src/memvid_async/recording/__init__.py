"""From a caller's arguments to a recorded action, in the session in force."""
