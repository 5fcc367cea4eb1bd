"""The lab and the gateway on the real kernel."""
