"""`lab evaluate`: the report's section 5, done properly: what does the encryption cost?

 variants.py     what is compared: no tunnel, the tunnel without encryption, with each suite
 stage.py        the lab between two measurements: another suite, or no tunnel, and back at the end
 measures.py     pings and TCP between the two hosts, and the proof that the tunnel carried them
 run.py          the run: every variant in every round
 figures.py      samples -> summaries, and the spread of their difference (pure)
 conclusion.py   figures -> two sentences (pure)
 table.py        figures -> Markdown, beside the report's own (pure)
 chart.py        figures -> SVG and PNG
 request.py      the command's options
 command.py      the command: around the run, and what it prints

A difference counts only if it is larger than its spread over the rounds: the report compared two
single runs, 71.5 and 70.9 ms, whose pings differed by hundreds of milliseconds among themselves.
"""
