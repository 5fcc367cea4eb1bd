"""Tests of `gateway/direct/`."""
