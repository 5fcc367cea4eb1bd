"""One file a claim. Each reads aloud: set-up, act, proof, positive control."""
