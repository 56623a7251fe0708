"""Telling administrators: an outbox, written with the event and sent afterwards.

Rules:
- The event and its deliveries are written in one transaction.
- No connection is open while a transaction is: a delivery is leased, sent, marked.
- At least once: whoever is killed in the middle is followed by another attempt.
- One delivery at a time to each endpoint, so that a dead one delays only itself.
"""
