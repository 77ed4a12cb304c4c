"""Pure step functions: (state, batch) -> what to send and write."""
