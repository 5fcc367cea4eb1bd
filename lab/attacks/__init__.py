"""`lab attack`: what an adversary on the path can do to the tunnel, and what it cannot.

Each attack is a module with NUMBER, CLAIM (what holds), SUITES (the modes that it is run in), CASES
(what it tries, each with the suites in which that succeeds), and `run(scene, notes)`. In every
other suite it must fail. A success where one is expected is the positive control: it shows that the
same act would be seen to succeed elsewhere. So does what every attack shows beside: that a record
which the adversary held and let go unchanged arrives.

 scene.py      the lab during an attack: two hosts, two gateways, the adversary between them
 verdict.py    what came of a case, against what was to come (pure)
 run.py        the run: every attack in every suite that was asked for
 request.py    the command's options
 command.py    the attacks by name, in their order, and what the command prints

The adversary knows docs/protocol.md and no key (`lab/mitm`). It never looks into a gateway.
"""
