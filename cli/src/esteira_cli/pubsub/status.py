"""What flows: one line per topic and subscription."""

import time

from esteira_cli.pubsub.database import Database

SUBSCRIPTIONS = """
SELECT s.name, s.topic, s.delivered, s.acked, s.dead_lettered, COUNT(d.message_id) AS outstanding,
       MIN(m.publish_time) AS oldest
FROM subscriptions s
LEFT JOIN deliveries d ON d.subscription = s.name
LEFT JOIN messages m ON m.id = d.message_id
GROUP BY s.name ORDER BY s.name
"""


def status(database: Database) -> dict[str, dict[str, dict[str, object]]]:
    """Returns counters by topic and by subscription.

    `delivered` counts attempts, `outstanding` what is neither acknowledged nor dead-lettered, with duplicates.
    """
    with database.reading() as connection:
        topics = connection.execute("SELECT name, published FROM topics ORDER BY name").fetchall()
        subscriptions = connection.execute(SUBSCRIPTIONS).fetchall()
    now = time.time()
    return {
        "topics": {row["name"]: {"published": row["published"]} for row in topics},
        "subscriptions": {
            row["name"]: {
                "topic": row["topic"],
                "outstanding": row["outstanding"],
                "delivered": row["delivered"],
                "acked": row["acked"],
                "dead_lettered": row["dead_lettered"],
                "oldest_unacked_age_s": None if row["oldest"] is None else round(now - row["oldest"], 3),
            }
            for row in subscriptions
        },
    }
