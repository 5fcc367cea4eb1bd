"""Small programs that run inside nodes and print JSON, one object a line.

Standard library and scapy only: the host image carries nothing else of the lab. A probe that serves
or listens prints a line when it is ready, ends when its standard input does, and prints what it
saw as its last line.
"""
