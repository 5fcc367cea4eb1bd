"""Two hosts and nothing else: one listens and prints a ticket, the other takes it and is joined.

    ticket.py      the line that goes from one to the other
    arguments.py   `gateway direct`, as argparse sees it
    commands.py    both sides: a config, and the supervisor that runs it

The listener is a gateway with one user whose secret is random and dies with it; the other host is a
client that pins the listener's certificate. So nothing here is a protocol of its own.
"""
