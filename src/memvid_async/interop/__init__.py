"""Other people's formats: a module for each, which only its users import."""
