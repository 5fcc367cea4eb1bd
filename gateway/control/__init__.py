"""The control plane: the process that talks, and never touches a packet.

channel.py     one TLS connection, whole frames     server.py     connections that come to us
sessions.py    one handshake, either side           connector.py  connections that we open
peers.py       every peer's state                   admin.py      commands of this machine's people
dataplane.py   the other plane, seen from here      plane.py      all of it, started and ended
"""
