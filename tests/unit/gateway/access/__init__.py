"""Users, and what is asked of them."""
