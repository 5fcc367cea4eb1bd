"""Strangers' bytes by the hundred thousand."""
