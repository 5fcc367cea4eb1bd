"""`lab evaluate`: what needs no lab."""
