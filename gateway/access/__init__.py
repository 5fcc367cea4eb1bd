"""Who may log in, and what they are given: users, passwords, codes, bans, addresses, policy.

    database.py   the SQLite file: schema, connections, transactions
    users.py      users, their groups, leases and tokens
    passwords.py  Argon2id
    totp.py       one-time codes, RFC 6238
    bans.py       what failed logins cost
    logins.py     one login, judged in the agreed order
    pool.py       tunnel addresses; pure
    policy.py     what a group may reach, as nftables rules; pure
    arguments.py  `gateway user` and `gateway ban`, as argparse sees them
    commands.py   what they do

Not here: sessions (control/), what a user's table in the config says (config/people.py).
"""
