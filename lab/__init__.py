"""The lab: two private networks, an untrusted network between them, and a gateway at each edge.

Vocabulary (the same words in code, output and docs):

topology  the nodes, networks and addresses of `compose.yaml`        topology.py
node      one machine of the lab: host, gateway, router, NAT, client or server
network   one segment that nodes are attached to: a site's, a WAN, or a NAT's inside
extra     a profile of nodes beside the sites: `lab up --with`       extras.py
engine    what the lab runs on: docker or netns                      engines/
probe     a small program that runs inside a node, prints JSON       probes/
check     one claim, proved, with its positive control               checks/
ends      the two ends of a tunnel that a check is about             checks/ends.py

How a lab comes up (`bringup.py`):

  compose.yaml -> Topology -> routes (routing.py), seeds (seeds.py)
                     |             |                 |
                     '--> engine.create -> engine.seed -> engine.start -> both gateways established

The lab never imports `gateway`: it reaches the product as a user does, by its commands, else it
would test the gateway with the gateway's own code.
"""

__version__ = "0.1.0"
