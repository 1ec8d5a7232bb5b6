"""Webhooks: telling others what happens in the registry, signed, and only where the public network leads.

`events` names what can be told, `reach` says where to, `sending` signs and posts, `delivery` goes from the log of facts
to tasks of the durable queue and from a task to a delivery.
"""
