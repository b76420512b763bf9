"""Webhooks: deliveries in Redis, calls of receivers, and secrets that sign them.

A job's end is an entry of the outbox, which the script that ended the job wrote. Any gateway moves it into a delivery,
and leases the deliveries whose turn it is; a gateway that dies leaves leases behind that end. So each delivery is made
at least once, with the same id each time, in no promised order.

| key | type | holds | lives |
|---|---|---|---|
| `P:hooks:delivery:ID` | hash | the event, its status, the attempts | 1 day once delivered, else 14 days |
| `P:hooks:list:STATUS:TENANT` | zset | deliveries in a status, of a tenant or of all, by the job's end | as these |
| `P:hooks:job:JOB` | zset | deliveries of a job | as these |
| `P:hooks:receivers`, `P:hooks:unproven` | zset | receivers by their next call | until their last delivery |
| `P:hooks:proven` | zset | receivers whose last call succeeded, by its time | 14 days |
| `P:hooks:due:RECEIVER` | zset | its deliveries by their next attempt, or the end of a lease | until they end |
| `P:hooks:flying:RECEIVER` | zset | those under way, by the end of their lease | until they are answered |
| `P:hooks:gone` | zset | hashes of URLs that answered 410 | 28 days |
| `P:hooks:secret:TENANT` | hash | the secret, and the one before | for good |
"""

from videoqa.gateway.webhooks.deliverer import Deliverer
from videoqa.gateway.webhooks.deliveries import (
    Delivery,
    DeliveryAttempt,
    DeliveryPage,
    DeliveryStore,
)
from videoqa.gateway.webhooks.signing import SigningSecret, SigningSecrets

__all__ = [
    "Deliverer",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryPage",
    "DeliveryStore",
    "SigningSecret",
    "SigningSecrets",
]
