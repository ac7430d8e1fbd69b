"""What a recording is good for afterwards: verify it, serve from it, audit and compare it."""
