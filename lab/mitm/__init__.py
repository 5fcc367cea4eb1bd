"""The adversary on the path: a program inside the router that forwards in user space.

    wan0, wan1 -> ip rule -> mitm0 (TUN) -> faults.py -> departures.py -> mitm0 -> kernel's routes

It sees each packet as a wire carries it: the kernel cuts superpackets before a TUN that has no
offloads. What it does to a packet is a *fault*, a small pure function; which faults are on is the
*weather*, and that changes while packets pass. Everything random comes from one seed.

faults.py      (packet, now, rng) -> [(when, packet)]
recording.py   one fault more: keep what passes, or take it; and the orders to inject
departures.py  what was held, until its time has come
device.py      the TUN, and the rules that lead packets into it
__main__.py    the program: JSON lines in and out, standard library only
adversary.py   the controller's end of it
datagrams.py   the tunnel's datagrams, taken apart and changed
"""
