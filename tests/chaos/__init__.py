"""Crashes, zombies, brokers killed and frozen: nothing may be lost, doubled, out of order or wrong (contract §2, §3).

`traffic` makes the records and sends them, `harness` runs workers and a broker and breaks them, `checker` reads what
came of it and judges it by the slow model (`tests/oracle`): it knows the contract, and nothing of `models/`.
"""
