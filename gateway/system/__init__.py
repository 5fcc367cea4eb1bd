"""The kernel: rights, links, addresses and routes. Nothing here knows of peers or sessions."""
