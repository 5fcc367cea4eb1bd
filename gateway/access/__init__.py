"""Who may log in, and what they may reach. Nothing here knows a socket or a session."""
