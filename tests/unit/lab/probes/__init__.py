"""The probes that users-test sends into nodes."""
