"""The process that moves packets, and nothing else: TUN, UDP, sealing, and its link to control."""
