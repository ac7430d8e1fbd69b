"""Other people's formats: one module each, imported by whoever wants it."""
