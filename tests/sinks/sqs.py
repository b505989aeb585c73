"""Amazon SQS for the tests, by moto, which checks signatures, ids and sizes as Amazon does.

    sqs.py serve PORT JOURNAL KEY SECRET   answers on loopback, as that user alone
    sqs.py take ENDPOINT QUEUE KEY SECRET  takes every message by boto3, a line of JSON each

moto keeps its queues in memory. Here each message that it has put into a queue is also written to a
journal, before its sender hears of it, and is put there again at the next start: a server that is
killed has what it has answered for, as Amazon's has. How Amazon's own servers die this cannot show.
"""

import json
import os
import sys
import threading

ACCOUNT = "123456789012"
REGION = "eu-central-1"
# The largest message, so that the queue has something to refuse.
MESSAGE_BYTES_MAX = 64 * 1024
QUEUES = {
    "hooks": {"MaximumMessageSize": str(MESSAGE_BYTES_MAX)},
    "hooks.fifo": {"MaximumMessageSize": str(MESSAGE_BYTES_MAX), "FifoQueue": "true"},
}
MAY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}],
}


class Journal:
    """What was put into the queues, in its order: a line of JSON each."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with open(path, "rb") as file:
            whole = file.read().rpartition(b"\n")
        # What is behind the last end nobody was told of.
        os.ftruncate(self.file, len(whole[0]) + len(whole[1]))
        self.lines = [json.loads(line) for line in whole[0].splitlines()]

    def add(self, queue, message):
        said = {
            "queue": queue.name,
            "id": message.id,
            "body": message.body,
            "attributes": message.message_attributes,
            "group": message.group_id,
            "deduplication_id": message.deduplication_id,
            "sequence": message.sequence_number,
            "sent": message.sent_timestamp,
        }
        os.write(self.file, json.dumps(said).encode() + b"\n")


def serve(port, journal, key, secret):
    from moto import settings
    from moto.iam.models import iam_backends
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from moto.sqs.models import Message, Queue, sqs_backends
    from werkzeug.serving import make_server

    users = iam_backends[ACCOUNT]["aws"]
    users.create_user(REGION, "forebay")
    users.put_user_policy("forebay", "all", json.dumps(MAY))
    known = users.create_access_key("forebay")
    known.access_key_id, known.secret_access_key = key, secret
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0

    journal = Journal(journal)
    queues = {
        name: sqs_backends[ACCOUNT][REGION].create_queue(name, **attributes)
        for name, attributes in QUEUES.items()
    }
    for line in journal.lines:
        message = Message(line["id"], line["body"])
        message.message_attributes = line["attributes"]
        message.group_id = line["group"]
        message.deduplication_id = line["deduplication_id"]
        message.sequence_number = line["sequence"]
        message.sent_timestamp = line["sent"]
        queues[line["queue"]]._messages.append(message)

    put = Queue.add_message

    def put_and_write(queue, message):
        # One after the other: moto looks for a twin and adds in two steps.
        with journal.lock:
            count = len(queue._messages)
            put(queue, message)
            if len(queue._messages) > count:
                journal.add(queue, message)

    Queue.add_message = put_and_write
    # moto counts all that a queue has six times for each message, to tell what nobody asks here.
    for count in ("", "_delayed", "_not_visible"):
        setattr(Queue, f"approximate_number_of_messages{count}", 0)
    app = DomainDispatcherApplication(create_backend_app)
    make_server("127.0.0.1", int(port), app, True, request_handler=MotoRequestHandler).serve_forever()


def take(endpoint, queue, key, secret):
    import boto3

    client = boto3.client(
        "sqs",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
    url = client.get_queue_url(QueueName=queue)["QueueUrl"]
    while messages := client.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
    ).get("Messages"):
        for message in messages:
            print(json.dumps(message))
            client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


{"serve": serve, "take": take}[sys.argv[1]](*sys.argv[2:])
