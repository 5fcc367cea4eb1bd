"""The parts of `lab soak` that need no lab."""
