"""The control plane: the process that talks, and never touches a packet.

channel.py     one TLS connection, whole frames     server.py     connections that come to us
sessions.py    one handshake, either side           connector.py  connections that we open
peers.py       every peer, from state to state      admin.py      commands of this machine's people
peer.py        one peer's state                     plane.py      all of it, started and ended
dataplane.py   the other plane, seen from here      paths.py      reports, and what they change
admission.py   who may begin a handshake
"""
