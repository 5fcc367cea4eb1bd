"""The tests mirror the tree; each folder says what it needs."""
