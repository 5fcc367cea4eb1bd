"""The protocol's modules, one by one."""
