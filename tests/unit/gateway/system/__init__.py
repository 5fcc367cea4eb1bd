"""Tests of what touches the kernel."""
