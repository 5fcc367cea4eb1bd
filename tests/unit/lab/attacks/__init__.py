"""What an attack may say, and how it is judged."""
