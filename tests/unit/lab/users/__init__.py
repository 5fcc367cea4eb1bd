"""What `lab users-test` decides, without a lab."""
