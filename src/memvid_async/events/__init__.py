"""The facts: values, contents, actions and sessions, frames, and the events that hold them."""
