"""What the adversary does to packets, and when it lets them go."""
