"""`lab soak`: a long time of traffic, with rekeys and an adversary that lets the weather change.

request.py    the command's options
weather.py    one seed -> what the path does, spell after spell
traffic.py    TCP streams both ways, pings over IPv4 and IPv6
watch.py      rekeys by command, and what the gateways say of themselves every few seconds
record.py     what was seen, as values
verdict.py    record -> claims, each true or not (pure)
run.py        all of these at once, for the whole time
command.py    the command: around the run, and what it prints
"""
