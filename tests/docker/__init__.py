"""Tests that need a Docker Engine; without one they are skipped, and say how to start one."""
