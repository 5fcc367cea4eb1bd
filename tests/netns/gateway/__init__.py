"""The gateway on a real kernel, in namespaces of its own."""
