"""Mirrors `gateway/client/`."""
