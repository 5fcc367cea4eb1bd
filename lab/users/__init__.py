"""`lab users-test`: what users may and may not, proved in the lab, one file a claim.

A check is a module as those of `lab/checks/` are, with NAME and NUMBER, CLAIM and
`run(stage, findings)`. All of them share one *stage* (`stage.py`): the lab with the nodes of users,
gw-a with groups of ours, users, two laptops. Every command that a user or a person at the gateway
types is the product's own, typed inside a node (`laptop.py`, `desk.py`).

  configuration.py  what gw-a's file says of users and groups, and what that allows: pure
  packets.py        what probes send and see
  papers.py         an expired certificate
  totp.py           one-time codes
  censor.py         who sits in `internet` and blocks web's addresses
"""
