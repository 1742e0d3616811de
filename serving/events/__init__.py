"""How what happened reaches those it concerns: outbox -> relay -> bus -> consumers, each of which takes an event once.

Knows the storage, and nothing of HTTP or of the engine. Which consumers there are is said in serving/subscribers.py.
"""
