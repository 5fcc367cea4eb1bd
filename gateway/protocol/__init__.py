"""The protocol, pure: bytes and `now` in, bytes and events out. No socket, no clock, no thread.

The control channel: `messages.py`, `keys.py`, `handshake.py`.
The data channel: `wire.py`, `suites.py`, `cbc.py`, `replay.py`, `reassembly.py`.
`docs/protocol.md` is the same in prose, for another implementation.
"""
