"""The lab's pure parts."""
