"""Two gateways in one process, or two planes on loopback: no rights needed."""
