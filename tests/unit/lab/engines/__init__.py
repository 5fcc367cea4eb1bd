"""Tests of what the engines decide before they touch anything."""
