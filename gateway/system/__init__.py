"""The knobs of the kernel: netlink, privileges. Each module is the only place that turns its knob."""
