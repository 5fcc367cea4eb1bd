"""A person's machine: what the command asks, what it keeps secret, what it makes of a grant.

    commands.py    `gateway client`: arguments -> a config, and the supervisor that runs it
    vault.py       password, code and token, in memory that no file has
    tunnel.py      what a gateway granted -> addresses, routes, resolvers; nonsense is refused
    killswitch.py  the table that lets nothing out beside the tunnel

Not here: the login itself (control/client.py), the devices (supervisor.py).
"""
