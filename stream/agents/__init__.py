"""Faust agents, one file each and thin: they let a pure step decide, then send, write and count."""
