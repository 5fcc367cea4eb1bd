"""Tests of the data plane, file by file."""
