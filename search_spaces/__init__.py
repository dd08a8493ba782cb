"""Documented search spaces: every parameter with what it is, why it is searched, its priority and its default."""
