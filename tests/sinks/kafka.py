"""What the tests ask of a Kafka broker, by librdkafka: another client than the sink's own.

    kafka.py BROKER create TOPIC...   makes topics of one partition each
    kafka.py BROKER user NAME WORD    makes a user who logs in by SCRAM with this password
    kafka.py BROKER read              prints every record of every topic, a line of JSON each
"""

import json
import sys

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

PATIENCE_S = 30
SCRAM_ROUNDS = 4096


def create(broker, topics):
    admin = AdminClient({"bootstrap.servers": broker})
    new = [NewTopic(topic, num_partitions=1, replication_factor=1) for topic in topics]
    for topic in admin.create_topics(new).values():
        topic.result(PATIENCE_S)


def user(broker, name, password):
    admin = AdminClient({"bootstrap.servers": broker})
    for mechanism in ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512:
        how = ScramCredentialInfo(mechanism, SCRAM_ROUNDS)
        new = UserScramCredentialUpsertion(name, how, password.encode())
        for made in admin.alter_user_scram_credentials([new]).values():
            made.result(PATIENCE_S)


def read(broker):
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "the tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            # What Tansu has not found by then it answers nothing for, and of a long log it looks for more
            # than 20 ms.
            "fetch.wait.max.ms": 500,
        }
    )
    topics = consumer.list_topics(timeout=PATIENCE_S).topics.items()
    found = {(name, part): [] for name, topic in topics for part in topic.partitions}
    consumer.assign([TopicPartition(name, part, 0) for name, part in found])
    for message in until_all_end(consumer, len(found)):
        found[message.topic(), message.partition()].append(as_json(message))
    for _, messages in sorted(found.items()):
        for message in messages:
            print(json.dumps(message))
    consumer.close()


def until_all_end(consumer, open_count):
    while open_count > 0:
        message = consumer.poll(PATIENCE_S)
        if message is None:
            sys.exit(f"no answer within {PATIENCE_S} s")
        if message.error() is None:
            yield message
        elif message.error().code() == KafkaError._PARTITION_EOF:
            open_count -= 1
        else:
            sys.exit(str(message.error()))


def as_json(message):
    return {
        "topic": message.topic(),
        "partition": message.partition(),
        "key": message.key() and message.key().decode(),
        "headers": {name: value.decode() for name, value in message.headers() or []},
        "value": message.value().decode(),
    }


if __name__ == "__main__":
    broker, verb, *words = sys.argv[1:]
    if verb == "create":
        create(broker, words)
    elif verb == "user":
        user(broker, *words)
    elif verb == "read":
        read(broker)
    else:
        sys.exit(__doc__)
