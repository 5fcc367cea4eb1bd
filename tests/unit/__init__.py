"""What needs no rights and no second process."""
